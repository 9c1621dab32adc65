//! The planner: keeps a node's plan true while objects change.
//!
//! A change touches keys (a listener's name, a frontend), and only touched keys are settled anew.
//! What a config, a Service or a slice touches is found by index: Service → configs that name it,
//! Service → names of its endpoints, reference → configs that make it. So the cost of a change
//! follows what hangs on it, not the size of the cluster.

mod contribution;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use contribution::remove_from;
pub(super) use contribution::{Config, Demand, FrontendClaim};

use crate::address::node_port_addresses;
use crate::ingress::Options;
use crate::object::{Change, EnvoyConfig, Kind, Object, ObjectRef, Objects};
use crate::service::of_slice;

use super::claims::{Claims, Rank};
use super::finding::Findings;
use super::parsed::{Parsed, ParsedListener, Reference, parse};
use super::secret;
use super::tenant::may_show;
use super::{
    FrontendKey, Ledger, NodePlan, PlanDelta, PlannedCluster, PlannedEndpoints, PlannedRoutes,
    PlannedSecret, ResourceName,
};

/// Keeps one node's [`NodePlan`] true.
#[derive(Clone, Debug)]
pub struct Planner {
    pub(super) node: String,
    pub(super) ledger: Ledger,
    pub(super) plan: NodePlan,
    pub(super) this_node: Option<Arc<Node>>,
    pub(super) services: BTreeMap<ObjectRef, Arc<Service>>,
    pub(super) slices: BTreeMap<ObjectRef, BTreeMap<ObjectRef, Arc<EndpointSlice>>>,
    slice_owners: BTreeMap<ObjectRef, ObjectRef>,
    /// Secrets with a certificate, by each name that Envoy may fetch them by.
    pub(super) secrets: BTreeMap<ResourceName, (ObjectRef, Arc<Secret>)>,
    /// Copy of a Secret → configs that name it, also those that may not.
    copied: BTreeMap<ResourceName, BTreeSet<ObjectRef>>,
    /// Where Cilium's own configs are.
    cilium_namespace: String,
    pub(super) configs: BTreeMap<ObjectRef, Config>,
    /// Service → configs that name it.
    named_by: BTreeMap<ObjectRef, BTreeSet<ObjectRef>>,
    /// Endpoints that some config asks for.
    pub(super) demands: BTreeMap<ResourceName, Demand>,
    /// Service → names of its endpoints.
    demands_of: BTreeMap<ObjectRef, BTreeSet<ResourceName>>,
    /// What resources name → configs whose resources name it.
    pub(super) referrers: BTreeMap<Reference, BTreeSet<ObjectRef>>,
    pub(super) listeners: Claims<ResourceName, ParsedListener>,
    pub(super) routes: Claims<ResourceName, Arc<PlannedRoutes>>,
    pub(super) clusters: Claims<ResourceName, Arc<PlannedCluster>>,
    pub(super) assignments: Claims<ResourceName, Arc<PlannedEndpoints>>,
    /// Certificates that configs have written down.
    pub(super) written: Claims<ResourceName, Arc<PlannedSecret>>,
    pub(super) frontends: Claims<FrontendKey, FrontendClaim>,
    pub(super) findings: Findings,
}

/// Keys whose settled value may have changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    pub(super) listeners: BTreeSet<ResourceName>,
    pub(super) routes: BTreeSet<ResourceName>,
    pub(super) clusters: BTreeSet<ResourceName>,
    pub(super) endpoints: BTreeSet<ResourceName>,
    pub(super) frontends: BTreeSet<FrontendKey>,
    pub(super) references: BTreeSet<Reference>,
    /// Configs and Services whose relation must be looked at again.
    pub(super) pairs: BTreeSet<(ObjectRef, ObjectRef)>,
    pub(super) configs: BTreeSet<ObjectRef>,
}

