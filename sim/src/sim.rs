//! A simulated cluster: objects, plans, machines and the programs on them, on one virtual clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nodeway_core::certificate::Certificate;
use nodeway_core::derive::DeriveOptions;
use nodeway_core::lint::lint;
use nodeway_core::object::{Change, Kind, Object, Objects, Provenance};
use nodeway_core::plan::{NodePlan, Planner};
use nodeway_core::problem::Problem;
use nodeway_core::trace::{Failure, HandshakeStep, Name, NameStep, ReplyStep, Step, Way};
use serde_json::Value;

use crate::asker::place;
use crate::assembly::{Assembly, Options, services};
use crate::backend::Backend;
use crate::chosen::{ChosenBy, by_cluster};
use crate::client::{Answer, Client, Outcome};
use crate::cluster::Ask;
use crate::cluster::{AskError, Cause, Cluster, Failed, tell};
use crate::dumped;
use crate::envoy::NodeProxy;
use crate::fixture::Fixture;
use crate::http;
use crate::names::{Names, View};
use crate::net::{
    CapturedInterface, Datapath, Hop, NodewayDatapath, Place, ServiceTable, Settings, Topology, TopologyError,
};
use crate::process::WayId;
use crate::redirect::Redirect;
use crate::reply::{Reply, Seen, Shown, Who};
use crate::seed::Seed;
use crate::served::Served;
use crate::source::{LoadErrors, Source};
use crate::target::Target;
use crate::workload::backends;
use crate::world::{ProcessId, World};

/// How long a request may take before the simulation gives up on it: far beyond every time-out in it.
const PATIENCE: Duration = Duration::from_secs(600);

/// A cluster about to be simulated.
pub struct SimBuilder {
    objects: Objects,
    options: Options,
    settings: Settings,
    datapath: Box<dyn Datapath>,
    source: String,
    chosen_by: ChosenBy,
}

impl SimBuilder {
    /// How packets come to the listener; `tc` unless the fixture or a dumped cluster's own config
    /// says otherwise.
    #[must_use]
    pub fn redirect(mut self, redirect: Redirect) -> Self {
        self.settings.redirect = redirect;
        self.chosen_by = ChosenBy::Asked;
        self
    }

    /// Lets clients ask for an address that stands in no object: one of many at which an Envoy of a
    /// dump takes connections.
    #[must_use]
    pub fn reaching(mut self, address: IpAddr) -> Self {
        self.options.reached.push(address);
        self
    }

    /// Where luck comes from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Seed(seed);
        self
    }

    /// Whether kube-proxy's rules stand on every node beside those of the redirect; they do unless
    /// the fixture says otherwise.
    #[must_use]
    pub fn kube_proxy(mut self, stands: bool) -> Self {
        self.settings.kube_proxy = stands;
        self
    }

    /// Keeps every hop of every packet.
    #[must_use]
    pub fn trace_packets(mut self) -> Self {
        self.settings.trace_packets = true;
        self
    }

    /// Keeps the bytes of every packet for each interface.
    #[must_use]
    pub fn capture_packets(mut self) -> Self {
        self.settings.capture_packets = true;
        self
    }

    /// Puts another packet decision under test.
    #[must_use]
    pub fn with_datapath(mut self, datapath: Box<dyn Datapath>) -> Self {
        self.datapath = datapath;
        self
    }

    /// How the cluster is put together.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// How the command that replays a failure names the source.
    #[must_use]
    pub fn named(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// Builds the machines and starts what runs on them.
    ///
    /// # Errors
    /// When the objects give no network: two pods with one address, say.
    pub fn start(self) -> Result<Sim, TopologyError> {
        let Assembly {
            objects,
            planners,
            ingress_problems,
            topology,
            services,
            names,
        } = Assembly::of(self.objects, &self.options);
        let world = World::new(&topology, self.settings, self.datapath)?;
        let mut sim = Sim {
            objects: Arc::new(objects),
            planners,
            ingress_problems,
            topology,
            names,
            world,
            proxies: BTreeMap::new(),
            generation: 0,
            clients: BTreeMap::new(),
            source: self.source,
            chosen_by: self.chosen_by,
            last: None,
        };
        sim.start_programs();
        let nodes: Vec<String> = sim.planners.keys().cloned().collect();
        for node in nodes {
            sim.start_proxy(&node);
        }
        let _ = sim.world.translate_services(None, services);
        Ok(sim)
    }
}

