//! A node: its hooks' table, its service table, its tracked connections, and the way to its pods.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use nodeway_core::datapath::{Frontend, FrontendState, Reason};
use nodeway_core::plan::{FrontendKey, PlanDelta, PlannedEndpoint, Update};

use super::conntrack::Conntrack;
use super::kernel::Installed;
use super::service::{ServiceEntry, ServiceTable};
use super::stack::StackId;
use crate::seed::Seed;
use crate::time::Time;

/// A node.
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    pub(crate) host: StackId,
    pub(crate) frontends: BTreeMap<FrontendKey, Installed>,
    pub(crate) services: Arc<ServiceTable>,
    pub(crate) conntrack: Conntrack,
    pub(crate) pods: BTreeMap<IpAddr, StackId>,
    /// How often each hook gave each reason.
    pub(crate) reasons: BTreeMap<(&'static str, Reason), u64>,
    /// Which endpoint a client stays with, and until when.
    affinity: BTreeMap<(SocketAddr, IpAddr), (SocketAddr, Time)>,
    luck: u64,
}

impl Node {
    pub(crate) fn new(name: &str, host: StackId, seed: Seed) -> Self {
        Self {
            name: Arc::from(name),
            host,
            frontends: BTreeMap::new(),
            services: Arc::default(),
            conntrack: Conntrack::default(),
            pods: BTreeMap::new(),
            reasons: BTreeMap::new(),
            affinity: BTreeMap::new(),
            luck: seed.stream(&format!("kube-proxy of {name}")).draw(),
        }
    }

    /// Takes the frontends of a change; all are in force at once.
    pub(crate) fn apply(&mut self, delta: &PlanDelta) {
        for (key, update) in &delta.frontends {
            match update {
                Update::Put(planned) => {
                    let frontend = Frontend {
                        listener_port: planned.listener_port,
                        state: FrontendState::Active,
                    };
                    let planned = planned.clone();
                    self.frontends.insert(*key, Installed { frontend, planned });
                }
                Update::Remove => {
                    self.frontends.remove(key);
                }
            }
        }
    }

    /// Whether an address and port is a frontend.
    pub(crate) fn is_frontend(&self, at: SocketAddr) -> bool {
        !self.frontends.is_empty()
            && self.frontends.contains_key(&FrontendKey {
                address: at.ip(),
                port: at.port(),
            })
    }

    /// Whether some frontend has that address.
    pub(crate) fn has_frontend_address(&self, address: IpAddr) -> bool {
        self.frontends
            .range(FrontendKey { address, port: 0 }..)
            .next()
            .is_some_and(|(key, _)| key.address == address)
    }

    /// The endpoint for a new connection: the client's own if it has one, else one by hash.
    pub(crate) fn choose(
        &mut self,
        now: Time,
        entry: &ServiceEntry,
        client: SocketAddr,
        at: SocketAddr,
    ) -> Option<PlannedEndpoint> {
        let key = (at, client.ip());
        if entry.affinity.is_some() {
            let kept = self.affinity.get(&key).filter(|(_, until)| *until > now);
            let kept = kept.map(|(address, _)| *address);
            let kept = kept.and_then(|kept| entry.endpoints.iter().find(|it| it.address == kept));
            if let Some(endpoint) = kept {
                return Some(endpoint.clone());
            }
        }
        // By the connection and not by the order of connections.
        let mut luck = Seed(self.luck).stream(&format!("{client} {at}"));
        let count = u64::try_from(entry.endpoints.len()).unwrap_or(u64::MAX);
        let index = usize::try_from(luck.below(count)).unwrap_or(0);
        let endpoint = entry.endpoints.get(index)?.clone();
        if let Some(stay) = entry.affinity {
            self.affinity.insert(key, (endpoint.address, now + stay));
        }
        Some(endpoint)
    }
}
