//! What Envoy does with a connection and a request, as pure functions of its own messages.
//!
//! connection → [`Listener::filter_chain`] → [`HttpConnectionManager`] → [`RouteTable::route`] →
//! [`Action`] → [`Cluster`]. Every choice says what was taken, why, and which candidates lost.
//! A message's fields that are set and that this model does not read are listed as
//! `not simulated`, by field path: never ignored in silence. Where a decision hangs on such a
//! field, the decision itself is [`Action::NotSimulated`].

mod action;
mod cluster;
mod connection_manager;
mod cover;
mod domains;
mod endpoints;
mod filter_chain;
mod format;
mod header_edit;
mod header_match;
mod listener;
mod metadata_match;
mod path_match;
mod path_template;
mod pattern;
mod query_match;
mod redirect;
mod request;
mod rewrite;
mod route;
mod route_action;
mod route_match;
mod route_table;
mod string_match;
mod tls;
mod virtual_host;
mod weighted;
mod why;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

pub use action::{Action, Forward, RouteChoice, RouteTaken, VirtualHostTaken};
pub use cluster::{Cluster, Discovery};
pub use connection_manager::{HostStripping, HttpConnectionManager, RouteSource};
pub use endpoints::{Endpoint, LoadAssignment};
pub use filter_chain::{Cidr, FilterChain, FilterChainMatch, SourceType, Terminal};
pub use format::Format;
pub use header_edit::{Append, HeaderEdits, ResolvedEdits};
pub use header_match::{HeaderMatcher, RepeatedHeaders};
pub use listener::{FilterChainChoice, Listener};
pub use path_match::PathMatcher;
pub use path_template::PathTemplate;
pub use pattern::Pattern;
pub use query_match::QueryMatcher;
pub use redirect::Redirect;
pub use request::{Context, Request};
pub use rewrite::{HostRewrite, PathRewrite};
pub use route::Route;
pub use route_action::RouteAction;
pub use route_match::RouteMatch;
pub use route_table::RouteTable;
pub use string_match::StringMatcher;
pub use tls::DownstreamTls;
pub(crate) use tls::written;
pub use virtual_host::{RequireTls, VirtualHost};
pub use weighted::{Drawn, WeightedClusters};
pub use why::{Lost, Why};

use crate::envoy::Violation;

/// What Envoy would refuse: the field's path in the resource, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ReadError {
    /// The field's path; empty for the resource as a whole.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl ReadError {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

impl From<Violation> for ReadError {
    fn from(Violation { field, reason }: Violation) -> Self {
        Self { field, reason }
    }
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