/// A simulated cluster.
///
/// When a test that holds one fails, the way of the last request is printed, with the seed and the
/// command that replays it.
pub struct Sim {
    objects: Arc<Objects>,
    planners: BTreeMap<String, Planner>,
    ingress_problems: Vec<Problem>,
    topology: Topology,
    names: Names,
    world: World,
    proxies: BTreeMap<String, ProcessId>,
    /// Of the newest proxy: each start is another one.
    generation: u32,
    clients: BTreeMap<Place, ProcessId>,
    source: String,
    chosen_by: ChosenBy,
    last: Option<Last>,
}

/// Who asks, for what, and where that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// The client's place.
    pub place: Place,
    /// The URL taken apart.
    pub target: Target,
    /// What the URL's host is for this client.
    pub name: NameStep,
}

impl Errand {
    /// The address and port to connect to; none for a name that has no address.
    #[must_use]
    pub fn to(&self) -> Option<SocketAddr> {
        match &self.name.found {
            Name::Service { address, .. } | Name::Address { address, .. } => {
                Some(SocketAddr::new(*address, self.target.port))
            }
            Name::Unknown { .. } => None,
        }
    }
}

/// The last request, for the message of a failing test.
struct Last {
    from: String,
    url: String,
    way: WayId,
}

impl Sim {
    /// Loads a fixture, a folder of manifests, or a file.
    ///
    /// # Errors
    /// All that is wrong with it, at once.
    pub fn load(path: impl AsRef<Path>) -> Result<SimBuilder, LoadErrors> {
        Self::from_source(&Source::load(&[path.as_ref().to_owned()], None)?)
    }

    /// The cluster of what a user named; of a fixture, with its redirect, seed and options.
    ///
    /// # Errors
    /// All that is wrong with its manifests, at once.
    pub fn from_source(source: &Source) -> Result<SimBuilder, LoadErrors> {
        let builder = match &source.fixture {
            Some(fixture) => Self::from_fixture(fixture)?,
            None => Self::from_dump(source.objects()?),
        };
        Ok(builder.named(source.name.clone()))
    }

    /// A fixture's cluster, with the fixture's redirect, seed and options.
    ///
    /// # Errors
    /// All that is wrong with its manifests, at once.
    pub fn from_fixture(fixture: &Fixture) -> Result<SimBuilder, LoadErrors> {
        let options = Options {
            ingress: fixture.ingress.options(),
            derive: DeriveOptions {
                nodes: fixture.nodes.0.clone(),
                dual_stack: fixture.dual_stack,
                ..DeriveOptions::default()
            },
            outside: fixture.outside.clone(),
            ..Options::default()
        };
        let mut builder = Self::from_objects(fixture.objects()?)
            .redirect(fixture.redirect)
            .kube_proxy(fixture.kube_proxy)
            .seed(fixture.seed)
            .options(options)
            .named(fixture.folder.display().to_string());
        builder.chosen_by = ChosenBy::Fixture;
        Ok(builder)
    }

