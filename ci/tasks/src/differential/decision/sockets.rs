//! Real sockets in every state, standing in the round's namespace as its tables say.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind,
    connect, listen, sendto, setsockopt, socket, sockopt,
};
use nodeway_core::datapath::{Address, Family};

use super::Trouble;
use super::tables::{State, Tables, Tuple};

/// What stands there, for as long as this lives.
pub(super) struct Standing {
    _listening: Vec<TcpListener>,
    _streams: Vec<TcpStream>,
    _asking: Vec<OwnedFd>,
}

/// Addresses of both sides are this namespace's own. What is sent to `silent` ones goes to a
/// neighbour that is not there: loopback would answer that it is unreachable.
const SETUP: [&str; 12] = [
    "ip link set lo up",
    "ip link add silent type veth peer name nobody",
    "ip link set nobody up",
    "ip link set silent up",
    "ip route add local 10.96.0.0/16 dev lo",
    "ip route add local 10.244.0.0/16 dev lo",
    "ip neigh add 198.19.0.2 lladdr 02:00:00:00:00:02 dev silent nud permanent",
    "ip route add 198.18.0.0/16 via 198.19.0.2 dev silent onlink",
    "ip -6 route add local fd00:96::/64 dev lo",
    "ip -6 route add local fd00:244::/64 dev lo",
    "ip -6 neigh add fe80::2 lladdr 02:00:00:00:00:02 dev silent nud permanent",
    "ip -6 route add fd00:198::/64 via fe80::2 dev silent",
];

/// A request must stand as long as the round does, and clients bind what they like.
const SETTINGS: [(&str, &str); 5] = [
    ("ipv4/ip_nonlocal_bind", "1"),
    ("ipv6/ip_nonlocal_bind", "1"),
    ("ipv4/tcp_synack_retries", "100"),
    ("ipv4/tcp_syn_retries", "100"),
    ("ipv4/tcp_fin_timeout", "600"),
];

impl Standing {
    /// Makes them, in the calling thread's namespace.
    pub(super) fn make(tables: &Tables) -> Result<Self, Trouble> {
        for command in SETUP {
            let mut words = command.split(' ');
            let output = Command::new(words.next().unwrap_or_default())
                .args(words)
                .output()?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(format!("`{command}`: {said}").into());
            }
        }
        for (name, value) in SETTINGS {
            std::fs::write(format!("/proc/sys/net/{name}"), value)?;
        }
        let mut standing = Self {
            _listening: Vec::new(),
            _streams: Vec::new(),
            _asking: Vec::new(),
        };
        let mut listening = standing.listen(tables)?;
        for connection in &tables.connections {
            standing.connect(&connection.tuple, connection.state, &mut listening)?;
        }
        standing._listening.extend(listening.into_values());
        standing.check(tables)?;
        Ok(standing)
    }

    /// ListenSockets; those of services are given back.
    fn listen(&mut self, tables: &Tables) -> Result<BTreeMap<SocketAddr, TcpListener>, Trouble> {
        for (family, port) in &tables.ours {
            let loopback: IpAddr = match family {
                Family::V4 => Ipv4Addr::LOCALHOST.into(),
                Family::V6 => Ipv6Addr::LOCALHOST.into(),
            };
            self._listening
                .push(listener(SocketAddr::new(loopback, *port))?);
        }
        for (family, port) in &tables.wild {
            let any: IpAddr = match family {
                Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
                Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
            };
            self._listening.push(listener(SocketAddr::new(any, *port))?);
        }
        let mut services = BTreeMap::new();
        for (family, address, port) in &tables.others {
            let address = place(*family, *address, *port);
            services.insert(address, listener(address)?);
        }
        Ok(services)
    }

    fn connect(
        &mut self,
        tuple: &Tuple,
        state: State,
        listening: &mut BTreeMap<SocketAddr, TcpListener>,
    ) -> Result<(), Trouble> {
        let src = place(tuple.family, tuple.src, tuple.sport);
        let dst = place(tuple.family, tuple.dst, tuple.dport);
        match state {
            State::Request => return ask(tuple, src, dst),
            State::SynSent => {
                let fd = client(dst, SockFlag::SOCK_NONBLOCK)?;
                // It cannot succeed.
                let _ = connect(fd.as_raw_fd(), &SockaddrStorage::from(src));
                self._asking.push(fd);
                return Ok(());
            }
            _ => {}
        }
        let fd = client(src, SockFlag::empty())?;
        connect(fd.as_raw_fd(), &SockaddrStorage::from(dst))?;
        let mut client = TcpStream::from(fd);
        let service = listening.get(&dst).ok_or("nobody listens there")?;
        let mut server = accept(service, src)?;
        match state {
            State::CloseWait => client.shutdown(Shutdown::Write)?,
            State::FinWait2 => server.shutdown(Shutdown::Write)?,
            State::TimeWait => {
                server.shutdown(Shutdown::Write)?;
                // The end has come before the client closes.
                let _ = client.read(&mut [0])?;
                drop(client);
                let _ = server.read(&mut [0])?;
                return Ok(());
            }
            _ => {}
        }
        self._streams.extend([client, server]);
        Ok(())
    }

    /// Whether each socket is in the state that the tables say.
    pub(super) fn check(&self, tables: &Tables) -> Result<(), Trouble> {
        let mut wrong = String::new();
        for _ in 0..100 {
            let seen = states()?;
            wrong.clear();
            for (tuple, state) in &tables.sockets {
                let own = place(tuple.family, tuple.dst, tuple.dport);
                let other = place(tuple.family, tuple.src, tuple.sport);
                // What it shows of a request is SYN_RECV.
                let shown = match state {
                    State::Request => 3,
                    _ => *state as u8,
                };
                let there = seen.get(&(own, other));
                if there != Some(&shown) {
                    wrong = format!("{own} with {other} is in state {there:?}, not {state:?}");
                }
            }
            if wrong.is_empty() {
                return Ok(());
            }
            // The kernel is still about it.
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Err(format!("a socket does not stand as it should: {wrong}").into())
    }
}

