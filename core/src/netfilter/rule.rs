//! One rule: what a packet must be, and what is then done with it.
//!
//! Spelled as `iptables-save` spells it; each variant names its option.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::netfilter::SetName;

/// The name of a chain (`PREROUTING`, `NODEWAY_PRE`, `KUBE-SERVICES`).
pub type ChainName = Arc<str>;

/// The name of a device, or its beginning and a `+` (`lxc+`).
pub type InterfaceName = Arc<str>;

/// A rule of a chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// All must match; none matches every packet.
    pub matches: Vec<Match>,
    /// `-m comment --comment`: for people, without effect.
    pub comment: Option<Arc<str>>,
    /// What is done; none is a rule that only counts (or only remembers, with [`Match::Recent`]).
    pub target: Option<Target>,
}

impl Rule {
    /// A rule with that target.
    #[must_use]
    pub fn new(matches: impl IntoIterator<Item = Match>, target: Target) -> Self {
        let mut rule = Self {
            matches: matches.into_iter().collect(),
            comment: None,
            target: Some(target),
        };
        rule.sort();
        rule
    }

    /// Puts matches into the order of text.
    pub(super) fn sort(&mut self) {
        self.matches.sort_by_key(Match::rank);
    }

    /// The same, with a comment.
    #[must_use]
    pub fn comment(mut self, comment: &str) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// The chain that it leads to.
    #[must_use]
    pub fn leads_to(&self) -> Option<&ChainName> {
        match &self.target {
            Some(Target::Jump(to) | Target::Goto(to)) => Some(to),
            _ => None,
        }
    }
}

/// What a packet must be. `not` turns a match round (`!` in text).
#[derive(Clone, Debug, PartialEq)]
pub enum Match {
    /// `-p`: IANA protocol number.
    Protocol {
        /// Turned round.
        not: bool,
        /// The number.
        protocol: u8,
    },
    /// `-s`
    Source {
        /// Turned round.
        not: bool,
        /// The network.
        network: ipnet::IpNet,
    },
    /// `-d`
    Destination {
        /// Turned round.
        not: bool,
        /// The network.
        network: ipnet::IpNet,
    },
    /// `-i`
    InInterface {
        /// Turned round.
        not: bool,
        /// The device.
        name: InterfaceName,
    },
    /// `-o`
    OutInterface {
        /// Turned round.
        not: bool,
        /// The device.
        name: InterfaceName,
    },
    /// `--sport`, host byte order.
    SourcePort {
        /// Turned round.
        not: bool,
        /// The ports.
        ports: RangeInclusive<u16>,
    },
    /// `--dport`, host byte order.
    DestinationPort {
        /// Turned round.
        not: bool,
        /// The ports.
        ports: RangeInclusive<u16>,
    },
    /// `-m tcp --tcp-flags MASK SET` (`--syn` is short for `FIN,SYN,RST,ACK SYN`): of the flags in
    /// the mask, those are set and no others.
    TcpFlags {
        /// Turned round.
        not: bool,
        /// Which flags are looked at.
        mask: u8,
        /// Which of them are set.
        set: u8,
    },
    /// `-m mark --mark value/mask`
    Mark {
        /// Turned round.
        not: bool,
        /// What the masked mark must be.
        value: u32,
        /// Which bits are compared.
        mask: u32,
    },
    /// `-m connmark --mark value/mask`
    ConnMark {
        /// Turned round.
        not: bool,
        /// What the masked mark must be.
        value: u32,
        /// Which bits are compared.
        mask: u32,
    },
    /// `-m conntrack --ctstate A,B`
    ConnectionState {
        /// Turned round.
        not: bool,
        /// Any of these.
        states: Vec<ConnectionState>,
    },
    /// `-m socket [--transparent]`: a socket of this namespace has the packet's flow; a socket
    /// that listens on the wildcard address is none.
    Socket {
        /// Whether only a transparent socket counts.
        transparent: bool,
    },
    /// `-m owner --uid-owner`
    UidOwner {
        /// Turned round.
        not: bool,
        /// The user.
        uid: u32,
    },
    /// `-m owner --gid-owner`
    GidOwner {
        /// Turned round.
        not: bool,
        /// The group.
        gid: u32,
    },
    /// `-m set --match-set NAME dst,dst` (or `src,src`)
    Set {
        /// Turned round.
        not: bool,
        /// The set.
        set: SetName,
        /// Whether source address and port are looked up, not the destination's.
        source: bool,
    },
    /// `-m addrtype --src-type LOCAL`
    SourceLocal {
        /// Turned round.
        not: bool,
    },
    /// `-m addrtype --dst-type LOCAL`
    DestinationLocal {
        /// Turned round.
        not: bool,
    },
    /// `-m statistic --mode random --probability`: in 2^-31 parts, as the kernel keeps it.
    Random {
        /// 0 never, 2^31 always.
        probability: u32,
    },
    /// `-m recent`
    Recent(RecentList),
}