    /// A cluster of what somebody dumped: with Cilium's own config among it, as that cluster is set
    /// up. A value of the config that cannot be read is noted.
    #[must_use]
    pub fn from_dump(mut objects: Objects) -> SimBuilder {
        let mut options = Options::default();
        let mut chosen = None;
        if let Some(config) = &objects.cilium_config {
            let mut bad = config.apply_to(&mut options.ingress);
            options.derive.ipv6 = options.ingress.ipv6;
            match config.ports() {
                Ok(ports) => options.ports = ports.unwrap_or(options.ports),
                Err(error) => bad.push(error),
            }
            bad.extend(config.bpf_tproxy().err());
            let notes = bad.iter().map(|bad| format!("{config} {bad}"));
            objects.notes.extend(notes.collect::<Vec<_>>());
            chosen = objects.cilium_config.as_ref().map(by_cluster);
        }
        // A dump begins at its listeners: how packets come there is not in it, and this way alone
        // needs no address of a listener to be told from another.
        if objects.config_dump.is_some() {
            chosen = Some((Redirect::SkLookup, ChosenBy::Default));
        }
        let mut builder = Self::from_objects(objects).options(options);
        if let Some((redirect, by)) = chosen {
            builder.settings.redirect = redirect;
            builder.chosen_by = by;
        }
        builder
    }

    /// A cluster of these objects. What is missing is derived.
    #[must_use]
    pub fn from_objects(objects: Objects) -> SimBuilder {
        SimBuilder {
            objects,
            options: Options::default(),
            settings: Settings {
                seed: Seed(1),
                ..Settings::default()
            },
            datapath: Box::new(NodewayDatapath),
            source: "SOURCE".to_owned(),
            chosen_by: ChosenBy::Default,
        }
    }

    /// Who chose the redirect.
    #[must_use]
    pub fn redirect_chosen_by(&self) -> &ChosenBy {
        &self.chosen_by
    }

    /// The objects, with what was derived.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Each node's plan, by the node's name.
    pub fn plans(&self) -> impl Iterator<Item = (&str, &NodePlan)> {
        let planners = self.planners.iter();
        planners.map(|(node, planner)| (node.as_str(), planner.plan()))
    }

    /// The plan of a node.
    #[must_use]
    pub fn plan(&self, node: &str) -> Option<&NodePlan> {
        self.planners.get(node).map(Planner::plan)
    }

