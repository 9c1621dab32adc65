//! What was seen of a request becomes the steps of its way, the same that the simulator takes: from
//! the client's socket, the access log of each Envoy, and what the backend said that it saw.
//!
//! Nothing here asks the model how a request would go. It says what stands where: which frontend a
//! node's table has, which route has a place that the log names, which pod has an address.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nodeway_core::certificate::Certificate;
use nodeway_core::datapath::FrontendState;
use nodeway_core::envoy::bootstrap::{AccessEntry, AccessKind};
use nodeway_core::netfilter::sidecar;
use nodeway_core::object::{Kind, ObjectRef};
use nodeway_core::plan::{FrontendKey, NodePlan, PlannedEndpoint};
use nodeway_core::proxy::{
    Action, FilterChainChoice, Forward, Request, ResolvedEdits, RouteChoice, RouteSource,
    RouteTaken, Terminal, VirtualHostTaken, Why,
};
use nodeway_core::trace::{
    ClusterStep, EndpointStep, FilterChainStep, FrontendStep, HandshakeStep, ListenerStep,
    ReplyStep, RouteStep, SidecarStep, Step, Taken, TranslationStep, Way,
};
use nodeway_sim::http::Shown;
use nodeway_sim::{Answer, Errand, Place, Redirect, Sim};
use serde_json::Value;

use super::hops::between;

/// Where a fact about Envoy's choice is from.
const BY_LOG: &str = "Envoy's access log says so";

/// What the parties of a request saw.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// Who asked for what.
    pub errand: &'a Errand,
    /// What the table of the node where the client's packets come in has for the address.
    pub frontend: Option<FrontendStep>,
    /// The answer that the client got.
    pub answer: Option<&'a Answer>,
    /// The lines of Envoys' access logs about it, each with the Envoy's place.
    pub entries: &'a [(Place, AccessEntry)],
    /// The client's own address, once it was connected.
    pub local: Option<SocketAddr>,
    /// Certificates by the Secrets that have them.
    pub certificates: &'a BTreeMap<Vec<u8>, ObjectRef>,
    /// The name that the client said in its TLS hello; empty for none.
    pub server_name: &'a str,
    /// How long it took.
    pub took: Duration,
}

/// The node that a place is on.
fn name_of<'a>(model: &'a Sim, place: &Place) -> Option<&'a str> {
    let node = model.topology().node_of(place)?;
    Some(node.name.as_str())
}

/// What a node's table has for an address; none where no node looks.
#[must_use]
pub fn frontend(model: &Sim, place: &Place, to: SocketAddr) -> Option<FrontendStep> {
    let topology = model.topology();
    let node = &topology.entry(place, to.ip())?.name;
    let mut own = topology.addresses(place).iter();
    let source = own.find(|it| it.is_ipv4() == to.is_ipv4());
    let address = FrontendKey {
        address: to.ip(),
        port: to.port(),
    };
    let plan = model.plan(node)?;
    Some(FrontendStep {
        state: FrontendState::Active,
        frontend: plan.frontends.get(&address).cloned(),
        source: *source?,
        node: node.as_str().into(),
        address,
    })
}

