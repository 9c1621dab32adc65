//! A packet as rules see it, what they need to know beside it, and what they decide.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodeway_datapath::{Address, Family, Flow};

use crate::conntrack::Tracked;
use crate::netfilter::{BuiltIn, ChainName, InterfaceName, RejectWith, Rule, Table};

/// A packet on its way through a network namespace. Translation changes its `flow`, marking its
/// `mark`; the caller rewrites the bytes when a hook's return has changed the flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Addresses, ports and flags as they are now.
    pub flow: Flow,
    /// The device it came in by; none for the namespace's own.
    pub input: Option<InterfaceName>,
    /// The device it leaves by; none before that is decided.
    pub output: Option<InterfaceName>,
    /// The mark (`skb->mark`).
    pub mark: u32,
    /// Who sent it, for packets of the namespace's own sockets.
    pub owner: Option<Owner>,
    /// What connection tracking knows of it. It stays with a packet that goes over `lo`.
    pub tracked: Tracked,
}

impl Packet {
    /// A packet that nobody has looked at.
    #[must_use]
    pub const fn new(flow: Flow) -> Self {
        Self {
            flow,
            input: None,
            output: None,
            mark: 0,
            owner: None,
            tracked: Tracked::Unseen,
        }
    }

    /// From where it comes.
    #[must_use]
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(narrow(self.flow.family, &self.flow.src), self.flow.sport)
    }

    /// Where it goes to.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(narrow(self.flow.family, &self.flow.dst), self.flow.dport)
    }

    pub(super) fn set_source(&mut self, from: SocketAddr) {
        (self.flow.src, self.flow.sport) = (widen(from.ip()), from.port());
    }

    pub(super) fn set_destination(&mut self, to: SocketAddr) {
        (self.flow.dst, self.flow.dport) = (widen(to.ip()), to.port());
    }
}

fn narrow(family: Family, address: &Address) -> IpAddr {
    match (family, address.first_chunk::<4>()) {
        (Family::V4, Some(v4)) => IpAddr::from(*v4),
        _ => IpAddr::from(*address),
    }
}

fn widen(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The user and group of the process whose socket sent a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a hook decided on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the next station.
    Accept,
    /// Gone.
    Drop,
    /// Gone, with a word to its sender.
    Reject(RejectWith),
    /// On, and to the socket that listens there (TPROXY).
    Assign(SocketAddr),
}

/// A socket that a look-up of `-m socket` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSocket {
    /// `IP_TRANSPARENT`
    pub transparent: bool,
    /// Whether it listens on the wildcard address.
    pub wildcard: bool,
}

/// What rules ask of the network namespace around them.
pub trait Host {
    /// The time since start.
    fn now(&self) -> Duration;

    /// Whether the namespace itself has the address (`addrtype LOCAL`).
    fn is_local(&self, address: IpAddr) -> bool;

    /// The socket that has the flow: a connection, else one that listens.
    fn socket(&self, flow: &Flow) -> Option<FoundSocket>;

    /// Whether a transparent socket listens there, for TPROXY.
    fn listens(&self, at: SocketAddr) -> bool;

    /// The namespace's own address for packets that leave by a device towards an address.
    fn source(&self, output: Option<&InterfaceName>, to: IpAddr) -> Option<IpAddr>;

    /// A number below 2^31: luck for `statistic`. The same flow and ordinal always draw the same,
    /// so that one connection more shifts no other's.
    fn draw(&self, flow: &Flow, ordinal: u32) -> u32;

    /// A rule matched: for traces. Called in order, rules without a target too.
    fn matched(&mut self, _matched: Matched<'_>) {}
}

/// A rule that matched a packet.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'a> {
    /// At which hook.
    pub hook: BuiltIn,
    /// In which table.
    pub table: Table,
    /// In which chain.
    pub chain: &'a ChainName,
    /// Which rule of it, from 0.
    pub index: usize,
    /// The rule.
    pub rule: &'a Rule,
}
