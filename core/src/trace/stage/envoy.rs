//! From the listener to the reply: the stages of the node's Envoy.

use super::network::proxy;
use super::{Loser, Stage, Words};
use crate::object::{Kind, Object, ObjectRef};
use crate::proxy::{Action, RouteChoice};
use crate::service;
use crate::trace::{
    ClusterStep, EndpointStep, Failure, FilterChainStep, HandshakeStep, ListenerStep, ReplyStep,
    RouteStep,
};

pub(super) fn listener(step: &ListenerStep) -> Stage {
    Stage::new(
        "listener",
        format!(
            "{} on port {} of {}",
            step.listener,
            step.port,
            proxy(&step.node, step.pod.as_ref())
        ),
    )
    .because(format!(
        "its socket took the connection; it sees peer {} and destination {}",
        step.peer, step.destination
    ))
    .evidence(["planned".to_owned()])
}

impl Words<'_> {
    pub(super) fn filter_chain(&self, step: &FilterChainStep) -> Stage {
        let choice = &step.choice;
        let evidence = ["planned".to_owned()];
        match choice.chosen {
            Some(index) => Stage::new(
                "filter chain",
                format!("number {index} of {}", step.listener),
            )
            .because(choice.why.to_string())
            .evidence(evidence)
            .lost(&choice.lost),
            None if choice.by_default => {
                Stage::new("filter chain", format!("the default of {}", step.listener))
                    .because(choice.why.to_string())
                    .evidence(evidence)
                    .lost(&choice.lost)
            }
            None => {
                let config = config_of(&step.listener);
                Stage::new("filter chain", "none matches: Envoy closes the connection")
                    .because(choice.why.to_string())
                    .evidence(evidence)
                    .lost(&choice.lost)
                    .stop(
                        &self.cause(&config),
                        if self.cause(&config).kind == Kind::Ingress { "spec.tls" } else { "spec.resources" },
                        "give the listener a filter chain for this connection, or ask with another scheme or server name",
                    )
            }
        }
    }

    /// Who terminates TLS, and what the client is shown.
    pub(super) fn handshake(&self, step: &HandshakeStep) -> Stage {
        let asked = match step.server_name.as_str() {
            "" => "a hello without a server name".to_owned(),
            name => format!("a hello for {name}"),
        };
        if let Some(why) = &step.failed {
            let stage = Stage::new("handshake", format!("fails on {}", step.by))
                .because(format!("{asked} came, and {why}"))
                .evidence(["planned".to_owned()]);
            let fix = "give the Secret a certificate and its key (kubectl create secret tls)";
            return match &step.certificate {
                Some(source) => stage.stop(source, "data", fix),
                None => stage,
            };
        }
        let shown = match (&step.certificate, step.names.as_slice()) {
            (Some(source), names) => format!("shows that of {source} for {}", names.join(", ")),
            (None, []) => "shows one of its own".to_owned(),
            (None, names) => format!("shows one for {}", names.join(", ")),
        };
        let mut stage = Stage::new(
            "handshake",
            format!("{} terminates TLS and {shown}", step.by),
        )
        .because(format!("{asked} came"))
        .evidence(
            step.certificate
                .iter()
                .flat_map(|source| self.source(source)),
        );
        if !step.covers && !step.names.is_empty() {
            stage.because.push_str(
                "; the certificate does not cover it, and a client that checks ends here",
            );
        }
        stage
    }

    /// A route choice is two stages: the virtual host, then the route in it.
    pub(super) fn route(&self, step: &RouteStep) -> Vec<Stage> {
        let cause = self.cause(&config_of(&step.table));
        let Some(choice) = &step.choice else {
            let missing = format!("the node has no RouteConfiguration {}", step.table);
            return vec![Stage::new("virtual host", missing).stop(
                &cause,
                "spec.resources",
                "add that RouteConfiguration, or mend its name in the listener",
            )];
        };
        let Some(taken) = &choice.virtual_host else {
            return vec![no_virtual_host(step, choice, &cause)];
        };
        let host = format!("{} by domain {}", taken.name, taken.domain);
        let host = Stage::new("virtual host", host)
            .because(taken.why)
            .evidence(["planned".to_owned()])
            .lost(&taken.lost);
        let mut route = self.route_in_host(step, choice, &cause);
        if !choice.not_simulated.is_empty() {
            let fields = choice.not_simulated.join(", ");
            route = route.evidence([format!("not simulated: {fields}")]);
        }
        vec![host, route]
    }

    fn route_in_host(&self, step: &RouteStep, choice: &RouteChoice, cause: &ObjectRef) -> Stage {
        let decided = outcome(&choice.action);
        let Some(route) = &choice.route else {
            let Action::NotFound { why, lost } = &choice.action else {
                return Stage::new("route", decided);
            };
            let path = &step.request.path;
            return Stage::new("route", format!("none matches {path}"))
                .because(why.to_string())
                .lost(lost)
                .stop(
                    cause,
                    match cause.kind {
                        Kind::Ingress => "spec.rules[].http.paths",
                        _ => "spec.resources[].virtualHosts[].routes",
                    },
                    format!("add a path that matches {path}, or a default backend"),
                );
        };
        let name = match route.name.as_ref() {
            "" => String::new(),
            name => format!(" ({name})"),
        };
        Stage::new("route", format!("{}{name} -> {decided}", route.description))
            .because(route.why)
            .evidence(self.source(&config_of(&step.table)))
            .lost(&route.lost)
    }

    pub(super) fn cluster(&self, step: &ClusterStep) -> Stage {
        match &step.endpoints {
            Some(endpoints) => Stage::new("cluster", step.cluster.to_string())
                .because(format!("its endpoints are fetched as {endpoints}"))
                .evidence(["planned".to_owned()]),
            None => {
                // A cluster's own name need not say which config names it: the routes' does.
                let config = config_of(self.routed.unwrap_or(&step.cluster));
                Stage::new(
                    "cluster",
                    format!("the node has no cluster {}", step.cluster),
                )
                .stop(
                    &self.cause(&config),
                    "spec.resources",
                    "add that cluster, or mend its name in the route",
                )
            }
        }
    }

    pub(super) fn endpoint(&self, step: &EndpointStep) -> Stage {
        let left_out = step.left_out.iter().map(|(address, why)| Loser {
            candidate: address.to_string(),
            why: (*why).to_owned(),
        });
        let service = step.service.iter().flat_map(|service| self.source(service));
        let Some(chosen) = &step.chosen else {
            let (object, field, fix) = self.without_endpoints(step);
            let mut stage = Stage::new("endpoint", format!("{} has none", step.endpoints))
                .evidence(service)
                .stop(&object, field, fix);
            stage.lost.extend(left_out);
            return stage;
        };
        let others = step
            .candidates
            .iter()
            .filter(|candidate| *candidate != chosen);
        let mut stage = Stage::new("endpoint", self.endpoint_name(chosen))
            .because(format!(
                "Envoy's turn among {} of {}",
                step.candidates.len(),
                step.endpoints
            ))
            .evidence(service)
            .notes(self.policies(chosen.pod.as_ref()));
        stage.lost.extend(others.map(|other| Loser {
            candidate: self.endpoint_name(other),
            why: "it was not its turn".to_owned(),
        }));
        stage.lost.extend(left_out);
        stage
    }

    /// What to change where a cluster has no endpoint: the Service is missing, lacks the port, or
    /// selects nobody.
    fn without_endpoints(&self, step: &EndpointStep) -> (ObjectRef, &'static str, String) {
        let (path, port) = match step.endpoints.rsplit_once(':') {
            Some((path, port)) => (path, Some(port)),
            None => (step.endpoints.as_ref(), None),
        };
        let (namespace, name) = path.split_once('/').unwrap_or(("", path));
        let service = step
            .service
            .clone()
            .unwrap_or_else(|| ObjectRef::new(Kind::Service, namespace, name));
        match (self.objects.get(&service).map(|entry| &entry.object), port) {
            (Some(Object::Service(found)), Some(port)) if !service::has_port(found, port) => {
                let fix = format!("add port {port}, or name one that it has where it is used");
                (service, "spec.ports", fix)
            }
            (Some(_), _) => (
                service,
                "spec.selector",
                "make it select ready pods, or scale up what it selects".to_owned(),
            ),
            (None, _) => (
                service,
                "metadata.name",
                "create that Service, or correct its name where it is used".to_owned(),
            ),
        }
    }

    pub(super) fn reply(&self, step: &ReplyStep) -> Stage {
        match step {
            ReplyStep::Backend { pod, status } => {
                Stage::new("reply", format!("{status} by {pod}")).evidence(["simulated".to_owned()])
            }
            ReplyStep::Endpoint { address, status } => {
                Stage::new("reply", format!("{status} by endpoint {address}"))
                    .evidence(["simulated".to_owned()])
            }
            ReplyStep::Proxy {
                node,
                pod,
                status,
                why,
            } => {
                let envoy = proxy(node, pod.as_ref());
                Stage::new("reply", format!("{status} by {envoy} itself"))
                    .because(why.clone())
                    .evidence(["simulated".to_owned()])
            }
            ReplyStep::Failed(failure) => Stage::new("reply", format!("none: {}", failure.name()))
                .because(failure_text(*failure))
                .evidence(["simulated".to_owned()]),
        }
    }
}

