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
//! test written for [`Cluster`](nodeway_sim::Cluster) are the same in both.
//!
//! Everything that a lab makes is in a folder's state before it is made, in namespaces with its
//! name, and goes away with it; [`down`] also takes away what a crashed one left.

mod cluster;
mod down;
mod error;
pub mod evidence;
mod hops;
pub mod machines;
mod model;
pub mod name;
mod nodes;
mod pins;
pub mod programs;
mod proxied;
mod rules;
mod site;
pub mod state;
pub mod wiring;
mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nodeway_core::object::ObjectRef;
use nodeway_sim::{Fixture, Place, Redirect, Report, Row, RunError, Sim};

use crate::backend::Backends;
use crate::envoy::{Envoy, EnvoyOptions};
use crate::process::Process;

use down::take_away;
use machines::Machines;
use model::{Model, model};
use name::LabName;
use proxied::{Proxied, Setting};
use rules::Rules;
use state::{Labs, State};

pub use down::down;
pub use error::LabError;
pub use proxied::ProxiedError;
pub use site::Site;
pub use worker::{WorkerError, Workers};

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
            let addresses = self.model.0.topology().addresses(place);
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

/// Whether a way has programs in the kernel, and not only rules.
const fn has_programs(redirect: Redirect) -> bool {
    matches!(redirect, Redirect::Tc | Redirect::SkLookup)
}

/// The same folder has one name.
fn whole(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}