    /// What is wrong with the objects, sorted.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let planned = self.plans().flat_map(|(_, plan)| plan.problems.iter());
        let all: BTreeSet<&Problem> = planned.chain(&self.ingress_problems).collect();
        all.into_iter().cloned().collect()
    }

    /// [`problems`](Self::problems), and what is probably not meant though nothing is refused:
    /// what `nodeway check` tells.
    #[must_use]
    pub fn findings(&self) -> Vec<Problem> {
        let mut all: BTreeSet<Problem> = lint(&self.objects, self.plans());
        all.extend(self.problems());
        all.into_iter().collect()
    }

    /// Changes the cluster while it runs, as its API server would tell every node's agent: each
    /// plans anew what the change touches and applies no more than that.
    ///
    /// What was derived at the start does not follow: whoever deletes a pod changes its slice too.
    pub fn change(&mut self, change: &Change) {
        let objects = Arc::make_mut(&mut self.objects);
        match change {
            Change::Put(object) => {
                let file = Arc::from("a change");
                objects.insert(object.clone(), Provenance::Written { file, line: 1 });
            }
            Change::Delete(reference) => {
                objects.remove(reference);
            }
        }
        for (node, planner) in &mut self.planners {
            let delta = planner.apply(change.clone());
            // The planners' nodes are the topology's: none is unknown.
            let _ = self.world.apply(node, &delta);
            if let Some(id) = self.proxies.get(node) {
                if let Some(proxy) = self.world.process_mut::<NodeProxy>(*id) {
                    proxy.apply(&delta);
                }
                self.world.wake(*id);
            }
        }
        let _ = self.world.translate_services(None, services(&self.objects));
        self.names.update(&self.objects);
    }

    /// The machines.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// What stands behind each Service's addresses, as kube-proxy sees it.
    #[must_use]
    pub fn services(&self) -> ServiceTable {
        services(&self.objects)
    }

    /// What it runs with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        self.world.settings()
    }

    /// The world below: for looking closer.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Takes what every interface has seen so far, if [`SimBuilder::capture_packets`] was asked for.
    pub fn take_captures(&mut self) -> Vec<CapturedInterface> {
        self.world.take_captures()
    }

    /// Every hop of every packet so far, if [`SimBuilder::trace_packets`] was asked for.
    #[must_use]
    pub fn hops(&self) -> &[Hop] {
        self.world.hops()
    }

    /// What runs in the pods, and behind the endpoints of an Envoy's dump, each with its place.
    #[must_use]
    pub fn programs(&self) -> Vec<(Place, Backend)> {
        let mut all = Vec::new();
        for pod in self.objects.pods() {
            let reference = Object::Pod(Arc::clone(pod)).reference();
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            if phase == Some("Running") {
                let place = Place::Pod(reference.path());
                let programs = backends(pod, &reference, &self.objects);
                all.extend(programs.into_iter().map(|it| (place.clone(), it)));
            }
        }
        if let Some(dump) = &self.objects.config_dump {
            all.extend(dumped::backends(dump, &self.topology));
        }
        all
    }

    fn start_programs(&mut self) {
        for (place, backend) in self.programs() {
            if let Some(stack) = self.world.stack(&place) {
                self.world.spawn(stack, Box::new(backend));
            }
        }
    }

    /// Starts the proxy of a node with the node's plan; false if there is no such node.
    fn start_proxy(&mut self, node: &str) -> bool {
        let stack = self.world.stack(&Place::Node(node.to_owned()));
        let (Some(stack), Some(planner)) = (stack, self.planners.get(node)) else {
            return false;
        };
        let delta = planner.plan().as_delta();
        self.generation += 1;
        let mut proxy = NodeProxy::new(node, self.generation);
        proxy.apply(&delta);
        let id = self.world.spawn(stack, Box::new(proxy));
        self.proxies.insert(node.to_owned(), id);
        self.world.apply(node, &delta).is_ok()
    }

    fn replay(&self, from: &str, url: &str) -> String {
        let settings = self.world.settings();
        format!(
            "nodeway explain {} --from {from} --to {url} --redirect {} --seed {}",
            self.source, settings.redirect, settings.seed.0
        )
    }

    /// The client process of a place, started when it is first needed.
    fn client(&mut self, place: &Place) -> Option<ProcessId> {
        if let Some(id) = self.clients.get(place) {
            return Some(*id);
        }
        let stack = self.world.stack(place)?;
        let id = self.world.spawn(stack, Box::new(Client::default()));
        self.clients.insert(place.clone(), id);
        Some(id)
    }

    /// Lets the request run to its end.
    fn run(
        &mut self,
        client: ProcessId,
        ask: Ask,
        to: SocketAddr,
        way: WayId,
    ) -> Result<Outcome, AskError> {
        if let Some(client) = self.world.process_mut::<Client>(client) {
            client.ask(ask, to, way)?;
        }
        self.world.wake(client);
        let limit = self.world.now() + PATIENCE;
        self.world.run_until(limit, |world| {
            world
                .process::<Client>(client)
                .is_none_or(|client| client.has_outcome(way))
        });
        let client = self.world.process_mut::<Client>(client);
        let outcome = client.and_then(|client| client.take_outcome(way));
        Ok(outcome.unwrap_or(Outcome {
            result: Err(Failure::TimedOut),
            client_saw: None,
        }))
    }

    /// How a request that was answered ended, by the steps up to there; none when the proxy
    /// answered, which says so itself.
    #[must_use]
    pub fn ending(&self, way: &Way, status: u16) -> Option<ReplyStep> {
        let served = Served::of(Some(way));
        if served.answered_by_proxy {
            return None;
        }
        let of_dump = || {
            self.objects.config_dump.as_ref()?;
            let address = served.endpoint?;
            Some(ReplyStep::Endpoint { address, status })
        };
        let pod = served.pod.clone();
        pod.map(|pod| ReplyStep::Backend { pod, status })
            .or_else(of_dump)
    }

    /// The reply to a request that went this way: the steps say who served it.
    #[must_use]
    pub fn reply(
        &self,
        way: Way,
        answer: Answer,
        client_saw: Option<SocketAddr>,
        took: Duration,
    ) -> Reply {
        let steps = Served::of(Some(&way));
        let served = !steps.answered_by_proxy;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let backend_peer: Option<SocketAddr> = body
            .pointer("/saw/peer")
            .and_then(Value::as_str)
            .and_then(|peer| peer.parse().ok());
        let pod = steps.pod.filter(|_| served);
        let node = pod.as_ref().and_then(|pod| {
            let pod = self.objects.pod(&pod.namespace, &pod.name)?;
            pod.spec.as_ref()?.node_name.clone()
        });
        let seen = |address: SocketAddr| self.names.seen(address);
        let proxy_saw = steps.proxy_peer.map(|peer| match &steps.proxy {
            // Over loopback a node meets nobody but itself.
            Some(node) if peer.ip().is_loopback() => Seen {
                address: peer,
                name: Some(format!("{} {node}", Kind::Node)),
            },
            _ => seen(peer),
        });
        Reply {
            status: answer.status,
            service: Who(steps.service.filter(|_| served)),
            pod: Who(pod),
            node,
            proxy_node: steps.proxy,
            listener: steps.listener,
            route: steps.route,
            cluster: steps.cluster,
            endpoint: steps.endpoint,
            client_saw: client_saw.map(seen),
            proxy_saw,
            proxy_destination: steps.proxy_destination.map(seen),
            backend_saw: backend_peer.map(seen),
            tls: shown(steps.handshake, answer.shown),
            headers: answer.headers,
            body,
            bytes: answer.body,
            took,
            way,
        }
    }

    /// A request that went this way and got no answer; `replay` shows it again.
    #[must_use]
    pub fn failed(
        &self,
        asked: (&str, &str),
        way: Way,
        failure: Failure,
        client_saw: Option<SocketAddr>,
        took: Duration,
        replay: String,
    ) -> Box<Failed> {
        let (from, url) = asked;
        let served = Served::of(Some(&way));
        Box::new(Failed {
            failure: Cause::Network(failure),
            from: from.to_owned(),
            url: url.to_owned(),
            proxy_node: served.proxy.or(served.led_by),
            client_saw: client_saw.map(|address| self.names.seen(address)),
            way,
            objects: Arc::clone(&self.objects),
            took,
            replay,
        })
    }

    /// Notes that a request failed.
    fn ended(
        &mut self,
        asked: (&str, &str),
        way: WayId,
        failure: Failure,
        client_saw: Option<SocketAddr>,
        took: Duration,
    ) -> Box<Failed> {
        self.world
            .note(way, Step::Reply(ReplyStep::Failed(failure)));
        let (from, url) = asked;
        let steps = self.world.way(way).cloned().unwrap_or_default();
        self.failed(
            asked,
            steps,
            failure,
            client_saw,
            took,
            self.replay(from, url),
        )
    }

    /// Who asks and where it goes, before anything is sent.
    ///
    /// # Errors
    /// When the question itself is wrong.
    pub fn errand(&self, from: &str, ask: &Ask) -> Result<Errand, AskError> {
        let place = place(from, &self.objects, &self.topology)?;
        let target = ask.target()?;
        let found = self
            .names
            .resolve(&target.host, View::of(&place), ask.family);
        let name = NameStep {
            asked: target.host.clone(),
            found,
        };
        Ok(Errand {
            place,
            target,
            name,
        })
    }

    /// An address with the name of its holder.
    #[must_use]
    pub fn seen(&self, address: SocketAddr) -> Seen {
        self.names.seen(address)
    }

    /// The error of a node that is not there.
    #[must_use]
    pub fn unknown_node(&self, node: &str) -> AskError {
        AskError::UnknownNode {
            node: node.to_owned(),
            nodes: self.planners.keys().cloned().collect(),
        }
    }

    /// A request that could not even be sent.
    #[must_use]
    pub fn refused(&self, asked: (&str, &str), error: AskError) -> Box<Failed> {
        let (from, url) = asked;
        Box::new(Failed {
            failure: Cause::Ask(error),
            from: from.to_owned(),
            url: url.to_owned(),
            proxy_node: None,
            client_saw: None,
            way: Way::default(),
            objects: Arc::clone(&self.objects),
            took: Duration::ZERO,
            replay: String::new(),
        })
    }
}

