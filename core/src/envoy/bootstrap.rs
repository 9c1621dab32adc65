//! A whole plan as the bootstrap of an Envoy that asks nobody: for a lab, where no xDS server is.
//!
//! What a plan leaves to discovery is written in: routes in the place of RDS, endpoints in the
//! place of EDS, certificates in the place of SDS. What is missing stays missing in the same way
//! as it would with a server: no routes answer 404, no endpoints 503, no certificate ends the
//! handshake. Names and prefixes of statistics stay as they are.

mod access_log;
mod cluster;
mod in_files;
mod listener;
mod logged;
mod sidecar;
#[cfg(test)]
mod tests;
mod told;

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use crate::plan::NodePlan;

pub use access_log::{AccessEntry, AccessKind, BadEntry, MatchedRoute, WAY_HEADER};
pub use in_files::InFiles;
pub use logged::{logged_listener, logged_routes};
pub use told::{AGENT, told};

/// Where an Envoy stands: how connections come to its listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// One for a node: each listener on its own port, as the ledger has it; the destination is that
    /// of the socket, which is transparent.
    #[default]
    Node,
    /// One for a pod: two ports for all that is redirected to them, the destination asked of
    /// connection tracking; what is for no frontend passes on as it is.
    Sidecar,
}

/// What a bootstrap says beside the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The node's name, Envoy's own name for itself.
    pub node: String,
    /// The path of the admin's Unix socket, which only its owner may use.
    pub admin: String,
    /// The file that gets a line for each request; none for no access log.
    pub access_log: Option<String>,
    /// How connections come.
    pub placement: Placement,
}

/// A bootstrap.
#[derive(Clone, Debug, PartialEq)]
pub struct Bootstrap {
    /// `envoy.config.bootstrap.v3.Bootstrap` in the JSON form of protobuf. It holds private keys.
    pub json: Value,
    /// The sockets that listen when this Envoy is ready.
    pub sockets: Vec<SocketAddr>,
}

/// The cluster that never answers: what asks it for a certificate goes without.
const NOBODY: &str = "nodeway-nobody";

/// Makes the bootstrap of a plan.
#[must_use]
pub fn bootstrap(plan: &NodePlan, settings: &Settings) -> Bootstrap {
    let mut listeners: Vec<Value> = plan
        .listeners
        .iter()
        .map(|(name, planned)| listener::written(name, planned, plan, settings))
        .collect();
    let mut clusters: Vec<Value> = plan
        .clusters
        .values()
        .map(|planned| cluster::written(planned, plan))
        .collect();
    clusters.push(cluster::empty(NOBODY));
    if settings.placement == Placement::Sidecar {
        sidecar::redirect(&mut listeners, &mut clusters, plan, settings);
    }
    for resource in listeners.iter_mut().chain(&mut clusters) {
        each_object(resource, &mut |object| by_name(object, plan));
    }
    let secrets: Vec<Value> = plan
        .secrets
        .values()
        .filter_map(|secret| as_json(secret.message.as_ref()?))
        .collect();
    Bootstrap {
        sockets: listeners.iter().flat_map(listener::sockets).collect(),
        json: json!({
            "node": {"id": settings.node, "cluster": "nodeway"},
            "admin": {"address": {"pipe": {"path": settings.admin, "mode": 0o600}}},
            "staticResources": {"listeners": listeners, "clusters": clusters, "secrets": secrets},
        }),
    }
}

/// A message in the JSON form of protobuf; none if it holds bytes that are not what they claim.
fn as_json(message: &prost_reflect::DynamicMessage) -> Option<Value> {
    serde_json::to_value(message).ok()
}

/// A certificate that is there is one of the bootstrap's own; one that is missing is waited for
/// from nobody, so that handshakes fail and the listener opens nonetheless.
fn by_name(object: &mut Map<String, Value>, plan: &NodePlan) {
    if !object.contains_key("sdsConfig") {
        return;
    }
    let name = object.get("name").and_then(Value::as_str);
    let secret = name.and_then(|name| plan.secrets.get(name));
    if secret.is_some_and(|secret| secret.message.is_some()) {
        object.remove("sdsConfig");
    } else {
        let nobody = json!({
            "resourceApiVersion": "V3",
            "initialFetchTimeout": "0.001s",
            "apiConfigSource": {
                "apiType": "GRPC",
                "transportApiVersion": "V3",
                "grpcServices": [{"envoyGrpc": {"clusterName": NOBODY}}],
            },
        });
        object.insert("sdsConfig".to_owned(), nobody);
    }
}

/// Calls `what` with every object in a value, outer ones first.
fn each_object(value: &mut Value, what: &mut dyn FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(fields) => {
            what(fields);
            for value in fields.values_mut() {
                each_object(value, what);
            }
        }
        Value::Array(items) => {
            for item in items {
                each_object(item, what);
            }
        }
        _ => {}
    }
}

/// A text in an object; empty when it is absent.
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The objects of a list in an object.
fn items<'a>(value: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    let items = value.get_mut(name).and_then(Value::as_array_mut);
    items.into_iter().flatten()
}

/// An address in Envoy's form.
fn address(at: SocketAddr) -> Value {
    json!({"socketAddress": {"address": at.ip().to_string(), "portValue": at.port()}})
}
