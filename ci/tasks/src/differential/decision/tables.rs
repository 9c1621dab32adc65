//! A node's tables, drawn at random, and the native side's answers out of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use nodeway_core::datapath::{Address, Family, Flow, Frontend, FrontendState, Kernel, SocketState};
use nodeway_sim::Random;

/// How a socket stands in the namespace: what the kernel calls its state (`tcp_states.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// Connected.
    Established = 1,
    /// Asked, and nobody answers.
    SynSent = 2,
    /// It has said its last word, the other side has not.
    FinWait2 = 5,
    /// Over; the ports are not free yet.
    TimeWait = 6,
    /// The other side has said its last word.
    CloseWait = 8,
    /// A ListenSocket.
    Listen = 10,
    /// A connection request.
    Request = 12,
}

/// Addresses and ports of a connection, as its packets carry them towards the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tuple {
    /// IPv4 or IPv6.
    pub(super) family: Family,
    /// The other side.
    pub(super) src: Address,
    /// The other side's port.
    pub(super) sport: u16,
    /// The socket's own address.
    pub(super) dst: Address,
    /// The socket's own port.
    pub(super) dport: u16,
}

/// A connection that stands in the namespace, made from the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    /// Towards the server's socket.
    pub(super) tuple: Tuple,
    /// How the server's socket stands.
    pub(super) state: State,
}

/// What one round decides on.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    /// Frontends by address and port.
    pub(super) frontends: BTreeMap<(Family, Address, u16), Frontend>,
    /// Who may come by those that are open to some sources alone; perhaps nobody.
    pub(super) ranges: BTreeMap<(Family, Address, u16), Vec<IpNet>>,
    /// Ports of loopback where a listener of ours listens.
    pub(super) ours: BTreeSet<(Family, u16)>,
    /// Ports of any address where another program listens.
    pub(super) wild: BTreeSet<(Family, u16)>,
    /// Addresses and ports where another program listens.
    pub(super) others: BTreeSet<(Family, Address, u16)>,
    /// Connections; the sockets of both sides are in [`Tables::sockets`].
    pub(super) connections: Vec<Connection>,
    /// Each socket that is no ListenSocket.
    pub(super) sockets: BTreeMap<Tuple, State>,
}

/// Ports of services.
pub(super) const PORTS: [u16; 4] = [80, 443, 8080, 9080];
/// Ports of listeners. Another program listens on the last one, on any address.
pub(super) const LISTENERS: [u16; 8] = [
    10_000, 10_001, 10_002, 10_003, 10_004, 10_005, 10_006, 10_007,
];
/// Service addresses of a family.
pub(super) const SERVICES: u8 = 12;
/// How each connection stands; so many of each in each family.
const STATES: [State; 6] = [
    State::Established,
    State::CloseWait,
    State::FinWait2,
    State::TimeWait,
    State::Request,
    State::SynSent,
];
const EACH: u16 = 4;

/// A service's address.
#[must_use]
pub(super) const fn service(family: Family, n: u8) -> Address {
    match family {
        Family::V4 => v4([10, 96, 0, n]),
        Family::V6 => [0xfd, 0, 0, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n],
    }
}

/// A client's address; what is sent there comes back to this namespace.
#[must_use]
pub(super) const fn client(family: Family, n: u8) -> Address {
    match family {
        Family::V4 => v4([10, 244, 0, n]),
        Family::V6 => [0xfd, 0, 2, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n],
    }
}

/// An address from which nothing ever answers.
#[must_use]
pub(super) const fn silent(family: Family, n: u8) -> Address {
    match family {
        Family::V4 => v4([198, 18, 0, n]),
        Family::V6 => [0xfd, 0, 1, 0x98, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n],
    }
}