/// A connection's server side, by its client.
fn accept(listener: &TcpListener, from: SocketAddr) -> Result<TcpStream, Trouble> {
    let (stream, peer) = listener.accept()?;
    if peer == from {
        Ok(stream)
    } else {
        Err(format!("{peer} connected in the place of {from}").into())
    }
}

fn place(family: Family, address: Address, port: u16) -> SocketAddr {
    let [a, b, c, d, ..] = address;
    match family {
        Family::V4 => (Ipv4Addr::new(a, b, c, d), port).into(),
        Family::V6 => (Ipv6Addr::from(address), port).into(),
    }
}

const fn family_of(address: SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn listener(address: SocketAddr) -> Result<TcpListener, Trouble> {
    let fd = socket(
        family_of(address),
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(128)?)?;
    Ok(TcpListener::from(fd))
}

fn client(own: SocketAddr, flags: SockFlag) -> Result<OwnedFd, Trouble> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family_of(own), SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(own))?;
    Ok(fd)
}

/// Sends a SYN whose answer nobody gets.
fn ask(tuple: &Tuple, src: SocketAddr, dst: SocketAddr) -> Result<(), Trouble> {
    let mut segment = Vec::new();
    segment.extend(src.port().to_be_bytes());
    segment.extend(dst.port().to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let bytes = match tuple.family {
        Family::V4 => 4,
        Family::V6 => 16,
    };
    let mut covered = Vec::new();
    covered.extend(tuple.src.iter().take(bytes));
    covered.extend(tuple.dst.iter().take(bytes));
    covered.extend([0, 6, 0, 20]);
    covered.extend(&segment);
    let [high, low] = checksum(&covered).to_be_bytes();
    segment.splice(16..18, [high, low]);
    let mut packet = match tuple.family {
        Family::V4 => vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0],
        Family::V6 => vec![0x60, 0, 0, 0, 0, 20, 6, 64],
    };
    packet.extend(tuple.src.iter().take(bytes));
    packet.extend(tuple.dst.iter().take(bytes));
    packet.extend(segment);
    let raw = Some(SockProtocol::Raw);
    let fd = socket(family_of(dst), SockType::Raw, SockFlag::SOCK_CLOEXEC, raw)?;
    // A raw socket has no port.
    let to = SockaddrStorage::from(SocketAddr::new(dst.ip(), 0));
    sendto(fd.as_raw_fd(), &packet, &to, MsgFlags::empty())?;
    Ok(())
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        let [high, low] = [pair.first(), pair.get(1)].map(|it| it.copied().unwrap_or(0));
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = sum.to_be_bytes();
    !u16::from_be_bytes([high, low])
}

/// Every TCP socket's state, by its own and the other side's address.
fn states() -> Result<BTreeMap<(SocketAddr, SocketAddr), u8>, Trouble> {
    let mut states = BTreeMap::new();
    for file in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
        for line in text.lines().skip(1) {
            let mut words = line.split_whitespace().skip(1);
            let mut place = || shown(words.next()?);
            if let (Some(own), Some(other)) = (place(), place())
                && let Some(state) = words.next()
            {
                states.insert((own, other), u8::from_str_radix(state, 16)?);
            }
        }
    }
    Ok(states)
}

/// An address as `/proc/net/tcp` shows it: words in the machine's byte order, and a port.
fn shown(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for at in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    if let Ok(address) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some((Ipv4Addr::from(address), port).into());
    }
    let address = <[u8; 16]>::try_from(bytes.as_slice()).ok()?;
    Some((Ipv6Addr::from(address), port).into())
}