impl Planner {
    /// A planner of that node that knows no object yet.
    #[must_use]
    pub fn new(node: &str, ledger: Ledger) -> Self {
        Self {
            node: node.to_owned(),
            ledger,
            plan: NodePlan::default(),
            this_node: None,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            slice_owners: BTreeMap::new(),
            secrets: BTreeMap::new(),
            copied: BTreeMap::new(),
            cilium_namespace: Options::default().cilium_namespace,
            configs: BTreeMap::new(),
            named_by: BTreeMap::new(),
            demands: BTreeMap::new(),
            demands_of: BTreeMap::new(),
            referrers: BTreeMap::new(),
            listeners: Claims::default(),
            routes: Claims::default(),
            clusters: Claims::default(),
            assignments: Claims::default(),
            written: Claims::default(),
            frontends: Claims::default(),
            findings: Findings::default(),
        }
    }

    /// A planner that knows all of a cluster's objects.
    #[must_use]
    pub fn with_objects(objects: &Objects, node: &str, ledger: Ledger) -> Self {
        let mut planner = Self::new(node, ledger);
        if let Some(config) = &objects.cilium_config {
            planner.cilium_namespace.clone_from(&config.namespace);
        }
        for (_, entry) in objects.iter() {
            planner.apply(Change::Put(entry.object.clone()));
        }
        planner
    }

    /// A planner whose plan was not made of objects: that of an Envoy's own dump.
    #[must_use]
    pub fn with_plan(node: &str, plan: NodePlan) -> Self {
        Self {
            plan,
            ..Self::new(node, Ledger::default())
        }
    }

    /// The plan as it is now.
    #[must_use]
    pub fn plan(&self) -> &NodePlan {
        &self.plan
    }

    /// The configs that name a Service, and whether each leads its packets to a listener on this
    /// node (`spec.services`) or only asks for its endpoints (`spec.backendServices`).
    pub fn configs_of(&self, service: &ObjectRef) -> impl Iterator<Item = (&ObjectRef, bool)> {
        let configs = self.named_by.get(service).into_iter().flatten();
        configs.filter_map(move |config| {
            let state = self.configs.get(config)?;
            let mut entries = state.parsed.services.get(service)?.iter();
            Some((config, state.active && entries.any(|entry| entry.leads())))
        })
    }

    /// Takes a change in and says what changed in the plan.
    pub fn apply(&mut self, change: Change) -> PlanDelta {
        let mut touched = Touched::default();
        match change {
            Change::Put(object) => self.put(object, &mut touched),
            Change::Delete(reference) => self.delete(&reference, &mut touched),
        }
        self.settle(&touched)
    }

    fn put(&mut self, object: Object, touched: &mut Touched) {
        let reference = object.reference();
        match object {
            Object::Node(node) => self.set_node(&reference, Some(node), touched),
            Object::Service(service) => self.set_service(&reference, Some(service), touched),
            Object::EndpointSlice(slice) => self.set_slice(&reference, Some(slice), touched),
            Object::CiliumEnvoyConfig(config) | Object::CiliumClusterwideEnvoyConfig(config) => {
                self.set_config(&reference, Some(config), touched);
            }
            Object::IngressClass(_)
            | Object::Ingress(_)
            | Object::Deployment(_)
            | Object::Pod(_) => {}
            Object::Secret(secret) => self.set_secret(&reference, Some(secret), touched),
        }
    }

    fn delete(&mut self, reference: &ObjectRef, touched: &mut Touched) {
        match reference.kind {
            Kind::Node => self.set_node(reference, None, touched),
            Kind::Service => self.set_service(reference, None, touched),
            Kind::EndpointSlice => self.set_slice(reference, None, touched),
            Kind::CiliumEnvoyConfig | Kind::CiliumClusterwideEnvoyConfig => {
                self.set_config(reference, None, touched)
            }
            Kind::Secret => self.set_secret(reference, None, touched),
            Kind::IngressClass | Kind::Ingress | Kind::Deployment | Kind::Pod => {}
        }
    }

    fn set_node(&mut self, reference: &ObjectRef, node: Option<Arc<Node>>, touched: &mut Touched) {
        if reference.name != self.node {
            return;
        }
        // Of a node, only labels and addresses matter; its heartbeats come every few seconds.
        let matters = |node: Option<&Arc<Node>>| {
            node.map(|node| {
                (
                    node.metadata.labels.clone(),
                    node_port_addresses(node).collect::<Vec<_>>(),
                )
            })
        };
        let changed = matters(self.this_node.as_ref()) != matters(node.as_ref());
        self.this_node = node;
        if changed {
            for config in self.configs.keys().cloned().collect::<Vec<_>>() {
                self.reconsider(&config, touched);
            }
        }
    }

