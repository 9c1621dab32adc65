//! A node's proxy as a process, or that of one pod: what an Envoy does with connections and requests, on simulated
//! sockets.
//!
//! Every decision is asked of `nodeway_core::proxy`; what is here is the machine around it:
//! listening sockets that follow the plan, connections and their filter chain, requests one after
//! the other, upstream connections that are kept, and Envoy's own answers. Of TLS, everything
//! is simulated that is said in the clear: see [`crate::http::Hello`].
//!
//! Two things are unlike a plain Envoy. A request that was sent on a kept connection which the
//! backend had just closed is sent once more, so that a run does not fail by a race of the
//! simulation. Upgrades are not spoken: the `upgrade` header goes no further.

mod answer;
mod balance;
mod counters;
mod downstream;
mod draining;
mod exchange;
mod forwarded;
mod handshake;
mod listeners;
mod relay;
mod request;
mod resources;
mod response;
mod session;
mod sidecar;
mod upstream;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use nodeway_core::netfilter::sidecar::PROXY_UID;
use nodeway_core::plan::{ResourceName, Withheld};

pub use counters::Counters;

use crate::process::{CallError, Os, Process, SocketEvent, SocketId, TimerId};
use downstream::Downstream;
use listeners::Listening;
use resources::Resources;
use upstream::{Pool, Upstream};

/// The proxy of a node, or of one of its pods: one generation of its Envoy. Both have the node's
/// plan; they differ in how connections come in.
pub struct NodeProxy {
    node: Arc<str>,
    /// `namespace/name` of the pod whose own it is; none for the node's.
    pod: Option<Arc<str>>,
    /// The address that it takes for its machine's.
    own: IpAddr,
    generation: u32,
    /// Whether anybody has given it resources yet.
    told: bool,
    resources: Resources,
    held: Withheld,
    listening: Listening,
    downstreams: BTreeMap<SocketId, Downstream>,
    upstreams: BTreeMap<SocketId, Upstream>,
    pool: Pool,
    /// Whose turn it is, by cluster.
    turns: BTreeMap<ResourceName, u64>,
    timers: BTreeMap<TimerId, Due>,
    counters: Counters,
}

/// What a timer is for.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// The upstream connection must stand by now.
    Connect(SocketId),
    /// The response must be whole by now; the socket is the downstream one.
    Route(SocketId),
    /// The downstream peer must have closed by now.
    Linger(SocketId),
}

impl NodeProxy {
    /// A proxy without any resource.
    #[must_use]
    pub fn new(node: &str, generation: u32) -> Self {
        Self {
            node: node.into(),
            pod: None,
            own: IpAddr::V4(Ipv4Addr::LOCALHOST),
            generation,
            told: false,
            resources: Resources::default(),
            held: Withheld::default(),
            listening: Listening::default(),
            downstreams: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            pool: Pool::default(),
            turns: BTreeMap::new(),
            timers: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    /// The proxy of one pod of a node, without any resource.
    #[must_use]
    pub fn sidecar(node: &str, pod: &str, generation: u32) -> Self {
        Self {
            pod: Some(pod.into()),
            ..Self::new(node, generation)
        }
    }

    /// The same where these are the machine's addresses: Envoy takes the first of IPv4 for its own.
    #[must_use]
    pub fn at(mut self, addresses: &[IpAddr]) -> Self {
        let mut v4 = addresses.iter().filter(|it| it.is_ipv4());
        self.own = v4.next().copied().unwrap_or(self.own);
        self
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Which of the node's Envoys this is.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// What it did so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        Counters {
            downstream_active: count(self.downstreams.len()),
            upstream_active: count(self.upstreams.len()),
            ..self.counters.clone()
        }
    }

    /// The listeners without a socket, with the reason; each is tried again at the next wake.
    #[must_use]
    pub fn not_listening(&self) -> &BTreeMap<ResourceName, CallError> {
        self.listening.refused()
    }

    /// Sets a timer for something.
    fn arm(&mut self, after: std::time::Duration, due: Due, os: &mut dyn Os) -> TimerId {
        let timer = os.timer(after);
        self.timers.insert(timer, due);
        timer
    }

    fn disarm(&mut self, timer: Option<TimerId>, os: &mut dyn Os) {
        if let Some(timer) = timer
            && self.timers.remove(&timer).is_some()
        {
            os.cancel(timer);
        }
    }
}

impl Process for NodeProxy {
    fn name(&self) -> &'static str {
        "envoy"
    }

    fn uid(&self) -> u32 {
        if self.pod.is_some() { PROXY_UID } else { 0 }
    }

    fn on_wake(&mut self, os: &mut dyn Os) {
        match self.pod {
            // The listeners of both ports come from the agent, as all others do.
            Some(_) if self.told => self.listening.capture(os),
            Some(_) => {}
            None => self.listening.follow(&self.resources, os),
        }
        self.release();
        self.close_unplanned(os);
    }

    fn on_socket(&mut self, socket: SocketId, event: SocketEvent, os: &mut dyn Os) {
        if let SocketEvent::Accepted(by) = event {
            self.accept(socket, by, os);
        } else if self.downstreams.contains_key(&socket) {
            self.on_downstream(socket, event, os);
        } else if self.upstreams.contains_key(&socket) {
            self.on_upstream(socket, event, os);
        }
        self.release();
    }

    fn on_timer(&mut self, timer: TimerId, os: &mut dyn Os) {
        match self.timers.remove(&timer) {
            Some(Due::Connect(upstream)) => self.connect_timed_out(upstream, os),
            Some(Due::Route(downstream)) => self.route_timed_out(downstream, os),
            Some(Due::Linger(downstream)) => self.lingered(downstream, os),
            None => {}
        }
    }
}
