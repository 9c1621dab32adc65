//! A config as the planner needs it: its resources decoded, completed and read, its services named.
//!
//! This is the costly half of planning, and it looks at nothing but the config itself: it is done
//! once for each version of a config. A config with one bad resource is left out whole. (Cilium
//! skips a resource that is no JSON of its type and applies the rest; half a config is what nobody
//! asked for, so here it is not applied and the problem says so.)

mod services;

use std::collections::BTreeMap;
use std::sync::Arc;

use prost_reflect::{DynamicMessage, Value};

use crate::envoy::{self, Resource, ResourceKind};
use crate::object::{EnvoyConfig, ObjectRef};
use crate::problem::{Code, Problem, Severity};
use crate::proxy::{self, Discovery, RouteSource, Terminal};

pub(super) use services::ServiceEntry;

use super::secret::is_copy;
use super::tenant::overreach;
use super::{
    PlannedCluster, PlannedEndpoint, PlannedEndpoints, PlannedRoutes, PlannedSecret, ResourceName,
};

/// What to do about a config that reaches beyond its namespace.
pub(super) const KEEP_OUT: &str =
    "keep to the namespace's own, or have an administrator write a CiliumClusterwideEnvoyConfig";

/// A config, taken apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Parsed {
    pub(super) listeners: Vec<ParsedListener>,
    pub(super) routes: Vec<(ResourceName, Arc<PlannedRoutes>)>,
    pub(super) clusters: Vec<(ResourceName, Arc<PlannedCluster>)>,
    pub(super) assignments: Vec<(ResourceName, Arc<PlannedEndpoints>)>,
    /// Certificates that are written down.
    pub(super) secrets: Vec<(ResourceName, Arc<PlannedSecret>)>,
    /// What other configs may have to provide, each with the field that names it.
    pub(super) references: BTreeMap<Reference, String>,
    /// What the config says about each Service, in the order of the spec.
    pub(super) services: BTreeMap<ObjectRef, Vec<ServiceEntry>>,
    /// Mistakes that are the config's own.
    pub(super) problems: Vec<Problem>,
    /// Whether some mistake keeps the config out: then nothing is left of it but its problems.
    refused: bool,
}

/// A listener before it has a port.
#[derive(Clone, Debug)]
pub(super) struct ParsedListener {
    /// The name as the config spells it, which `spec.services` uses.
    pub(super) short: String,
    pub(super) name: ResourceName,
    pub(super) model: Arc<proxy::Listener>,
    pub(super) message: DynamicMessage,
    /// Its port, when it has an address of its own and needs none from the ledger.
    pub(super) own_port: Option<u16>,
}

/// Something that a resource names and that must exist on the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reference {
    /// A cluster that routes or filters send to.
    Cluster(ResourceName),
    /// Endpoints that a cluster fetches by EDS.
    Endpoints(ResourceName),
    /// A certificate that a listener fetches by SDS.
    Secret(ResourceName),
}

/// Takes a config apart.
pub(super) fn parse(config: &ObjectRef, source: &EnvoyConfig) -> Parsed {
    let mut parsed = Parsed::default();
    parsed.annotations(config, source);
    if let Some(resources) = parsed.decode(config, source) {
        for (index, (short, resource)) in resources.into_iter().enumerate() {
            parsed.read(config, index, short, resource);
        }
        parsed.check_routes(config);
    }
    if parsed.refused {
        for problem in &mut parsed.problems {
            if problem.severity == Severity::Error {
                problem.reason.push_str("; the whole config is left out");
            }
        }
        return Parsed {
            problems: parsed.problems,
            ..Parsed::default()
        };
    }
    parsed.name_services(config, source);
    parsed
}

impl Parsed {
    /// The copies of Secrets that it names.
    pub(super) fn copies(&self) -> impl Iterator<Item = &ResourceName> {
        self.references.keys().filter_map(|it| match it {
            Reference::Secret(name) => Some(name).filter(|name| is_copy(name)),
            Reference::Cluster(_) | Reference::Endpoints(_) => None,
        })
    }