    fn set_service(
        &mut self,
        reference: &ObjectRef,
        service: Option<Arc<Service>>,
        touched: &mut Touched,
    ) {
        match service {
            Some(service) => self.services.insert(reference.clone(), service),
            None => self.services.remove(reference),
        };
        self.touch_endpoints(reference, touched);
        for config in self.named_by.get(reference).cloned().unwrap_or_default() {
            let Some(mut state) = self.configs.remove(&config) else {
                continue;
            };
            self.withdraw_frontends(&mut state, reference, touched);
            self.claim_frontends(&mut state, reference, touched);
            self.configs.insert(config, state);
        }
    }

    fn set_secret(
        &mut self,
        reference: &ObjectRef,
        secret: Option<Arc<Secret>>,
        touched: &mut Touched,
    ) {
        for name in secret::names(reference) {
            match &secret {
                Some(secret) => {
                    let value = (reference.clone(), Arc::clone(secret));
                    self.secrets.insert(Arc::clone(&name), value);
                }
                None => drop(self.secrets.remove(&name)),
            }
            for config in self.copied.get(&name).cloned().unwrap_or_default() {
                self.reconsider(&config, touched);
            }
            touched.references.insert(Reference::Secret(name));
        }
    }

    /// Takes a config out, and puts it in again if it may be there.
    fn reconsider(&mut self, config: &ObjectRef, touched: &mut Touched) {
        let Some(mut state) = self.configs.remove(config) else {
            return;
        };
        self.withdraw(config, &mut state, touched);
        self.contribute(config, state, touched);
    }

    /// A copy that a config names although the Secret is another namespace's.
    pub(super) fn foreign_copy<'a>(
        &self,
        config: &ObjectRef,
        parsed: &'a Parsed,
    ) -> Option<&'a ResourceName> {
        parsed.copies().find(|name| {
            let secret = self.secrets.get(*name);
            secret.is_some_and(|(it, _)| !may_show(config, it, &self.cilium_namespace))
        })
    }

    fn set_slice(
        &mut self,
        reference: &ObjectRef,
        slice: Option<Arc<EndpointSlice>>,
        touched: &mut Touched,
    ) {
        if let Some(owner) = self.slice_owners.remove(reference) {
            self.touch_endpoints(&owner, touched);
            if let Some(slices) = self.slices.get_mut(&owner) {
                slices.remove(reference);
                if slices.is_empty() {
                    self.slices.remove(&owner);
                }
            }
        }
        if let Some(slice) = slice
            && let Some(owner) = of_slice(&slice)
        {
            self.touch_endpoints(&owner, touched);
            self.slices
                .entry(owner.clone())
                .or_default()
                .insert(reference.clone(), slice);
            self.slice_owners.insert(reference.clone(), owner);
        }
    }

    fn touch_endpoints(&self, service: &ObjectRef, touched: &mut Touched) {
        touched
            .endpoints
            .extend(self.demands_of.get(service).into_iter().flatten().cloned());
        let configs = self.named_by.get(service).into_iter().flatten();
        touched
            .pairs
            .extend(configs.map(|config| (config.clone(), service.clone())));
    }

    fn set_config(
        &mut self,
        reference: &ObjectRef,
        source: Option<Arc<EnvoyConfig>>,
        touched: &mut Touched,
    ) {
        if let Some(mut state) = self.configs.remove(reference) {
            if source.as_ref() == Some(&state.source) {
                self.configs.insert(reference.clone(), state);
                return;
            }
            self.withdraw(reference, &mut state, touched);
            for name in state.parsed.copies() {
                remove_from(&mut self.copied, name, reference);
            }
        }
        if let Some(source) = source {
            let state = Config {
                rank: Rank::of(reference, &source),
                parsed: Arc::new(parse(reference, &source)),
                source,
                active: false,
                frontends: BTreeMap::new(),
            };
            for name in state.parsed.copies() {
                let naming = self.copied.entry(Arc::clone(name)).or_default();
                naming.insert(reference.clone());
            }
            self.contribute(reference, state, touched);
        }
    }
}
