//! One resource of a dump becomes a message, also where it has more than Envoy's descriptors know.
//!
//! A dump was written by an Envoy that runs: what is not known here is newer, or somebody else's
//! extension, and no mistake of the user's. It is taken out by its path and named.

use serde_json::{Value, json};

use crate::envoy::{DecodeError, Resource, decode, is_known_type};

/// More unknown fields than that, and it is no resource of an Envoy that we know.
const MOST_UNKNOWN: usize = 200;

/// Reads a resource, with the paths of what was taken out of it.
pub(super) fn decode_known(value: &Value) -> Result<(Resource, Vec<String>), String> {
    let mut value = value.clone();
    let mut left_out = Vec::new();
    if let Some(fields) = value.as_object_mut() {
        for (key, field) in fields.iter_mut().filter(|(key, _)| *key != "@type") {
            empty_unknown_types(field, key, &mut left_out);
        }
    }
    loop {
        match decode(&value) {
            Ok(resource) => return Ok((resource, left_out)),
            Err(DecodeError::UnknownField { path, .. }) if left_out.len() < MOST_UNKNOWN => {
                if !remove(&mut value, &path) {
                    return Err(format!("{path}: a field that is not known"));
                }
                left_out.push(path);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Puts nothing in the place of each message whose type is none of Envoy's own.
fn empty_unknown_types(value: &mut Value, path: &str, left_out: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                empty_unknown_types(item, &format!("{path}[{index}]"), left_out);
            }
        }
        Value::Object(fields) => {
            let unknown = fields
                .get("@type")
                .and_then(Value::as_str)
                .filter(|url| !is_known_type(url));
            if let Some(url) = unknown {
                left_out.push(format!("{path} ({})", short(url)));
                *value =
                    json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": {}});
                return;
            }
            for (key, field) in fields.iter_mut() {
                empty_unknown_types(field, &format!("{path}.{key}"), left_out);
            }
        }
        _ => {}
    }
}

fn short(url: &str) -> &str {
    url.rsplit_once('/').map_or(url, |(_, name)| name)
}

/// Takes the field of that path out; says whether there was one. Keys may have dots of their own.
fn remove(value: &mut Value, path: &str) -> bool {
    match value {
        Value::Array(items) => {
            let Some((index, rest)) = path.strip_prefix('[').and_then(|it| it.split_once(']'))
            else {
                return false;
            };
            let item = index.parse::<usize>().ok().and_then(|at| items.get_mut(at));
            item.is_some_and(|item| remove(item, rest.strip_prefix('.').unwrap_or(rest)))
        }
        Value::Object(fields) => {
            if fields.remove(path).is_some() {
                return true;
            }
            fields.iter_mut().any(|(key, field)| {
                let rest = path.strip_prefix(key.as_str());
                let rest = rest.and_then(|rest| match rest.strip_prefix('.') {
                    Some(below) => Some(below),
                    None => rest.starts_with('[').then_some(rest),
                });
                rest.is_some_and(|rest| remove(field, rest))
            })
        }
        _ => false,
    }
}
