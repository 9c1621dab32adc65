//! A filter chain: what a connection must be for it, and what it ends in.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::{DownstreamTls, HttpConnectionManager, ReadError};
use crate::envoy::Fields;

/// A filter chain: what it matches and what it ends in.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterChain {
    /// `name`, often empty.
    pub name: String,
    /// What a connection must be for this chain.
    pub matches: FilterChainMatch,
    /// What it shows where it terminates TLS; none where it does not.
    pub tls: Option<DownstreamTls>,
    /// Its terminal network filter.
    pub terminal: Terminal,
}

/// What ends a filter chain.
#[derive(Clone, Debug, PartialEq)]
pub enum Terminal {
    /// An HTTP connection manager.
    Http(Arc<HttpConnectionManager>),
    /// A TCP proxy to a cluster.
    Tcp {
        /// The cluster's name; empty for weighted clusters, which are not modelled here.
        cluster: String,
    },
    /// A filter that is not modelled, or none: by name.
    Other(String),
}

/// `envoy.config.listener.v3.FilterChainMatch`: empty lists match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilterChainMatch {
    /// Original destination port.
    pub destination_port: Option<u16>,
    /// Original destination address.
    pub destinations: BTreeSet<Cidr>,
    /// TLS server names, lower case, exact or `*.example.com`.
    pub server_names: BTreeSet<String>,
    /// `raw_buffer`, `tls` or empty.
    pub transport_protocol: String,
    /// ALPN, any of them.
    pub application_protocols: BTreeSet<String>,
    /// The peer's address before any proxy protocol.
    pub direct_sources: BTreeSet<Cidr>,
    /// Whether the peer is on this very host.
    pub source_type: SourceType,
    /// The peer's address.
    pub sources: BTreeSet<Cidr>,
    /// The peer's port.
    pub source_ports: BTreeSet<u16>,
}

/// Whether a peer is on this very host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceType {
    /// It does not matter.
    #[default]
    Any,
    /// It is: loopback, or the same address as the destination.
    SameIpOrLoopback,
    /// It is not.
    External,
}

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    /// Its address, host bits cleared.
    pub address: IpAddr,
    /// How many bits count.
    pub length: u8,
}

impl Cidr {
    /// A network; a length beyond the address's is cut.
    #[must_use]
    pub fn new(address: IpAddr, length: u32) -> Self {
        let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
        let length = u8::try_from(length).unwrap_or(bits).min(bits);
        Self {
            address: mask(address, length),
            length,
        }
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && mask(address, self.length) == self.address
    }
}

fn mask(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX
                .checked_shl(32_u32.saturating_sub(length.into()))
                .unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128_u32.saturating_sub(length.into()))
                .unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FilterChain {
    /// Reads an `envoy.config.listener.v3.FilterChain`.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ReadError> {
        let matches = fields.message("filter_chain_match");
        let matches = matches
            .map(|fields| FilterChainMatch::read(&fields))
            .transpose()?;
        let socket = fields.message("transport_socket");
        let tls = socket.and_then(|socket| DownstreamTls::read(&socket));
        Ok(Self {
            name: fields.text("name"),
            matches: matches.unwrap_or_default(),
            tls,
            terminal: terminal(fields)?,
        })
    }
}

/// The last filter of a chain. Others before it stay unread.
fn terminal(fields: &Fields<'_>) -> Result<Terminal, ReadError> {
    let filters = fields.messages("filters");
    let Some(last) = filters.last() else {
        return Ok(Terminal::Other("no filter".to_owned()));
    };
    let name = last.text("name");
    let Some(config) = last.any("typed_config") else {
        return Ok(Terminal::Other(name));
    };
    let kind = config.message_name();
    if kind.ends_with(".HttpConnectionManager") {
        return Ok(Terminal::Http(Arc::new(HttpConnectionManager::read(
            &config,
        )?)));
    }
    if kind.ends_with(".TcpProxy") {
        config.skip("stat_prefix");
        return Ok(Terminal::Tcp {
            cluster: config.text("cluster"),
        });
    }
    last.note();
    Ok(Terminal::Other(name))
}

impl FilterChainMatch {
    fn read(fields: &Fields<'_>) -> Result<Self, ReadError> {
        for name in ["address_suffix", "suffix_len"] {
            if fields.has(name) {
                return Err(ReadError::new(
                    fields.path_of(name),
                    "is not implemented by Envoy; remove it",
                ));
            }
        }
        let port = |port: u32| u16::try_from(port).ok();
        Ok(Self {
            destination_port: fields.opt_number("destination_port").and_then(port),
            destinations: read_cidrs(fields, "prefix_ranges")?,
            server_names: read_server_names(fields)?,
            transport_protocol: fields.text("transport_protocol"),
            application_protocols: fields.texts("application_protocols").into_iter().collect(),
            direct_sources: read_cidrs(fields, "direct_source_prefix_ranges")?,
            source_type: match fields.choice("source_type").as_str() {
                "SAME_IP_OR_LOOPBACK" => SourceType::SameIpOrLoopback,
                "EXTERNAL" => SourceType::External,
                _ => SourceType::Any,
            },
            sources: read_cidrs(fields, "source_prefix_ranges")?,
            source_ports: fields
                .numbers("source_ports")
                .into_iter()
                .filter_map(port)
                .collect(),
        })
    }
}

/// A list of `CidrRange`s.
pub(super) fn read_cidrs(fields: &Fields<'_>, name: &str) -> Result<BTreeSet<Cidr>, ReadError> {
    let mut cidrs = BTreeSet::new();
    for range in fields.messages(name) {
        let text = range.text("address_prefix");
        let field = range.path_of("address_prefix");
        let address: IpAddr = text
            .parse()
            .map_err(|_| ReadError::new(field, format!("`{text}` is no IP address")))?;
        cidrs.insert(Cidr::new(address, range.number("prefix_len")));
    }
    Ok(cidrs)
}

fn read_server_names(fields: &Fields<'_>) -> Result<BTreeSet<String>, ReadError> {
    let mut names = BTreeSet::new();
    for (i, name) in fields.texts("server_names").into_iter().enumerate() {
        if name.contains('*') && !name.starts_with("*.") {
            let field = format!("{}[{i}]", fields.path_of("server_names"));
            let reason = format!(
                "`{name}` is a partial wildcard; a server name is exact or begins with `*.`"
            );
            return Err(ReadError::new(field, reason));
        }
        names.insert(name.to_ascii_lowercase());
    }
    Ok(names)
}
