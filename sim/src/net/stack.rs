//! A `Stack`: one simulated network namespace with its TCP/IP.
//!
//! Its tables are our own (who listens, which connection has which four-tuple, what is in
//! TIME_WAIT); smoltcp runs the state machine of one connection at a time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::time::Instant;
use smoltcp::wire::HardwareAddress;

use super::wire::Wire;
use crate::process::{CallError, ListenSocketId, SocketId};
use crate::seed::Seed;
use crate::time::Time;

/// A stack of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackId(pub(crate) u32);

impl StackId {
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A connection as its stack sees it. Ports come first: they tell most connections apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tuple {
    ports: u32,
    remote: IpAddr,
    local: IpAddr,
}

impl Tuple {
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            ports: u32::from(remote.port()) << 16 | u32::from(local.port()),
            remote: remote.ip(),
            local: local.ip(),
        }
    }

    pub(crate) fn local(&self) -> SocketAddr {
        let [_, _, high, low] = self.ports.to_be_bytes();
        SocketAddr::new(self.local, u16::from_be_bytes([high, low]))
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        let [high, low, _, _] = self.ports.to_be_bytes();
        SocketAddr::new(self.remote, u16::from_be_bytes([high, low]))
    }
}

/// What is left of a connection that was closed from here: its ports, for a while.
#[derive(Clone, Debug)]
pub(crate) struct TimeWait {
    pub(crate) until: Time,
    /// The last acknowledgement, sent again when the peer's FIN comes again.
    pub(crate) answer: Vec<u8>,
}

/// Whose namespace a stack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A pod's, on a node.
    Pod { node: u32 },
    /// A node's own.
    Host { node: u32 },
    /// That of a host outside.
    Outside,
}

/// A network namespace.
pub(crate) struct Stack {
    pub(crate) name: Arc<str>,
    pub(crate) role: Role,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) interface: Interface,
    /// Polled with a packet that nobody takes: smoltcp then answers RST.
    pub(crate) nobody: SocketSet<'static>,
    pub(crate) connections: BTreeMap<Tuple, SocketId>,
    pub(crate) time_wait: BTreeMap<Tuple, TimeWait>,
    pub(crate) listening: BTreeMap<(u16, Option<IpAddr>), ListenSocketId>,
    pub(crate) next_port: u16,
}

/// Linux's `net.ipv4.ip_local_port_range`.
const FIRST_PORT: u16 = 32_768;
const LAST_PORT: u16 = 60_999;

impl Stack {
    pub(crate) fn new(
        name: Arc<str>,
        role: Role,
        addresses: Vec<IpAddr>,
        seed: Seed,
        wire: &mut Wire,
    ) -> Self {
        let mut luck = seed.stream(&format!("stack of {name}"));
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = luck.draw();
        let mut interface = Interface::new(config, wire, Instant::ZERO);
        // Which addresses are local is decided by routes, before a packet gets here.
        interface.set_any_ip(true);
        let ports = u64::from(LAST_PORT - FIRST_PORT) + 1;
        let first = u16::try_from(luck.below(ports)).unwrap_or(0);
        Self {
            name,
            role,
            addresses,
            interface,
            nobody: SocketSet::new(Vec::new()),
            connections: BTreeMap::new(),
            time_wait: BTreeMap::new(),
            listening: BTreeMap::new(),
            next_port: FIRST_PORT + first,
        }
    }

    /// Whether an address is this namespace's own, loopback's included.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(&address)
    }

    /// The source address towards a destination.
    pub(crate) fn source(&self, to: IpAddr) -> Option<IpAddr> {
        if to.is_loopback() {
            return Some(match to {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            });
        }
        if self.addresses.contains(&to) {
            return Some(to);
        }
        let family = |address: &&IpAddr| address.is_ipv4() == to.is_ipv4();
        self.addresses.iter().find(family).copied()
    }

    /// The ListenSocket for a destination: one of that very address before one of all.
    pub(crate) fn listener(&self, at: SocketAddr) -> Option<ListenSocketId> {
        self.listening
            .get(&(at.port(), Some(at.ip())))
            .or_else(|| self.listening.get(&(at.port(), None)))
            .copied()
    }

    /// Whether a listening socket on that address would clash with one that is there.
    pub(crate) fn taken(&self, address: Option<IpAddr>, port: u16) -> bool {
        let mut there = self
            .listening
            .range((port, None)..)
            .take_while(|((other, _), _)| *other == port);
        match address {
            None => there.next().is_some(),
            Some(_) => there.any(|((_, other), _)| other.is_none() || *other == address),
        }
    }

    /// A local port for a connection from `source` to `to`.
    pub(crate) fn free_port(
        &mut self,
        source: IpAddr,
        to: SocketAddr,
    ) -> Result<SocketAddr, CallError> {
        for _ in FIRST_PORT..=LAST_PORT {
            let port = self.next_port;
            self.next_port = if port >= LAST_PORT {
                FIRST_PORT
            } else {
                port + 1
            };
            let local = SocketAddr::new(source, port);
            let tuple = Tuple::new(local, to);
            // A connection to oneself would be a simultaneous open with itself.
            let free = local != to
                && !self.connections.contains_key(&tuple)
                && !self.time_wait.contains_key(&tuple);
            if free {
                return Ok(local);
            }
        }
        Err(CallError::NoPort)
    }
}
