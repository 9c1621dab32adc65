//! The lab: a fixture's cluster for real on one machine. Nodes, pods and hosts outside are network
//! namespaces, every node has a real Envoy, pods have real servers, and requests are really sent.
//!
//! ```text
//!  fixture ─► model (nodeway_sim::Sim: objects, plans, topology, rules)
//!                │ machines   namespaces, links, routes          (wiring)
//!                │ programs   servers in pods
//!                │ Envoys     one a node, from the node's plan
//!                ▼ redirect   what leads packets to its listeners, kube-proxy's rules beside it
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
pub mod programs;
mod redirect;
mod site;
pub mod state;
pub mod wiring;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodeway_core::envoy::bootstrap::AccessEntry;
use nodeway_core::object::{ObjectRef, Objects};
use nodeway_core::trace::{Failure, ReplyStep, Step};
use nodeway_sim::{
    Answer, Ask, AskError, Cluster, Errand, Failed, Fixture, LoadErrors, Place, Redirect, Reply,
    Report, Row, RunError, Sim, TopologyError,
};

use crate::backend::{BackendError, Backends};
use crate::client::{self, Spoken};
use crate::clock::Deadline;
use crate::envoy::{Envoy, EnvoyError, EnvoyOptions};
use crate::netns::NetNsError;
use crate::process::Process;

use evidence::Evidence;
use machines::{MachineError, Machines};
use name::LabName;
use programs::ProgramError;
use redirect::{NotRedirected, Redirected};
use state::{Labs, State, StateError};

pub use site::Site;

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
    /// A node's Envoy.
    #[error(transparent)]
    Envoy(#[from] EnvoyError),
    /// What leads packets to it.
    #[error(transparent)]
    Redirect(#[from] NotRedirected),
    /// It is not ready, or was not made whole.
    #[error(
        "the lab `{0}` does not stand whole: it is being made, or whoever made it crashed; `nodeway lab down --name {0}` takes away what there is"
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
        "the lab `{name}` runs {fixture} with redirect {redirect}; end it with `nodeway lab down --name {name}`, or give this one another --name",
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
}

/// A lab that stands. Made here, it goes away with this; opened, it stays.
#[derive(Debug)]
pub struct Lab {
    model: Box<Model>,
    options: LabOptions,
    machines: Machines,
    programs: Vec<Backends>,
    /// One a node, or by `sidecar` one in each of its pods.
    envoys: BTreeMap<Place, Envoy>,
    redirected: Option<Redirected>,
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
            machines: Machines::default(),
            programs: Vec::new(),
            envoys: BTreeMap::new(),
            redirected: None,
            own: true,
        };
        tell("machines");
        lab.machines = Machines::create(lab.model.0.topology(), &lab.options.name)?;
        tell("pods");
        for (place, programs) in &programs {
            if let Some(netns) = lab.machines.get(place) {
                lab.programs.push(Backends::start(netns, programs)?);
            }
        }
        for (node, place) in lab.proxy_places() {
            tell(&format!("Envoy of {place}"));
            lab.start_envoy(&node, &place)?;
        }
        tell(&format!("redirect {}", state.redirect));
        lab.redirected = Some(Redirected::install(&lab.model.0, &lab.machines)?);
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
            programs: Vec::new(),
            envoys: BTreeMap::new(),
            redirected: None,
            own: false,
        };
        for (_, place) in lab.proxy_places() {
            let envoy = Envoy::adopt(&lab.envoy_folder(&place), place.to_string())?;
            lab.envoys.insert(place, envoy);
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
        Ok(Report::of(fixture, &self.model.0, rows))
    }

    /// Where the Envoys of a node run.
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

    fn start_envoy(&mut self, node: &str, place: &Place) -> Result<(), LabError> {
        // The one before must be gone with its folder and its ports.
        if let Some(before) = self.envoys.remove(place) {
            before.stop()?;
        }
        let (Some(netns), Some(plan)) = (self.machines.get(place), self.model.0.plan(node)) else {
            return Ok(());
        };
        let (program, folder) = (self.options.envoy.clone(), self.envoy_folder(place));
        let envoy = match place {
            Place::Pod(pod) => {
                let options = EnvoyOptions::sidecar(program, folder, pod);
                let addresses = evidence::addresses_of(&self.model.0, pod);
                Envoy::start(netns, &plan.of_client(addresses), &options)?
            }
            _ => Envoy::start(netns, plan, &EnvoyOptions::new(program, folder, node))?,
        };
        self.envoys.insert(place.clone(), envoy);
        Ok(())
    }

    /// The lines of all access logs about a connection from that address; waits for them where
    /// there must be one.
    fn entries(&self, local: SocketAddr, must_be: bool) -> Vec<(Place, AccessEntry)> {
        let deadline = Deadline::within(LOG_WITHIN);
        loop {
            let mut found = Vec::new();
            for (place, envoy) in &self.envoys {
                // A log that cannot be read has no line, and a report without a listener says so.
                let entries = envoy.entries().unwrap_or_default();
                let about = entries.into_iter().filter(|entry| entry.peer == local);
                found.extend(about.map(|entry| (place.clone(), entry)));
            }
            if !found.is_empty() || !must_be || !deadline.pause(Duration::from_millis(5)) {
                return found;
            }
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
        let by_envoy = |it: &Answer| it.headers.get("server") == Some("envoy");
        let by_envoy = result.as_ref().is_ok_and(by_envoy);
        let in_table = frontend.is_some_and(|it| it.frontend.is_some());
        // By `sidecar` every connection of a pod comes to its own Envoy first.
        let sidecar = model.settings().redirect == Redirect::Sidecar;
        let must_be = in_table || by_envoy || sidecar;
        let entries = local.map(|local| self.entries(local, must_be));
        let evidence = Evidence {
            errand,
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
        let places = self.places_on(node)?;
        let here = self.envoys.iter_mut();
        for (_, envoy) in here.filter(|(place, _)| places.contains(place)) {
            envoy.crash();
        }
        Ok(())
    }

    fn restart_proxy(&mut self, node: &str) -> Result<(), AskError> {
        for place in self.places_on(node)? {
            let started = self.start_envoy(node, &place);
            started.map_err(|error| proxy_error(node, &error))?;
        }
        // In a lab that was found, its keeper has the table of sockets.
        if let Some(redirected) = &mut self.redirected {
            let taken = redirected.take_sockets(node);
            taken.map_err(|error| proxy_error(node, &error))?;
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
        self.redirected = None;
        self.envoys.clear();
        self.programs.clear();
        // What the kernel refuses now is found again by `down`, as long as the folder is there.
        if Machines::delete(&self.options.name).is_ok() {
            let _ = self.options.labs.remove(&self.options.name);
        }
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
    Machines::delete(name)?;
    labs.remove(name)?;
    Ok(())
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
