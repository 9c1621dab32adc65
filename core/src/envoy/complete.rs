//! What Cilium's agent adds to the resources of a config: qualified names and config sources.
//!
//! A name without `/` becomes `<namespace>/<config>/<name>`, wherever it is defined or referred
//! to. Listeners, route configurations and virtual hosts are forced into the config's own
//! namespace; clusters, their endpoints and secrets may name what stands elsewhere.

use std::borrow::Cow;

use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, MapKey, ReflectMessage, Value};

use super::Resource;
use super::decode::decode_message;
use super::pool::unpack;
use crate::object::ObjectRef;

/// Completes the resources of one config.
#[must_use]
pub fn complete(config: &ObjectRef, resources: Vec<Resource>) -> Vec<Resource> {
    let completed = resources.into_iter().map(|mut resource| {
        walk(&mut resource.message, &|message| edit(config, message));
        resource.refresh_name();
        resource
    });
    completed.collect()
}

/// Runs `edit` on a message and on every message in it, also in an `Any`.
pub(super) fn walk(message: &mut DynamicMessage, edit: &dyn Fn(&mut DynamicMessage)) {
    edit(message);
    if message.descriptor().full_name() == "google.protobuf.Any" {
        if let Some(mut inner) = unpack(message) {
            let before = inner.clone();
            walk(&mut inner, edit);
            if inner != before {
                message.set_field_by_name("value", Value::Bytes(inner.encode_to_vec().into()));
            }
        }
        return;
    }
    for (_, value) in message.fields_mut() {
        match value {
            Value::Message(message) => walk(message, edit),
            Value::List(items) => {
                items
                    .iter_mut()
                    .filter_map(Value::as_message_mut)
                    .for_each(|message| walk(message, edit));
            }
            Value::Map(entries) => {
                entries
                    .values_mut()
                    .filter_map(Value::as_message_mut)
                    .for_each(|message| walk(message, edit));
            }
            _ => {}
        }
    }
}

/// Completes one message; its parts are visited by [`walk`].
fn edit(config: &ObjectRef, message: &mut DynamicMessage) {
    let descriptor = message.descriptor();
    match descriptor.full_name() {
        "envoy.config.listener.v3.Listener"
        | "envoy.config.route.v3.RouteConfiguration"
        | "envoy.config.route.v3.VirtualHost" => rename(config, message, "name", true),
        "envoy.config.cluster.v3.Cluster" => {
            rename(config, message, "name", false);
            if is_eds(message) && !message.has_field_by_name("eds_cluster_config") {
                set_json(message, "eds_cluster_config", &serde_json::json!({}));
            }
        }
        "envoy.config.cluster.v3.Cluster.EdsClusterConfig" => {
            rename(config, message, "service_name", false);
            add_config_source(message, "eds_config");
        }
        "envoy.config.endpoint.v3.ClusterLoadAssignment" => {
            rename(config, message, "cluster_name", false)
        }
        "envoy.config.route.v3.RouteAction"
        | "envoy.config.route.v3.RouteAction.RequestMirrorPolicy"
        | "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
            rename(config, message, "cluster", false)
        }
        "envoy.extensions.transport_sockets.tls.v3.Secret"
        | "envoy.config.route.v3.WeightedCluster.ClusterWeight"
        | "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight" => {
            rename(config, message, "name", false);
        }
        "envoy.config.core.v3.EnvoyInternalAddress" => {
            rename(config, message, "server_listener_name", true);
        }
        "envoy.extensions.filters.http.health_check.v3.HealthCheck" => {
            rename_keys(config, message, "cluster_min_healthy_percentages");
        }
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds" => {
            rename(config, message, "route_config_name", true);
            add_config_source(message, "config_source");
        }
        "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig" => {
            rename(config, message, "name", false);
            add_config_source(message, "sds_config");
        }
        _ => {}
    }
}

fn is_eds(cluster: &DynamicMessage) -> bool {
    const EDS: i32 = 3;
    cluster
        .get_field_by_name("type")
        .and_then(|value| value.as_enum_number())
        == Some(EDS)
}

/// Qualifies a name that is set; an absent one stays absent.
fn rename(config: &ObjectRef, message: &mut DynamicMessage, field: &str, force: bool) {
    if !message.has_field_by_name(field) {
        return;
    }
    let Some(Value::String(name)) = message.get_field_by_name(field).map(Cow::into_owned) else {
        return;
    };
    if let Some(qualified) = qualified(config, &name, force) {
        message.set_field_by_name(field, Value::String(qualified));
    }
}

/// Qualifies the names that a map has as keys.
fn rename_keys(config: &ObjectRef, message: &mut DynamicMessage, field: &str) {
    let Some(Value::Map(entries)) = message.get_field_by_name_mut(field) else {
        return;
    };
    let renamed = std::mem::take(entries).into_iter().map(|(key, value)| {
        let name = key.as_str().and_then(|name| qualified(config, name, false));
        (name.map_or(key, MapKey::String), value)
    });
    *entries = renamed.collect();
}

/// The qualified form of a name; none when it stays as it is.
fn qualified(config: &ObjectRef, name: &str, force: bool) -> Option<String> {
    let there = match name.split_once('/') {
        Some((namespace, _)) => !force || namespace == config.namespace,
        None => name.is_empty(),
    };
    (!there).then(|| format!("{}/{}/{name}", config.namespace, config.name))
}

/// Where Envoy fetches what is named: from the agent, on the one stream it already has.
fn add_config_source(message: &mut DynamicMessage, field: &str) {
    if !message.has_field_by_name(field) {
        set_json(
            message,
            field,
            &serde_json::json!({"ads": {}, "resourceApiVersion": "V3"}),
        );
    }
}

/// Sets a message field from its JSON form, which is written here and so is right by test.
pub(super) fn set_json(message: &mut DynamicMessage, field: &str, json: &serde_json::Value) {
    let Some(value) = message_of(message, field, json) else {
        return;
    };
    let list = message.descriptor().get_field_by_name(field);
    let value = Value::Message(value);
    message.set_field_by_name(
        field,
        if list.is_some_and(|field| field.is_list()) {
            Value::List(vec![value])
        } else {
            value
        },
    );
}

/// A message as a field of another takes it.
pub(super) fn message_of(
    parent: &DynamicMessage,
    field: &str,
    json: &serde_json::Value,
) -> Option<DynamicMessage> {
    let kind = parent.descriptor().get_field_by_name(field)?.kind();
    decode_message(kind.as_message()?.clone(), json).ok()
}