fn no_virtual_host(step: &RouteStep, choice: &RouteChoice, cause: &ObjectRef) -> Stage {
    let authority = &step.request.authority;
    let mut stage = Stage::new(
        "virtual host",
        format!("none of {} has host {authority}", step.table),
    );
    if let Action::NotFound { why, lost } = &choice.action {
        stage = stage.because(why.to_string()).lost(lost);
    }
    stage.stop(
        cause,
        match cause.kind {
            Kind::Ingress => "spec.rules[].host",
            _ => "spec.resources[].virtualHosts[].domains",
        },
        format!("add a rule for host {authority}, or ask for a host that has one"),
    )
}

/// The config that a qualified resource name begins with (`namespace/config/name`).
fn config_of(name: &str) -> ObjectRef {
    let mut parts = name.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(""), Some(config), Some(_)) => {
            ObjectRef::cluster(Kind::CiliumClusterwideEnvoyConfig, config)
        }
        (Some(namespace), Some(config), Some(_)) => {
            ObjectRef::new(Kind::CiliumEnvoyConfig, namespace, config)
        }
        _ => ObjectRef::new(Kind::CiliumEnvoyConfig, "", name),
    }
}

/// What a route does, in a few words.
fn outcome(action: &Action) -> String {
    match action {
        Action::Forward(forward) => match &forward.original_path {
            Some(_) => format!(
                "cluster {}, path rewritten to {}",
                forward.cluster, forward.path
            ),
            None => format!("cluster {}", forward.cluster),
        },
        Action::Redirect { status, location } => format!("{status} to {location}"),
        Action::Direct { status, .. } => format!("{status} by Envoy itself"),
        Action::NotFound { why, .. } => format!("404: {why}"),
        Action::NotSimulated { fields } => {
            format!("not simulated: it hangs on {}", fields.join(", "))
        }
    }
}

fn failure_text(failure: Failure) -> &'static str {
    match failure {
        Failure::UnknownName => "the name has no address",
        Failure::Unreachable => "the client has no address of that family, or no port left",
        Failure::ConnectionRefused => "RST came in answer to the SYN: nothing listens there",
        Failure::ConnectionReset => "RST came on a connection that stood",
        Failure::TimedOut => "nothing came back in time: the packets are dropped on the way",
        Failure::ConnectionClosed => "the connection ended before a whole answer",
        Failure::HandshakeFailed => "the connection ended in the TLS handshake",
        Failure::ClientGone => "the client's own machine went off",
        Failure::NotHttp => "what came back is no HTTP",
    }
}
