//! The kernel that a simulated hook asks: a node's frontends and the sockets of its own stack.

use std::collections::BTreeMap;

use nodeway_core::datapath::{
    self, Address, Family, Flow, Frontend, FrontendState, Hook, Kernel, Reason, SocketState,
    Verdict,
};
use nodeway_core::frontend::Life;
use nodeway_core::plan::{FrontendKey, PlannedFrontend};

use super::packet::{destination, narrow, source};
use super::stack::{StackId, Tuple};
use super::tcp::Tcp;
use crate::process::{ListenSocketId, SocketId};
use crate::time::Time;

/// The decision under test: by default Nodeway's own, the one that the eBPF programs run.
pub trait Datapath {
    /// Reads a packet, from the IP header on.
    ///
    /// # Errors
    /// Why no flow can be read from it.
    fn parse(&self, bytes: &[u8]) -> Result<Flow, Reason>;

    /// Decides on a packet or a call.
    fn decide(&self, flow: &Flow, hook: Hook, kernel: &NodeKernel<'_>) -> Verdict<SimSocket>;
}

/// Nodeway's own decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodewayDatapath;

impl Datapath for NodewayDatapath {
    fn parse(&self, bytes: &[u8]) -> Result<Flow, Reason> {
        datapath::parse(bytes)
    }

    fn decide(&self, flow: &Flow, hook: Hook, kernel: &NodeKernel<'_>) -> Verdict<SimSocket> {
        datapath::decide(flow, hook, kernel)
    }
}

/// A socket that a look-up found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimSocket {
    /// A connection.
    Connection(SocketId),
    /// What is left of a connection.
    TimeWait,
    /// A listening socket.
    Listen(ListenSocketId),
}

/// A frontend in a node's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    pub(crate) planned: PlannedFrontend,
    pub(crate) life: Life<Time>,
    /// Both of them as a hook asks.
    frontend: Frontend,
}

impl Installed {
    pub(crate) fn new(planned: PlannedFrontend, life: Life<Time>) -> Self {
        let frontend = Frontend {
            listener_port: planned.listener_port,
            state: life.state(),
            ranged: planned.ranges.is_some(),
        };
        Self {
            planned,
            life,
            frontend,
        }
    }

    pub(crate) fn live_on(&mut self, life: Life<Time>) {
        self.life = life;
        self.frontend.state = life.state();
    }

    pub(crate) const fn frontend(&self) -> &Frontend {
        &self.frontend
    }
}

/// A node's tables, as a decision asks them.
pub struct NodeKernel<'a> {
    pub(crate) now: Time,
    pub(crate) frontends: &'a BTreeMap<FrontendKey, Installed>,
    pub(crate) tcp: &'a Tcp,
    pub(crate) host: StackId,
}

impl NodeKernel<'_> {
    fn installed(&self, family: Family, address: &Address, port: u16) -> Option<&Installed> {
        if self.frontends.is_empty() {
            return None;
        }
        self.frontends.get(&FrontendKey {
            address: narrow(family, address),
            port,
        })
    }
}

impl Kernel for NodeKernel<'_> {
    type Socket = SimSocket;

    fn frontend(&self, family: Family, address: &Address, port: u16) -> Option<&Frontend> {
        self.installed(family, address, port)
            .map(|installed| &installed.frontend)
    }

    fn admits(&self, flow: &Flow) -> bool {
        let installed = self.installed(flow.family, &flow.dst, flow.dport);
        installed.is_some_and(|it| it.planned.admits(source(flow).ip()))
    }

    /// As `bpf_skc_lookup_tcp` does, which runs our sk_lookup program where no connection matches.
    fn socket(&self, flow: &Flow) -> Option<SimSocket> {
        let tuple = Tuple::new(destination(flow), source(flow));
        if let Some(id) = self.tcp.find(self.host, &tuple) {
            return Some(SimSocket::Connection(id));
        }
        if self.tcp.in_time_wait(self.now, self.host, &tuple) {
            return Some(SimSocket::TimeWait);
        }
        match self.installed(flow.family, &flow.dst, flow.dport) {
            Some(Installed { frontend, .. }) if frontend.state != FrontendState::Draining => {
                self.listener(flow.family, frontend)
            }
            _ => self
                .tcp
                .stack(self.host)?
                .listener(destination(flow))
                .map(SimSocket::Listen),
        }
    }

    fn state(&self, socket: &SimSocket, frontend: &Frontend) -> SocketState {
        match *socket {
            SimSocket::TimeWait => SocketState::TimeWait,
            SimSocket::Connection(id) => match self.tcp.connection(id) {
                Some(connection) if connection.half_open() => SocketState::Request,
                Some(connection) if !connection.usable() => SocketState::TimeWait,
                _ => SocketState::Established,
            },
            SimSocket::Listen(id) => match self.tcp.listeners.get(&id) {
                Some(listener) if listener.port == frontend.listener_port => {
                    SocketState::OurListener
                }
                _ => SocketState::OtherListener,
            },
        }
    }

    fn listener(&self, family: Family, frontend: &Frontend) -> Option<SimSocket> {
        let loopback = match family {
            Family::V4 => std::net::Ipv4Addr::LOCALHOST.into(),
            Family::V6 => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        self.tcp
            .stack(self.host)?
            .listener(std::net::SocketAddr::new(loopback, frontend.listener_port))
            .map(SimSocket::Listen)
    }
}