impl Cluster for Sim {
    fn request(&mut self, from: &str, ask: Ask) -> Result<Reply, Box<Failed>> {
        let url = ask.url.clone();
        let asked = (from, url.as_str());
        let errand = self.errand(from, &ask);
        let errand = errand.map_err(|error| self.refused(asked, error))?;
        let way = self.world.open_way();
        self.last = Some(Last {
            from: from.to_owned(),
            url: url.clone(),
            way,
        });
        self.world.note(way, Step::Name(errand.name.clone()));
        let started = self.world.now();
        let (Some(to), Some(client)) = (errand.to(), self.client(&errand.place)) else {
            return Err(self.ended(asked, way, Failure::UnknownName, None, Duration::ZERO));
        };
        let outcome = self.run(client, ask, to, way);
        let outcome = outcome.map_err(|error| self.refused(asked, error))?;
        let took = self.world.now() - started;
        let client_saw = outcome.client_saw;
        match outcome.result {
            Ok(answer) => {
                let steps = self.world.way(way).cloned().unwrap_or_default();
                if let Some(ending) = self.ending(&steps, answer.status) {
                    self.world.note(way, Step::Reply(ending));
                }
                let steps = self.world.way(way).cloned().unwrap_or_default();
                Ok(self.reply(steps, answer, client_saw, took))
            }
            Err(failure) => Err(self.ended(asked, way, failure, client_saw, took)),
        }
    }

