//! Touched keys become values of the plan; what is wrong with them is found by [`problems`](super::problems).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::envoy;
use crate::service::endpoints;

use super::parsed::Reference;
use super::planner::{Planner, Touched};
use super::{
    FrontendKey, PlanDelta, PlannedEndpoints, PlannedFrontend, PlannedListener, PlannedSecret,
    ResourceName, Update,
};

impl Planner {
    pub(super) fn settle(&mut self, touched: &Touched) -> PlanDelta {
        let mut delta = PlanDelta::default();
        for name in &touched.listeners {
            let listener = self.listener(name);
            set(
                &mut self.plan.listeners,
                &mut delta.listeners,
                name,
                listener,
            );
        }
        for name in &touched.routes {
            let routes = self
                .routes
                .winner(name)
                .map(|(_, routes)| Arc::clone(routes));
            set(&mut self.plan.routes, &mut delta.routes, name, routes);
        }
        let mut references = touched.references.clone();
        for name in &touched.clusters {
            let cluster = self
                .clusters
                .winner(name)
                .map(|(_, cluster)| Arc::clone(cluster));
            set(&mut self.plan.clusters, &mut delta.clusters, name, cluster);
            references.insert(Reference::Cluster(Arc::clone(name)));
        }
        for name in &touched.endpoints {
            let endpoints = self.endpoints(name).map(Arc::new);
            set(
                &mut self.plan.endpoints,
                &mut delta.endpoints,
                name,
                endpoints,
            );
            references.insert(Reference::Endpoints(Arc::clone(name)));
        }
        for reference in &touched.references {
            if let Reference::Secret(name) = reference {
                let secret = self.secret(name);
                set(&mut self.plan.secrets, &mut delta.secrets, name, secret);
            }
        }
        for key in &touched.frontends {
            let frontend = self.frontend(key);
            set(
                &mut self.plan.frontends,
                &mut delta.frontends,
                key,
                frontend,
            );
        }
        self.find(touched, references, &mut delta);
        delta
    }

    fn listener(&mut self, name: &ResourceName) -> Option<Arc<PlannedListener>> {
        let Some((rank, parsed)) = self.listeners.winner(name) else {
            self.ledger.release(name);
            return None;
        };
        let mut message = parsed.message.clone();
        let port = match parsed.own_port {
            Some(port) => port,
            None => {
                let port = self.ledger.port(name)?;
                envoy::bind(&mut message, port);
                port
            }
        };
        let (model, config) = (Arc::clone(&parsed.model), rank.config.clone());
        Some(Arc::new(PlannedListener {
            port,
            own_address: parsed.own_port.is_some(),
            model,
            message,
            config,
        }))
    }

    /// What a config wrote itself, or else what the Service has; a Service that does not exist
    /// has an empty set, so that Envoy answers at once instead of waiting for one.
    fn endpoints(&self, name: &ResourceName) -> Option<PlannedEndpoints> {
        if let Some((_, written)) = self.assignments.winner(name) {
            return Some((**written).clone());
        }
        let demand = self.demands.get(name)?;
        let Some(service) = self.services.get(&demand.service) else {
            return Some(PlannedEndpoints {
                service: Some(demand.service.clone()),
                ..PlannedEndpoints::default()
            });
        };
        let slices = self.slices_of(&demand.service);
        Some(endpoints(service, slices, &demand.port))
    }

    /// A certificate that some listener of this node names, and no other: no node needs them all.
    fn secret(&self, name: &ResourceName) -> Option<Arc<PlannedSecret>> {
        let reference = Reference::Secret(Arc::clone(name));
        self.referrers.get(&reference)?;
        if let Some((_, written)) = self.written.winner(name) {
            return Some(Arc::clone(written));
        }
        let (source, secret) = self.secrets.get(name)?;
        Some(Arc::new(PlannedSecret::of(name, source.clone(), secret)))
    }

    fn frontend(&self, key: &FrontendKey) -> Option<PlannedFrontend> {
        let (rank, claim) = self.frontends.winner(key)?;
        Some(PlannedFrontend {
            kind: claim.kind,
            listener: Arc::clone(&claim.listener),
            listener_port: self.plan.listeners.get(&claim.listener)?.port,
            service: claim.service.clone(),
            service_port: claim.service_port,
            config: rank.config.clone(),
            ranges: claim.ranges.clone(),
        })
    }
}

/// Sets a key of the plan, and notes it in the delta if that changed anything.
fn set<K: Ord + Clone, V: PartialEq + Clone>(
    plan: &mut BTreeMap<K, V>,
    delta: &mut BTreeMap<K, Update<V>>,
    key: &K,
    value: Option<V>,
) {
    if plan.get(key) == value.as_ref() {
        return;
    }
    let update = match value {
        Some(value) => {
            plan.insert(key.clone(), value.clone());
            Update::Put(value)
        }
        None => {
            plan.remove(key);
            Update::Remove
        }
    };
    delta.insert(key.clone(), update);
}
