//! What a config puts in: claims on names and frontends, and the endpoints that it asks for.
//!
//! A config that changes is taken out whole and put in again. What it has put in is found by the
//! config itself, so nothing of it can be left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Planner, Touched};
use crate::object::{EnvoyConfig, ObjectRef};
use crate::plan::claims::Rank;
use crate::plan::parsed::{Parsed, Reference};
use crate::plan::{FrontendKey, FrontendKind, Ranges, ResourceName};
use crate::service::{frontends, source_ranges};

/// A config and what it has put in.
#[derive(Clone, Debug)]
pub(in crate::plan) struct Config {
    pub(in crate::plan) source: Arc<EnvoyConfig>,
    pub(in crate::plan) rank: Rank,
    pub(in crate::plan) parsed: Arc<Parsed>,
    /// Whether it applies on this node and nothing keeps it out.
    pub(in crate::plan) active: bool,
    pub(super) frontends: BTreeMap<ObjectRef, BTreeSet<FrontendKey>>,
}

/// Endpoints that configs ask for.
#[derive(Clone, Debug)]
pub(in crate::plan) struct Demand {
    pub(in crate::plan) service: ObjectRef,
    pub(in crate::plan) port: String,
    by: BTreeSet<ObjectRef>,
}

/// What a config wants a frontend to be.
#[derive(Clone, Debug)]
pub(in crate::plan) struct FrontendClaim {
    pub(in crate::plan) kind: FrontendKind,
    pub(in crate::plan) ranges: Option<Ranges>,
    pub(in crate::plan) listener: ResourceName,
    pub(in crate::plan) service: ObjectRef,
    pub(in crate::plan) service_port: u16,
    pub(in crate::plan) field: String,
}

impl Planner {
    /// Takes out what a config has put in, and touches it.
    pub(super) fn withdraw(
        &mut self,
        config: &ObjectRef,
        state: &mut Config,
        touched: &mut Touched,
    ) {
        touched.configs.insert(config.clone());
        let parsed = Arc::clone(&state.parsed);
        touched.resources_of(&parsed);
        for listener in &parsed.listeners {
            self.listeners.withdraw(&listener.name, &state.rank);
        }
        for (name, _) in &parsed.routes {
            self.routes.withdraw(name, &state.rank);
        }
        for (name, _) in &parsed.clusters {
            self.clusters.withdraw(name, &state.rank);
        }
        for (name, _) in &parsed.assignments {
            self.assignments.withdraw(name, &state.rank);
        }
        for (name, _) in &parsed.secrets {
            self.written.withdraw(name, &state.rank);
        }
        for reference in parsed.references.keys() {
            remove_from(&mut self.referrers, reference, config);
        }
        for (service, entries) in &parsed.services {
            self.withdraw_frontends(state, service, touched);
            remove_from(&mut self.named_by, service, config);
            touched.pairs.insert((config.clone(), service.clone()));
            for (name, _) in entries
                .iter()
                .flat_map(|entry| entry.endpoint_names(service))
            {
                self.drop_demand(&name, config);
                touched.endpoints.insert(name);
            }
        }
        state.active = false;
    }

    fn drop_demand(&mut self, name: &ResourceName, config: &ObjectRef) {
        let Some(demand) = self.demands.get_mut(name) else {
            return;
        };
        demand.by.remove(config);
        if demand.by.is_empty() {
            remove_from(&mut self.demands_of, &demand.service, name);
            self.demands.remove(name);
        }
    }

    /// Puts in what a config has, if it applies on this node.
    pub(super) fn contribute(
        &mut self,
        config: &ObjectRef,
        mut state: Config,
        touched: &mut Touched,
    ) {
        touched.configs.insert(config.clone());
        let parsed = Arc::clone(&state.parsed);
        state.active = self.foreign_copy(config, &parsed).is_none()
            && self.picked(&state.source).unwrap_or(false);
        for (service, entries) in &parsed.services {
            self.named_by
                .entry(service.clone())
                .or_default()
                .insert(config.clone());
            touched.pairs.insert((config.clone(), service.clone()));
            if state.active {
                let names = entries
                    .iter()
                    .flat_map(|entry| entry.endpoint_names(service));
                for (name, port) in names {
                    self.demand(name, service, port, config, touched);
                }
            }
        }
        if state.active {
            self.claim(config, &state, touched);
            for service in parsed.services.keys() {
                self.claim_frontends(&mut state, service, touched);
            }
        }
        self.configs.insert(config.clone(), state);
    }

