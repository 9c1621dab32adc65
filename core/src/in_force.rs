//! What a node really does: the plan as its kernel and its Envoys carry it out.
//!
//! ```text
//!  the kernel's frontends ─► a port ─► whose socket that is, by the Envoys' config_dump ─► listener
//!                                      routes, clusters, endpoints of those dumps ─┐
//!  the plan made of objects ─► the names of all that, and where the two differ     └─► NodePlan
//! ```
//!
//! It is a [`NodePlan`] again, so that a node is simulated by what it has as any other is by what it
//! should have; each stage then names what it rests on ([`InForce::evidence_of`]).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use nodeway_datapath::{Frontend, FrontendState};

use crate::address::pod_addresses;
use crate::config_dump::ConfigDump;
use crate::endpoint::{PlannedEndpoint, PlannedEndpoints};
use crate::envoy::bootstrap;
use crate::frontend::{FrontendKey, FrontendKind, SourceRanges};
use crate::object::{Kind, ObjectRef, Objects};
use crate::plan::{NodePlan, PlannedCluster, PlannedFrontend, ResourceName};
use crate::proxy::{self, Discovery};
use crate::service;
use crate::trace::Step;

/// An Envoy of the node, and what it says it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Dumped {
    /// Its generation (`g7`).
    pub generation: String,
    /// What it has.
    pub dump: ConfigDump,
}

/// What was read of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The node.
    pub node: Arc<str>,
    /// The frontends that its kernel leads.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// Who may come by those of them that are ranged.
    pub ranges: SourceRanges,
    /// Where the kernel has them (`map 17, frontends`, `ipset nodeway-v4`).
    pub table: String,
    /// How its rules were read, and where they are others than these frontends need.
    pub rules: Rules,
    /// Its Envoys, the newest last.
    pub envoys: Vec<Dumped>,
}

/// The packet filter's rules of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How they were read (`iptables-save`).
    pub read_by: String,
    /// What is missing, or too much, one line each.
    pub differences: Vec<String>,
}

/// What is in force on a node.
#[derive(Clone, Debug, PartialEq)]
pub struct InForce {
    /// The node.
    pub node: Arc<str>,
    /// What its kernel and Envoys have, as a plan.
    pub plan: NodePlan,
    /// The frontends that are being switched on or off.
    pub switching: BTreeMap<FrontendKey, FrontendState>,
    /// Where that is another than what was planned.
    pub differences: Vec<Difference>,
    table: String,
    rules: String,
    /// Whose dump a listener is of.
    dumps: BTreeMap<ResourceName, String>,
}

/// Where what is in force is not what was planned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The frontend that it is about, if it is about one.
    pub frontend: Option<FrontendKey>,
    /// What it is.
    pub what: String,
}

impl InForce {
    /// What a node that was looked at has in force. `planned` is what the objects ask for.
    #[must_use]
    pub fn of(observed: Observed, planned: &NodePlan, objects: &Objects) -> Self {
        let mut in_force = Self {
            node: observed.node,
            plan: NodePlan {
                problems: planned.problems.clone(),
                ..NodePlan::default()
            },
            switching: BTreeMap::new(),
            differences: Vec::new(),
            table: observed.table,
            rules: observed.rules.read_by,
            dumps: BTreeMap::new(),
        };
        let rules = observed.rules.differences.into_iter();
        in_force.differ(rules.map(|it| (None, it)));
        let mut ports = BTreeMap::new();
        // What two of them have is the newest's.
        for envoy in observed.envoys.iter().rev() {
            in_force.take_envoy(envoy, planned, objects, &mut ports);
        }
        for (key, frontend) in &observed.frontends {
            let led = in_force.led(*key, *frontend, planned, objects, &ports);
            let ranges = observed.ranges.get(key).cloned();
            let ranges = ranges.or_else(|| frontend.ranged.then(|| [].into()));
            let led = PlannedFrontend { ranges, ..led };
            in_force.plan.frontends.insert(*key, led);
            if frontend.state != FrontendState::Active {
                in_force.switching.insert(*key, frontend.state);
            }
        }
        in_force.compare(planned);
        in_force
    }

    fn differ(&mut self, all: impl IntoIterator<Item = (Option<FrontendKey>, String)>) {
        let all = all.into_iter();
        self.differences
            .extend(all.map(|(frontend, what)| Difference { frontend, what }));
    }

