//! Connection tracking: what was decided on a connection's first packet is done to all that follow,
//! and undone to the replies.
//!
//! As Linux does it for TCP, as far as rules hang on it: states, translation with unique replies,
//! marks, and how long a connection is remembered (`nf_conntrack_proto_tcp.c`). Windows and
//! sequence numbers are not followed. A connection is only remembered once its first packet has
//! got through ([`Conntrack::confirm`]).

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use nodeway_datapath::tcp_flags;

/// `nf_conntrack_tcp_timeout_syn_sent`: a connection that nobody has answered.
const UNANSWERED: Duration = Duration::from_secs(120);
/// `nf_conntrack_tcp_timeout_established`
const ESTABLISHED: Duration = Duration::from_secs(5 * 24 * 3600);
/// `nf_conntrack_tcp_timeout_time_wait`
const CLOSED: Duration = Duration::from_secs(120);
/// `nf_conntrack_tcp_timeout_close`, after an RST.
const RESET: Duration = Duration::from_secs(10);

/// Source and destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Who sends.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
}

impl Tuple {
    /// A packet that answers one of this tuple.
    #[must_use]
    pub const fn reply(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
        }
    }
}

/// Which of the two a packet goes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// With the first packet.
    Original,
    /// Against it.
    Reply,
}

/// What connection tracking knows of a packet, and carries along with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tracked {
    /// Nobody has looked yet.
    #[default]
    Unseen,
    /// `NOTRACK`.
    Untracked,
    /// It belongs to nothing, and begins nothing.
    Invalid,
    /// It begins a connection that is not remembered yet.
    New(Box<Connection>),
    /// It belongs to a connection.
    Of {
        /// Which one.
        connection: ConnectionId,
        /// In which direction.
        direction: Direction,
        /// Whether an answer has been seen, this packet included.
        answered: bool,
        /// Whether it is an error about the connection.
        related: bool,
    },
}

/// The number of a remembered connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The first packet as it came.
    pub original: Tuple,
    /// An answer as it will come: the original turned round, after translation.
    pub reply: Tuple,
    /// `CONNMARK`
    pub mark: u32,
    /// Whether it was decided where its packets go to.
    pub destination_decided: bool,
    /// Whether it was decided from where its packets come.
    pub source_decided: bool,
    answered: bool,
    /// Whether each direction has sent its FIN: original, reply.
    finished: [bool; 2],
    deadline: Duration,
}

impl Connection {
    fn new(original: Tuple, now: Duration) -> Self {
        Self {
            original,
            reply: original.reply(),
            mark: 0,
            destination_decided: false,
            source_decided: false,
            answered: false,
            finished: [false; 2],
            deadline: now + UNANSWERED,
        }
    }

    /// Whether its destination was changed (`DNAT`).
    #[must_use]
    pub fn destination_changed(&self) -> bool {
        self.reply.source != self.original.destination
    }

    /// Whether its source was changed (`SNAT`).
    #[must_use]
    pub fn source_changed(&self) -> bool {
        self.reply.destination != self.original.source
    }

    /// What the destination of a packet in that direction becomes.
    #[must_use]
    pub const fn destination(&self, direction: Direction) -> SocketAddr {
        match direction {
            Direction::Original => self.reply.source,
            Direction::Reply => self.original.source,
        }
    }

    /// What the source of a packet in that direction becomes.
    #[must_use]
    pub const fn source(&self, direction: Direction) -> SocketAddr {
        match direction {
            Direction::Original => self.reply.destination,
            Direction::Reply => self.original.destination,
        }
    }

    fn is_over(&self) -> bool {
        self.finished == [true; 2]
    }
}

/// A table whose look-ups take the same time however much is in it. Its hashes are the same in every
/// run, and nothing ever hangs on its order.
type Table<K, V> = HashMap<K, V, FixedState>;

/// The connections that one network namespace remembers.
#[derive(Clone, Debug, Default)]
pub struct Conntrack {
    connections: Table<ConnectionId, Connection>,
    by_tuple: Table<Tuple, (ConnectionId, Direction)>,
    /// When each is to be looked at again, by its deadline of back then.
    expiry: BTreeSet<(Duration, ConnectionId)>,
    next: u64,
}

