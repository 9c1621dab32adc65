//! Touched keys become values of the plan, and what is wrong with them becomes problems.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

use crate::envoy;
use crate::object::ObjectRef;
use crate::problem::{Code, Problem, Severity};
use crate::service::{ALL_PORTS, endpoints, has_port, said_ranges, tcp_ports};

use super::finding::Subject;
use super::parsed::{KEEP_OUT, Reference, ServiceEntry};
use super::planner::{Planner, Touched};
use super::secret::is_copy;
use super::{
    FrontendKey, PlanDelta, PlannedEndpoints, PlannedFrontend, PlannedListener, PlannedSecret,
    ResourceName, Update,
};

/// Clusters of the node proxy's own bootstrap, which configs may name.
const BOOTSTRAP: [&str; 5] = [
    "ingress-cluster",
    "ingress-cluster-tls",
    "egress-cluster",
    "egress-cluster-tls",
    "xds-grpc-cilium",
];

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
        let slices = self
            .slices
            .get(&demand.service)
            .into_iter()
            .flat_map(BTreeMap::values);
        Some(endpoints(service, slices.map(AsRef::as_ref), &demand.port))
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

    fn find(&mut self, touched: &Touched, references: BTreeSet<Reference>, delta: &mut PlanDelta) {
        let mut found: Vec<(Subject, BTreeSet<Problem>)> = Vec::new();
        for config in &touched.configs {
            found.push((Subject::Config(config.clone()), self.problems_of(config)));
        }
        for (config, service) in &touched.pairs {
            let subject = Subject::Service(config.clone(), service.clone());
            found.push((subject, self.problems_with(config, service)));
        }
        for reference in references {
            let problems = self.problems_behind(&reference);
            found.push((Subject::Reference(reference), problems));
        }
        for key in &touched.frontends {
            found.push((Subject::Frontend(*key), self.problems_at(key)));
        }
        for (subject, problems) in found {
            self.findings.set(subject, problems, &mut self.plan, delta);
        }
    }

    /// A config by itself: what does not decode, and a selector that is none.
    fn problems_of(&self, config: &ObjectRef) -> BTreeSet<Problem> {
        let Some(state) = self.configs.get(config) else {
            return BTreeSet::new();
        };
        let labels = self
            .this_node
            .as_ref()
            .and_then(|node| node.metadata.labels.as_ref());
        let mut problems: BTreeSet<Problem> = state.parsed.problems.iter().cloned().collect();
        if let Err(error) = state.source.spec.picks(labels) {
            problems.insert(Problem {
                code: Code::BadNodeSelector,
                severity: Severity::Error,
                object: config.clone(),
                field: format!(
                    "spec.nodeSelector.matchExpressions[{}].operator",
                    error.index
                ),
                reason: format!("{error}; the config applies on no node"),
                fix: "write In, NotIn, Exists or DoesNotExist".to_owned(),
            });
        }
        if let Some(name) = self.foreign_copy(config, &state.parsed) {
            let named = Reference::Secret(Arc::clone(name));
            problems.insert(Problem {
                code: Code::BeyondNamespace,
                severity: Severity::Error,
                object: config.clone(),
                field: state.parsed.references.get(&named).cloned().unwrap_or_default(),
                reason: format!(
                    "the Secret behind `{name}` is not one of the namespace `{}`; the whole config is left out",
                    config.namespace
                ),
                fix: KEEP_OUT.to_owned(),
            });
        }
        let listeners = state.parsed.listeners.iter().filter(|_| state.active);
        for listener in
            listeners.filter(|listener| !self.plan.listeners.contains_key(&listener.name))
        {
            problems.insert(Problem {
                code: Code::PortsExhausted,
                severity: Severity::Error,
                object: config.clone(),
                field: "spec.resources".to_owned(),
                reason: format!(
                    "no port is left for listener `{}`; nothing is led to it",
                    listener.short
                ),
                fix: "use fewer listeners, for example shared Ingresses".to_owned(),
            });
        }
        problems
    }

    /// What a config says about a Service: is it there, has it the ports, has it endpoints?
    fn problems_with(&self, config: &ObjectRef, reference: &ObjectRef) -> BTreeSet<Problem> {
        let state = self.configs.get(config).filter(|state| state.active);
        let entries = state.and_then(|state| state.parsed.services.get(reference));
        let problem = |code, severity, field: &str, reason: String, fix: &str| {
            let (field, fix) = (field.to_owned(), fix.to_owned());
            Problem {
                code,
                severity,
                object: config.clone(),
                field,
                reason,
                fix,
            }
        };
        let mut problems = BTreeSet::new();
        for entry in entries.into_iter().flatten() {
            let Some(service) = self.services.get(reference) else {
                let reason = format!("{reference} does not exist");
                problems.insert(problem(
                    Code::MissingService,
                    Severity::Error,
                    &entry.field,
                    reason,
                    "create the Service, or correct its name and namespace",
                ));
                continue;
            };
            if tcp_ports(service).next().is_none() {
                let reason = format!("{reference} has no TCP port");
                problems.insert(problem(
                    Code::ServiceWithoutPort,
                    Severity::Error,
                    &entry.field,
                    reason,
                    "give the Service a TCP port",
                ));
                continue;
            }
            for (port, field) in entry
                .ports
                .iter()
                .filter(|(port, _)| !has_port(service, port))
            {
                let has: Vec<String> = tcp_ports(service)
                    .map(|port| port.port.to_string())
                    .collect();
                let reason = format!("{reference} has no port `{port}`");
                let fix = format!("name one that it has: {}", has.join(", "));
                problems.insert(problem(
                    Code::MissingPort,
                    Severity::Error,
                    field,
                    reason,
                    &fix,
                ));
            }
            if entry.leads() {
                problems.extend(bad_ranges(reference, service));
            }
            problems.extend(self.no_endpoints(reference, entry).map(|reason| {
                let fix = "start pods that the Service selects, and make them ready";
                problem(
                    Code::NoEndpoints,
                    Severity::Warning,
                    &entry.field,
                    reason,
                    fix,
                )
            }));
        }
        problems
    }

    /// Why a Service that Envoy sends to has nobody to send to. A Service that only leads, as an
    /// Ingress's own does, needs none.
    fn no_endpoints(&self, reference: &ObjectRef, entry: &ServiceEntry) -> Option<String> {
        if entry.leads() {
            return None;
        }
        let service = self.services.get(reference)?;
        let slices = self
            .slices
            .get(reference)
            .into_iter()
            .flat_map(BTreeMap::values);
        let found = endpoints(service, slices.map(AsRef::as_ref), ALL_PORTS);
        if !found.endpoints.is_empty() {
            return None;
        }
        let left_out: Vec<String> = found
            .left_out
            .iter()
            .map(|(address, why)| format!("{address} is {why}"))
            .collect();
        let why = if left_out.is_empty() {
            String::new()
        } else {
            format!(": {}", left_out.join(", "))
        };
        Some(format!("{reference} has no ready endpoint{why}"))
    }

    /// Something that resources name and that nothing on this node has.
    fn problems_behind(&self, reference: &Reference) -> BTreeSet<Problem> {
        let (code, exists, reason, fix) = match reference {
            Reference::Secret(name) => match self.plan.secrets.get(name).map(AsRef::as_ref) {
                Some(planned) => return bad_certificate(planned).into_iter().collect(),
                // The operator has said so of the Ingress, which is what a user would edit.
                None if is_copy(name) => return BTreeSet::new(),
                None => (
                    Code::MissingSecret,
                    false,
                    format!("there is no Secret `{name}`, so TLS fails there"),
                    "create it with the type kubernetes.io/tls, or name another",
                ),
            },
            Reference::Cluster(name) => (
                Code::MissingCluster,
                self.plan.clusters.contains_key(name) || BOOTSTRAP.contains(&&**name),
                format!("no config on this node has a cluster `{name}`; requests for it get 503"),
                "add that Cluster to `spec.resources`, or correct the name",
            ),
            Reference::Endpoints(name) => (
                Code::NoEndpoints,
                self.plan.endpoints.contains_key(name),
                format!("nothing gives Envoy the endpoints `{name}`"),
                "name the Service in `spec.backendServices`, with that port",
            ),
        };
        if exists {
            return BTreeSet::new();
        }
        let referrers = self.referrers.get(reference).into_iter().flatten();
        referrers
            .filter_map(|config| {
                let field = self
                    .configs
                    .get(config)?
                    .parsed
                    .references
                    .get(reference)?
                    .clone();
                let (severity, fix, reason) = (Severity::Error, fix.to_owned(), reason.clone());
                Some(Problem {
                    code,
                    severity,
                    object: config.clone(),
                    field,
                    reason,
                    fix,
                })
            })
            .collect()
    }

    /// Configs that want a frontend that another has.
    fn problems_at(&self, key: &FrontendKey) -> BTreeSet<Problem> {
        let Some((winner, _)) = self.frontends.winner(key) else {
            return BTreeSet::new();
        };
        let losers = self.frontends.losers(key);
        losers
            // A claim on every port leaves out those that another names.
            .filter(|(rank, _)| !winner.names_the_port_of(rank))
            .map(|(rank, claim)| Problem {
                code: Code::FrontendClaimedTwice,
                severity: Severity::Error,
                object: rank.config.clone(),
                field: claim.field.clone(),
                reason: format!(
                    "{} port {} is already led to a listener by {}, which is older or comes first by name",
                    claim.service, claim.service_port, winner.config
                ),
                fix: "take the Service out of one of the two configs".to_owned(),
            })
            .collect()
    }
}

/// Source ranges of a Service that are none.
fn bad_ranges(reference: &ObjectRef, service: &Service) -> impl Iterator<Item = Problem> {
    let bad = said_ranges(service).filter(|(_, _, range)| range.is_none());
    bad.map(|(index, said, _)| Problem {
        code: Code::BadSourceRange,
        severity: Severity::Error,
        object: reference.clone(),
        field: format!("spec.loadBalancerSourceRanges[{index}]"),
        reason: format!(
            "`{said}` is no network; where the Service is led to a listener it lets nobody in"
        ),
        fix: "write an address and the bits of its prefix, such as 192.0.2.0/24".to_owned(),
    })
}

/// A Secret that is there and holds no certificate.
fn bad_certificate(planned: &PlannedSecret) -> Option<Problem> {
    let none = planned.certificate.as_ref().err()?;
    Some(Problem {
        code: Code::BadCertificate,
        severity: Severity::Error,
        object: planned.source.clone(),
        field: none.field.clone(),
        reason: format!("{}; TLS fails where it is named", none.error),
        fix: "make it of a certificate and its key: kubectl create secret tls NAME --cert=FILE --key=FILE"
            .to_owned(),
    })
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
