//! A request, drawn; sent to Envoy as bytes, and told to the model as Envoy reads it.

#![expect(
    clippy::disallowed_methods,
    reason = "a real Envoy takes its real time"
)]

use std::fmt;
use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt};
use nodeway_core::proxy::Request;

use super::luck::{Feature as F, Luck};
use super::origin::read_head;
use super::real::CLUSTERS;
use super::table::{CLUSTER_HEADER, DRAW_HEADER, HEADERS, KEYS, VALUES, path};

/// Stands for the listener's own port, which is known when it listens.
const OWN_PORT: &str = ":{own}";

/// A request as a client writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) method: String,
    pub(super) host: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
}

impl Ask {
    pub(super) fn draw(luck: &mut Luck) -> Self {
        let method = if luck.has(F::AskMethod, 4) {
            luck.pick(&["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PURGE"])
        } else {
            "GET"
        };
        let mut headers = vec![(DRAW_HEADER.to_owned(), luck.below(200).to_string())];
        headers.push((CLUSTER_HEADER.to_owned(), luck.pick(&CLUSTERS).to_owned()));
        headers.push(("x-host".to_owned(), host(luck)));
        for name in HEADERS {
            if luck.once_in(2) {
                headers.push((name.to_owned(), luck.pick(&VALUES).to_owned()));
            }
        }
        if luck.has(F::AskRepeated, 4) {
            headers.push((
                luck.pick(&HEADERS).to_owned(),
                luck.pick(&VALUES).to_owned(),
            ));
        }
        if luck.has(F::AskCookie, 3) {
            let pairs: Vec<String> = (0..1 + luck.below(2))
                .map(|_| format!("{}={}", luck.pick(&KEYS), luck.pick(&VALUES)))
                .collect();
            headers.push(("cookie".to_owned(), pairs.join("; ")));
        }
        if luck.once_in(12) {
            let kind = luck.pick(&[
                "application/grpc",
                "application/grpc+proto",
                "application/grpc-web",
            ]);
            headers.push(("content-type".to_owned(), kind.to_owned()));
        }
        Self {
            method: method.to_owned(),
            host: host(luck),
            target: target(luck),
            headers,
        }
    }

    /// The request to a listener on this port.
    pub(super) fn to(&self, port: u16) -> Self {
        let own = format!(":{port}");
        let mut ask = self.clone();
        ask.host = ask.host.replace(OWN_PORT, &own);
        for (_, value) in &mut ask.headers {
            *value = value.replace(OWN_PORT, &own);
        }
        ask
    }

    /// The request as the router of an Envoy sees it that trusts its client's headers.
    pub(super) fn seen(&self) -> Request {
        let mut headers = self.headers.clone();
        headers.push(("x-forwarded-proto".to_owned(), "http".to_owned()));
        Request {
            method: self.method.clone(),
            scheme: "http".to_owned(),
            authority: self.host.clone(),
            path: self.target.clone(),
            headers,
            random: 0,
        }
    }

    /// The same with one thing less, in all ways.
    pub(super) fn smaller(&self) -> Vec<Self> {
        let mut all: Vec<Self> = (0..self.headers.len())
            .map(|at| {
                let mut ask = self.clone();
                ask.headers.remove(at);
                ask
            })
            .collect();
        if let Some((path, _)) = self.target.split_once('?') {
            all.push(Self {
                target: path.to_owned(),
                ..self.clone()
            });
        }
        if self.method != "GET" {
            all.push(Self {
                method: "GET".to_owned(),
                ..self.clone()
            });
        }
        // Without it, what is drawn among weighted clusters is chance.
        all.retain(|ask| ask.headers.iter().any(|(name, _)| name == DRAW_HEADER));
        all
    }

    /// Whether Envoy's own answers to it are gRPC's.
    pub(super) fn is_grpc(&self) -> bool {
        let kind = self.headers.iter().find(|(name, _)| name == "content-type");
        kind.is_some_and(|(_, value)| {
            value == "application/grpc" || value.starts_with("application/grpc+")
        })
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} HTTP/1.1\r\nhost: {}\r\n",
            self.method, self.target, self.host
        )?;
        for (name, value) in &self.headers {
            write!(f, "{name}: {value}\r\n")?;
        }
        f.write_str("\r\n")
    }
}

