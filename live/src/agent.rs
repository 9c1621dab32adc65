//! The agent of a node: keeps the node's Envoys and the kernel on the plan, through every change.
//!
//! ```text
//!  source ─► objects ─► Planner ─► PlanDelta ─┬─► xDS, to each generation of Envoy  (proxies)
//!                                             └─► Steering: which generation has a frontend's
//!     acknowledged, and its sockets listen ─────►    listener?  ─► NodeRedirect: rules, programs
//! ```
//!
//! Everything is one loop over events, and each turn of it goes the same way: look, plan, tell,
//! steer. A frontend is switched on when its listener is acknowledged *and* listens, and off before
//! the listener goes. Nothing depends on this process: Envoys go on without it, and so do rules and
//! programs; the next agent takes all of it up where it stands ([`memory`]).

mod ages;
mod cleanup;
mod conditions;
mod connections;
mod devices;
mod error;
mod folder;
mod memory;
mod metrics;
mod options;
mod ports;
mod proxies;
mod report;
mod run_dir;
mod served;
mod serving;
mod source;
pub mod status;
mod watch;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use nodeway_core::address::{node_port_addresses, pod_addresses};
use nodeway_core::frontend::FrontendKey;
use nodeway_core::object::{Change, Kind, Objects};
use nodeway_core::plan::{Ledger, PlanDelta, Planner, Update, Withheld};
use nodeway_core::steering::{Bounds, Generation, Led, Steering};

use crate::clock::Clock;
use crate::generation::{self, Record};
use crate::kube::{self, Found};
use crate::netns::NetNs;
use crate::redirect::{NodeRedirect, Site};
use crate::stop::Stop;

use ages::Ages;
use connections::KernelConnections;
use devices::Devices;
use memory::Memory;
use ports::Ports;
use proxies::{Changed, Proxies, open_ports};
use run_dir::RunDir;
use source::Source;
use status::Status;
use watch::{Changes, Watch};
use watching::Watching;

pub use cleanup::{CleanupError, cleanup};
pub use error::AgentError;
pub use memory::MemoryError;
pub use options::AgentOptions;
pub use proxies::ProxiesError;
pub use report::{AskStatusError, ask_decisions, ask_status};
pub use run_dir::RunDirError;
pub use served::ServedError;
pub(crate) use source::read_once;
pub use source::{From, SourceError};
pub use watch::NotWatched;
pub use watching::Watched;

/// How often is looked at what nobody tells of: sockets, and frontends that arm or drain.
const LOOK: Duration = Duration::from_millis(50);
/// The same when nothing is awaited.
const REST: Duration = Duration::from_secs(1);

/// What happens to an agent.
enum Event {
    /// The source has something else.
    Source,
    /// An Envoy said something, came or went.
    Proxies,
    /// Somebody asks how it stands.
    Asked(Sender<(Status, Vec<Record>)>),
    /// Somebody wants to know what the kernel's programs decide, for that long.
    Watch(Duration, Sender<Watched>),
    /// It shall end.
    Stop,
}

/// The agent of a node.
pub struct Agent {
    options: AgentOptions,
    netns: NetNs,
    clock: Clock,
    events: Receiver<Event>,
    sender: Sender<Event>,
    source: Source,
    read_at: Duration,
    source_error: Option<String>,
    /// When the source could not be taken first.
    source_error_at: Duration,
    /// What of Cilium's has come into the cluster.
    cilium: Vec<Found>,
    planner: Planner,
    planned: Ages,
    proxies: Proxies,
    generations: Vec<Generation>,
    ports: Ports,
    steering: Steering<Duration>,
    /// Frontends whose entry in the kernel may be another than steering's.
    unapplied: BTreeSet<FrontendKey>,
    datapath_error: Option<String>,
    withheld: Withheld,
    redirect: NodeRedirect,
    devices: BTreeSet<String>,
    watching: Option<Watching>,
    run_dir: RunDir,
    _watch: Watch,
    _served: served::Served,
}