impl Match {
    /// Where it stands in a rule's text: addresses, devices, protocol, then the rest as given.
    fn rank(&self) -> u8 {
        match self {
            Self::Source { .. } => 0,
            Self::Destination { .. } => 1,
            Self::InInterface { .. } => 2,
            Self::OutInterface { .. } => 3,
            Self::Protocol { .. } => 4,
            _ => 5,
        }
    }
}

/// `-m recent`: a list of sources, for `sessionAffinity: ClientIP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecentList {
    /// `--set`: remembers the source; always matches.
    Set {
        /// `--name`
        name: Arc<str>,
    },
    /// `--rcheck --seconds N --reap`: whether the source was remembered within that time.
    Check {
        /// `--name`
        name: Arc<str>,
        /// How long ago at most; whole seconds.
        within: Duration,
        /// `--reap`: older entries are forgotten.
        reap: bool,
    },
}

/// What connection tracking says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectionState {
    /// The first of a connection.
    New,
    /// Of a connection that has seen packets in both directions.
    Established,
    /// An error about a tracked connection.
    Related,
    /// Belongs to nothing and begins nothing.
    Invalid,
    /// `NOTRACK`.
    Untracked,
    /// A connection whose source was changed.
    Snat,
    /// A connection whose destination was changed.
    Dnat,
}

impl ConnectionState {
    /// Every state, in the order in which iptables prints them.
    pub(super) const PRINTED: [Self; 7] = [
        Self::Invalid,
        Self::New,
        Self::Related,
        Self::Established,
        Self::Untracked,
        Self::Snat,
        Self::Dnat,
    ];

    /// Its name in text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::New => "NEW",
            Self::Related => "RELATED",
            Self::Established => "ESTABLISHED",
            Self::Untracked => "UNTRACKED",
            Self::Snat => "SNAT",
            Self::Dnat => "DNAT",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::PRINTED.into_iter().find(|it| it.name() == name)
    }
}

/// What is done with a packet that matches.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Through this hook's table.
    Accept,
    /// Gone, without a word.
    Drop,
    /// Gone, with a word to its sender.
    Reject(RejectWith),
    /// Back to the chain that jumped here; in a built-in chain, its policy.
    Return,
    /// `-j CHAIN`
    Jump(ChainName),
    /// `-g CHAIN`: as a jump, but a return there returns from here too.
    Goto(ChainName),
    /// `MARK --set-xmark value/mask`: clears the mask's bits, then exclusive-or with value.
    Mark {
        /// What is put.
        value: u32,
        /// Which bits are cleared first.
        mask: u32,
    },
    /// `CONNMARK --save-mark`, all bits.
    SaveMark,
    /// `CONNMARK --restore-mark`, all bits.
    RestoreMark,
    /// `SET --map-set NAME dst,dst --map-mark`: the packet's mark becomes its entry's.
    MapMark(SetName),
    /// `CT --notrack`
    NoTrack,
    /// `TPROXY`: to the socket that listens there; where none does the packet is dropped.
    Tproxy {
        /// `--on-ip` and `--on-port`.
        to: SocketAddr,
        /// `--tproxy-mark`, cleared and set as [`Target::Mark`].
        value: u32,
        /// Which bits are cleared first.
        mask: u32,
    },
    /// `REDIRECT --to-ports`: to this namespace's own address (loopback for its own packets).
    Redirect {
        /// The port, host byte order.
        port: u16,
    },
    /// `DNAT --to-destination`
    Dnat {
        /// Where to; port 0 keeps the packet's.
        to: SocketAddr,
    },
    /// `SNAT --to-source`
    Snat {
        /// From which address.
        from: IpAddr,
    },
    /// `MASQUERADE`: from the address of the device that the packet leaves by.
    Masquerade {
        /// `--random-fully`: any free source port.
        random_fully: bool,
    },
}

/// `REJECT --reject-with`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectWith {
    /// `icmp-port-unreachable`, `icmp6-port-unreachable`
    PortUnreachable,
    /// `tcp-reset`
    TcpReset,
}
