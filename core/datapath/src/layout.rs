//! What the kernel's maps hold, byte by byte: the one description for both sides of the border.
//!
//! The eBPF programs use these structs as they stand; whoever fills and reads the maps turns them
//! into bytes and back. They are integers and byte arrays alone, with every padding byte named, so
//! that no undefined byte becomes part of a key. Integers are in the machine's byte order; so are
//! ports; addresses are in network byte order, an IPv4 address first and zeros behind it.
//!
//! [`VERSION`] is in the name of each pin: programs and maps of two layouts never meet.

use core::mem::{offset_of, size_of};

use crate::decide::Hook;
use crate::flow::{Address, Family};
use crate::kernel::{Frontend, FrontendState};

/// Which layout this is. Any change of a size, an offset or a meaning makes it another one.
pub const VERSION: u32 = 2;

/// Frontends that the table takes.
pub const FRONTENDS: u32 = 65_536;

/// Source ranges that the table takes, those of all frontends together.
pub const SOURCES: u32 = 65_536;

/// Listening sockets that the table takes: one a listener and family.
pub const LISTEN_SOCKETS: u32 = 4_096;

/// Bytes of the ring of events: 14,563 of them, each with a header of eight bytes.
pub const EVENT_BYTES: u32 = 1 << 20;

/// Counters of one row; [`crate::Reason`] numbers stay below.
pub const COLUMNS: u32 = 32;

/// Counters in all: a row for each hook, and one of [`Fault`]s.
pub const COUNTERS: u32 = 4 * COLUMNS;

const _: () = {
    assert!(crate::Reason::ALL.len() <= COLUMNS as usize);
    assert!(size_of::<FrontendKey>() == FrontendKey::SIZE);
    assert!(offset_of!(FrontendKey, port) == 16 && offset_of!(FrontendKey, family) == 18);
    assert!(size_of::<FrontendValue>() == FrontendValue::SIZE);
    assert!(offset_of!(FrontendValue, state) == 2 && offset_of!(FrontendValue, ranged) == 3);
    // A value whose state and flag are such can be read as the decision's own type.
    assert!(size_of::<Frontend>() == FrontendValue::SIZE && align_of::<Frontend>() == 2);
    assert!(offset_of!(Frontend, listener_port) == 0 && offset_of!(Frontend, state) == 2);
    assert!(offset_of!(Frontend, ranged) == 3);
    assert!(size_of::<SourceKey>() == SourceKey::SIZE && offset_of!(SourceKey, source) == 20);
    assert!(size_of::<SocketKey>() == SocketKey::SIZE && offset_of!(SocketKey, family) == 2);
    assert!(size_of::<Peer>() == 20 && offset_of!(Peer, listener_port) == 18);
    assert!(size_of::<Event>() == Event::SIZE);
    // The kernel takes a ring of whole pages alone, and of a power of two.
    assert!(EVENT_BYTES.is_power_of_two() && EVENT_BYTES as usize / (Event::SIZE + 8) == 14_563);
    assert!(offset_of!(Event, src) == 16 && offset_of!(Event, sport) == 48);
    assert!(offset_of!(Event, hook) == 56 && offset_of!(Event, socket_state) == 63);
};

/// The table of frontends: what a packet is looked up by.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// Where the packet goes.
    pub address: Address,
    /// To which port.
    pub port: u16,
    /// 4 or 6.
    pub family: u8,
    /// Zero.
    pub padding: u8,
}

impl FrontendKey {
    /// Bytes of a key.
    pub const SIZE: usize = 20;

    /// The key of an address and port.
    #[must_use]
    #[inline(always)]
    pub const fn new(family: Family, address: Address, port: u16) -> Self {
        Self {
            address,
            port,
            family: family as u8,
            padding: 0,
        }
    }

    /// As the map holds it.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; Self::SIZE] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.address;
        let [q, r] = self.port.to_ne_bytes();
        let [s, t] = [self.family, self.padding];
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t]
    }

    /// What the map holds.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [address @ .., q, r, family, padding] = bytes;
        Self {
            address,
            port: u16::from_ne_bytes([q, r]),
            family,
            padding,
        }
    }
}