    fn refuse(&mut self, code: Code, config: &ObjectRef, field: String, reason: String, fix: &str) {
        self.refused = true;
        self.problem(code, Severity::Error, config, field, reason, fix);
    }

    fn problem(
        &mut self,
        code: Code,
        severity: Severity,
        config: &ObjectRef,
        field: String,
        reason: String,
        fix: &str,
    ) {
        let fix = fix.to_owned();
        self.problems.push(Problem {
            code,
            severity,
            object: config.clone(),
            field,
            reason,
            fix,
        });
    }

    fn annotations(&mut self, config: &ObjectRef, source: &EnvoyConfig) {
        const ORIGINAL_SOURCE: &str = "cec.cilium.io/use-original-source-address";
        let value = source
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(ORIGINAL_SOURCE));
        let field = format!("metadata.annotations[{ORIGINAL_SOURCE:?}]");
        match value.map(String::as_str) {
            None | Some("false" | "False" | "FALSE" | "f" | "F" | "0") => {}
            Some("true" | "True" | "TRUE" | "t" | "T" | "1") => self.problem(
                Code::Unsupported,
                Severity::Warning,
                config,
                field,
                "original source addresses towards backends are not supported yet; the node's own is used".to_owned(),
                "set the annotation to \"false\"",
            ),
            Some(other) => self.problem(
                Code::BadAnnotation,
                Severity::Warning,
                config,
                field,
                format!("`{other}` is neither `true` nor `false`"),
                "set the annotation to \"false\"",
            ),
        }
    }

    /// Every resource with the name that the config gives it; none if one is bad.
    fn decode(
        &mut self,
        config: &ObjectRef,
        source: &EnvoyConfig,
    ) -> Option<Vec<(String, Resource)>> {
        let mut decoded = Vec::new();
        for (index, value) in source.spec.resources.iter().enumerate() {
            let mut value = value.clone();
            for left_out in envoy::leave_out_ciliums(&mut value) {
                self.problem(
                    Code::Unsupported,
                    Severity::Warning,
                    config,
                    joined(index, &left_out.path),
                    format!(
                        "the filter `{}` is Cilium's own and in no stock Envoy; it is left out, and what it would enforce is not enforced",
                        left_out.name
                    ),
                    "take it out, or use a filter of Envoy's own",
                );
            }
            match envoy::decode(&value) {
                Ok(resource) if resource.name.is_empty() => self.refuse(
                    Code::EnvoyResource,
                    config,
                    joined(index, resource.kind.name_field()),
                    format!("a {} has no name", resource.kind),
                    "give it a name",
                ),
                Ok(resource) => decoded.push(resource),
                Err(error) => {
                    let text = error.to_string();
                    let reason = text
                        .strip_prefix(&format!("{}: ", error.path()))
                        .unwrap_or(&text);
                    let field = joined(index, error.path());
                    let fix = "correct the field as Envoy's API reference has it";
                    self.refuse(Code::EnvoyResource, config, field, reason.to_owned(), fix);
                }
            }
        }
        if self.refused {
            return None;
        }
        let short: Vec<String> = decoded
            .iter()
            .map(|resource| resource.name.clone())
            .collect();
        Some(
            short
                .into_iter()
                .zip(envoy::complete(config, decoded))
                .collect(),
        )
    }

    fn read(&mut self, config: &ObjectRef, index: usize, short: String, resource: Resource) {
        let name: ResourceName = resource.name.as_str().into();
        if self.has(resource.kind, &name) {
            let (field, kind) = (joined(index, resource.kind.name_field()), resource.kind);
            let reason = format!("the config has two of type {kind} named `{short}`");
            self.refuse(
                Code::DuplicateResource,
                config,
                field,
                reason,
                "rename one of the two, or take it out",
            );
            return;
        }
        if let Some(overreach) = overreach(config, &resource) {
            let field = joined(index, &overreach.field);
            self.refuse(
                Code::BeyondNamespace,
                config,
                field,
                overreach.reason,
                KEEP_OUT,
            );
            return;
        }
        let message = resource.message;
        let outcome = match resource.kind {
            ResourceKind::Listener => self.listener(index, short, name, message),
            ResourceKind::RouteConfiguration => self.routes(config, index, name, message),
            ResourceKind::Cluster => self.cluster(config, index, name, message),
            ResourceKind::ClusterLoadAssignment => self.assignment(name, &message),
            ResourceKind::Secret => self.secret(config, index, name, &message),
        };
        if let Err(error) = outcome {
            let field = joined(index, &error.field);
            self.refuse(
                Code::Refused,
                config,
                field,
                format!("Envoy refuses this: {}", error.reason),
                "correct the field",
            );
        }
    }

    fn has(&self, kind: ResourceKind, name: &ResourceName) -> bool {
        match kind {
            ResourceKind::Listener => self.listeners.iter().any(|listener| listener.name == *name),
            ResourceKind::RouteConfiguration => self.routes.iter().any(|(other, _)| other == name),
            ResourceKind::Cluster => self.clusters.iter().any(|(other, _)| other == name),
            ResourceKind::ClusterLoadAssignment => {
                self.assignments.iter().any(|(other, _)| other == name)
            }
            ResourceKind::Secret => self.secrets.iter().any(|(other, _)| other == name),
        }
    }

    fn listener(
        &mut self,
        index: usize,
        short: String,
        name: ResourceName,
        message: DynamicMessage,
    ) -> Result<(), proxy::ReadError> {
        let model = Arc::new(proxy::Listener::read(&message)?);
        for (at, chain) in chains(&model) {
            for secret in chain.tls.iter().flat_map(|tls| &tls.secrets) {
                let field = joined(index, &format!("{at}.transportSocket"));
                self.refer(Reference::Secret(secret.as_str().into()), field);
            }
            match &chain.terminal {
                Terminal::Tcp { cluster } => self.refer(
                    Reference::Cluster(cluster.as_str().into()),
                    joined(index, &at),
                ),
                Terminal::Http(manager) => {
                    if let RouteSource::Inline(table) = &manager.routes {
                        self.refer_to_clusters_of(table, &joined(index, &at));
                    }
                }
                Terminal::Other(_) => {}
            }
        }
        let own_port = own_port(&message);
        self.listeners.push(ParsedListener {
            short,
            name,
            model,
            message,
            own_port,
        });
        Ok(())
    }

    fn routes(
        &mut self,
        config: &ObjectRef,
        index: usize,
        name: ResourceName,
        message: DynamicMessage,
    ) -> Result<(), proxy::ReadError> {
        let model = Arc::new(proxy::RouteTable::read(&message)?);
        self.refer_to_clusters_of(&model, &joined(index, ""));
        self.routes.push((
            name,
            Arc::new(PlannedRoutes {
                model,
                message,
                config: config.clone(),
            }),
        ));
        Ok(())
    }

    fn cluster(
        &mut self,
        config: &ObjectRef,
        index: usize,
        name: ResourceName,
        message: DynamicMessage,
    ) -> Result<(), proxy::ReadError> {
        let model = Arc::new(proxy::Cluster::read(&message)?);
        if model.discovery == Discovery::Eds {
            let field = joined(index, "edsClusterConfig.serviceName");
            self.refer(Reference::Endpoints(model.endpoints.as_str().into()), field);
        }
        self.clusters.push((
            name,
            Arc::new(PlannedCluster {
                model,
                message,
                config: config.clone(),
            }),
        ));
        Ok(())
    }

    fn secret(
        &mut self,
        config: &ObjectRef,
        index: usize,
        name: ResourceName,
        message: &DynamicMessage,
    ) -> Result<(), proxy::ReadError> {
        envoy::validate(message)?;
        // A context for validation or a ticket key is nothing that a client is shown.
        if message.has_field_by_name("tls_certificate") {
            let planned = PlannedSecret::written(config, &joined(index, ""), message);
            self.secrets.push((name, Arc::new(planned)));
        }
        Ok(())
    }

    fn assignment(
        &mut self,
        name: ResourceName,
        message: &DynamicMessage,
    ) -> Result<(), proxy::ReadError> {
        let model = proxy::LoadAssignment::read(message)?;
        let (left_out, ready): (Vec<_>, Vec<_>) = model
            .endpoints
            .iter()
            .partition(|endpoint| endpoint.unhealthy);
        let mut endpoints: Vec<PlannedEndpoint> = ready
            .into_iter()
            .map(|endpoint| PlannedEndpoint {
                address: endpoint.address,
                pod: None,
                node: None,
            })
            .collect();
        endpoints.sort();
        let left_out = left_out
            .into_iter()
            .map(|endpoint| (endpoint.address, "unhealthy"))
            .collect();
        self.assignments.push((
            name,
            Arc::new(PlannedEndpoints {
                service: None,
                endpoints,
                left_out,
            }),
        ));
        Ok(())
    }

    fn refer_to_clusters_of(&mut self, table: &proxy::RouteTable, at: &str) {
        for (path, cluster) in table.clusters() {
            self.refer(Reference::Cluster(cluster.into()), format!("{at}.{path}"));
        }
    }

    /// The first field that names a thing stands for all.
    fn refer(&mut self, reference: Reference, field: String) {
        self.references.entry(reference).or_insert(field);
    }

    /// A listener's RDS name is always one of the config's own: that is how it was qualified.
    fn check_routes(&mut self, config: &ObjectRef) {
        let mut missing = Vec::new();
        for listener in &self.listeners {
            for (at, chain) in chains(&listener.model) {
                let Terminal::Http(manager) = &chain.terminal else {
                    continue;
                };
                let RouteSource::Rds(name) = &manager.routes else {
                    continue;
                };
                if !self.routes.iter().any(|(routes, _)| **routes == **name) {
                    missing.push((listener.short.clone(), at, name.clone()));
                }
            }
        }
        for (listener, at, name) in missing {
            self.problem(
                Code::MissingRouteConfiguration,
                Severity::Error,
                config,
                "spec.resources".to_owned(),
                format!("listener `{listener}`, {at}, fetches its routes as `{name}`, and the config has no RouteConfiguration of that name; each request gets 404"),
                "add the RouteConfiguration, or correct `rds.routeConfigName`",
            );
        }
    }
}