    /// Takes what an Envoy has and no newer one; `ports` gets whose sockets are where.
    fn take_envoy(
        &mut self,
        envoy: &Dumped,
        planned: &NodePlan,
        objects: &Objects,
        ports: &mut BTreeMap<u16, ResourceName>,
    ) {
        let Dumped { generation, dump } = envoy;
        let dumped = format!("config_dump of {generation}");
        let notes = dump.notes.iter().filter(|it| !is_about_agent(it));
        let notes: Vec<_> = notes.map(|it| (None, format!("{dumped}: {it}"))).collect();
        self.differ(notes);
        for (name, listener) in &dump.plan.listeners {
            let listens = dump.listens.get(name).into_iter().flatten();
            let Some(at) = listens.into_iter().find(|at| at.ip().is_loopback()) else {
                continue;
            };
            // An older Envoy's is another socket, to which frontends may still lead.
            let mut listener = Arc::clone(listener);
            let own = Arc::make_mut(&mut listener);
            (own.port, own.own_address) = (at.port(), false);
            if let Some(planned) = planned.listeners.get(name) {
                own.config = planned.config.clone();
            }
            let name: ResourceName = if self.plan.listeners.contains_key(name) {
                format!("{name} of {generation}").into()
            } else {
                Arc::clone(name)
            };
            ports.entry(at.port()).or_insert_with(|| Arc::clone(&name));
            self.dumps.insert(Arc::clone(&name), dumped.clone());
            self.plan.listeners.insert(name, listener);
        }
        for (name, routes) in &dump.plan.routes {
            let routes = || Arc::clone(routes);
            self.plan
                .routes
                .entry(Arc::clone(name))
                .or_insert_with(routes);
        }
        for (name, cluster) in &dump.plan.clusters {
            if !self.plan.clusters.contains_key(name) {
                self.take_cluster(name, cluster, planned, objects);
            }
        }
        // A dump tells no private key: those that Envoy names are the planned ones.
        for name in dump.plan.secrets.keys() {
            if let Some(secret) = planned.secrets.get(name) {
                let secret = || Arc::clone(secret);
                self.plan
                    .secrets
                    .entry(Arc::clone(name))
                    .or_insert_with(secret);
            }
        }
    }

    /// A dump has the endpoints beside their cluster: here they are told apart again, and have the
    /// names that objects give them.
    fn take_cluster(
        &mut self,
        name: &ResourceName,
        dumped: &Arc<PlannedCluster>,
        planned: &NodePlan,
        objects: &Objects,
    ) {
        let mut cluster = Arc::clone(dumped);
        let written = match &dumped.model.discovery {
            Discovery::Static(written) => Some(written),
            Discovery::Eds | Discovery::Other(_) => None,
        };
        let asked = proxy::Cluster::read(&dumped.message).ok();
        if let (Some(written), Some(asked)) = (written, asked)
            && asked.discovery == Discovery::Eds
        {
            let key: ResourceName = asked.endpoints.as_str().into();
            let of = planned.endpoints.get(&key);
            let named = |address: SocketAddr| {
                let known = of.and_then(|of| of.endpoints.iter().find(|it| it.address == address));
                known.cloned().unwrap_or_else(|| named(address, objects))
            };
            let healthy = written.endpoints.iter().filter(|it| !it.unhealthy);
            let unhealthy = written.endpoints.iter().filter(|it| it.unhealthy);
            let endpoints = PlannedEndpoints {
                service: of.and_then(|of| of.service.clone()),
                endpoints: healthy.map(|it| named(it.address)).collect(),
                left_out: unhealthy.map(|it| (it.address, "unhealthy")).collect(),
            };
            self.plan.endpoints.insert(key, Arc::new(endpoints));
            Arc::make_mut(&mut cluster).model = Arc::new(asked);
        }
        self.plan.clusters.insert(Arc::clone(name), cluster);
    }

    /// Where a frontend leads: to the listener at its port, if there is one.
    fn led(
        &mut self,
        key: FrontendKey,
        frontend: Frontend,
        planned: &NodePlan,
        objects: &Objects,
        ports: &BTreeMap<u16, ResourceName>,
    ) -> PlannedFrontend {
        let port = frontend.listener_port;
        let wanted = planned.frontends.get(&key);
        let found = ports.get(&port).cloned();
        if found.is_none() {
            let what = format!("{key} is led to port {port}, where no Envoy listens");
            self.differ([(Some(key), what)]);
        }
        let nobodys = || -> ResourceName { format!("nobody at port {port}").into() };
        let listener = found.unwrap_or_else(nobodys);
        if let Some(wanted) = wanted {
            return PlannedFrontend {
                listener,
                listener_port: port,
                ..wanted.clone()
            };
        }
        if frontend.state != FrontendState::Draining {
            let what = format!("{key} is led to {listener}, and no object asks for that");
            self.differ([(Some(key), what)]);
        }
        let (service, kind, service_port) = holder(key, objects, &self.node);
        let config = self.plan.listeners.get(&listener);
        PlannedFrontend {
            kind,
            listener_port: port,
            service,
            service_port,
            config: config.map_or_else(ConfigDump::reference, |it| it.config.clone()),
            listener,
            ranges: None,
        }
    }

