//! The lab: a fixture's cluster for real on one machine. Nodes, pods and hosts outside are network
//! namespaces, every node has a real Envoy, pods have real servers, and requests are really sent.
//!
//! ```text
//!  fixture ─► model (nodeway_sim::Sim: objects, plans, topology, rules)
//!                │ machines   namespaces, links, routes          (wiring)
//!                │ programs   servers in pods
//!                │ rules      kube-proxy's
//!                ▼ proxied    an agent and an Envoy on each node, as `nodeway agent` and `nodeway envoy`
//!  request ─► client's socket, Envoys' access logs, the backend's words ─► way (evidence) ─► reply
//! ```
//!
//! The model is what the simulator runs on; the lab takes from it what stands where, and never how
//! a request goes: that comes from what was seen. So a fixture's report, its expectations and a
//! test written for [`Cluster`] are the same in both.
//!
//! Everything that a lab makes is in a folder's state before it is made, in namespaces with its
//! name, and goes away with it; [`down`] also takes away what a crashed one left.

pub mod evidence;
mod hops;
pub mod machines;
pub mod name;
mod pins;
pub mod programs;
mod proxied;
mod rules;
mod site;
pub mod state;
pub mod wiring;
mod worker;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodeway_core::envoy::bootstrap::AccessEntry;
use nodeway_core::object::{ObjectRef, Objects};
use nodeway_core::plan::PlannedFrontend;
use nodeway_core::trace::{Failure, FrontendStep, ReplyStep, Step};
use nodeway_sim::{
    Answer, Ask, AskError, Cluster, Errand, Failed, Fixture, LoadErrors, Place, Redirect, Reply,
    Report, Row, RunError, Sim, TopologyError,
};

use crate::agent::status::Status;
use crate::backend::{BackendError, Backends};
use crate::client::{self, Spoken};
use crate::clock::Deadline;
use crate::envoy::{Envoy, EnvoyError, EnvoyOptions};
use crate::in_force::{LookError, Looked};
use crate::netns::NetNsError;
use crate::process::Process;

use evidence::Evidence;
use machines::{MachineError, Machines};
use name::LabName;
use pins::PinsError;
use programs::ProgramError;
use proxied::{Proxied, Setting};
use rules::{NotRuled, Rules};
use state::{Labs, State, StateError};

pub use proxied::ProxiedError;
pub use site::Site;
pub use worker::{WorkerError, Workers};

/// How long an access log's line may take after the client has its answer.
const LOG_WITHIN: Duration = Duration::from_secs(5);

/// How long a lab's keeper may take to end.
const KEEPER_WITHIN: Duration = Duration::from_secs(15);

/// Why there is no lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The fixture.
    #[error(transparent)]
    Load(#[from] LoadErrors),
    /// Its objects give no network.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// Its folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its BPF file system.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// Its machines.
    #[error(transparent)]
    Machines(#[from] MachineError),
    /// A namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// A pod's program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A pod's server.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A node's agent, or its Envoy.
    #[error(transparent)]
    Proxied(#[from] ProxiedError),
    /// A node that cannot be looked at.
    #[error(transparent)]
    Look(#[from] Box<LookError>),
    /// A pod's Envoy.
    #[error(transparent)]
    Envoy(#[from] EnvoyError),
    /// Rules of pods, or kube-proxy's.
    #[error(transparent)]
    Rules(#[from] NotRuled),
    /// By `sidecar`, nodes have none.
    #[error("node {0} has no agent: by `sidecar` each pod has an Envoy of its own")]
    NoAgent(String),
    /// It is not ready, or was not made whole.
    #[error(
        "the lab `{0}` does not stand whole: it is being made, or whoever made it crashed; `nodeway lab down {0}` takes away what there is"
    )]
    NotReady(LabName),
    /// Nobody is called so.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// A place cannot be entered.
    #[error(transparent)]
    Site(#[from] site::SiteError),
    /// A fixture with faults or with times.
    #[error("the fixture has {0}, which a lab cannot do yet; run it with `nodeway sim`")]
    NotYet(String),
    /// It is there with something else.
    #[error(
        "the lab `{name}` runs {fixture} with redirect {redirect}; end it with `nodeway lab down {name}`, or give this one another --name",
        fixture = fixture.display()
    )]
    Another {
        /// Its name.
        name: LabName,
        /// What it runs.
        fixture: PathBuf,
        /// And how.
        redirect: Redirect,
    },
    /// The process that keeps it does not end.
    #[error("process {0} keeps the lab and does not end; look at it with `ps {0}`")]
    Keeper(u32),
}

/// What a lab is made with.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Its name.
    pub name: LabName,
    /// The program of its Envoys; see [`crate::envoy::find`].
    pub envoy: PathBuf,
    /// Where its folder is.
    pub labs: Labs,
    /// How its agents run.
    pub workers: Workers,
}

/// A lab that stands. Made here, it goes away with this; opened, it stays.
#[derive(Debug)]
pub struct Lab {
    model: Box<Model>,
    options: LabOptions,
    /// The folder of its fixture.
    fixture: PathBuf,
    machines: Machines,
    programs: Vec<Backends>,
    /// Nodes, each with an agent and its Envoy; none by `sidecar`.
    proxied: BTreeMap<String, Proxied>,
    /// By `sidecar`, the Envoys of pods: an agent serves a node.
    sidecars: BTreeMap<Place, Envoy>,
    rules: Rules,
    certificates: BTreeMap<Vec<u8>, ObjectRef>,
    /// Whether it goes away with this.
    own: bool,
}

/// The cluster as it is planned.
struct Model(Sim);

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Model")
    }
}