/// What the table of frontends says of one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontendValue {
    /// The listener's port.
    pub listener_port: u16,
    /// A [`FrontendState`]'s number.
    pub state: u8,
    /// 1 if the frontend is open to the sources of the table of ranges alone, else 0.
    pub ranged: u8,
}

impl FrontendValue {
    /// Bytes of a value.
    pub const SIZE: usize = 4;

    /// As the map holds it.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; Self::SIZE] {
        let [a, b] = self.listener_port.to_ne_bytes();
        [a, b, self.state, self.ranged]
    }

    /// What the map holds.
    #[must_use]
    pub const fn from_bytes([a, b, state, ranged]: [u8; Self::SIZE]) -> Self {
        Self {
            listener_port: u16::from_ne_bytes([a, b]),
            state,
            ranged,
        }
    }

    /// The frontend, unless the state or the flag is none.
    #[must_use]
    pub const fn frontend(&self) -> Option<Frontend> {
        let state = match self.state {
            0 => FrontendState::Arming,
            1 => FrontendState::Active,
            2 => FrontendState::Draining,
            _ => return None,
        };
        let ranged = match self.ranged {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Frontend {
            listener_port: self.listener_port,
            state,
            ranged,
        })
    }
}

impl From<Frontend> for FrontendValue {
    fn from(frontend: Frontend) -> Self {
        Self {
            listener_port: frontend.listener_port,
            state: frontend.state as u8,
            ranged: frontend.ranged as u8,
        }
    }
}

/// The table of source ranges (a trie by longest prefix): who may come by a frontend that is open
/// to some alone. An entry's prefix is the whole frontend and the range's own; the value is 1.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceKey {
    /// By which frontend.
    pub frontend: FrontendKey,
    /// From where: an address, or the network of a range.
    pub source: Address,
}

impl SourceKey {
    /// Bytes of a key, without the length of its prefix.
    pub const SIZE: usize = 36;

    /// Bits that a look-up compares, at most: all of them.
    pub const BITS: u32 = 288;

    /// Bits of a frontend, which come first and are compared in full.
    pub const FRONTEND_BITS: u32 = 160;

    /// As the map holds it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let (frontend, source) = bytes.split_at_mut(FrontendKey::SIZE);
        frontend.copy_from_slice(&self.frontend.to_bytes());
        source.copy_from_slice(&self.source);
        bytes
    }

    /// What the map holds.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            j,
            k,
            l,
            m,
            n,
            o,
            p,
            q,
            r,
            s,
            t,
            source @ ..,
        ] = bytes;
        let frontend = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t];
        Self {
            frontend: FrontendKey::from_bytes(frontend),
            source,
        }
    }
}

/// The table of listening sockets: what sk_lookup picks one by.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketKey {
    /// The port that it listens on.
    pub port: u16,
    /// 4 or 6.
    pub family: u8,
    /// Zero.
    pub padding: u8,
}

impl SocketKey {
    /// Bytes of a key.
    pub const SIZE: usize = 4;

    /// The key of a listener's port and family.
    #[must_use]
    #[inline(always)]
    pub const fn new(family: Family, port: u16) -> Self {
        Self {
            port,
            family: family as u8,
            padding: 0,
        }
    }

    /// As the map holds it.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; Self::SIZE] {
        let [a, b] = self.port.to_ne_bytes();
        [a, b, self.family, self.padding]
    }

    /// What the map holds.
    #[must_use]
    pub const fn from_bytes([a, b, family, padding]: [u8; Self::SIZE]) -> Self {
        Self {
            port: u16::from_ne_bytes([a, b]),
            family,
            padding,
        }
    }
}

/// What a client of the node itself asked for, kept with its socket: `getpeername` answers it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The service's address.
    pub address: Address,
    /// The service's port.
    pub port: u16,
    /// Where the call went instead: a port of loopback.
    pub listener_port: u16,
}