    /// What was planned and is not there, or is another.
    fn compare(&mut self, planned: &NodePlan) {
        let mut found = Vec::new();
        for (key, wanted) in &planned.frontends {
            let Some(led) = self.plan.frontends.get(key) else {
                let (service, listener) = (&wanted.service, &wanted.listener);
                let what = format!(
                    "{key} of {service} shall be led to {listener}, and the kernel does not ({})",
                    self.table
                );
                found.push((Some(*key), what));
                continue;
            };
            if self.switching.get(key) == Some(&FrontendState::Draining) {
                let what = format!(
                    "{key} shall be led to {}, and new connections go past ({})",
                    wanted.listener, self.table
                );
                found.push((Some(*key), what));
            }
            if led.ranges != wanted.ranges {
                found.push((
                    Some(*key),
                    format!("{key} has other source ranges than planned"),
                ));
            }
        }
        let missing = missing("listener", &planned.listeners, &self.plan.listeners)
            .chain(missing(
                "route configuration",
                &planned.routes,
                &self.plan.routes,
            ))
            .chain(missing("cluster", &planned.clusters, &self.plan.clusters));
        found.extend(missing.map(|it| (None, it)));
        for (name, endpoints) in &self.plan.endpoints {
            let wanted = planned.endpoints.get(name).map(|it| addresses(it));
            let (wanted, has) = (wanted.unwrap_or_default(), addresses(endpoints));
            if wanted != has {
                let more = has.difference(&wanted).map(|it| format!("+{it}"));
                let less = wanted.difference(&has).map(|it| format!("-{it}"));
                let all: Vec<String> = more.chain(less).collect();
                let all = all.join(" ");
                let what = format!("Envoy has other endpoints of {name} than planned: {all}");
                found.push((None, what));
            }
        }
        self.differ(found);
    }

    /// What a step of a way rests on; none where that is no part of this node.
    #[must_use]
    pub fn evidence_of(&self, step: &Step) -> Option<&str> {
        let of_dump = |listener: &ResourceName| self.dumps.get(listener).map(String::as_str);
        match step {
            Step::Frontend(step) if step.node == self.node => Some(&self.table),
            Step::Verdict(step) if step.node == self.node => Some(&self.table),
            Step::Rule(step) if step.node == self.node && step.pod.is_none() => Some(&self.rules),
            Step::Listener(step) if step.node == self.node => of_dump(&step.listener),
            _ => None,
        }
    }

    /// What is to be said of a frontend.
    pub fn notes_on(&self, key: FrontendKey) -> impl Iterator<Item = &str> {
        let all = self.differences.iter();
        all.filter(move |it| it.frontend == Some(key))
            .map(|it| it.what.as_str())
    }
}

/// Whether a note is about the cluster by which an Envoy asks its agent: it leads no request.
fn is_about_agent(note: &str) -> bool {
    note.split(' ').any(|word| word == bootstrap::AGENT)
}

/// The names that are planned and not there.
fn missing<'a, T, U>(
    kind: &'a str,
    planned: &'a BTreeMap<ResourceName, T>,
    has: &'a BTreeMap<ResourceName, U>,
) -> impl Iterator<Item = String> + 'a {
    let names = planned.keys().filter(|name| !has.contains_key(*name));
    names.map(move |name| format!("no Envoy has the {kind} {name}"))
}

fn addresses(endpoints: &PlannedEndpoints) -> BTreeSet<SocketAddr> {
    endpoints.endpoints.iter().map(|it| it.address).collect()
}

/// An endpoint that no slice names, by the pod that has its address.
fn named(address: SocketAddr, objects: &Objects) -> PlannedEndpoint {
    let of_pod = objects
        .pods()
        .find(|pod| pod_addresses(pod).any(|own| own == address.ip()));
    PlannedEndpoint {
        address,
        pod: of_pod.map(|pod| ObjectRef::of(Kind::Pod, &pod.metadata)),
        node: of_pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone()),
    }
}

/// Whose address a frontend is, that no plan has: a Service's, or for want of one the node's.
fn holder(key: FrontendKey, objects: &Objects, node: &str) -> (ObjectRef, FrontendKind, u16) {
    let nodes = || objects.nodes().map(AsRef::as_ref);
    for one in objects.services() {
        let frontends = service::frontends(one, nodes());
        let found = frontends.into_iter().find(|(own, ..)| *own == key);
        if let Some((_, kind, port)) = found {
            return (service::reference(one), kind, port);
        }
    }
    let node = ObjectRef::cluster(Kind::Node, node);
    (node, FrontendKind::ExternalIp, key.port)
}
