//! Resources that are fetched from a server, with what lets the access log lead back to the plan.

use prost_reflect::{DynamicMessage, ReflectMessage as _};
use serde_json::Value;

use super::{as_json, listener};
use crate::envoy::decode::decode_message;

/// A listener that writes a line for each request, connection and refusal to the file at `path`
/// ([`super::AccessEntry`]).
#[must_use]
pub fn logged_listener(name: &str, message: &DynamicMessage, path: &str) -> DynamicMessage {
    edited(message, |json| listener::log(name, json, path))
}

/// Routes that the access log can name by their place in the table.
#[must_use]
pub fn logged_routes(message: &DynamicMessage) -> DynamicMessage {
    edited(message, listener::number)
}

/// A message, edited in its JSON form.
fn edited(message: &DynamicMessage, edit: impl FnOnce(&mut Value)) -> DynamicMessage {
    let decoded = || {
        let mut json = as_json(message)?;
        edit(&mut json);
        decode_message(message.descriptor(), &json).ok()
    };
    // What was decoded once has a JSON form, which is decoded again.
    decoded().unwrap_or_else(|| message.clone())
}
