//! Envoy's tests are written in a looser YAML than protobuf JSON: one value where a list is
//! wanted, a duration by its fields, an enum in lower case. This makes it strict, along the descriptors.

use nodeway_core::envoy::pool;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

/// The strict form of a message's loose one.
pub(super) fn strict(name: &str, value: &Value) -> Value {
    match pool().get_message_by_name(name) {
        Some(descriptor) => of_message(&descriptor, value),
        None => value.clone(),
    }
}

fn of_message(descriptor: &MessageDescriptor, value: &Value) -> Value {
    let Value::Object(object) = value else {
        return value.clone();
    };
    match descriptor.full_name() {
        "google.protobuf.Duration" => return of_duration(object).unwrap_or_else(|| value.clone()),
        "google.protobuf.Any" => {
            let name = object
                .get("@type")
                .and_then(Value::as_str)
                .unwrap_or_default();
            return strict(name.rsplit('/').next().unwrap_or_default(), value);
        }
        name if name.starts_with("google.protobuf.") => return value.clone(),
        _ => {}
    }
    let entry = |(key, value): (&String, &Value)| {
        let field = descriptor
            .get_field_by_name(key)
            .or_else(|| descriptor.get_field_by_json_name(key));
        (
            key.clone(),
            field.map_or_else(|| value.clone(), |field| of_field(&field, value)),
        )
    };
    Value::Object(object.iter().map(entry).collect())
}

fn of_field(field: &FieldDescriptor, value: &Value) -> Value {
    let kind = field.kind();
    if let (Kind::Enum(_), Value::String(name)) = (&kind, value) {
        return Value::String(name.to_ascii_uppercase());
    }
    let one = |descriptor: Option<&MessageDescriptor>, value: &Value| {
        descriptor.map_or_else(|| value.clone(), |descriptor| of_message(descriptor, value))
    };
    let inner = kind.as_message();
    if field.is_map() {
        let value_kind = inner.map(|entry| entry.map_entry_value_field().kind());
        let inner = value_kind.as_ref().and_then(Kind::as_message);
        let Value::Object(entries) = value else {
            return value.clone();
        };
        return entries
            .iter()
            .map(|(key, value)| (key.clone(), one(inner, value)))
            .collect();
    }
    if field.is_list() {
        let items = match value {
            Value::Array(items) => items.as_slice(),
            single => std::slice::from_ref(single),
        };
        return items.iter().map(|item| one(inner, item)).collect();
    }
    one(inner, value)
}

/// `{seconds: 30}` as `30s`.
fn of_duration(object: &Map<String, Value>) -> Option<Value> {
    if object.keys().any(|key| key != "seconds" && key != "nanos") {
        return None;
    }
    let part = |name: &str| object.get(name).map_or(Some(0), Value::as_u64);
    Some(Value::String(format!(
        "{}.{:09}s",
        part("seconds")?,
        part("nanos")?
    )))
}