impl Evidence<'_> {
    /// The steps of the way, in the order of the simulator's.
    #[must_use]
    pub fn way(&self, model: &Sim) -> Way {
        let mut steps = vec![Step::Name(self.errand.name.clone())];
        let listened = self.entries.iter().any(|(place, entry)| {
            let plan = name_of(model, place).and_then(|node| model.plan(node));
            plan.is_some_and(|plan| plan.listeners.contains_key(entry.listener.as_str()))
        });
        let sidecar = model.settings().redirect == Redirect::Sidecar;
        if let (Some(to), true, true) = (self.errand.to(), sidecar, self.entries.is_empty()) {
            steps.extend(self.captured(model, to).map(Step::Sidecar));
        }
        if !sidecar || self.entries.is_empty() {
            steps.extend(self.frontend.clone().map(Step::Frontend));
        }
        for (place, entry) in self.entries {
            let node = name_of(model, place);
            if let Some((node, plan)) = node.and_then(|node| Some((node, model.plan(node)?))) {
                self.proxied((node, place), model, plan, entry, &mut steps);
            }
        }
        // What is led to a listener, kube-proxy never has.
        let led = |step: &Step| matches!(step, Step::Frontend(it) if it.frontend.is_some());
        if let (Some(to), false) = (self.errand.to(), listened || steps.iter().any(led)) {
            steps.extend(self.translation(model, to).map(Step::Translation));
        }
        if !listened {
            steps.extend(self.handshake(None).map(Step::Handshake));
        }
        if sidecar {
            steps.extend(self.passed_in(model).map(Step::Sidecar));
        }
        let at = |step| (self.took, step);
        Way {
            hops: self.hops(model, &steps),
            steps: steps.into_iter().map(at).collect(),
        }
    }

    /// The links that the request crossed: to the proxy that its steps have, or to the node that
    /// translated it, from there to the pod that answered, and there over `lo` again.
    fn hops(&self, model: &Sim, steps: &[Step]) -> usize {
        if self.answer.is_none() {
            return 0;
        }
        let mut stops = vec![self.errand.place.clone()];
        for step in steps {
            match step {
                Step::Sidecar(step) => stops.push(Place::Pod(step.pod.to_string())),
                Step::Listener(step) if step.pod.is_none() => {
                    stops.push(Place::Node(step.node.to_string()));
                }
                // A node's own packets are there already.
                Step::Translation(step) if !matches!(self.errand.place, Place::Node(_)) => {
                    stops.push(Place::Node(step.node.to_string()));
                }
                _ => {}
            }
        }
        let body = self.body();
        let by_proxy = steps.iter().any(|step| matches!(step, Step::Reply(_)));
        if let (Some(pod), false) = (body.get("pod").and_then(Value::as_str), by_proxy) {
            stops.push(Place::Pod(pod.to_owned()));
        }
        let pairs = stops.windows(2);
        let links = pairs.map(|pair| match pair {
            [from, to] => between(model, from, to),
            _ => 0,
        });
        links.sum()
    }

    /// What Envoy's log says of a request.
    fn proxied(
        &self,
        (node, place): (&str, &Place),
        model: &Sim,
        plan: &NodePlan,
        entry: &AccessEntry,
        steps: &mut Vec<Step>,
    ) {
        let node: Arc<str> = Arc::from(node);
        let pod: Option<Arc<str>> = match place {
            Place::Pod(pod) => Some(Arc::from(pod.as_str())),
            _ => None,
        };
        let listener: Arc<str> = Arc::from(entry.listener.as_str());
        let planned = plan.listeners.get(&listener);
        if let Some(pod) = &pod {
            steps.push(Step::Sidecar(SidecarStep {
                node: Arc::clone(&node),
                pod: Arc::clone(pod),
                port: sidecar::OUTBOUND,
                peer: entry.peer,
                meant: entry.destination,
                taken: match planned {
                    Some(_) => Taken::Listened,
                    None => Taken::PassedOut,
                },
            }));
            let frontend = frontend(model, &self.errand.place, entry.destination);
            steps.extend(frontend.map(Step::Frontend));
        }
        let Some(planned) = planned else { return };
        steps.push(Step::Listener(ListenerStep {
            node: Arc::clone(&node),
            port: match &pod {
                Some(_) => sidecar::OUTBOUND,
                None => self.led_to(&listener).unwrap_or(planned.port),
            },
            pod: pod.clone(),
            listener: Arc::clone(&listener),
            peer: entry.peer,
            destination: entry.destination,
        }));
        let refused = entry.kind == AccessKind::Refused;
        steps.push(Step::FilterChain(FilterChainStep {
            listener,
            choice: FilterChainChoice {
                chosen: entry.filter_chain,
                by_default: entry.filter_chain.is_none() && !refused,
                why: Arc::from(BY_LOG),
                lost: Vec::new(),
            },
        }));
        steps.extend(self.handshake(Some((place, entry))).map(Step::Handshake));
        if entry.kind == AccessKind::Request {
            steps.extend(self.route(plan, entry));
        }
        steps.extend(cluster(plan, entry));
        let by_proxy = entry.details.as_deref() != Some("via_upstream");
        if let (AccessKind::Request, true, Some(status)) = (entry.kind, by_proxy, entry.status) {
            steps.push(Step::Reply(ReplyStep::Proxy {
                node,
                pod,
                status,
                why: entry.details.clone().unwrap_or_default(),
            }));
        }
    }

    /// The port of a listener to which the node led the client, which is another at each Envoy.
    fn led_to(&self, listener: &str) -> Option<u16> {
        let led = self.frontend.as_ref()?.frontend.as_ref()?;
        (*led.listener == *listener).then_some(led.listener_port)
    }

    /// The client's own Envoy, which has every connection of its pod, also one that its log is
    /// silent about.
    fn captured(&self, model: &Sim, to: SocketAddr) -> Option<SidecarStep> {
        let Place::Pod(pod) = &self.errand.place else {
            return None;
        };
        let node = name_of(model, &self.errand.place)?;
        let key = FrontendKey {
            address: to.ip(),
            port: to.port(),
        };
        let listened = model.plan(node)?.frontends.contains_key(&key);
        Some(SidecarStep {
            node: node.into(),
            pod: pod.as_str().into(),
            port: sidecar::OUTBOUND,
            peer: self.local?,
            meant: to,
            taken: if listened {
                Taken::Listened
            } else {
                Taken::PassedOut
            },
        })
    }

    /// The Envoy of the pod that answered, which passed the request on to it: it saw no other peer.
    fn passed_in(&self, model: &Sim) -> Option<SidecarStep> {
        let body = self.body();
        let peer: SocketAddr = body.pointer("/saw/peer")?.as_str()?.parse().ok()?;
        let own = [
            IpAddr::V4(sidecar::FROM_PROXY_V4),
            IpAddr::V6(sidecar::FROM_PROXY_V6),
        ];
        let pod = body.get("pod")?.as_str()?;
        let place = Place::Pod(pod.to_owned());
        let entry = self.entries.iter().map(|(_, entry)| entry).next()?;
        own.contains(&peer.ip()).then_some(SidecarStep {
            node: name_of(model, &place)?.into(),
            pod: pod.into(),
            port: sidecar::INBOUND,
            peer: entry.upstream_source.unwrap_or(entry.peer),
            meant: entry.endpoint.unwrap_or(entry.destination),
            taken: Taken::PassedIn { from: peer.ip() },
        })
    }

    /// The virtual host and the route, by their places in the table.
    fn route(&self, plan: &NodePlan, entry: &AccessEntry) -> Option<Step> {
        let Terminal::Http(manager) = &entry.chain(plan)?.terminal else {
            return None;
        };
        let table = match &manager.routes {
            RouteSource::Rds(name) => Arc::from(name.as_str()),
            RouteSource::Inline(table) => Arc::from(table.name.as_str()),
            RouteSource::Other(_) => return None,
        };
        let matched = entry.matched(plan);
        let virtual_host = matched.zip(entry.route).map(|(it, (index, _))| {
            let name: Arc<str> = Arc::clone(&it.virtual_host.name);
            VirtualHostTaken {
                index,
                domain: Arc::clone(&name),
                name,
                why: BY_LOG,
                lost: Vec::new(),
            }
        });
        let route = matched.zip(entry.route).map(|(it, (_, index))| RouteTaken {
            index,
            name: Arc::clone(&it.route.name),
            description: Arc::clone(&it.route.matches.description),
            why: BY_LOG,
            lost: Vec::new(),
        });
        let status = entry.status.unwrap_or_default();
        let action = match (cluster_of(plan, entry), &route) {
            (Some(cluster), _) => Action::Forward(Box::new(self.forward(&cluster, entry))),
            (None, None) => Action::NotFound {
                why: Why::Stated(BY_LOG),
                lost: Vec::new(),
            },
            (None, Some(_)) if (300..400).contains(&status) => Action::Redirect {
                status,
                location: self.header("location"),
            },
            (None, Some(_)) => Action::Direct {
                status,
                body: self
                    .answer
                    .map(|it| it.body.clone())
                    .unwrap_or_default()
                    .into(),
            },
        };
        Some(Step::Route(Box::new(RouteStep {
            table,
            request: Request {
                method: entry.method.clone().unwrap_or_default(),
                scheme: scheme(self.errand.target.tls),
                authority: entry.authority.clone().unwrap_or_default(),
                path: entry.path.clone().unwrap_or_default(),
                headers: Vec::new(),
                random: 0,
            },
            choice: Some(RouteChoice {
                virtual_host,
                route,
                action,
                response: ResolvedEdits::default(),
                not_simulated: Vec::new(),
            }),
        })))
    }

    fn forward(&self, cluster: &str, entry: &AccessEntry) -> Forward {
        Forward {
            cluster: cluster.to_owned(),
            drawn: None,
            authority: entry.authority.clone().unwrap_or_default(),
            host_of_endpoint: false,
            path: entry.path.clone().unwrap_or_default(),
            original_path: None,
            headers: Vec::new(),
            timeout: None,
            cluster_not_found: 503,
            cluster_not_found_edits: ResolvedEdits::default(),
        }
    }

    fn header(&self, name: &str) -> String {
        let value = self.answer.and_then(|it| it.headers.get(name));
        value.unwrap_or_default().to_owned()
    }

    /// What kube-proxy's rules must have done, as the pod that answered is not who was asked.
    fn translation(&self, model: &Sim, to: SocketAddr) -> Option<TranslationStep> {
        let table = model.services();
        let entry = table.entries.get(&(to.ip(), to.port()))?;
        let node = model.topology().entry(&self.errand.place, to.ip())?;
        let body = self.body();
        let pod = body.get("pod").and_then(Value::as_str);
        let mut endpoints = entry.endpoints.iter();
        let chosen = endpoints.find(|it| it.pod.as_ref().map(ObjectRef::path).as_deref() == pod);
        // Nobody answered: only a Service without endpoints refuses by rule.
        if chosen.is_none() && !entry.endpoints.is_empty() {
            return None;
        }
        let peer = body.pointer("/saw/peer").and_then(Value::as_str);
        let peer: Option<SocketAddr> = peer.and_then(|it| it.parse().ok());
        let masqueraded = peer.is_some_and(|peer| {
            let by = model.topology().holder(peer.ip());
            !matches!(self.errand.place, Place::Node(_)) && matches!(by, Some(Place::Node(_)))
        });
        Some(TranslationStep {
            node: node.name.as_str().into(),
            from: to,
            service: entry.service.clone(),
            to: chosen.cloned(),
            candidates: entry.endpoints.len(),
            masqueraded,
        })
    }

    fn body(&self) -> Value {
        let body = self.answer.map(|it| it.body.as_slice());
        serde_json::from_slice(body.unwrap_or_default()).unwrap_or_default()
    }

    /// Who answered the client's hello, and which certificate it was shown: a proxy that speaks
    /// HTTP inside of TLS has ended the TLS; one that passes connections on has not.
    fn handshake(&self, proxy: Option<(&Place, &AccessEntry)>) -> Option<HandshakeStep> {
        let shown: &Shown = self.answer?.shown.as_ref()?;
        let own = shown.chain.first()?;
        let secret = self.certificates.get(own);
        let certificate = Certificate::from_der(shown.chain.clone()).ok();
        let by = match proxy {
            Some((Place::Pod(pod), entry)) if entry.kind == AccessKind::Request => pod_of(pod),
            Some((Place::Node(node), entry)) if entry.kind == AccessKind::Request => {
                ObjectRef::cluster(Kind::Node, node)
            }
            _ => {
                let body = self.body();
                pod_of(body.get("pod").and_then(Value::as_str).unwrap_or_default())
            }
        };
        Some(HandshakeStep {
            by,
            covers: certificate
                .as_ref()
                .is_some_and(|it| it.covers(self.server_name)),
            server_name: self.server_name.to_owned(),
            certificate: secret.cloned(),
            names: certificate.map(|it| it.names()).unwrap_or_default(),
            failed: None,
        })
    }
}