impl Lab {
    /// Makes a lab for a fixture, and tells each thing that it begins with.
    ///
    /// # Errors
    /// When something cannot be made; nothing is left then.
    pub fn up(
        fixture: &Fixture,
        redirect: Option<Redirect>,
        options: LabOptions,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Self, LabError> {
        let model = model(fixture, redirect)?;
        let programs = programs::programs(&model)?;
        let mut state = State {
            name: options.name.to_string(),
            fixture: whole(&fixture.folder),
            redirect: model.settings().redirect,
            keeper: Process::own(),
            ready: false,
        };
        options.labs.create(&options.name, &state)?;
        let mut lab = Self {
            certificates: programs::certificates(&model),
            model: Box::new(Model(model)),
            options,
            fixture: state.fixture.clone(),
            machines: Machines::default(),
            programs: Vec::new(),
            proxied: BTreeMap::new(),
            sidecars: BTreeMap::new(),
            rules: Rules::default(),
            own: true,
        };
        if has_programs(state.redirect) {
            pins::mount_at(&lab.options.labs.pins(&lab.options.name))?;
        }
        tell("machines");
        lab.machines = Machines::create(lab.model.0.topology(), &lab.options.name)?;
        tell("pods");
        for (place, programs) in &programs {
            if let Some(netns) = lab.machines.get(place) {
                lab.programs.push(Backends::start(netns, programs)?);
            }
        }
        tell("rules");
        lab.rules = Rules::install(&lab.model.0, &lab.machines)?;
        for (node, place) in lab.proxy_places() {
            tell(&format!("Envoy of {place}"));
            lab.start_proxy(&node, &place)?;
        }
        tell(&format!("redirect {}", state.redirect));
        for proxied in lab.proxied.values_mut() {
            proxied.settle()?;
        }
        state.ready = true;
        lab.options.labs.write(&lab.options.name, &state)?;
        Ok(lab)
    }

    /// Finds a lab that stands.
    ///
    /// # Errors
    /// When there is none of that name, or it is another fixture's.
    pub fn open(
        fixture: &Fixture,
        redirect: Option<Redirect>,
        options: LabOptions,
    ) -> Result<Self, LabError> {
        let state = options.labs.read(&options.name)?;
        let model = model(fixture, Some(redirect.unwrap_or(state.redirect)))?;
        if state.fixture != whole(&fixture.folder) || state.redirect != model.settings().redirect {
            return Err(LabError::Another {
                name: options.name,
                fixture: state.fixture,
                redirect: state.redirect,
            });
        }
        if !(state.ready && state.keeper.lives()) {
            return Err(LabError::NotReady(options.name));
        }
        let mut lab = Self {
            certificates: programs::certificates(&model),
            machines: Machines::open(model.topology(), &options.name)?,
            model: Box::new(Model(model)),
            options,
            fixture: state.fixture,
            programs: Vec::new(),
            proxied: BTreeMap::new(),
            sidecars: BTreeMap::new(),
            rules: Rules::default(),
            own: false,
        };
        for (node, place) in lab.proxy_places() {
            if let Place::Pod(_) = place {
                let envoy = Envoy::adopt(&lab.envoy_folder(&place), place.to_string())?;
                lab.sidecars.insert(place, envoy);
            } else {
                let proxied = Proxied::found(&node, &lab.run_folder(&node));
                lab.proxied.insert(node, proxied);
            }
        }
        Ok(lab)
    }

    /// The cluster as it is planned: its machines, plans, problems.
    #[must_use]
    pub fn model(&self) -> &Sim {
        &self.model.0
    }

    /// Its machines.
    #[must_use]
    pub fn machines(&self) -> &Machines {
        &self.machines
    }

    /// Pods and ports on which another program of the same namespace listens.
    pub fn taken_ports(&self) -> impl Iterator<Item = &(String, u16)> {
        self.programs.iter().flat_map(Backends::taken)
    }

    /// Sends every request of its fixture, in order.
    ///
    /// # Errors
    /// When one of them cannot be sent.
    pub fn run(&mut self, fixture: &Fixture) -> Result<Report, RunError> {
        let redirect = self.model.0.settings().redirect;
        let mut rows = Vec::new();
        for (index, spec) in fixture.requests.iter().enumerate() {
            let row = Row::of(spec, redirect, self);
            rows.push(row.map_err(|error| RunError::Request { index, error })?);
        }
        let mut report = Report::of(fixture, &self.model.0, rows);
        self.tell_ports(&mut report);
        Ok(report)
    }

    /// The plan's ports are not those of listeners here: each of a node's Envoys has its own.
    fn tell_ports(&self, report: &mut Report) {
        for line in &mut report.nodes {
            // Of a node whose agent says nothing no port is known better.
            let status = self.proxied.get(&line.name).map(Proxied::status);
            for led in status
                .and_then(Result::ok)
                .into_iter()
                .flat_map(|it| it.frontends)
            {
                line.listeners.insert(led.listener, led.port);
                let address = Some(led.address.to_string());
                let ingresses = report.ingresses.iter_mut();
                for ingress in ingresses.filter(|it| it.cluster_address == address) {
                    ingress.envoy_port = Some(led.port);
                }
            }
        }
    }

    /// How a node stands, by its agent's word.
    ///
    /// # Errors
    /// When it has no agent, as by `sidecar`, or that one says nothing.
    pub fn status(&self, node: &str) -> Result<Status, LabError> {
        let known = self.model.0.plan(node).map(|_| self.proxied.get(node));
        let unknown = || self.model.0.unknown_node(node);
        match known.ok_or_else(unknown)? {
            Some(proxied) => Ok(proxied.status()?),
            None => Err(LabError::NoAgent(node.to_owned())),
        }
    }

    /// What a node really does: by its kernel, its Envoys and its agent's word.
    ///
    /// # Errors
    /// When it has no agent, as by `sidecar`, or something of it cannot be read.
    pub fn look(&self, node: &str) -> Result<Looked, LabError> {
        let place = Place::Node(node.to_owned());
        match (self.proxied.get(node), self.machines.get(&place)) {
            (Some(proxied), Some(netns)) => Ok(proxied.look(netns).map_err(Box::new)?),
            _ => Err(LabError::NoAgent(node.to_owned())),
        }
    }

    /// The run directory of a node's agent; none as by `sidecar`.
    #[must_use]
    pub fn run_dir(&self, node: &str) -> Option<&Path> {
        self.proxied.get(node).map(Proxied::run)
    }

    /// Kills a node's agent. Nothing that it led depends on it.
    ///
    /// # Errors
    /// When it has none, or another process keeps the lab.
    pub fn kill_agent(&mut self, node: &str) -> Result<(), LabError> {
        Ok(self.proxied(node)?.kill_agent()?)
    }

    /// Ends a node's agent in peace. What it led goes on.
    ///
    /// # Errors
    /// When it has none, or another process keeps the lab.
    pub fn end_agent(&mut self, node: &str) -> Result<(), LabError> {
        Ok(self.proxied(node)?.end_agent()?)
    }

    /// Waits until a node's Envoy has answered to all that is planned, and the kernel leads to it.
    ///
    /// # Errors
    /// When it has none, or that is not so in time.
    pub fn settle(&mut self, node: &str) -> Result<(), LabError> {
        Ok(self.proxied(node)?.settle()?)
    }

    /// Starts a node's agent again.
    ///
    /// # Errors
    /// When it does not start, or another process keeps the lab.
    pub fn start_agent(&mut self, node: &str) -> Result<(), LabError> {
        Ok(self.proxied(node)?.start_agent()?)
    }

    /// Has another Envoy in the place of a node's, which drains.
    ///
    /// # Errors
    /// When it has none, or another process keeps the lab.
    pub fn upgrade_envoy(&mut self, node: &str) -> Result<(), LabError> {
        Ok(self.proxied(node)?.upgrade()?)
    }

    /// Kills a node's Envoy; its supervisor starts another.
    ///
    /// # Errors
    /// When it has none, or it does not go.
    pub fn kill_envoy(&mut self, node: &str) -> Result<(), LabError> {
        Ok(self.proxied(node)?.kill_envoys()?)
    }

    fn proxied(&mut self, node: &str) -> Result<&mut Proxied, LabError> {
        let proxied = self.proxied.get_mut(node);
        proxied.ok_or_else(|| LabError::NoAgent(node.to_owned()))
    }

    /// The Envoys of a node, those in its pods among them.
    fn places_on(&self, node: &str) -> Result<Vec<Place>, AskError> {
        let model = &self.model.0;
        let known = model.plan(node);
        known.ok_or_else(|| model.unknown_node(node))?;
        Ok(model.proxy_places(node))
    }

    /// Where Envoys run, each with the node whose plan it serves.
    fn proxy_places(&self) -> Vec<(String, Place)> {
        let model = &self.model.0;
        let of_node = |node: &str| {
            let node = node.to_owned();
            let places = model.proxy_places(&node).into_iter();
            places.map(move |place| (node.clone(), place))
        };
        let plans = model.plans();
        plans.flat_map(|(node, _)| of_node(node)).collect()
    }

    fn envoy_folder(&self, place: &Place) -> PathBuf {
        let folder = self.options.labs.folder(&self.options.name);
        let name = place.to_string().replace('/', ".");
        folder.join(format!("envoy-{name}"))
    }

    /// Where agent and Envoys of a node meet.
    fn run_folder(&self, node: &str) -> PathBuf {
        self.options.labs.run_folder(&self.options.name, node)
    }

    fn start_proxy(&mut self, node: &str, place: &Place) -> Result<(), LabError> {
        // The one before must be gone with its folder and its ports.
        if let Some(before) = self.sidecars.remove(place) {
            before.stop()?;
        }
        let (Some(netns), Some(plan)) = (self.machines.get(place), self.model.0.plan(node)) else {
            return Ok(());
        };
        let program = self.options.envoy.clone();
        if let Place::Pod(pod) = place {
            let options = EnvoyOptions::sidecar(program, self.envoy_folder(place), pod);
            let addresses = evidence::addresses_of(&self.model.0, pod);
            let envoy = Envoy::start(netns, &plan.of_client(addresses), &options)?;
            self.sidecars.insert(place.clone(), envoy);
        } else {
            let setting = Setting {
                from: self.fixture.clone(),
                redirect: self.model.0.settings().redirect,
                envoy: program,
                workers: self.options.workers.clone(),
                pins: self.options.labs.pins(&self.options.name),
            };
            let proxied = Proxied::start(node, netns, &self.run_folder(node), setting)?;
            self.proxied.insert(node.to_owned(), proxied);
        }
        Ok(())
    }

    /// The lines of all access logs about a connection from that address; waits for them where
    /// there must be one.
    fn entries(&self, local: SocketAddr, must_be: bool) -> Vec<(Place, AccessEntry)> {
        let deadline = Deadline::within(LOG_WITHIN);
        loop {
            let mut found = Vec::new();
            let pods = self.sidecars.iter();
            let pods = pods.map(|(place, envoy)| (place.clone(), envoy.entries().ok()));
            let nodes = self.proxied.iter();
            let nodes = nodes.map(|(node, it)| (Place::Node(node.clone()), it.entries().ok()));
            for (place, entries) in pods.chain(nodes) {
                // A log that cannot be read has no line, and a report without a listener says so.
                let entries = entries.unwrap_or_default().into_iter();
                let about = entries.filter(|entry| entry.peer == local);
                found.extend(about.map(|entry| (place.clone(), entry)));
            }
            if !found.is_empty() || !must_be || !deadline.pause(Duration::from_millis(5)) {
                return found;
            }
        }
    }

    /// A look-up as the node's kernel has it: by its agent's word, a listener's port is another at
    /// each Envoy, and what no Envoy has is not led.
    fn as_led(&self, step: FrontendStep) -> FrontendStep {
        let status = self.proxied.get(&*step.node).map(Proxied::status);
        let Some(Ok(status)) = status else {
            return step;
        };
        let led = status.frontend(step.address);
        let state = led.map_or(step.state, |led| led.state);
        let frontend = step
            .frontend
            .zip(led)
            .map(|(planned, led)| PlannedFrontend {
                listener_port: led.port,
                ..planned
            });
        FrontendStep {
            frontend,
            state,
            ..step
        }
    }

    fn replay(&self, from: &str, url: &str) -> String {
        let name = &self.options.name;
        let redirect = self.model.0.settings().redirect;
        format!("nodeway lab exec --name {name} {from} -- curl -v {url}   # redirect {redirect}")
    }

    fn reply(
        &self,
        asked: (&str, &str),
        errand: &Errand,
        server_name: &str,
        spoken: Spoken,
    ) -> Result<Reply, Box<Failed>> {
        let model = &self.model.0;
        let Spoken {
            result,
            client_saw,
            local,
            took,
        } = spoken;
        let to = errand.to();
        let frontend = to.and_then(|to| evidence::frontend(model, &errand.place, to));
        let frontend = frontend.map(|step| self.as_led(step));
        let by_envoy = |it: &Answer| it.headers.get("server") == Some("envoy");
        let by_envoy = result.as_ref().is_ok_and(by_envoy);
        let in_table = frontend.as_ref().is_some_and(|it| it.frontend.is_some());
        // By `sidecar` every connection of a pod comes to its own Envoy first.
        let sidecar = model.settings().redirect == Redirect::Sidecar;
        let must_be = in_table || by_envoy || sidecar;
        let entries = local.map(|local| self.entries(local, must_be));
        let evidence = Evidence {
            errand,
            frontend,
            answer: result.as_ref().ok(),
            entries: entries.as_deref().unwrap_or_default(),
            local,
            certificates: &self.certificates,
            server_name,
            took,
        };
        let mut way = evidence.way(model);
        match result {
            Ok(answer) => {
                let ending = model.ending(&way, answer.status).map(Step::Reply);
                way.steps.extend(ending.map(|step| (took, step)));
                Ok(model.reply(way, answer, client_saw, took))
            }
            Err(failure) => {
                way.steps
                    .push((took, Step::Reply(ReplyStep::Failed(failure))));
                let replay = self.replay(asked.0, asked.1);
                Err(model.failed(asked, way, failure, client_saw, took, replay))
            }
        }
    }
}

impl Cluster for Lab {
    fn request(&mut self, from: &str, ask: Ask) -> Result<Reply, Box<Failed>> {
        let model = &self.model.0;
        let asked = (from, ask.url.as_str());
        let errand = model.errand(from, &ask);
        let errand = errand.map_err(|error| model.refused(asked, error))?;
        let nobody = Spoken {
            result: Err(Failure::UnknownName),
            client_saw: None,
            local: None,
            took: Duration::ZERO,
        };
        let spoken = match (errand.to(), self.machines.get(&errand.place)) {
            (Some(to), Some(netns)) => client::send(netns, &ask, &errand.target, to).ok(),
            _ => None,
        };
        let fields = ask.head(&errand.target).headers;
        let server_name = errand.target.hello(&fields).server_name;
        self.reply(asked, &errand, &server_name, spoken.unwrap_or(nobody))
    }

