//! The access log of a bootstrap: one line of JSON a request, and what it says.
//!
//! A line names the listener and the filter chain it was written for, and the route by its place
//! in the table, so that [`AccessEntry::matched`] leads it back to the plan's own model.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::plan::NodePlan;
use crate::proxy::{FilterChain, Route, RouteSource, RouteTable, Terminal, VirtualHost};

/// The header in which a client may say which request this is; a line repeats it.
pub const WAY_HEADER: &str = "x-nodeway-way";

/// The metadata of a route that has its place.
pub(super) const METADATA: &str = "nodeway";
pub(super) const ROUTE_KEY: &str = "route";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AccessEntry {
    /// What it is about.
    pub kind: AccessKind,
    /// The listener's qualified name.
    pub listener: String,
    /// The filter chain's place in the listener; none for the default chain, and for no chain.
    pub filter_chain: Option<usize>,
    /// What the client said in [`WAY_HEADER`].
    pub way: Option<String>,
    /// `x-request-id`, as it came or as Envoy made it.
    pub request_id: Option<String>,
    /// The method.
    pub method: Option<String>,
    /// The host that was asked for.
    pub authority: Option<String>,
    /// The path before any rewriting.
    pub path: Option<String>,
    /// The virtual host's and the route's place in the table; none where no route matched.
    #[serde(deserialize_with = "place")]
    pub route: Option<(usize, usize)>,
    /// The route's own name; often none.
    pub route_name: Option<String>,
    /// The cluster's qualified name.
    pub cluster: Option<String>,
    /// The endpoint that was asked.
    pub endpoint: Option<SocketAddr>,
    /// The address that the endpoint was asked from.
    pub upstream_source: Option<SocketAddr>,
    /// The peer of the client's connection.
    pub peer: SocketAddr,
    /// Where the client meant to go.
    pub destination: SocketAddr,
    /// The status that the client got; none or 0 for a connection without HTTP.
    #[serde(deserialize_with = "status")]
    pub status: Option<u16>,
    /// Why it got that (`via_upstream`, `route_not_found`).
    pub details: Option<String>,
    /// Envoy's response flags (`UH`, `NR`); empty when all went well.
    #[serde(deserialize_with = "flags")]
    pub flags: Vec<String>,
    /// The server name of the TLS hello.
    pub server_name: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: Option<u64>,
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessKind {
    /// A request over HTTP.
    Request,
    /// A connection whose bytes were passed on as they came.
    Connection,
    /// A connection that no filter chain took.
    Refused,
}

/// A route of the plan that a line is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MatchedRoute<'a> {
    /// The table.
    pub table: &'a RouteTable,
    /// The virtual host.
    pub virtual_host: &'a VirtualHost,
    /// The route; what it matches is `matches.description`.
    pub route: &'a Route,
}

/// A line that is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("no line of this access log: {cause}: `{line}`")]
pub struct BadEntry {
    line: String,
    cause: serde_json::Error,
}

impl AccessEntry {
    /// Reads a line.
    ///
    /// # Errors
    /// When it is not what a bootstrap's access log writes.
    pub fn parse(line: &str) -> Result<Self, BadEntry> {
        serde_json::from_str(line).map_err(|cause| BadEntry {
            line: line.to_owned(),
            cause,
        })
    }

    /// The filter chain that took the connection.
    #[must_use]
    pub fn chain<'a>(&self, plan: &'a NodePlan) -> Option<&'a FilterChain> {
        let listener = &plan.listeners.get(self.listener.as_str())?.model;
        match (self.filter_chain, self.kind) {
            (_, AccessKind::Refused) => None,
            (Some(index), _) => listener.filter_chains.get(index),
            (None, _) => listener.default_filter_chain.as_ref(),
        }
    }

    /// The route that was taken, in the plan that the bootstrap was made from.
    #[must_use]
    pub fn matched<'a>(&self, plan: &'a NodePlan) -> Option<MatchedRoute<'a>> {
        let (host, route) = self.route?;
        let Terminal::Http(manager) = &self.chain(plan)?.terminal else {
            return None;
        };
        let table = match &manager.routes {
            RouteSource::Rds(name) => &plan.routes.get(name.as_str())?.model,
            RouteSource::Inline(table) => table,
            RouteSource::Other(_) => return None,
        };
        let virtual_host = table.virtual_hosts.get(host)?;
        let route = virtual_host.routes.get(route)?;
        Some(MatchedRoute {
            table,
            virtual_host,
            route,
        })
    }
}

/// `2/0`
fn place<'de, D: Deserializer<'de>>(from: D) -> Result<Option<(usize, usize)>, D::Error> {
    let text: Option<String> = Option::deserialize(from)?;
    let place = text.as_deref().map(|text| {
        let (host, route) = text.split_once('/')?;
        Some((host.parse().ok()?, route.parse().ok()?))
    });
    let wrong = || serde::de::Error::custom("a route's place is no `host/route`");
    place.map(|place| place.ok_or_else(wrong)).transpose()
}

/// 0 is Envoy's word for none.
fn status<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    let status: Option<u16> = Option::deserialize(from)?;
    Ok(status.filter(|status| *status != 0))
}

/// `UH,NC`, or `-`
fn flags<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let text: Option<String> = Option::deserialize(from)?;
    let text = text.filter(|text| text != "-").unwrap_or_default();
    let flags = text.split(',').filter(|flag| !flag.is_empty());
    Ok(flags.map(str::to_owned).collect())
}

/// For each request of a connection manager in that filter chain of that listener.
pub(super) fn request((listener, chain): (&str, Option<usize>), path: &str) -> Value {
    log("request", listener, chain, path)
}

/// For each connection of a TCP proxy.
pub(super) fn connection((listener, chain): (&str, Option<usize>), path: &str) -> Value {
    log("connection", listener, chain, path)
}

/// For each connection that no filter chain takes.
pub(super) fn refused(listener: &str, path: &str) -> Value {
    let mut log = log("refused", listener, None, path);
    if let Some(fields) = log.as_object_mut() {
        let filter = json!({"responseFlagFilter": {"flags": ["NR"]}});
        fields.insert("filter".to_owned(), filter);
    }
    log
}

fn log(kind: &str, listener: &str, chain: Option<usize>, path: &str) -> Value {
    json!({
        "name": "envoy.access_loggers.file",
        "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "logFormat": {"jsonFormat": {
                "kind": kind,
                // A percent sign would begin a command.
                "listener": listener.replace('%', "%%"),
                "filter_chain": chain,
                "way": format!("%REQ({WAY_HEADER})%"),
                "request_id": "%REQ(x-request-id)%",
                "method": "%REQ(:method)%",
                "authority": "%REQ(:authority)%",
                "path": "%REQ(x-envoy-original-path?:path)%",
                "route": format!("%METADATA(ROUTE:{METADATA}:{ROUTE_KEY})%"),
                "route_name": "%ROUTE_NAME%",
                "cluster": "%UPSTREAM_CLUSTER_RAW%",
                "endpoint": "%UPSTREAM_HOST%",
                "upstream_source": "%UPSTREAM_LOCAL_ADDRESS%",
                "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
                "destination": "%DOWNSTREAM_LOCAL_ADDRESS%",
                "status": "%RESPONSE_CODE%",
                "details": "%RESPONSE_CODE_DETAILS%",
                "flags": "%RESPONSE_FLAGS%",
                "server_name": "%REQUESTED_SERVER_NAME%",
                "took_ms": "%DURATION%",
            }},
        },
    })
}