fn host(luck: &mut Luck) -> String {
    let mut host = if luck.has(F::AskIp, 8) {
        luck.pick(&["127.0.0.1", "[::1]", "[::1]:80"]).to_owned()
    } else {
        luck.count(F::AskHost);
        luck.pick(&[
            "a.test",
            "b.a.test",
            "test",
            "c.b.a.test",
            "a-x.test",
            "xa.test",
            "b.a.other",
            "a.other",
            "none",
        ])
        .to_owned()
    };
    if luck.has(F::AskCase, 6) {
        host.make_ascii_uppercase();
    }
    if luck.has(F::AskDot, 8) && !host.contains(']') {
        host.push('.');
    }
    if !host.ends_with(":80") && luck.has(F::AskPort, 3) {
        host.push_str(luck.pick(&[":80", ":443", ":8080", OWN_PORT]));
    }
    host
}

fn target(luck: &mut Luck) -> String {
    let mut target = path(luck);
    if luck.has(F::AskEncoded, 6) {
        target.push_str(luck.pick(&["%2Fb", "%20", "%C3%A9", "%2e", "%41"]));
    }
    if luck.has(F::AskQuery, 3) {
        target.push('?');
        let pairs: Vec<String> = (0..1 + luck.below(2))
            .map(|_| match luck.below(6) {
                0 => luck.pick(&KEYS).to_owned(),
                1 => format!("{}=a%20b+c", luck.pick(&KEYS)),
                _ => format!("{}={}", luck.pick(&KEYS), luck.pick(&VALUES)),
            })
            .collect();
        target.push_str(&pairs.join("&"));
    }
    target
}

/// An answer as it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(3);

/// A client of one listener, whose connection stays as long as Envoy lets it.
pub(super) struct Client {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
        }
    }

    /// Asks; once again on a new connection if the one that stayed was closed meanwhile.
    pub(super) fn ask(&mut self, ask: &Ask) -> io::Result<Reply> {
        if let Some(mut connection) = self.connection.take()
            && let Ok(reply) = exchange(&mut connection, ask)
        {
            self.keep(connection, &reply);
            return Ok(reply);
        }
        let stream = connect(self.address, Ipv4Addr::LOCALHOST)?;
        let mut connection = BufReader::new(stream);
        let reply = exchange(&mut connection, ask)?;
        self.keep(connection, &reply);
        Ok(reply)
    }

    fn keep(&mut self, connection: BufReader<TcpStream>, reply: &Reply) {
        if reply.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
    }
}

/// A connection to a listener that may not listen for a moment yet.
pub(super) fn connect(address: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let deadline = Instant::now() + WITHIN;
    loop {
        match connect_from(address, from) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(WITHIN))?;
                return Ok(stream);
            }
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn connect_from(address: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let SocketAddr::V4(to) = address else {
        return TcpStream::connect(address);
    };
    let socket = socket::socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // Without this each client's address would have its ports taken until they are free again.
    socket::setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    socket::bind(
        socket.as_raw_fd(),
        &SockaddrIn::from(SocketAddrV4::new(from, 0)),
    )?;
    socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(socket.into())
}

fn exchange(connection: &mut BufReader<TcpStream>, ask: &Ask) -> io::Result<Reply> {
    connection.get_mut().write_all(ask.to_string().as_bytes())?;
    let head = read_head(connection)?;
    let (status, headers) = parse_head(&head);
    let mut reply = Reply {
        status,
        headers,
        body: Vec::new(),
    };
    let length = reply
        .header("content-length")
        .and_then(|it| it.parse().ok());
    reply.body = vec![0; length.unwrap_or(0)];
    connection.read_exact(&mut reply.body)?;
    Ok(reply)
}

/// The number of a status line (or zero, for a request's head), and the headers.
pub(super) fn parse_head(head: &[u8]) -> (u16, Vec<(String, String)>) {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.split(' ').nth(1).and_then(|it| it.parse().ok());
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    (status.unwrap_or(0), headers.collect())
}
