//! A message as bytes that are the same each time, and what it will ask for by name.
//!
//! A protobuf map has no order, and each process shuffles it anew: encoded as it comes, a resource
//! would look changed although nobody changed it. Here its entries stand in the order of their keys,
//! also inside an `Any`.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, MapKey, ReflectMessage as _, Value};

use crate::envoy::unpack;
use crate::plan::ResourceName;

/// A message's bytes, and the names that Envoy fetches because of it.
pub(super) struct Encoded {
    pub(super) bytes: Bytes,
    /// Route configurations of a listener, the endpoints of a cluster.
    pub(super) needs: Vec<ResourceName>,
}

/// Encodes a planned message.
pub(super) fn encode(message: &DynamicMessage) -> Encoded {
    let mut needs = Vec::new();
    let bytes = written(message, &mut needs).freeze();
    needs.sort();
    needs.dedup();
    Encoded { bytes, needs }
}

fn written(message: &DynamicMessage, needs: &mut Vec<ResourceName>) -> BytesMut {
    needs.extend(need(message));
    let mut out = BytesMut::new();
    if message.descriptor().full_name() == "google.protobuf.Any"
        && let Some(inner) = unpack(message)
    {
        let mut any = message.clone();
        let inner = written(&inner, needs).freeze();
        any.set_field_by_name("value", Value::Bytes(inner));
        out.put(&*any.encode_to_vec());
        return out;
    }
    for (field, value) in message.fields() {
        match value {
            Value::Message(inner) => part(&field, inner, &mut out, needs),
            Value::List(items) if items.iter().all(|item| item.as_message().is_some()) => {
                for inner in items.iter().filter_map(Value::as_message) {
                    part(&field, inner, &mut out, needs);
                }
            }
            Value::Map(entries) => {
                let mut entries: Vec<(&MapKey, &Value)> = entries.iter().collect();
                entries.sort_by(|one, other| one.0.cmp(other.0));
                for (key, value) in entries {
                    if let Some(entry) = entry(&field, key, value) {
                        part(&field, &entry, &mut out, needs);
                    }
                }
            }
            _ => {
                let mut alone = DynamicMessage::new(message.descriptor());
                alone.set_field(&field, value.clone());
                out.put(&*alone.encode_to_vec());
            }
        }
    }
    if message.unknown_fields().next().is_some() {
        let mut rest = message.clone();
        rest.take_fields().for_each(drop);
        out.put(&*rest.encode_to_vec());
    }
    out
}

/// A field that is a message: its number, its length, its bytes.
fn part(
    field: &FieldDescriptor,
    inner: &DynamicMessage,
    out: &mut BytesMut,
    needs: &mut Vec<ResourceName>,
) {
    let bytes = written(inner, needs);
    encode_key(field.number(), WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.put(bytes);
}

/// An entry of a map as the message that it is on the wire.
fn entry(field: &FieldDescriptor, key: &MapKey, value: &Value) -> Option<DynamicMessage> {
    let kind = field.kind();
    let mut entry = DynamicMessage::new(kind.as_message()?.clone());
    entry.set_field_by_name("key", Value::from(key.clone()));
    entry.set_field_by_name("value", value.clone());
    Some(entry)
}

/// What Envoy fetches by name because of this message.
fn need(message: &DynamicMessage) -> Option<ResourceName> {
    match message.descriptor().full_name() {
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds" => {
            text(message, "route_config_name")
        }
        "envoy.config.cluster.v3.Cluster" => {
            const EDS: i32 = 3;
            let kind = message.get_field_by_name("type")?.as_enum_number()?;
            if kind != EDS || !message.has_field_by_name("type") {
                return None;
            }
            let eds = message.get_field_by_name("eds_cluster_config");
            let service = eds.as_ref().and_then(|eds| eds.as_message());
            service
                .and_then(|eds| text(eds, "service_name"))
                .or_else(|| text(message, "name"))
        }
        _ => None,
    }
}

/// A text that is not empty.
fn text(message: &DynamicMessage, field: &str) -> Option<ResourceName> {
    let value = message.get_field_by_name(field)?;
    let text = value.as_str().filter(|text| !text.is_empty())?;
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::envoy::decode;

    /// A listener with maps of many entries, plain and inside an `Any`.
    fn listener() -> DynamicMessage {
        let metadata = |name: &str| {
            let keys =
                (0..20).map(|key| (format!("{name}{key}"), json!({"a": 1, "b": 2, "c": [3]})));
            json!({"filterMetadata": keys.collect::<serde_json::Map<_, _>>()})
        };
        let json = json!({
            "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
            "name": "shop/web",
            "metadata": metadata("outer"),
            "filterChains": [{"filters": [{"name": "http", "typedConfig": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "statPrefix": "web",
                "rds": {"routeConfigName": "shop/routes", "configSource": {"ads": {}}},
            }}]}, {"metadata": metadata("inner"), "filters": [{"name": "http", "typedConfig": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "statPrefix": "inline",
                "routeConfig": {"virtualHosts": [{"name": "all", "domains": ["*"], "metadata": metadata("host")}]},
            }}]}],
        });
        decode(&json).unwrap().message
    }

    #[test]
    fn the_same_message_has_the_same_bytes_each_time() {
        let first = encode(&listener());
        for _ in 0..20 {
            assert_eq!(encode(&listener()).bytes, first.bytes);
        }
    }

    #[test]
    fn the_bytes_are_the_message() {
        let message = listener();
        let bytes = encode(&message).bytes;
        let again = DynamicMessage::decode(message.descriptor(), bytes).unwrap();
        // As JSON: an `Any` is what it holds, in whatever order.
        let json = |message| serde_json::to_value(message).unwrap();
        assert_eq!(json(&again), json(&message));
    }

    #[test]
    fn a_listener_needs_its_route_configurations_and_a_cluster_its_endpoints() {
        assert_eq!(encode(&listener()).needs, ["shop/routes".into()]);
        let cluster = |fields: serde_json::Value| {
            let mut json = json!({"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "c"});
            let fields = fields.as_object().unwrap().clone();
            json.as_object_mut().unwrap().extend(fields);
            encode(&decode(&json).unwrap().message).needs
        };
        let service = json!({"type": "EDS", "edsClusterConfig": {"serviceName": "shop/web:80"}});
        assert_eq!(cluster(service), ["shop/web:80".into()]);
        assert_eq!(cluster(json!({"type": "EDS"})), ["c".into()]);
        assert!(cluster(json!({"type": "STATIC"})).is_empty());
        assert!(cluster(json!({})).is_empty());
    }
}
