//! What Envoy does with a connection and a request, as pure functions of its own messages.
//!
//! connection → [`Listener::filter_chain`] → [`HttpConnectionManager`] → [`RouteTable::route`] →
//! [`Action`] → [`Cluster`]. Every choice says what was taken, why, and which candidates lost.
//! A message's fields that are set and that this model does not read are listed as
//! `not simulated`, by field path: never ignored in silence.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A listener: filter chains in the order of the message.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The listener's name.
    pub name: String,
    /// Its filter chains in order.
    pub filter_chains: Vec<FilterChain>,
    /// The one that is taken when no other matches.
    pub default_filter_chain: Option<FilterChain>,
    /// Fields that are set and not modelled.
    pub not_simulated: Vec<String>,
}

/// A filter chain: what it matches and what it ends in.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterChain {
    /// `name`, often empty.
    pub name: String,
    /// What a connection must be for this chain.
    pub matches: FilterChainMatch,
    /// Whether it terminates TLS.
    pub tls: bool,
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
        /// The cluster's name.
        cluster: String,
    },
    /// A filter that is not modelled, or none: by name.
    Other(String),
}

/// `envoy.config.listener.v3.FilterChainMatch`; filled by the reader.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterChainMatch {
    /// `raw_buffer`, `tls` or empty.
    pub transport_protocol: String,
}

/// The part of an HTTP connection manager that decides.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConnectionManager {
    /// `stat_prefix`
    pub stat_prefix: String,
    /// Where its routes come from.
    pub routes: RouteSource,
    /// Whether the peer's address is appended to `x-forwarded-for` as the client's.
    pub use_remote_address: bool,
}

/// Where a connection manager's routes come from.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteSource {
    /// By RDS, under this name.
    Rds(String),
    /// Written in the connection manager itself.
    Inline(Arc<RouteTable>),
    /// Scoped or absent: not modelled.
    Other(String),
}

/// A RouteConfiguration.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteTable {
    /// Its name.
    pub name: String,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The name under which its endpoints are fetched: `eds_cluster_config.service_name`, or the name.
    pub endpoints: String,
    /// `connect_timeout`, by default five seconds.
    pub connect_timeout: Duration,
}

/// A connection as a listener sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// Original destination.
    pub destination: SocketAddr,
    /// The peer.
    pub source: SocketAddr,
    /// The peer before any proxy protocol or forwarded header.
    pub direct_source: IpAddr,
    /// TLS server name, lower case; empty without TLS.
    pub server_name: String,
    /// `raw_buffer` or `tls`.
    pub transport_protocol: String,
    /// ALPN.
    pub application_protocols: Vec<String>,
}

/// A request as the router sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `:method`
    pub method: String,
    /// `:scheme`: `http` or `https`
    pub scheme: String,
    /// `:authority`
    pub authority: String,
    /// `:path`, with its query
    pub path: String,
    /// The other headers in order; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The random number of the request's weighted draw.
    pub random: u64,
}

/// A candidate that was not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its name or what it matches (`path_separated_prefix /details`).
    pub candidate: String,
    /// Why it was not taken.
    pub why: String,
}