    fn crash_proxy(&mut self, node: &str) -> Result<(), AskError> {
        let proxy = self
            .proxies
            .get(node)
            .ok_or_else(|| self.unknown_node(node))?;
        self.world.kill(*proxy);
        Ok(())
    }

    fn objects(&self) -> &Objects {
        &self.objects
    }

    fn restart_proxy(&mut self, node: &str) -> Result<(), AskError> {
        self.crash_proxy(node)?;
        if self.start_proxy(node) {
            Ok(())
        } else {
            Err(self.unknown_node(node))
        }
    }
}

impl Drop for Sim {
    /// A failing test says how its last request went, and how to see that again.
    fn drop(&mut self) {
        let (true, Some(last)) = (std::thread::panicking(), &self.last) else {
            return;
        };
        let words = self.world.way(last.way).map(|way| tell(way, &self.objects));
        eprintln!(
            "the last request, from {} to {} with seed {}:\n{}replay: {}",
            last.from,
            last.url,
            self.world.settings().seed.0,
            words.unwrap_or_default(),
            self.replay(&last.from, &last.url)
        );
    }
}

/// What the client was shown, with the names of those who showed it.
fn shown(step: Option<HandshakeStep>, shown: Option<http::Shown>) -> Option<Shown> {
    let (step, shown) = (step?, shown?);
    let certificate = Certificate::from_der(shown.chain).ok();
    Some(Shown {
        terminated_by: step.by.to_string(),
        certificate: step.certificate.map(|source| source.path()),
        names: certificate
            .as_ref()
            .map(Certificate::names)
            .unwrap_or_default(),
        covers: certificate.is_some_and(|it| it.covers(&step.server_name)),
        server_name: step.server_name,
        protocol: shown.protocol,
    })
}