impl Agent {
    /// Takes up what stands, reads the source, and keeps the node on the plan from then on
    /// ([`Agent::run`]). It belongs to the network namespace of the calling thread.
    ///
    /// # Errors
    /// When something of it is not there or refused. What an earlier agent led goes on.
    pub fn start(options: AgentOptions) -> Result<Self, AgentError> {
        let netns = NetNs::current()?;
        let run_dir = RunDir::take(&options.run)?;
        let (watch, envoy_changes) = Watch::on(&generation::folder(&options.run)?)?;
        let (sender, events) = channel();
        let (source, changes) = Source::begin(&options.from, &options.node, sender.clone())?;
        let devices = Devices::read(&netns)?;
        let addresses = addresses(source.objects(), &options, &devices)?;
        let memory = Memory::read(&run_dir.memory())?;
        let clients = devices.of_clients(pods(source.objects(), &options.node));
        let served = served::Served::at(&options, sender.clone())?;
        let told = sender.clone();
        let changed = Changed {
            runtime: served.handle().clone(),
            tell: Arc::new(move || {
                // The agent has ended.
                let _ = told.send(Event::Proxies);
            }),
        };
        let proxies = Proxies::serve(&options.run, options.access_log, changed)?;
        let clock = Clock::start();
        let led = memory.led(bounds(&options, clock.now()));
        let frontends = led.iter().map(|(key, led)| (*key, led.frontend()));
        let site = Site {
            netns: &netns,
            addresses: &addresses,
            devices: &clients.iter().cloned().collect::<Vec<_>>(),
            pins: options.pins.as_deref(),
        };
        let frontends = frontends.collect();
        let steering = Steering::adopt(led);
        let ranges = steering.ranges();
        let redirect = NodeRedirect::start(options.redirect, &site, frontends, ranges)?;
        let mut agent = Self {
            clock,
            ports: Ports::restore(memory.ports, open_ports(&netns)?),
            steering,
            planned: Ages::default(),
            planner: Planner::new(&options.node, Ledger::default()),
            read_at: Duration::ZERO,
            source_error: None,
            source_error_at: Duration::ZERO,
            cilium: Vec::new(),
            generations: Vec::new(),
            unapplied: BTreeSet::new(),
            datapath_error: None,
            withheld: Withheld::default(),
            devices: clients,
            watching: None,
            run_dir,
            _watch: watch,
            _served: served,
            options,
            netns,
            events,
            sender,
            source,
            proxies,
            redirect,
        };
        agent.follow(envoy_changes);
        agent.plan(changes);
        // The plan may have lost some of those that were led.
        let led: Vec<FrontendKey> = agent.steering.iter().map(|(key, _)| key).collect();
        agent.steer(led);
        Ok(agent)
    }

    /// What ends it from elsewhere. What it led goes on.
    #[must_use]
    pub fn stop(&self) -> Stop {
        Stop::by(&self.sender, || Event::Stop)
    }

