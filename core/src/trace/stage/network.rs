//! From the name to the verdict: the stages of the network.

use std::net::{IpAddr, SocketAddr};

use nodeway_datapath::{FrontendState, Hook};

use super::{Stage, Stop, Words};
use crate::object::{Kind, Object, ObjectRef};
use crate::plan::{FrontendKind, PlannedEndpoint, PlannedFrontend};
use crate::service;
use crate::trace::{
    FaultStep, FrontendStep, Name, NameStep, RuleStep, SidecarStep, Taken, TranslationStep,
    VerdictStep,
};

impl Words<'_> {
    pub(super) fn name(&self, step: &NameStep) -> Stage {
        match &step.found {
            Name::Service { service, address } => {
                Stage::new("name", format!("{} is {service}, {address}", step.asked))
                    .evidence(self.source(service))
            }
            Name::Address {
                address,
                owner: Some(owner),
            } => Stage::new("name", format!("{address} is an address of {owner}"))
                .evidence(self.source(owner))
                .notes(self.policies(Some(owner))),
            Name::Address {
                address,
                owner: None,
            } => Stage::new("name", format!("{address} is an address of no object here")),
            Name::Unknown {
                service,
                close,
                why,
            } => self
                .no_address(&step.asked, service.as_ref(), close)
                .because(why.clone()),
        }
    }

    /// Why a name has no address: its Service has none here, its Ingress gives none, or nobody has it.
    fn no_address(&self, asked: &str, service: Option<&ObjectRef>, close: &[String]) -> Stage {
        let stage = Stage::new("name", format!("{asked} has no address"));
        let nobody = ObjectRef::new(Kind::Service, "default", asked);
        let service = service.unwrap_or(&nobody);
        if let Some(Object::Service(found)) = self.objects.get(service).map(|entry| &entry.object) {
            let spec = found.spec.as_ref();
            let headless = spec.is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"));
            let (field, fix) = if headless {
                (
                    "spec.clusterIP",
                    "ask one of its pods by address, or take `clusterIP: None` out",
                )
            } else {
                (
                    "spec.type",
                    "ask from a pod or a node, or make it `type: LoadBalancer`, which has an address outside",
                )
            };
            return stage
                .evidence(self.source(service))
                .stop(&self.cause(service), field, fix);
        }
        if !close.is_empty() {
            let fix = format!("did you mean {}?", close.join(", "));
            return stage.stop(service, "metadata.name", fix);
        }
        let ingress = service.name.strip_prefix("cilium-ingress-");
        let ingress = ingress.map(|name| ObjectRef::new(Kind::Ingress, &service.namespace, name));
        match ingress.filter(|ingress| self.objects.get(ingress).is_some()) {
            Some(ingress) => stage.evidence(self.source(&ingress)).stop(
                &ingress,
                "spec",
                "it is made no Service of its own: mend the problems that `nodeway explain` lists for it",
            ),
            None => stage.stop(
                service,
                "metadata.name",
                "add a Service of that name, or ask for one that exists",
            ),
        }
    }

    pub(super) fn frontend(&self, step: &FrontendStep) -> Stage {
        if let Some(frontend) = &step.frontend {
            return self.found(step, frontend);
        }
        let stage = Stage::new(
            "frontend",
            if self.captured {
                format!("{} is no frontend: no listener has it", step.address)
            } else {
                format!("{} is no frontend: nothing is redirected", step.address)
            },
        );
        let Some(service) = self.service_at(step.address.address) else {
            return stage.because("no Service has that address");
        };
        if let Some(missing) = self.missing_port(&service, step.address.port) {
            return stage.because(missing).evidence(self.source(&service)).stop(
                &service,
                "spec.ports",
                "add that port, or ask for one that it has",
            );
        }
        match self.claims(&service, step.address.port) {
            Claim::OtherPorts(config, ports) => stage
                .because(format!("{config} lists {service} only for the ports {ports}"))
                .evidence(self.source(&config))
                .stop(&self.cause(&config), "spec.services[].ports", format!(
                    "add {} to the ports, or ask for one of {ports}", step.address.port)),
            Claim::BackendOnly(config) => stage
                .because(format!(
                    "no CiliumEnvoyConfig lists {service} under `services`; {config} names it only under \
                     `backendServices`, which gives Envoy its endpoints and redirects nothing"
                ))
                .evidence(self.source(&config))
                .stop(&config, "spec.services", self.services_fix(&config, &service)),
            Claim::Nobody => {
                let mut stage = stage
                    .because(format!("no CiliumEnvoyConfig lists {service} under `services`"))
                    .evidence(self.source(&service));
                stage.stop = Some(Stop {
                    object: "a CiliumEnvoyConfig".to_owned(),
                    field: "spec.services".to_owned(),
                    fix: format!(
                        "if {} should be redirected, list it there, or ask for an Ingress that leads to it",
                        service.path()
                    ),
                });
                stage
            }
            Claim::Listed(config) => stage
                .because(format!(
                    "{config} lists {service} under `services`, but the node's plan has no such frontend: see the problems of that config"
                ))
                .evidence(self.source(&config))
                .stop(&self.cause(&config), "spec.services", "mend the problems that `nodeway explain` lists for this config"),
        }
    }

    /// A frontend of the table: who asks is led, or goes past, or is shut out.
    fn found(&self, step: &FrontendStep, frontend: &PlannedFrontend) -> Stage {
        let draining = step.state == FrontendState::Draining;
        let led = if draining { "was led" } else { "led" };
        let (service, config, source) = (&frontend.service, &frontend.config, step.source);
        let stage = Stage::new(
            "frontend",
            format!(
                "{} is {} of {service}, {led} to listener {} (port {})",
                step.address,
                address_kind(frontend.kind),
                frontend.listener,
                frontend.listener_port
            ),
        );
        if step.shut_out() {
            let ranges = frontend.ranges.iter().flat_map(|all| all.iter());
            let ranges: Vec<String> = ranges.map(ToString::to_string).collect();
            let said = ranges.join(", ");
            return stage
                .because(format!(
                    "{config} lists that Service under `services`, and {source} is in none of its source ranges ({said})"
                ))
                .evidence(self.source(service))
                .stop(service, "spec.loadBalancerSourceRanges", format!(
                    "add a network that has {source}, or ask by the ClusterIP or a NodePort, which have no ranges"));
        }
        if draining {
            return stage.because(format!(
                "{config} lists that Service no more: connections that stand are served, new ones go past"
            ));
        }
        stage
            .because(format!("{config} lists that Service under `services`"))
            .evidence(self.source(config))
    }

    /// What to do so that a backend's own address is redirected: ask the Ingress, or claim the Service.
    fn services_fix(&self, config: &ObjectRef, service: &ObjectRef) -> String {
        let claimed = self
            .config_spec(config)
            .and_then(|spec| spec.services.first());
        match (self.cause(config), claimed) {
            (cause, Some(frontend)) if cause.kind == Kind::Ingress => format!(
                "ask for http://{}/ to go through the listener, or write a CiliumEnvoyConfig that lists {} under `services`",
                frontend.name,
                service.path()
            ),
            _ => format!("list {} under `services`", service.path()),
        }
    }

    fn config_spec(&self, config: &ObjectRef) -> Option<&crate::object::EnvoyConfigSpec> {
        match config.kind {
            Kind::CiliumEnvoyConfig => self
                .objects
                .envoy_config(&config.namespace, &config.name)
                .map(|config| &config.spec),
            _ => self
                .objects
                .clusterwide_envoy_config("", &config.name)
                .map(|config| &config.spec),
        }
    }

    fn service_at(&self, address: IpAddr) -> Option<ObjectRef> {
        let address = address.to_string();
        self.objects.services().find_map(|service| {
            let spec = service.spec.as_ref()?;
            let cluster = spec
                .cluster_ip
                .iter()
                .chain(spec.cluster_ips.iter().flatten());
            let balancer = service.status.iter().flat_map(|status| {
                let ingress = status
                    .load_balancer
                    .iter()
                    .flat_map(|lb| lb.ingress.iter().flatten());
                ingress.filter_map(|ingress| ingress.ip.as_ref())
            });
            cluster
                .chain(spec.external_ips.iter().flatten())
                .chain(balancer)
                .any(|one| *one == address)
                .then(|| Object::Service(service.clone()).reference())
        })
    }

    /// What to say if the Service has no such port.
    fn missing_port(&self, service: &ObjectRef, port: u16) -> Option<String> {
        let object = self.objects.service(&service.namespace, &service.name)?;
        if service::has_port(object, &port.to_string()) {
            return None;
        }
        let ports: Vec<String> = service::tcp_ports(object)
            .map(|port| port.port.to_string())
            .collect();
        Some(format!(
            "{service} has no port {port}; it has {}",
            ports.join(", ")
        ))
    }

    /// Which config claims a Service, and whether it claims that port.
    fn claims(&self, service: &ObjectRef, port: u16) -> Claim {
        let configs = self.objects.iter().filter(|(reference, _)| {
            matches!(
                reference.kind,
                Kind::CiliumEnvoyConfig | Kind::CiliumClusterwideEnvoyConfig
            )
        });
        let mut claim = Claim::Nobody;
        for (config, _) in configs {
            let Some(spec) = self.config_spec(config) else {
                continue;
            };
            let mut listed = spec.services.iter();
            if let Some(listed) = listed.find(|it| it.service(config) == *service) {
                if listed.ports.is_empty() || listed.ports.contains(&port) {
                    return Claim::Listed(config.clone());
                }
                let ports: Vec<String> = listed.ports.iter().map(ToString::to_string).collect();
                return Claim::OtherPorts(config.clone(), ports.join(", "));
            }
            let mut backends = spec.backend_services.iter();
            if backends.any(|it| it.service(config) == *service) {
                claim = Claim::BackendOnly(config.clone());
            }
        }
        claim
    }

    pub(super) fn translation(&self, step: &TranslationStep) -> Stage {
        let Some(endpoint) = &step.to else {
            return Stage::new("translation", format!("{} is refused", step.from))
                .because(format!(
                    "{} has no ready endpoint on this node's table",
                    step.service
                ))
                .evidence(self.source(&step.service))
                .stop(&step.service, "spec.selector", "make it select ready pods");
        };
        let source = if step.masqueraded {
            ", the source becomes the node's address"
        } else {
            ""
        };
        Stage::new(
            "translation",
            format!(
                "{} becomes {}{source}",
                step.from,
                self.endpoint_name(endpoint)
            ),
        )
        .because(format!(
            "kube-proxy's rules on {} translate {} to one of its {} endpoints, by chance",
            step.node, step.service, step.candidates
        ))
        .evidence(self.source(&step.service))
        .notes(self.policies(endpoint.pod.as_ref()))
    }

    pub(super) fn endpoint_name(&self, endpoint: &PlannedEndpoint) -> String {
        let pod = endpoint
            .pod
            .as_ref()
            .map(|pod| format!(", {pod}"))
            .unwrap_or_default();
        let node = endpoint
            .node
            .as_ref()
            .map(|node| format!(" on {node}"))
            .unwrap_or_default();
        format!("{}{pod}{node}", endpoint.address)
    }
}