    fn claim(&mut self, config: &ObjectRef, state: &Config, touched: &mut Touched) {
        let (parsed, rank) = (&state.parsed, &state.rank);
        touched.resources_of(parsed);
        for listener in &parsed.listeners {
            self.listeners
                .claim(Arc::clone(&listener.name), rank, listener.clone());
        }
        for (name, routes) in &parsed.routes {
            self.routes
                .claim(Arc::clone(name), rank, Arc::clone(routes));
        }
        for (name, cluster) in &parsed.clusters {
            self.clusters
                .claim(Arc::clone(name), rank, Arc::clone(cluster));
        }
        for (name, endpoints) in &parsed.assignments {
            self.assignments
                .claim(Arc::clone(name), rank, Arc::clone(endpoints));
        }
        for (name, secret) in &parsed.secrets {
            self.written
                .claim(Arc::clone(name), rank, Arc::clone(secret));
        }
        for reference in parsed.references.keys() {
            self.referrers
                .entry(reference.clone())
                .or_default()
                .insert(config.clone());
        }
    }

    fn demand(
        &mut self,
        name: ResourceName,
        service: &ObjectRef,
        port: String,
        config: &ObjectRef,
        touched: &mut Touched,
    ) {
        let new = || Demand {
            service: service.clone(),
            port,
            by: BTreeSet::new(),
        };
        self.demands
            .entry(Arc::clone(&name))
            .or_insert_with(new)
            .by
            .insert(config.clone());
        self.demands_of
            .entry(service.clone())
            .or_default()
            .insert(Arc::clone(&name));
        touched.endpoints.insert(name);
    }

    pub(super) fn withdraw_frontends(
        &mut self,
        state: &mut Config,
        service: &ObjectRef,
        touched: &mut Touched,
    ) {
        for key in state.frontends.remove(service).unwrap_or_default() {
            self.frontends.withdraw(&key, &state.rank);
            self.frontends.withdraw(&key, &state.rank.general());
            touched.frontends.insert(key);
        }
    }

    pub(super) fn claim_frontends(
        &mut self,
        state: &mut Config,
        reference: &ObjectRef,
        touched: &mut Touched,
    ) {
        let (Some(service), Some(entries)) = (
            self.services.get(reference),
            state.parsed.services.get(reference),
        ) else {
            return;
        };
        if !state.active || entries.iter().all(|entry| entry.listener().is_none()) {
            return;
        }
        let all = frontends(service, self.this_node.as_deref());
        let mut claimed = BTreeSet::new();
        for entry in entries {
            let Some(listener) = entry.listener() else {
                continue;
            };
            for (key, kind, service_port) in &all {
                let listed = entry
                    .ports
                    .iter()
                    .any(|(port, _)| *port == service_port.to_string());
                if !entry.ports.is_empty() && !listed {
                    continue;
                }
                let claim = FrontendClaim {
                    kind: *kind,
                    ranges: source_ranges(service, *kind, key.address),
                    listener: Arc::clone(listener),
                    service: reference.clone(),
                    service_port: *service_port,
                    field: entry.field.clone(),
                };
                let rank = match entry.ports.is_empty() {
                    true => state.rank.general(),
                    false => state.rank.clone(),
                };
                self.frontends.claim(*key, &rank, claim);
                claimed.insert(*key);
            }
        }
        touched.frontends.extend(claimed.iter().copied());
        state.frontends.insert(reference.clone(), claimed);
    }
}

impl Touched {
    /// Everything that the resources of a config say, and what they name.
    fn resources_of(&mut self, parsed: &Parsed) {
        let listeners = parsed.listeners.iter();
        self.listeners
            .extend(listeners.map(|it| Arc::clone(&it.name)));
        self.routes.extend(names(&parsed.routes));
        self.clusters.extend(names(&parsed.clusters));
        self.endpoints.extend(names(&parsed.assignments));
        let secrets = names(&parsed.secrets).map(Reference::Secret);
        self.references.extend(secrets);
        self.references.extend(parsed.references.keys().cloned());
    }
}

fn names<T>(resources: &[(ResourceName, T)]) -> impl Iterator<Item = ResourceName> {
    resources.iter().map(|(name, _)| Arc::clone(name))
}

/// Takes a value out of an index, and its key with the last one.
pub(super) fn remove_from<K: Ord, V: Ord>(
    index: &mut BTreeMap<K, BTreeSet<V>>,
    key: &K,
    value: &V,
) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}