    fn crash_proxy(&mut self, node: &str) -> Result<(), AskError> {
        for place in self.places_on(node)? {
            if let Some(envoy) = self.sidecars.get_mut(&place) {
                envoy.crash();
            }
        }
        match self.proxied.get_mut(node) {
            Some(proxied) => proxied.crash().map_err(|error| proxy_error(node, &error)),
            None => Ok(()),
        }
    }

    fn restart_proxy(&mut self, node: &str) -> Result<(), AskError> {
        if let Some(proxied) = self.proxied.get_mut(node) {
            return proxied.restart().map_err(|error| proxy_error(node, &error));
        }
        for place in self.places_on(node)? {
            let started = self.start_proxy(node, &place);
            started.map_err(|error| proxy_error(node, &error))?;
        }
        Ok(())
    }

    fn not_applicable(&self, from: &str) -> Result<Option<String>, AskError> {
        self.model.0.not_applicable(from)
    }

    fn objects(&self) -> &Objects {
        self.model.0.objects()
    }
}

fn proxy_error(node: &str, error: &dyn std::error::Error) -> AskError {
    AskError::Proxy {
        node: node.to_owned(),
        reason: error.to_string(),
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.own {
            return;
        }
        self.proxied.clear();
        self.sidecars.clear();
        self.programs.clear();
        // What the kernel refuses now is found again by `down`, as long as the folder is there.
        let _ = take_away(&self.options.labs, &self.options.name);
    }
}

/// Takes a lab away, whoever made it: its keeper ends and cleans up, and what a crashed one left is
/// taken away here.
///
/// # Errors
/// When there is none, or something refuses to go.
pub fn down(labs: &Labs, name: &LabName) -> Result<(), LabError> {
    let state = labs.read(name);
    let left = crate::netns::NetNs::list()?;
    if !left.iter().any(|it| name.owns(it)) {
        // Without namespaces the folder alone must be there.
        if let Err(missing @ StateError::Missing { .. }) = state {
            return Err(missing.into());
        }
    }
    if let Ok(state) = &state {
        end(state.keeper)?;
    }
    take_away(labs, name)
}

/// The folder goes last: by it is found what the kernel refused to let go.
fn take_away(labs: &Labs, name: &LabName) -> Result<(), LabError> {
    Machines::delete(name)?;
    pins::unmount(&labs.pins(name))?;
    labs.remove(name)?;
    Ok(())
}

/// Whether a way has programs in the kernel, and not only rules.
const fn has_programs(redirect: Redirect) -> bool {
    matches!(redirect, Redirect::Tc | Redirect::SkLookup)
}

/// Asks the process that keeps a lab to end, and waits for it.
fn end(keeper: Process) -> Result<(), LabError> {
    let Ok(pid) = i32::try_from(keeper.pid) else {
        return Ok(());
    };
    if !keeper.lives() || keeper.pid == std::process::id() {
        return Ok(());
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // One that has ended meanwhile is what we want.
        let _ = kill(Pid::from_raw(pid), signal);
        let deadline = Deadline::within(KEEPER_WITHIN);
        while keeper.lives() {
            if !deadline.pause(Duration::from_millis(20)) {
                break;
            }
        }
    }
    if keeper.lives() {
        return Err(LabError::Keeper(keeper.pid));
    }
    Ok(())
}

fn model(fixture: &Fixture, redirect: Option<Redirect>) -> Result<Sim, LabError> {
    if let Some(what) = not_yet(fixture) {
        return Err(LabError::NotYet(what));
    }
    let mut builder = Sim::from_fixture(fixture)?;
    if let Some(redirect) = redirect {
        builder = builder.redirect(redirect);
    }
    Ok(builder.start()?)
}

/// What a fixture asks for and a lab cannot do yet.
fn not_yet(fixture: &Fixture) -> Option<String> {
    if !fixture.faults.is_empty() {
        return Some("`faults`".to_owned());
    }
    let mut requests = fixture.requests.iter().enumerate();
    requests.find_map(|(index, spec)| {
        let field = match (&spec.at, &spec.connection) {
            (Some(_), _) => "at",
            (_, Some(_)) => "connection",
            (None, None) => return None,
        };
        Some(format!("`requests[{index}].{field}`"))
    })
}

/// The same folder has one name.
fn whole(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}