/// How a config names a Service.
enum Claim {
    Nobody,
    BackendOnly(ObjectRef),
    OtherPorts(ObjectRef, String),
    Listed(ObjectRef),
}

fn address_kind(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "the ClusterIP",
        FrontendKind::NodePort => "a NodePort",
        FrontendKind::LoadBalancer => "the LoadBalancer address",
        FrontendKind::ExternalIp => "an external address",
    }
}

/// A rule, as `iptables-save` prints it.
pub(super) fn rule(step: &RuleStep) -> Stage {
    let (table, hook) = (step.table.name(), step.hook.name());
    let at = match &step.pod {
        Some(pod) => format!("in Pod {pod} on {}", step.node),
        None => format!("on {}", step.node),
    };
    Stage::new("rule", format!("{table}: {}", step.rule))
        .because(format!("the packet matched it at {hook} {at}"))
        .evidence(["rules".to_owned()])
}

/// A pod's own proxy, and what it does with a connection.
pub(super) fn sidecar(step: &SidecarStep) -> Stage {
    let SidecarStep { meant, port, .. } = step;
    let envoy = proxy(&step.node, Some(&step.pod));
    let decided = match step.taken {
        Taken::Listened => format!("outbound, port {port} of {envoy}: a listener has {meant}"),
        Taken::PassedOut => {
            format!("outbound, port {port} of {envoy}: the bytes are passed on to {meant}")
        }
        Taken::PassedIn { from } => {
            format!(
                "inbound, port {port} of {envoy}: the bytes are passed on to {meant}, from {from}"
            )
        }
    };
    Stage::new("sidecar", decided)
        .because(format!(
            "its socket took the connection; it sees peer {}, and SO_ORIGINAL_DST says that {meant} was meant",
            step.peer
        ))
        .evidence(["simulated".to_owned()])
}

