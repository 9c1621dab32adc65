//! The part of an HTTP connection manager that decides.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::filter_chain::{Cidr, read_cidrs};
use super::request::{Request, port_start};
use super::{ReadError, RouteTable};
use crate::envoy::{Fields, Unread};

/// The part of an HTTP connection manager that decides.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConnectionManager {
    /// `stat_prefix`
    pub stat_prefix: String,
    /// Where its routes come from.
    pub routes: RouteSource,
    /// Whether the peer's address is appended to `x-forwarded-for` as the client's.
    pub use_remote_address: bool,
    /// Whether `x-forwarded-for` is left as it is although the peer's address is the client's.
    pub skip_xff_append: bool,
    /// How many proxies in front are trusted to have appended to `x-forwarded-for`.
    pub xff_num_trusted_hops: u32,
    /// Networks whose clients are internal, where they are configured; private ones are otherwise.
    pub internal: BTreeSet<Cidr>,
    /// The HTTP filters before the router, by name: passed by in the model.
    pub filters: Vec<String>,
    /// What is done to the host before a route is looked for.
    pub host: HostStripping,
    /// Fields that can change what a request is answered, and that are not modelled.
    pub undecided: Vec<String>,
}

/// What a connection manager takes off a request's host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostStripping {
    /// Any port.
    pub any_port: bool,
    /// The listener's own port.
    pub own_port: bool,
    /// A dot at the end.
    pub dot: bool,
}

impl HostStripping {
    /// Strips a request's host, on a listener of this port.
    pub fn apply(self, request: &mut Request, listener_port: u16) {
        let host = &mut request.authority;
        if self.dot {
            let end = port_start(host).unwrap_or(host.len());
            if let Some(dot) = end
                .checked_sub(1)
                .filter(|dot| host.as_bytes().get(*dot) == Some(&b'.'))
            {
                host.remove(dot);
            }
        }
        let Some(start) = port_start(host) else {
            return;
        };
        let port = host
            .get(start + 1..)
            .and_then(|port| port.parse::<u16>().ok());
        if port.is_some_and(|port| self.any_port || (self.own_port && port == listener_port)) {
            host.truncate(start);
        }
    }
}

/// HTTP filters that leave alone what is no gRPC, and never choose.
const HARMLESS: [&str; 3] = [
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
];

/// Fields that change the path, the scheme or the headers before a route is looked for.
const BEFORE_ROUTING: [&str; 5] = [
    "normalize_path",
    "merge_slashes",
    "path_with_escaped_slashes_action",
    "scheme_header_transformation",
    "early_header_mutation_extensions",
];

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

impl HttpConnectionManager {
    /// Whether a client's address is internal.
    #[must_use]
    pub fn is_internal(&self, address: IpAddr) -> bool {
        if !self.internal.is_empty() {
            return self
                .internal
                .iter()
                .any(|network| network.contains(address));
        }
        match address {
            IpAddr::V4(v4) => v4.is_private() || v4 == Ipv4Addr::LOCALHOST,
            IpAddr::V6(v6) => v6.is_loopback() || v6.octets().starts_with(&[0xfd]),
        }
    }

    /// Reads the manager. Filters other than the router stay unread.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ReadError> {
        // HTTP/1.1 or HTTP/2 by what the client speaks: what is modelled is the request.
        fields.skip("codec_type");
        let mut filters = Vec::new();
        let undecided = Unread::default();
        for filter in fields.messages("http_filters") {
            let name = filter.text("name");
            let kind = filter
                .any("typed_config")
                .map(|config| config.message_name())
                .unwrap_or_default();
            if !kind.ends_with(".Router") {
                filter.note();
                filters.push(name);
            }
            if !HARMLESS.contains(&kind.as_str()) && !filter.flag("disabled") {
                undecided.note(filter.path());
            }
        }
        fields.leave_to(&BEFORE_ROUTING, &undecided);
        fields.note_all(&undecided.paths());
        let routes = match fields.which("route_specifier").as_deref() {
            Some("rds") => match fields.message("rds") {
                Some(rds) => {
                    rds.skip("config_source");
                    RouteSource::Rds(rds.text("route_config_name"))
                }
                None => RouteSource::Other("rds".to_owned()),
            },
            Some("route_config") => match fields.message("route_config") {
                Some(fields) => {
                    let table = RouteTable::read_fields(&fields)?;
                    fields.note_all(&table.not_simulated);
                    RouteSource::Inline(Arc::new(table))
                }
                None => RouteSource::Other("route_config".to_owned()),
            },
            other => RouteSource::Other(other.unwrap_or_default().to_owned()),
        };
        Ok(Self {
            stat_prefix: fields.text("stat_prefix"),
            routes,
            use_remote_address: fields.flag("use_remote_address"),
            skip_xff_append: fields.flag("skip_xff_append"),
            xff_num_trusted_hops: fields.number("xff_num_trusted_hops"),
            internal: internal(fields)?,
            filters,
            host: HostStripping {
                any_port: fields.flag("strip_any_host_port"),
                own_port: fields.flag("strip_matching_host_port"),
                dot: fields.flag("strip_trailing_host_dot"),
            },
            undecided: undecided.paths(),
        })
    }
}

/// `internal_address_config`. A Unix socket has no client that anybody could see.
fn internal(fields: &Fields<'_>) -> Result<BTreeSet<Cidr>, ReadError> {
    let Some(config) = fields.message("internal_address_config") else {
        return Ok(BTreeSet::new());
    };
    config.skip("unix_sockets");
    read_cidrs(&config, "cidr_ranges")
}