    /// Runs until it is stopped. What it led goes on without it.
    pub fn run(mut self) {
        loop {
            self.look();
            self.say();
            self.watch();
            let awaited = !self.unapplied.is_empty()
                || self.watching.is_some()
                || self.steering.switching().next().is_some()
                || self.proxies.is_awaited();
            let first = self.events.recv_timeout(if awaited { LOOK } else { REST });
            let first = match first {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // However much has happened meanwhile, one look is enough.
            let events: Vec<Event> = first.into_iter().chain(self.events.try_iter()).collect();
            if events.iter().any(|event| matches!(event, Event::Stop)) {
                self.end_to_watch();
                return;
            }
            if events.iter().any(|event| matches!(event, Event::Source)) {
                self.look_for_cilium();
                self.read();
            }
            for event in events {
                match event {
                    Event::Asked(answer) => {
                        // Nobody may wait for it any more.
                        let _ = answer.send(self.status());
                    }
                    Event::Watch(within, answer) => self.begin_to_watch(within, answer),
                    Event::Source | Event::Proxies | Event::Stop => {}
                }
            }
        }
    }

    /// A thread of its own waits for changes of the Envoys' folder, as long as that is watched.
    fn follow(&self, changes: Changes) {
        let sender = self.sender.clone();
        thread::spawn(move || while changes.wait() && sender.send(Event::Proxies).is_ok() {});
    }

    /// What leads packets goes on, as everything else would be worse for who is served by it: that two
    /// do it is told, and for the user to end.
    fn look_for_cilium(&mut self) {
        let found = self.source.cilium();
        if found == self.cilium {
            return;
        }
        if found.is_empty() {
            tracing::info!("Cilium has left the cluster; configs' status is written again");
        } else {
            let found = kube::list(&found);
            tracing::error!(%found, "Cilium has come into the cluster: what is led stays so, and configs' status is not written; take one of both away");
        }
        self.cilium = found;
    }

    fn read(&mut self) {
        let changes = self.source.read();
        let error = self.source.error();
        if let Some(error) = error
            .as_ref()
            .filter(|it| self.source_error.as_ref() != Some(*it))
        {
            tracing::error!(%error, "the source cannot be taken; what it had before is in force");
        }
        let whole = error.is_none();
        if self.source_error.is_none() {
            self.source_error_at = self.clock.now();
        }
        self.source_error = error;
        if !changes.is_empty() {
            let devices = changes.iter().any(moves_devices);
            self.plan(changes);
            if devices {
                self.follow_pods();
            }
        } else if whole {
            self.read_at = self.clock.now();
        }
    }

    fn plan(&mut self, changes: Vec<Change>) {
        self.read_at = self.clock.now();
        let mut delta = PlanDelta::default();
        for change in changes {
            delta = delta.then(self.planner.apply(change));
        }
        for problem in &delta.problems_found {
            tracing::warn!(%problem, "found");
        }
        self.planned.take(&delta, self.read_at);
        let keys: Vec<FrontendKey> = delta.frontends.keys().copied().collect();
        self.tell(delta);
        self.steer(keys);
    }

    /// Tells the Envoys. Of a listener that frontends still lead to nothing is taken away yet.
    fn tell(&mut self, mut delta: PlanDelta) {
        self.withheld.yield_to(&delta);
        let removed = |name: &str| matches!(delta.listeners.get(name), Some(Update::Remove));
        let leads = self.steering.iter().any(|(_, led)| removed(&led.listener));
        if leads || !self.withheld.is_empty() {
            self.withheld.take_all(&mut delta);
        }
        self.proxies.tell(&delta, &mut self.ports);
    }

    /// Looks at what nobody tells of, and acts on it.
    fn look(&mut self) {
        let plan = self.planner.plan();
        self.proxies.follow(plan, &mut self.ports);
        let generations = self.proxies.generations();
        let keys: Vec<FrontendKey> = if generations == self.generations {
            // What the kernel does not have yet is no ground for the next step.
            let switching = self.steering.switching();
            switching
                .filter(|it| !self.unapplied.contains(it))
                .collect()
        } else {
            let led = self.steering.iter().map(|(key, _)| key);
            plan.frontends.keys().copied().chain(led).collect()
        };
        let new_sockets = generations != self.generations;
        self.generations = generations;
        self.steer(keys);
        if new_sockets {
            let taken = self.redirect.take_sockets();
            self.note(taken.map(drop));
        }
        self.release();
        self.proxies.let_go(|id| self.steering.leads_to(id));
    }

    /// Takes away what waited for the last frontend that led to its listener.
    fn release(&mut self) {
        let leads = |name| self.steering.leads_to_listener(name);
        let waits = self.withheld.listeners().any(|name| leads(name));
        if !self.withheld.is_empty() && !waits {
            let delta = self.withheld.release();
            self.proxies.tell(&delta, &mut self.ports);
        }
    }

    /// Decides on frontends anew, and makes the kernel have what was decided.
    fn steer(&mut self, keys: impl IntoIterator<Item = FrontendKey>) {
        let bounds = bounds(&self.options, self.clock.now());
        let connections = KernelConnections::of(&self.netns);
        let plan = self.planner.plan();
        for key in keys {
            let planned = plan.frontends.get(&key);
            let (generations, connections) = (&self.generations, &connections);
            if self
                .steering
                .steer(key, planned, generations, connections, bounds)
            {
                self.unapplied.insert(key);
            }
        }
        if !self.unapplied.is_empty() {
            let done = self.apply();
            self.note(done);
        }
    }

    fn apply(&mut self) -> Result<(), AgentError> {
        // What would be forgotten if we died now is written before it is true.
        Memory::of(&self.ports, &self.steering).write(&self.run_dir.memory())?;
        let changes: BTreeMap<_, _> = self
            .unapplied
            .iter()
            .map(|key| (*key, self.steering.get(*key).map(Led::frontend)))
            .collect();
        for (key, entry) in &changes {
            match entry {
                Some(it) => {
                    tracing::info!(frontend = %key, port = it.listener_port, state = ?it.state, "led");
                }
                None => tracing::info!(frontend = %key, "led no more"),
            }
        }
        self.redirect.change(&changes, self.steering.ranges())?;
        self.unapplied.clear();
        Ok(())
    }

    /// An error of the kernel's is told and tried again.
    fn note<E: Into<AgentError>>(&mut self, done: Result<(), E>) {
        match done.map_err(Into::into) {
            Ok(()) => self.datapath_error = None,
            Err(error) => {
                let error = error.to_string();
                if self.datapath_error.as_ref() != Some(&error) {
                    tracing::error!(%error, "the kernel does not have all of the plan; trying again");
                }
                self.datapath_error = Some(error);
            }
        }
    }

    /// Pods come and go with their devices.
    fn follow_pods(&mut self) {
        let found = Devices::read(&self.netns);
        let Ok(found) = found.inspect_err(|error| tracing::error!(%error, "devices are unknown"))
        else {
            return;
        };
        let wanted = found.of_clients(pods(self.source.objects(), &self.options.node));
        let (mut came, mut done) = (Vec::new(), Ok(()));
        for device in wanted.difference(&self.devices) {
            done = done.and(self.redirect.add_device(device));
            came.push(device.clone());
        }
        for device in self.devices.difference(&wanted) {
            done = done.and(self.redirect.remove_device(device));
        }
        self.devices = wanted;
        self.note(done);
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

fn bounds(options: &AgentOptions, now: Duration) -> Bounds<Duration> {
    Bounds {
        now,
        armed: now + options.arming,
        drained: now + options.draining,
    }
}

/// The node's own addresses.
fn addresses(
    objects: &Objects,
    options: &AgentOptions,
    devices: &Devices,
) -> Result<Vec<std::net::IpAddr>, AgentError> {
    let Some(node) = objects.node("", &options.node) else {
        let nodes = objects.nodes();
        return Err(AgentError::NoSuchNode {
            from: options.from.clone(),
            node: options.node.clone(),
            has: nodes.filter_map(|it| it.metadata.name.clone()).collect(),
        });
    };
    let said: Vec<_> = node_port_addresses(node).collect();
    let own = devices.own(said.iter().copied());
    if own.is_empty() {
        return Err(AgentError::AnotherMachine {
            node: options.node.clone(),
            addresses: said,
        });
    }
    Ok(own)
}

/// Whether pods may have come or gone by a change.
fn moves_devices(change: &Change) -> bool {
    match change {
        Change::Put(object) => object.kind() == Kind::Pod,
        Change::Delete(reference) => reference.kind == Kind::Pod,
    }
}

/// The addresses of a node's pods that have a network of their own.
fn pods(objects: &Objects, node: &str) -> Vec<std::net::IpAddr> {
    let pods = objects.pods();
    let here = pods.filter(|pod| {
        let spec = pod.spec.as_ref();
        spec.is_some_and(|spec| {
            spec.node_name.as_deref() == Some(node) && spec.host_network != Some(true)
        })
    });
    here.flat_map(|pod| pod_addresses(pod)).collect()
}