/// A listener's filter chains, each with its path.
fn chains(listener: &proxy::Listener) -> impl Iterator<Item = (String, &proxy::FilterChain)> {
    let numbered = listener.filter_chains.iter().enumerate();
    numbered
        .map(|(index, chain)| (format!("filterChains[{index}]"), chain))
        .chain(
            listener
                .default_filter_chain
                .iter()
                .map(|chain| ("defaultFilterChain".to_owned(), chain)),
        )
}

fn joined(index: usize, path: &str) -> String {
    match path {
        "" => format!("spec.resources[{index}]"),
        path if path.starts_with('[') => format!("spec.resources[{index}]{path}"),
        path => format!("spec.resources[{index}].{path}"),
    }
}

/// The port of a listener with an address of its own, as in host-network mode.
fn own_port(listener: &DynamicMessage) -> Option<u16> {
    let message = |parent: &DynamicMessage, field: &str| {
        let there = parent.has_field_by_name(field);
        there
            .then(|| parent.get_field_by_name(field)?.as_message().cloned())
            .flatten()
    };
    let address = message(&message(listener, "address")?, "socket_address")?;
    match address.get_field_by_name("port_value")?.as_ref() {
        Value::U32(port) => u16::try_from(*port).ok(),
        _ => None,
    }
}
