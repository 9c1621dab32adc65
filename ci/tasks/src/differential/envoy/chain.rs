//! Filter chains and connections, drawn. A chain answers with its name, in plain text, as soon as
//! it is chosen; where a connection seems to come from and go to, its proxy protocol says.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nodeway_core::proxy::Connection;
use serde_json::{Map, Value, json};

use super::ask::connect;
use super::luck::{Feature as F, Luck};

const NAMES: [&str; 5] = ["a.test", "b.a.test", "c.b.a.test", "test", "other"];
const WILDCARDS: [&str; 3] = ["*.test", "*.a.test", "*.b.a.test"];
const PROTOCOLS: [&str; 3] = ["h2", "http/1.1", "x"];
const PORTS: [u16; 3] = [80, 443, 8443];
const V4: [&str; 6] = [
    "10.0.0.1",
    "10.0.1.1",
    "10.1.0.1",
    "192.0.2.1",
    "127.0.0.1",
    "127.0.0.9",
];
const V6: [&str; 4] = ["fd00::1", "fd00::2", "fd00:1::1", "::1"];
// None of length zero: Envoy keeps chains without a network under those too, and which of them it
// finds hangs on the order of a hash.
const NETWORKS: [(&str, u8); 9] = [
    ("10.0.0.0", 8),
    ("10.0.0.0", 16),
    ("10.0.0.0", 24),
    ("10.0.0.1", 32),
    ("0.0.0.0", 1),
    ("127.0.0.0", 8),
    ("fd00::", 8),
    ("fd00::", 32),
    ("fd00::1", 128),
];

/// A listener whose chains are drawn.
pub(super) fn listener(luck: &mut Luck) -> Value {
    let chains: Vec<Value> = (0..1 + luck.below(5)).map(|at| chain(luck, at)).collect();
    let mut listener = json!({
        "listener_filters": [
            {
                "name": "proxy",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" },
            },
            {
                "name": "tls",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" },
            },
        ],
        "filter_chains": chains,
    });
    if luck.has(F::ChainDefault, 3)
        && let Some(fields) = listener.as_object_mut()
    {
        fields.insert("default_filter_chain".to_owned(), saying("default"));
    }
    listener
}

/// A chain that says its name.
pub(super) fn saying(name: &str) -> Value {
    let config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config",
        "response": { "inline_string": name },
    });
    json!({ "name": name, "filters": [{ "name": "say", "typed_config": config }] })
}

fn chain(luck: &mut Luck, at: usize) -> Value {
    let mut matches = Map::new();
    for _ in 0..1 + luck.below(3) {
        let (name, value) = condition(luck);
        matches.insert(name.to_owned(), value);
    }
    let mut chain = saying(&format!("chain {at}"));
    if let Some(fields) = chain.as_object_mut() {
        fields.insert("filter_chain_match".to_owned(), Value::Object(matches));
    }
    chain
}

fn condition(luck: &mut Luck) -> (&'static str, Value) {
    match luck.feature(&[
        F::ChainServerName,
        F::ChainWildcard,
        F::ChainProtocol,
        F::ChainAlpn,
        F::ChainPort,
        F::ChainDestination,
        F::ChainSource,
        F::ChainDirectSource,
        F::ChainSourcePort,
        F::ChainSourceType,
    ]) {
        F::ChainServerName => ("server_names", several(luck, &NAMES)),
        F::ChainWildcard => ("server_names", several(luck, &WILDCARDS)),
        F::ChainProtocol => (
            "transport_protocol",
            json!(luck.pick(&["tls", "raw_buffer"])),
        ),
        F::ChainAlpn => ("application_protocols", several(luck, &PROTOCOLS)),
        F::ChainPort => ("destination_port", json!(luck.pick(&PORTS))),
        F::ChainDestination => ("prefix_ranges", networks(luck)),
        F::ChainSource => ("source_prefix_ranges", networks(luck)),
        F::ChainDirectSource => {
            let network = luck.pick(&[
                ("127.0.0.0", 8),
                ("127.0.0.1", 32),
                ("127.0.0.9", 32),
                ("10.0.0.0", 8),
            ]);
            ("direct_source_prefix_ranges", json!([range(network)]))
        }
        F::ChainSourcePort => ("source_ports", several(luck, &PORTS)),
        _ => (
            "source_type",
            json!(luck.pick(&["SAME_IP_OR_LOOPBACK", "EXTERNAL"])),
        ),
    }
}

/// One or two of them, each once.
fn several<T: Copy + PartialEq + serde::Serialize>(luck: &mut Luck, among: &[T]) -> Value {
    let first = luck.pick(among);
    let second = luck.pick(among);
    if first == second || luck.once_in(2) {
        json!([first])
    } else {
        json!([first, second])
    }
}

fn range((address, length): (&str, u8)) -> Value {
    json!({ "address_prefix": address, "prefix_len": length })
}

