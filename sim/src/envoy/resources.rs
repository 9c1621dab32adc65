//! The part of a plan that an Envoy holds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use nodeway_core::object::ObjectRef;
use nodeway_core::plan::{
    FrontendKey, PlanDelta, PlannedCluster, PlannedEndpoint, PlannedEndpoints, PlannedFrontend,
    PlannedListener, PlannedRoutes, PlannedSecret, ResourceName, Update,
};
use nodeway_core::proxy::{Discovery, LoadAssignment};

/// Listeners, routes, clusters and endpoints by name.
#[derive(Default)]
pub(super) struct Resources {
    pub(super) listeners: BTreeMap<ResourceName, Arc<PlannedListener>>,
    pub(super) routes: BTreeMap<ResourceName, Arc<PlannedRoutes>>,
    pub(super) clusters: BTreeMap<ResourceName, Arc<PlannedCluster>>,
    endpoints: BTreeMap<ResourceName, Arc<PlannedEndpoints>>,
    pub(super) secrets: BTreeMap<ResourceName, Arc<PlannedSecret>>,
    /// Whose listener has which address: a pod's proxy finds it by where a connection meant to go.
    frontends: BTreeMap<FrontendKey, PlannedFrontend>,
}

/// The endpoints of a cluster.
#[derive(Default)]
pub(super) struct Candidates {
    pub(super) name: ResourceName,
    pub(super) service: Option<ObjectRef>,
    pub(super) endpoints: Vec<PlannedEndpoint>,
    pub(super) left_out: Vec<(SocketAddr, &'static str)>,
}

impl Resources {
    pub(super) fn apply(&mut self, delta: &PlanDelta) {
        update(&mut self.listeners, &delta.listeners);
        update(&mut self.routes, &delta.routes);
        update(&mut self.clusters, &delta.clusters);
        update(&mut self.endpoints, &delta.endpoints);
        update(&mut self.secrets, &delta.secrets);
        update(&mut self.frontends, &delta.frontends);
    }

    /// The frontend that has an address.
    pub(super) fn frontend(&self, at: FrontendKey) -> Option<&PlannedFrontend> {
        self.frontends.get(&at)
    }

    /// The endpoints of a cluster, or the way of finding them that is not simulated.
    pub(super) fn candidates(&self, cluster: &PlannedCluster) -> Result<Candidates, String> {
        let name: ResourceName = cluster.model.endpoints.as_str().into();
        match &cluster.model.discovery {
            Discovery::Eds => {
                let planned = self.endpoints.get(&name).cloned().unwrap_or_default();
                Ok(Candidates {
                    name,
                    service: planned.service.clone(),
                    endpoints: planned.endpoints.clone(),
                    left_out: planned.left_out.clone(),
                })
            }
            Discovery::Static(written) => Ok(written_candidates(name, written)),
            Discovery::Other(kind) => Err(format!("cluster {}: type {kind}", cluster.model.name)),
        }
    }
}

/// Of endpoints that are written down, those of the first priority that has a healthy one.
fn written_candidates(name: ResourceName, written: &LoadAssignment) -> Candidates {
    let healthy = written.endpoints.iter().filter(|it| !it.unhealthy);
    let priority = healthy.map(|it| it.priority).min();
    let mut candidates = Candidates {
        name,
        ..Candidates::default()
    };
    for endpoint in &written.endpoints {
        if endpoint.unhealthy {
            candidates.left_out.push((endpoint.address, "unhealthy"));
        } else if Some(endpoint.priority) == priority {
            candidates.endpoints.push(PlannedEndpoint {
                address: endpoint.address,
                pod: None,
                node: None,
            });
        } else {
            let why = "another priority is healthy";
            candidates.left_out.push((endpoint.address, why));
        }
    }
    candidates
}

fn update<K: Ord + Clone, T: Clone>(held: &mut BTreeMap<K, T>, changes: &BTreeMap<K, Update<T>>) {
    for (name, change) in changes {
        match change {
            Update::Put(value) => held.insert(name.clone(), value.clone()),
            Update::Remove => held.remove(name),
        };
    }
}