impl Conntrack {
    /// How many connections are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// The remembered connections, the oldest first.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        let mut all: Vec<_> = self.connections.iter().collect();
        all.sort_unstable_by_key(|(id, _)| **id);
        all.into_iter().map(|(_, connection)| connection)
    }

    /// A remembered connection.
    #[must_use]
    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// A remembered connection, to be marked.
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    /// Where the client of a socket meant to go, which has that peer and that local address:
    /// `SO_ORIGINAL_DST`. None when nothing was changed.
    #[must_use]
    pub fn original_destination(&self, peer: SocketAddr, local: SocketAddr) -> Option<SocketAddr> {
        let answer = Tuple {
            source: local,
            destination: peer,
        };
        let (id, Direction::Reply) = self.by_tuple.get(&answer)? else {
            return None;
        };
        let connection = self.connections.get(id)?;
        let meant = connection.original.destination;
        (meant != local).then_some(meant)
    }

    /// Whether some connection that is not over was meant for that address.
    #[must_use]
    pub fn has_live_to(&self, destination: SocketAddr) -> bool {
        let mut all = self.connections.values();
        all.any(|it| it.original.destination == destination && !it.is_over())
    }

    /// What a TCP segment belongs to.
    pub fn segment(&mut self, now: Duration, tuple: Tuple, flags: u8) -> Tracked {
        self.forget(now);
        let opens = flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN;
        let Some((id, direction)) = self.by_tuple.get(&tuple).copied() else {
            return begin(now, tuple, flags);
        };
        // The ports of a connection that is over may be used again at once.
        if opens && self.connections.get(&id).is_some_and(Connection::is_over) {
            self.remove(id);
            return begin(now, tuple, flags);
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return Tracked::Invalid;
        };
        connection.answered |= direction == Direction::Reply;
        if flags & tcp_flags::RST != 0 {
            connection.finished = [true; 2];
        } else if flags & tcp_flags::FIN != 0
            && let Some(finished) = connection.finished.get_mut(direction as usize)
        {
            *finished = true;
        }
        connection.deadline = now
            + if flags & tcp_flags::RST != 0 {
                RESET
            } else if connection.is_over() {
                CLOSED
            } else if connection.answered {
                ESTABLISHED
            } else {
                UNANSWERED
            };
        let (answered, deadline) = (connection.answered, connection.deadline);
        if connection.is_over() {
            // Sooner than it was to be looked at.
            self.expiry.insert((deadline, id));
        }
        Tracked::Of {
            connection: id,
            direction,
            answered,
            related: false,
        }
    }

    /// What an ICMP error belongs to, by the tuple of a packet that its receiver might have been
    /// sent instead: it goes where that would go.
    #[must_use]
    pub fn error(&self, tuple: Tuple) -> Tracked {
        match self.by_tuple.get(&tuple) {
            Some((id, direction)) => Tracked::Of {
                connection: *id,
                direction: *direction,
                answered: true,
                related: true,
            },
            None => Tracked::Invalid,
        }
    }

    /// Lets a new connection go to another destination.
    pub fn change_destination(&self, connection: &mut Connection, to: SocketAddr) {
        let port = match to.port() {
            0 => connection.original.destination.port(),
            port => port,
        };
        connection.reply.source = SocketAddr::new(to.ip(), port);
        connection.destination_decided = true;
    }

    /// Lets a new connection come from another address, or from its own, by a source port that no
    /// other connection to that destination has: its own if that is free, else the first one after
    /// it, or after `start` where any will do.
    pub fn change_source(
        &self,
        connection: &mut Connection,
        from: Option<IpAddr>,
        start: Option<u16>,
    ) {
        let own = connection.original.source;
        let mut from = SocketAddr::new(from.unwrap_or(own.ip()), start.unwrap_or(own.port()));
        for _ in 0..u16::MAX {
            let reply = Tuple {
                source: connection.reply.source,
                destination: from,
            };
            if !self.is_taken(&reply) {
                break;
            }
            from.set_port(from.port().checked_add(1).unwrap_or(FIRST_PORT));
        }
        connection.reply.destination = from;
        connection.source_decided = true;
    }

    fn is_taken(&self, reply: &Tuple) -> bool {
        self.by_tuple.get(reply).is_some_and(|(id, _)| {
            self.connections
                .get(id)
                .is_some_and(|other| !other.is_over())
        })
    }

    /// Remembers a connection whose first packet has got through.
    pub fn confirm(&mut self, connection: Connection) -> ConnectionId {
        for tuple in [connection.original, connection.reply] {
            if let Some((old, _)) = self.by_tuple.get(&tuple).copied() {
                self.remove(old);
            }
        }
        let id = ConnectionId(self.next);
        self.next += 1;
        self.by_tuple
            .insert(connection.original, (id, Direction::Original));
        self.by_tuple
            .insert(connection.reply, (id, Direction::Reply));
        self.expiry.insert((connection.deadline, id));
        self.connections.insert(id, connection);
        id
    }

    fn remove(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        for tuple in [connection.original, connection.reply] {
            if self
                .by_tuple
                .get(&tuple)
                .is_some_and(|(other, _)| *other == id)
            {
                self.by_tuple.remove(&tuple);
            }
        }
    }

    /// Forgets what has been silent for too long: each is looked at when its old deadline is over.
    fn forget(&mut self, now: Duration) {
        while let Some((at, id)) = self.expiry.first().copied() {
            if at > now {
                return;
            }
            self.expiry.pop_first();
            match self.connections.get(&id).map(|it| it.deadline) {
                Some(deadline) if deadline > now => {
                    self.expiry.insert((deadline, id));
                }
                Some(_) => self.remove(id),
                None => {}
            }
        }
    }
}

/// Where the search for a free port goes on after the last.
const FIRST_PORT: u16 = 1024;

/// What a segment of no known connection is: its first, or one of a connection that stood before
/// anybody looked (`nf_conntrack_tcp_loose`), or nothing that could be.
fn begin(now: Duration, tuple: Tuple, flags: u8) -> Tracked {
    const DECIDING: u8 = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST | tcp_flags::ACK;
    match flags & DECIDING {
        tcp_flags::SYN | tcp_flags::ACK => Tracked::New(Box::new(Connection::new(tuple, now))),
        _ => Tracked::Invalid,
    }
}