fn networks(luck: &mut Luck) -> Value {
    let first = luck.pick(&NETWORKS);
    let second = luck.pick(&NETWORKS);
    if first == second || luck.once_in(2) {
        json!([range(first)])
    } else {
        json!([range(first), range(second)])
    }
}

/// A connection as a client makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    source: SocketAddr,
    destination: SocketAddr,
    direct: Ipv4Addr,
    /// What its ClientHello says; none in plain text.
    hello: Option<(Option<&'static str>, Vec<&'static str>)>,
}

impl Arrival {
    pub(super) fn draw(luck: &mut Luck) -> Self {
        let addresses: &[&str] = if luck.has(F::ArriveV6, 4) { &V6 } else { &V4 };
        let mut end = || {
            let address: IpAddr = luck
                .pick(addresses)
                .parse()
                .unwrap_or(Ipv4Addr::LOCALHOST.into());
            SocketAddr::new(address, luck.pick(&PORTS))
        };
        let (source, destination) = (end(), end());
        let hello = match luck.feature(&[F::ArriveTls, F::ArriveTls, F::ArriveRaw]) {
            F::ArriveTls => {
                let name = (!luck.once_in(5)).then(|| luck.pick(&NAMES));
                let mut protocols = Vec::new();
                if luck.has(F::ArriveAlpn, 2) {
                    let (first, second) = (luck.pick(&PROTOCOLS), luck.pick(&PROTOCOLS));
                    protocols.push(first);
                    if first != second {
                        protocols.push(second);
                    }
                }
                Some((name, protocols))
            }
            _ => None,
        };
        Self {
            source,
            destination,
            direct: luck.pick(&[Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 9)]),
            hello,
        }
    }

    /// As a listener sees it.
    pub(super) fn seen(&self) -> Connection {
        let (name, protocols) = self.hello.clone().unwrap_or_default();
        Connection {
            destination: self.destination,
            source: self.source,
            direct_source: self.direct.into(),
            server_name: name.unwrap_or_default().to_owned(),
            transport_protocol: if self.hello.is_some() {
                "tls"
            } else {
                "raw_buffer"
            }
            .to_owned(),
            application_protocols: protocols.iter().map(|&it| it.to_owned()).collect(),
        }
    }

    /// Connects, and what comes: a chain's name, or nothing.
    pub(super) fn call(&self, to: SocketAddr) -> io::Result<String> {
        let mut stream = connect(to, self.direct)?;
        let family = if self.source.is_ipv4() {
            "TCP4"
        } else {
            "TCP6"
        };
        let (source, destination) = (self.source, self.destination);
        let mut bytes = format!(
            "PROXY {family} {} {} {} {}\r\n",
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        )
        .into_bytes();
        match &self.hello {
            Some((name, protocols)) => bytes.extend(client_hello(*name, protocols)),
            None => bytes.extend(b"plain text, and no ClientHello\r\n"),
        }
        stream.write_all(&bytes)?;
        let mut said = Vec::new();
        let mut chunk = [0; 64];
        // A reset after the name is an end, too: Envoy has not read all that was written.
        while let Ok(length @ 1..) = stream.read(&mut chunk) {
            said.extend(chunk.iter().take(length));
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connection from {} (through {}) to {}, ",
            self.source, self.direct, self.destination
        )?;
        match &self.hello {
            Some((name, protocols)) => write!(
                f,
                "TLS for {} with ALPN {protocols:?}",
                name.unwrap_or("nobody")
            ),
            None => f.write_str("plain"),
        }
    }
}

/// Bytes behind their length.
fn sized(width: usize, bytes: &[u8]) -> Vec<u8> {
    let length = u64::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
    let mut out: Vec<u8> = length.iter().skip(8 - width).copied().collect();
    out.extend(bytes);
    out
}

/// A TLS 1.2 ClientHello in one record (RFC 5246, section 7.4.1.2; RFC 6066; RFC 7301).
fn client_hello(name: Option<&str>, protocols: &[&str]) -> Vec<u8> {
    let mut extensions = Vec::new();
    let mut extension = |kind: u16, data: &[u8]| {
        extensions.extend(kind.to_be_bytes());
        extensions.extend(sized(2, data));
    };
    if let Some(name) = name {
        let mut entry = vec![0];
        entry.extend(sized(2, name.as_bytes()));
        extension(0, &sized(2, &entry));
    }
    if !protocols.is_empty() {
        let all: Vec<u8> = protocols
            .iter()
            .flat_map(|it| sized(1, it.as_bytes()))
            .collect();
        extension(16, &sized(2, &all));
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend(sized(1, &[]));
    body.extend(sized(2, &[0xc0, 0x2f]));
    body.extend(sized(1, &[0]));
    body.extend(sized(2, &extensions));
    let mut message = vec![1];
    message.extend(sized(3, &body));
    let mut record = vec![22, 3, 1];
    record.extend(sized(2, &message));
    record
}
