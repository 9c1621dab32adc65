//! The Envoys of a node as its agent has them: found by their records, told by xDS, looked at for
//! the sockets that listen.
//!
//! Every generation has each listener on a port of its own, so each is told its own messages; all
//! else is the same for all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodeway_core::envoy::ResourceKind;
use nodeway_core::envoy::bootstrap::{logged_listener, logged_routes};
use nodeway_core::plan::{
    NodePlan, PlanDelta, PlannedListener, PlannedRoutes, ResourceName, Update,
};
use nodeway_core::problem::Problem;
use nodeway_core::steering::{Generation, GenerationId};
use nodeway_core::xds::{ResourceDelta, ResourceState};
use tokio::runtime::Handle;

use super::ports::Ports;
use crate::envoy;
use crate::generation::{self, GenerationError, Record};
use crate::netns::{NetNs, NetNsError};
use crate::tcp_table::{self, State};
use crate::xds::{ProxyHandle, XdsError, XdsOptions, XdsServer};

/// What can go wrong with a node's Envoys.
#[derive(Debug, thiserror::Error)]
pub enum ProxiesError {
    /// The xDS server.
    #[error(transparent)]
    Xds(#[from] XdsError),
    /// The records of generations.
    #[error(transparent)]
    Generations(#[from] GenerationError),
    /// The node's namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

/// All of them.
pub(super) struct Proxies {
    run: PathBuf,
    server: XdsServer,
    /// Whether they write a line for each request.
    access_log: bool,
    changed: Changed,
    /// In the order in which they were started.
    all: Vec<Proxy>,
}

/// One of them.
struct Proxy {
    id: GenerationId,
    record: Record,
    handle: ProxyHandle,
    listeners: Listeners,
    /// Those that were seen to listen, with their ports. They are not looked for again: a node's
    /// table of sockets can be long, and a listener listens until it goes, or its Envoy does.
    listening: BTreeMap<ResourceName, u16>,
}

/// What is seen of one of them.
pub(super) struct Seen<'a> {
    pub(super) record: &'a Record,
    /// Whether it talks to us.
    pub(super) connected: bool,
    pub(super) resources: Vec<ResourceState>,
    /// Its listeners that listen, with their ports.
    pub(super) listening: &'a BTreeMap<ResourceName, u16>,
}

impl Seen<'_> {
    /// Whether a listener's sockets listen; none for all else, which has none.
    pub(super) fn listens(&self, resource: &ResourceState) -> Option<bool> {
        (resource.kind == ResourceKind::Listener)
            .then(|| self.listening.contains_key(&resource.name))
    }
}

/// The listeners that a generation shall have, each with its port there.
#[derive(Default)]
struct Listeners(BTreeMap<ResourceName, Bound>);

/// Where a listener's sockets are.
#[derive(Clone, Copy)]
enum Bound {
    /// On loopback, at a port of the ledger.
    Loopback(u16),
    /// Where its config wants it.
    Own(u16),
}

/// Tells the agent that an Envoy said something.
pub(super) struct Changed {
    pub(super) runtime: Handle,
    pub(super) tell: Arc<dyn Fn() + Send + Sync>,
}

impl Changed {
    fn follow(&self, handle: &ProxyHandle) {
        let (mut changes, tell) = (handle.changed(), Arc::clone(&self.tell));
        self.runtime.spawn(async move {
            while changes.changed().await.is_ok() {
                tell();
            }
        });
    }
}

impl Proxies {
    /// Serves xDS in the run directory.
    pub(super) fn serve(
        run: &Path,
        access_log: bool,
        changed: Changed,
    ) -> Result<Self, ProxiesError> {
        let options = XdsOptions {
            owner: envoy::user_of_node(),
            ..XdsOptions::default()
        };
        Ok(Self {
            run: run.to_owned(),
            server: XdsServer::bind(&run.join(generation::AGENT_SOCKET), &options)?,
            access_log,
            changed,
            all: Vec::new(),
        })
    }