/// One decision, as the ring of events holds it. What a hook does not see is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since the machine was started, without the time it slept.
    pub time: u64,
    /// The device that the packet came in by.
    pub ifindex: u32,
    /// The mark that the packet was given.
    pub mark: u32,
    /// Where it comes from.
    pub src: Address,
    /// Where it goes.
    pub dst: Address,
    /// From which port.
    pub sport: u16,
    /// To which port.
    pub dport: u16,
    /// The frontend's listener, of a call that was sent to it.
    pub listener_port: u16,
    /// The port that the chosen socket is bound to.
    pub socket_port: u16,
    /// The row of the hook's counters.
    pub hook: u8,
    /// A [`crate::Verdict`]'s number.
    pub verdict: u8,
    /// A [`crate::Reason`]'s number.
    pub reason: u8,
    /// 4 or 6, or 0 when nothing could be read.
    pub family: u8,
    /// A [`crate::Packet`]'s number.
    pub packet: u8,
    /// IANA's number.
    pub protocol: u8,
    /// The TCP header's flags.
    pub tcp_flags: u8,
    /// The kernel's own number for the state of the chosen socket (`TCP_ESTABLISHED` is 1).
    pub socket_state: u8,
}

impl Event {
    /// Bytes of an event.
    pub const SIZE: usize = 64;

    /// What the ring holds; nothing of another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (time, rest) = bytes.split_first_chunk::<8>()?;
        let (ifindex, rest) = rest.split_first_chunk::<4>()?;
        let (mark, rest) = rest.split_first_chunk::<4>()?;
        let (src, rest) = rest.split_first_chunk::<16>()?;
        let (dst, rest) = rest.split_first_chunk::<16>()?;
        let (sport, rest) = rest.split_first_chunk::<2>()?;
        let (dport, rest) = rest.split_first_chunk::<2>()?;
        let (listener_port, rest) = rest.split_first_chunk::<2>()?;
        let (socket_port, rest) = rest.split_first_chunk::<2>()?;
        let &[
            hook,
            verdict,
            reason,
            family,
            packet,
            protocol,
            tcp_flags,
            socket_state,
        ] = <&[u8; 8]>::try_from(rest).ok()?;
        Some(Self {
            time: u64::from_ne_bytes(*time),
            ifindex: u32::from_ne_bytes(*ifindex),
            mark: u32::from_ne_bytes(*mark),
            src: *src,
            dst: *dst,
            sport: u16::from_ne_bytes(*sport),
            dport: u16::from_ne_bytes(*dport),
            listener_port: u16::from_ne_bytes(*listener_port),
            socket_port: u16::from_ne_bytes(*socket_port),
            hook,
            verdict,
            reason,
            family,
            packet,
            protocol,
            tcp_flags,
            socket_state,
        })
    }
}

/// The row of a hook's counters, also its number in an [`Event`].
#[must_use]
#[inline(always)]
pub const fn row(hook: Hook) -> u8 {
    match hook {
        Hook::TcIngress { .. } => 0,
        Hook::SkLookup => 1,
        Hook::Connect => 2,
    }
}

/// The row of [`Fault`]s.
pub const FAULT_ROW: u8 = 3;

/// What a program could not do and had to work around; counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Fault {
    /// The kernel did not take the socket that was chosen for a packet: at tc the packet is
    /// delivered by its mark, at sk_lookup another program's choice stands.
    AssignRefused = 0,
    /// The ring of events was full.
    EventLost = 1,
    /// A service's address could not be kept with a client's socket: the client sees loopback.
    PeerLost = 2,
}

impl Fault {
    /// Every fault, by number.
    pub const ALL: &'static [Self] = &[Self::AssignRefused, Self::EventLost, Self::PeerLost];

    /// The name by which reports, metrics and JSON call it; stable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AssignRefused => "assign-refused",
            Self::EventLost => "event-lost",
            Self::PeerLost => "peer-lost",
        }
    }
}