fn pod_of(path: &str) -> ObjectRef {
    let (namespace, name) = path.split_once('/').unwrap_or_default();
    ObjectRef::new(Kind::Pod, namespace, name)
}

fn scheme(tls: bool) -> String {
    if tls { "https" } else { "http" }.to_owned()
}

/// The cluster that the log names, or the only one that its route has, where the log says that Envoy
/// has none of that name.
fn cluster_of(plan: &NodePlan, entry: &AccessEntry) -> Option<String> {
    if entry.details.as_deref() != Some("cluster_not_found") {
        return entry.cluster.clone();
    }
    let route = entry.matched(plan)?.route;
    match route.action.clusters().as_slice() {
        [only] => Some((*only).to_owned()),
        _ => None,
    }
}

/// The cluster and the endpoint.
fn cluster(plan: &NodePlan, entry: &AccessEntry) -> Vec<Step> {
    let Some(name) = cluster_of(plan, entry) else {
        return Vec::new();
    };
    let name: Arc<str> = Arc::from(name.as_str());
    let planned = plan.clusters.get(&name);
    let endpoints: Option<Arc<str>> = planned.map(|it| Arc::from(it.model.endpoints.as_str()));
    let mut steps = vec![Step::Cluster(ClusterStep {
        cluster: name,
        endpoints: endpoints.clone(),
    })];
    if let Some(endpoints) = endpoints {
        let known = plan.endpoints.get(&endpoints);
        let candidates: Vec<PlannedEndpoint> =
            known.map(|it| it.endpoints.clone()).unwrap_or_default();
        let chosen = entry.endpoint.map(|address| {
            let mut all = candidates.iter();
            let known = all.find(|it| it.address == address).cloned();
            known.unwrap_or(PlannedEndpoint {
                address,
                pod: None,
                node: None,
            })
        });
        steps.push(Step::Endpoint(EndpointStep {
            endpoints,
            service: known.and_then(|it| it.service.clone()),
            chosen,
            candidates,
            left_out: known.map(|it| it.left_out.clone()).unwrap_or_default(),
        }));
    }
    steps
}