    /// Finds Envoys that have come and gone.
    pub(super) fn follow(&mut self, plan: &NodePlan, ports: &mut Ports) {
        let found = match generation::list(&self.run) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "which Envoys run is unknown");
                return;
            }
        };
        let gone = |proxy: &mut Proxy| found.iter().all(|it| *it.id != *proxy.id);
        for proxy in self.all.extract_if(.., gone) {
            tracing::info!(generation = %proxy.id, "this Envoy is gone");
            self.server.forget(&proxy.id);
            ports.release_all(&proxy.id);
        }
        for record in found {
            match self.all.iter_mut().find(|it| *it.id == *record.id) {
                Some(proxy) => proxy.record = record,
                None => self.add(record, plan, ports),
            }
        }
    }

    fn add(&mut self, record: Record, plan: &NodePlan, ports: &mut Ports) {
        tracing::info!(generation = record.id, "a new Envoy");
        let mut listeners = Listeners::default();
        let own = listeners.bind(&record.id, &plan.as_delta(), ports);
        let handle = self.server.proxy(&record.id, &self.resources(own));
        self.changed.follow(&handle);
        self.all.push(Proxy {
            id: record.id.as_str().into(),
            record,
            handle,
            listeners,
            listening: BTreeMap::new(),
        });
    }

    /// Tells all of them.
    pub(super) fn tell(&mut self, delta: &PlanDelta, ports: &mut Ports) {
        for mut proxy in std::mem::take(&mut self.all) {
            let own = proxy.listeners.bind(&proxy.id, delta, ports);
            proxy.handle.apply(&self.resources(own));
            self.all.push(proxy);
        }
    }

    fn resources(&self, mut delta: PlanDelta) -> ResourceDelta {
        if self.access_log {
            log(&mut delta);
        }
        ResourceDelta::of(&delta)
    }

    /// Looks for sockets that are awaited, and says how Envoys stand, as steering sees them.
    pub(super) fn generations(&mut self) -> Vec<Generation> {
        let all = self.all.iter_mut();
        all.map(|proxy| {
            proxy.look();
            Generation {
                id: Arc::clone(&proxy.id),
                retiring: proxy.record.phase.is_retiring(),
                listening: proxy.listening.clone(),
            }
        })
        .collect()
    }

    /// Whether an answer or a socket is still to come.
    pub(super) fn is_awaited(&self) -> bool {
        let awaited = |proxy: &Proxy| {
            let state = |name: &ResourceName| proxy.handle.resource(ResourceKind::Listener, name);
            let mut listeners = proxy.listeners.0.keys();
            listeners.any(|name| {
                state(name).is_none_or(|it| it.rejected.is_none() && !it.is_acknowledged())
            }) || proxy.listening.len() < proxy.acknowledged().count()
        };
        self.all.iter().any(awaited)
    }

    /// Lets those end that are to end and that nothing leads to any more.
    pub(super) fn let_go(&self, leads: impl Fn(&str) -> bool) {
        for proxy in &self.all {
            if proxy.record.phase.is_retiring() && !leads(&proxy.id) {
                let marked = generation::mark_unled(&self.run, &proxy.id);
                if let Err(error) = marked {
                    tracing::error!(%error, generation = %proxy.id, "it cannot be let go");
                }
            }
        }
    }

    /// What Envoys refuse, as problems of the objects.
    pub(super) fn problems(&self) -> BTreeSet<Problem> {
        self.all
            .iter()
            .flat_map(|it| it.handle.problems())
            .collect()
    }

    /// Every Envoy as it is seen now.
    pub(super) fn seen(&self) -> impl Iterator<Item = Seen<'_>> {
        self.all.iter().map(|proxy| {
            let state = proxy.handle.state();
            Seen {
                record: &proxy.record,
                connected: state.stream.is_some(),
                resources: state.resources,
                listening: &proxy.listening,
            }
        })
    }
}

/// Ports on which somebody listens in a node's namespace.
pub(super) fn open_ports(netns: &NetNs) -> Result<BTreeSet<u16>, NetNsError> {
    let tables = netns.run(|| {
        ["tcp", "tcp6"].map(|it| std::fs::read_to_string(format!("/proc/thread-self/net/{it}")))
    })?;
    let tables = tables.map(Result::unwrap_or_default);
    let rows = tables.iter().flat_map(|table| tcp_table::rows(table));
    let listening = rows.filter(|row| row.state == State::Listen);
    Ok(listening.map(|row| row.local.port()).collect())
}

