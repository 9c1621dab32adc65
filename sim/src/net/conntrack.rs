//! Connection tracking: what kube-proxy's rules did to a connection's first packet is done to all
//! that follow, and undone to the replies.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodeway_core::datapath::tcp_flags;

use crate::time::Time;

/// Linux's `nf_conntrack_tcp_timeout_time_wait`.
const AFTER_CLOSE: Duration = Duration::from_secs(120);

/// Source and destination of a packet.
pub(crate) type Direction = (SocketAddr, SocketAddr);

#[derive(Clone, Debug)]
struct Entry {
    /// What packets of this direction become.
    becomes: Direction,
    /// How packets of the other direction come.
    other: Direction,
    /// Whether this direction has sent its FIN, or either an RST.
    done: bool,
}

/// The tracked connections of a node, two entries each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conntrack {
    entries: BTreeMap<Direction, Entry>,
    closed: VecDeque<(Time, Direction)>,
}

impl Conntrack {
    /// What a packet becomes, if it belongs to a tracked connection. A SYN does not when the
    /// connection of its ports is over.
    pub(crate) fn pass(&mut self, now: Time, packet: Direction, flags: u8) -> Option<Direction> {
        if self.entries.is_empty() {
            return None;
        }
        let entry = self.entries.get(&packet)?;
        let (becomes, other) = (entry.becomes, entry.other);
        let over = entry.done && self.entries.get(&other).is_none_or(|other| other.done);
        if over && flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN {
            return None;
        }
        if flags & tcp_flags::RST != 0 {
            self.done(now, packet);
            self.done(now, other);
        } else if flags & tcp_flags::FIN != 0 {
            self.done(now, packet);
        }
        Some(becomes)
    }

    fn done(&mut self, now: Time, direction: Direction) {
        if let Some(entry) = self.entries.get_mut(&direction)
            && !entry.done
        {
            entry.done = true;
            self.closed.push_back((now + AFTER_CLOSE, direction));
        }
    }

    /// Tracks a new connection to another destination, and from another address if it is
    /// masqueraded. Says what its packets become. Where the source port is taken towards that
    /// destination, the next free one is used, as the kernel does.
    pub(crate) fn track(
        &mut self,
        now: Time,
        packet: Direction,
        to: SocketAddr,
        masquerade: Option<IpAddr>,
    ) -> Direction {
        self.forget(now);
        let (source, destination) = packet;
        if let Some(old) = self.entries.remove(&packet) {
            self.entries.remove(&old.other);
        }
        let mut from = SocketAddr::new(masquerade.unwrap_or(source.ip()), source.port());
        for _ in 0..u16::MAX {
            let live = |it: &Entry| !it.done;
            if !self.entries.get(&(to, from)).is_some_and(live) {
                break;
            }
            from.set_port(from.port().checked_add(1).unwrap_or(1024));
        }
        let becomes = (from, to);
        let reply = (to, from);
        if let Some(old) = self.entries.remove(&reply) {
            self.entries.remove(&old.other);
        }
        let forth = Entry {
            becomes,
            other: reply,
            done: false,
        };
        let back = Entry {
            becomes: (destination, source),
            other: packet,
            done: false,
        };
        self.entries.insert(packet, forth);
        self.entries.insert(reply, back);
        becomes
    }

    /// Forgets connections that have been over for long enough.
    fn forget(&mut self, now: Time) {
        while let Some((at, direction)) = self.closed.front().copied() {
            if at > now {
                break;
            }
            self.closed.pop_front();
            let over = |it: &Entry| it.done;
            let entry = self.entries.get(&direction);
            let other = entry.and_then(|entry| self.entries.get(&entry.other));
            if entry.is_some_and(over)
                && other.is_none_or(over)
                && let Some(entry) = self.entries.remove(&direction)
            {
                self.entries.remove(&entry.other);
            }
        }
    }
}