/// Whose Envoy it is.
pub(super) fn proxy(node: &str, pod: Option<&std::sync::Arc<str>>) -> String {
    match pod {
        Some(pod) => format!("Envoy in Pod {pod} on {node}"),
        None => format!("Envoy on {node}"),
    }
}

/// What was done to the cluster on purpose.
pub(super) fn fault(step: &FaultStep) -> Stage {
    match step {
        FaultStep::Lost { link, why } => {
            Stage::new("fault", format!("packets were lost on the link of {link}"))
                .because(why.clone())
        }
        FaultStep::Happened { what } => Stage::new("fault", what.clone()),
    }
    .evidence(["simulated".to_owned()])
}

/// A verdict is two stages: which hook saw the packet, and what it said.
pub(super) fn verdict(step: &VerdictStep) -> Vec<Stage> {
    let node = &step.node;
    let hook = match step.hook {
        Hook::TcIngress { sk_lookup: true } => {
            format!(
                "tc ingress of the {} on {node}, with sk_lookup behind it",
                step.device
            )
        }
        Hook::TcIngress { sk_lookup: false } => {
            format!("tc ingress of the {} on {node}", step.device)
        }
        Hook::SkLookup => format!("sk_lookup on {node}: no connection has the packet"),
        Hook::Connect => format!("connect on {node}: a call of the node itself"),
    };
    let mark = if step.mark == 0 {
        String::new()
    } else {
        format!(", mark {:#010x}", step.mark)
    };
    vec![
        Stage::new("hook", hook),
        Stage::new(
            "verdict",
            format!("{} ({}){mark}", step.verdict, step.reason.name()),
        )
        .because(step.reason.text())
        .evidence([format!("simulated: {}", flow(step))]),
    ]
}

fn flow(step: &VerdictStep) -> String {
    let address = |bytes: &nodeway_datapath::Address| match step.flow.family {
        nodeway_datapath::Family::V4 => {
            let [a, b, c, d, ..] = *bytes;
            IpAddr::from([a, b, c, d])
        }
        nodeway_datapath::Family::V6 => IpAddr::from(*bytes),
    };
    let source = SocketAddr::new(address(&step.flow.src), step.flow.sport);
    let destination = SocketAddr::new(address(&step.flow.dst), step.flow.dport);
    format!("tcp {source} > {destination}")
}