const fn v4([a, b, c, d]: [u8; 4]) -> Address {
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Whether something happens that does so in that many of a hundred cases.
pub(super) fn chance(random: &mut Random, percent: u64) -> bool {
    random.below(100) < percent
}

/// One of them.
pub(super) fn pick<T: Copy>(random: &mut Random, of: &[T]) -> Option<T> {
    let bound = u64::try_from(of.len()).unwrap_or(0);
    let at = usize::try_from(random.below(bound)).unwrap_or(0);
    of.get(at).copied()
}

/// A byte.
pub(super) fn byte(random: &mut Random) -> u8 {
    let [byte, ..] = random.draw().to_le_bytes();
    byte
}

/// A port.
pub(super) fn port(random: &mut Random) -> u16 {
    let [a, b, ..] = random.draw().to_le_bytes();
    u16::from_le_bytes([a, b])
}

impl Tables {
    /// Draws tables.
    pub(super) fn draw(random: &mut Random) -> Self {
        let mut tables = Self::default();
        for family in [Family::V4, Family::V6] {
            tables.draw_listeners(random, family);
            tables.draw_connections(family);
            for n in 1..=SERVICES {
                for port in PORTS {
                    if chance(random, 70) {
                        tables.draw_frontend(random, (family, service(family, n), port));
                    }
                }
            }
        }
        // Clients' own addresses as frontends: so their sides of connections are found as well.
        let own: Vec<Tuple> = tables.sockets.keys().copied().collect();
        for tuple in own {
            let key = (tuple.family, tuple.dst, tuple.dport);
            if tuple.dport >= 20_000 && chance(random, 50) {
                tables.draw_frontend(random, key);
            }
        }
        tables
    }

    fn draw_frontend(&mut self, random: &mut Random, key: (Family, Address, u16)) {
        let frontend = frontend(random);
        if frontend.ranged {
            let ranges = (0..random.below(4)).map(|_| range(random, key.0)).collect();
            self.ranges.insert(key, ranges);
        }
        self.frontends.insert(key, frontend);
    }

    fn draw_listeners(&mut self, random: &mut Random, family: Family) {
        for (n, port) in LISTENERS.into_iter().enumerate() {
            if n + 1 == LISTENERS.len() {
                self.wild.insert((family, port));
            } else if chance(random, 60) {
                self.ours.insert((family, port));
            }
        }
        self.wild.insert((family, 8080));
        for n in 1..=6 {
            self.others.insert((family, service(family, n), 80));
        }
    }

    fn draw_connections(&mut self, family: Family) {
        let mut sport = 20_000;
        for state in STATES {
            for n in 0..EACH {
                sport += 1;
                let [_, n] = n.to_be_bytes();
                let (src, dst, dport) = match state {
                    State::Request => (silent(family, n + 1), service(family, n + 1), 80),
                    // The socket is the client's own; the service never answers.
                    State::SynSent => (silent(family, n + 1), client(family, n + 1), sport),
                    _ => (client(family, n + 1), service(family, n + 1), 80),
                };
                let tuple = Tuple {
                    family,
                    src,
                    sport: if state == State::SynSent { 80 } else { sport },
                    dst,
                    dport,
                };
                self.connections.push(Connection { tuple, state });
                self.sockets.insert(tuple, state);
                let other = match state {
                    State::Established => Some(State::Established),
                    State::CloseWait => Some(State::FinWait2),
                    State::FinWait2 => Some(State::CloseWait),
                    _ => None,
                };
                if let Some(other) = other {
                    self.sockets.insert(tuple.turned(), other);
                }
            }
        }
    }

    /// The ListenSocket of a port of loopback.
    fn listening(&self, family: Family, port: u16) -> Option<Socket> {
        let is_there = self.ours.contains(&(family, port)) || self.wild.contains(&(family, port));
        is_there.then_some(Socket {
            state: State::Listen,
            port,
        })
    }
}

fn frontend(random: &mut Random) -> Frontend {
    Frontend {
        listener_port: pick(random, &LISTENERS).unwrap_or(0),
        state: match random.below(10) {
            0..=1 => FrontendState::Arming,
            2..=7 => FrontendState::Active,
            _ => FrontendState::Draining,
        },
        ranged: chance(random, 20),
    }
}

/// A network about where clients are: one of them, some of them, all of them, or everybody.
fn range(random: &mut Random, family: Family) -> IpNet {
    let n = byte(random) % 8;
    let address = match chance(random, 75) {
        true => client(family, n),
        false => silent(family, n),
    };
    let whole: u8 = match family {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let free = pick(random, &[0, 1, 2, 3, 8, whole - 1, whole]).unwrap_or(0);
    IpNet::new_assert(address_of(family, address), whole - free).trunc()
}

/// An address as the rest of the world has it.
pub(super) fn address_of(family: Family, address: Address) -> IpAddr {
    let [a, b, c, d, ..] = address;
    match family {
        Family::V4 => [a, b, c, d].into(),
        Family::V6 => address.into(),
    }
}

impl Tuple {
    /// As the other side's packets carry it.
    #[must_use]
    pub(super) const fn turned(self) -> Self {
        Self {
            src: self.dst,
            sport: self.dport,
            dst: self.src,
            dport: self.sport,
            ..self
        }
    }
}

/// A socket of the native side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    /// How it stands.
    pub(super) state: State,
    /// The port that it is bound to.
    pub(super) port: u16,
}

impl Kernel for Tables {
    type Socket = Socket;

    fn frontend(&self, family: Family, address: &Address, port: u16) -> Option<&Frontend> {
        self.frontends.get(&(family, *address, port))
    }

    fn admits(&self, flow: &Flow) -> bool {
        let source = address_of(flow.family, flow.src);
        let ranges = self.ranges.get(&(flow.family, flow.dst, flow.dport));
        ranges.is_some_and(|all| all.iter().any(|range| range.contains(&source)))
    }

    fn socket(&self, flow: &Flow) -> Option<Socket> {
        let tuple = Tuple {
            family: flow.family,
            src: flow.src,
            sport: flow.sport,
            dst: flow.dst,
            dport: flow.dport,
        };
        let own = |state| Socket {
            state,
            port: flow.dport,
        };
        if let Some(state) = self.sockets.get(&tuple) {
            return Some(own(*state));
        }
        let key = (flow.family, flow.dst, flow.dport);
        let listens = self.others.contains(&key) || self.wild.contains(&(flow.family, flow.dport));
        listens.then(|| own(State::Listen))
    }

    fn state(&self, socket: &Socket, frontend: &Frontend) -> SocketState {
        match socket.state {
            State::TimeWait => SocketState::TimeWait,
            State::Request => SocketState::Request,
            State::Listen if socket.port == frontend.listener_port => SocketState::OurListener,
            State::Listen => SocketState::OtherListener,
            _ => SocketState::Established,
        }
    }

    fn listener(&self, family: Family, frontend: &Frontend) -> Option<Socket> {
        self.listening(family, frontend.listener_port)
    }
}
