//! The Envoys of a node as its agent has them: found by their folders, told by xDS, looked at for
//! the sockets that listen.
//!
//! Every generation has each listener on a port of its own, so each is told its own messages; all
//! else is the same for all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodeway_core::envoy::ResourceKind;
use nodeway_core::plan::{NodePlan, PlanDelta, PlannedListener, ResourceName, Update};
use nodeway_core::problem::Problem;
use nodeway_core::steering::{Generation, GenerationId};
use nodeway_core::xds::{Rejection, ResourceDelta, ResourceState};

use super::ports::Ports;
use crate::generation::{self, GenerationError, Record};
use crate::netns::{NetNs, NetNsError};
use crate::tcp_table::{self, State};
use crate::xds::{ProxyHandle, XdsError, XdsServer};

/// The socket's name in the run directory.
pub const SOCKET: &str = "xds.sock";

/// What can go wrong with a node's Envoys.
#[derive(Debug, thiserror::Error)]
pub enum ProxiesError {
    /// The xDS server.
    #[error(transparent)]
    Xds(#[from] XdsError),
    /// The folders of generations.
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
    /// In the order in which they were started.
    all: Vec<Proxy>,
}

/// One of them.
struct Proxy {
    id: GenerationId,
    record: Record,
    handle: ProxyHandle,
    /// The listeners that it shall have, with the port that a config gave them; none for those of
    /// the ledger.
    listeners: BTreeMap<ResourceName, Option<u16>>,
}

impl Proxies {
    /// Serves xDS in the run directory; `changed` is called when an Envoy has said something.
    pub(super) fn serve(
        run: &Path,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, ProxiesError> {
        Ok(Self {
            run: run.to_owned(),
            server: XdsServer::bind(&run.join(SOCKET), changed)?,
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
        self.all.retain(|proxy| {
            let stays = found.iter().any(|it| *it.id == *proxy.id);
            if !stays {
                tracing::info!(generation = %proxy.id, "this Envoy is gone");
                ports.release_all(&proxy.id);
            }
            stays
        });
        for record in found {
            if let Some(proxy) = self.all.iter_mut().find(|it| *it.id == *record.id) {
                proxy.record = record;
                continue;
            }
            tracing::info!(generation = %record.id, "a new Envoy");
            let id: GenerationId = record.id.as_str().into();
            let mut proxy = Proxy {
                handle: self.server.proxy(&record.id),
                id,
                record,
                listeners: BTreeMap::new(),
            };
            proxy.tell(&plan.as_delta(), ports);
            self.all.push(proxy);
        }
    }

    /// Tells all of them.
    pub(super) fn tell(&mut self, delta: &PlanDelta, ports: &mut Ports) {
        for proxy in &mut self.all {
            proxy.tell(delta, ports);
        }
    }

    /// As steering sees them.
    pub(super) fn generations(&self, ports: &Ports) -> Vec<Generation> {
        let all = self.all.iter();
        all.map(|proxy| Generation {
            id: Arc::clone(&proxy.id),
            retiring: proxy.record.phase.is_retiring(),
            listening: proxy.listening(ports),
        })
        .collect()
    }

    /// Whether an answer or a socket is still to come.
    pub(super) fn is_awaited(&self) -> bool {
        self.all.iter().any(|proxy| {
            let state = |name: &ResourceName| proxy.handle.resource(ResourceKind::Listener, name);
            let mut listeners = proxy.listeners.keys();
            listeners.any(|name| {
                state(name).is_none_or(|it| it.rejected.is_none() && !it.is_acknowledged())
            })
        })
    }

    /// Lets those end that nothing leads to any more and that are to end.
    pub(super) fn unled(&self, leads: impl Fn(&str) -> bool, _ports: &mut Ports) {
        for proxy in &self.all {
            if proxy.record.phase.is_retiring() && !leads(&proxy.id) {
                let marked = generation::mark_unled(&self.run, &proxy.id);
                if let Err(error) = marked {
                    tracing::error!(%error, generation = %proxy.id, "it cannot be let go");
                }
            }
        }
    }

    /// Ports on which somebody listens in the node's namespace.
    pub(super) fn open_ports(&self, netns: &NetNs) -> Result<BTreeSet<u16>, ProxiesError> {
        let tables = netns.run(|| {
            ["tcp", "tcp6"].map(|it| std::fs::read_to_string(format!("/proc/thread-self/net/{it}")))
        })?;
        let tables = tables.map(Result::unwrap_or_default);
        let rows = tables.iter().flat_map(|table| tcp_table::rows(table));
        Ok(rows
            .filter(|row| row.state == State::Listen)
            .map(|row| row.local.port())
            .collect())
    }

    /// What Envoys refuse, as problems of the objects.
    pub(super) fn problems(&self) -> BTreeSet<Problem> {
        let rejections = self.all.iter().flat_map(|proxy| proxy.handle.rejections());
        rejections
            .filter_map(|it: Rejection| it.problem())
            .collect()
    }

    /// Every Envoy with its record, whether it talks to us, and its resources.
    pub(super) fn states(&self) -> impl Iterator<Item = (&Record, bool, Vec<ResourceState>)> {
        self.all.iter().map(|proxy| {
            let state = proxy.handle.state();
            (&proxy.record, state.stream.is_some(), state.resources)
        })
    }
}

impl Proxy {
    fn tell(&mut self, delta: &PlanDelta, ports: &mut Ports) {
        let mut own = delta.clone();
        for (name, update) in &mut own.listeners {
            match update {
                Update::Put(planned) => match self.bound(name, planned, ports) {
                    Some(bound) => *planned = bound,
                    None => {
                        tracing::error!(listener = %name, generation = %self.id, "no port is left for it");
                        *update = Update::Remove;
                    }
                },
                Update::Remove => {
                    self.listeners.remove(name);
                    ports.release(&self.id, name);
                }
            }
        }
        self.handle.apply(&ResourceDelta::of(&own));
    }

    /// A listener on the port that it has here.
    fn bound(
        &mut self,
        name: &ResourceName,
        planned: &PlannedListener,
        ports: &mut Ports,
    ) -> Option<Arc<PlannedListener>> {
        let own = planned.own_address.then_some(planned.port);
        let port = own.or_else(|| ports.port(&self.id, name))?;
        self.listeners.insert(Arc::clone(name), own);
        Some(Arc::new(PlannedListener {
            port,
            message: planned.on_port(port),
            ..planned.clone()
        }))
    }

    /// Its listeners that are acknowledged and listen, with their ports. One whose newest version
    /// is not acknowledged goes on in an older one.
    fn listening(&self, ports: &Ports) -> BTreeMap<ResourceName, u16> {
        let acknowledged = self.listeners.iter().filter_map(|(name, own)| {
            let state = self.handle.resource(ResourceKind::Listener, name)?;
            state.acknowledged?;
            let port = own.or_else(|| ports.get(&self.id, name))?;
            Some((Arc::clone(name), port))
        });
        let acknowledged: Vec<_> = acknowledged.collect();
        let (Some(pid), false) = (self.record.pid, acknowledged.is_empty()) else {
            return BTreeMap::new();
        };
        let sockets = |port: u16| -> [SocketAddr; 2] {
            [
                (Ipv4Addr::LOCALHOST, port).into(),
                (Ipv6Addr::LOCALHOST, port).into(),
            ]
        };
        let wanted = acknowledged.iter().flat_map(|(_, port)| sockets(*port));
        let missing = crate::envoy::not_listening(pid, &wanted.collect());
        acknowledged
            .into_iter()
            .filter(|(_, port)| sockets(*port).iter().all(|it| !missing.contains(it)))
            .collect()
    }
}