/// Has listeners write a line for each request, which names its route by its place.
fn log(delta: &mut PlanDelta) {
    for (name, update) in &mut delta.listeners {
        if let Update::Put(planned) = update {
            *planned = Arc::new(PlannedListener {
                message: logged_listener(name, &planned.message, envoy::ACCESS_LOG),
                ..(**planned).clone()
            });
        }
    }
    for update in delta.routes.values_mut() {
        if let Update::Put(planned) = update {
            *planned = Arc::new(PlannedRoutes {
                message: logged_routes(&planned.message),
                ..(**planned).clone()
            });
        }
    }
}

impl Listeners {
    /// A delta of the plan as a generation is told it, with its listeners on its own ports.
    fn bind(&mut self, generation: &str, delta: &PlanDelta, ports: &mut Ports) -> PlanDelta {
        let mut own = delta.clone();
        for (name, update) in &mut own.listeners {
            match update {
                Update::Put(planned) => match bound(generation, name, planned, ports) {
                    Some((at, listener)) => {
                        self.0.insert(Arc::clone(name), at);
                        *planned = Arc::new(listener);
                    }
                    None => {
                        tracing::error!(listener = %name, generation, "no port is left for it");
                        *update = Update::Remove;
                    }
                },
                Update::Remove => {
                    self.0.remove(name);
                    ports.release(generation, name);
                }
            }
        }
        own
    }
}

fn bound(
    generation: &str,
    name: &str,
    planned: &PlannedListener,
    ports: &mut Ports,
) -> Option<(Bound, PlannedListener)> {
    if planned.own_address {
        return Some((Bound::Own(planned.port), planned.clone()));
    }
    let port = ports.port(generation, name)?;
    let listener = PlannedListener {
        port,
        message: planned.on_port(port),
        ..planned.clone()
    };
    Some((Bound::Loopback(port), listener))
}

impl Proxy {
    /// Its listeners of which it has acknowledged some version: one whose newest is refused goes on
    /// in an older one.
    fn acknowledged(&self) -> impl Iterator<Item = (&ResourceName, Bound)> {
        let listeners = self.listeners.0.iter();
        listeners.filter_map(|(name, at)| {
            let state = self.handle.resource(ResourceKind::Listener, name)?;
            state.acknowledged.map(|_| (name, *at))
        })
    }

    /// Forgets listeners that are gone, and looks for the sockets of those that are acknowledged
    /// and were not seen to listen yet.
    fn look(&mut self) {
        let acknowledged: BTreeMap<ResourceName, Bound> = self
            .acknowledged()
            .map(|(name, at)| (Arc::clone(name), at))
            .collect();
        let is = |name: &ResourceName, port: &u16| {
            acknowledged.get(name).is_some_and(|at| at.port() == *port)
        };
        self.listening.retain(|name, port| is(name, port));
        let mut awaited = acknowledged;
        awaited.retain(|name, _| !self.listening.contains_key(name));
        if awaited.is_empty() {
            return;
        }
        let wanted = awaited.values().flat_map(|at| at.sockets()).collect();
        let missing = envoy::not_listening(self.record.process.pid, &wanted);
        awaited.retain(|_, at| at.sockets().iter().all(|it| !missing.contains(it)));
        let found = awaited.into_iter().map(|(name, at)| (name, at.port()));
        self.listening.extend(found);
    }
}

impl Bound {
    const fn port(self) -> u16 {
        let (Self::Loopback(port) | Self::Own(port)) = self;
        port
    }

    /// The sockets that must listen. Where a config wants its own is its own affair: that it was
    /// acknowledged must do.
    fn sockets(self) -> Vec<SocketAddr> {
        match self {
            Self::Loopback(port) => vec![
                (Ipv4Addr::LOCALHOST, port).into(),
                (Ipv6Addr::LOCALHOST, port).into(),
            ],
            Self::Own(_) => Vec::new(),
        }
    }
}
