//! Envoy's own tests of routing and of filter chains.
//!
//! Rows were extracted from assertions, so each says what to compute and which parts to compare.
//! Where a test's harness behaves differently from Envoy itself, the function that answers its
//! rows says so.

mod loose;
pub(super) mod matchers;
mod rejected;
mod requests;

use std::path::Path;

use nodeway_core::envoy::{DecodeError, decode};
use nodeway_core::proxy::RouteTable;
use prost_reflect::DynamicMessage;
use serde_json::Value;

use super::{Outcome, Row};

/// Answers a row of `envoy-routes`.
#[must_use]
pub fn answer(file: &Path, row: &Row) -> Outcome {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let answered = match name.as_ref() {
        "config_impl" => requests::config_impl(file, row),
        "router_check" => requests::router_check(file, row),
        "config_impl_rejected" => rejected::routes(row),
        "listener_rejected" => rejected::listener(row),
        "filter_chain_match" => matchers::filter_chain(row),
        "header_match" => matchers::header(row),
        other => Err(format!("no row file `{other}` is known")),
    };
    answered.unwrap_or_else(Outcome::NotSimulated)
}

/// An answer, or what the row needs that the project has not.
pub(super) type Answered = Result<Outcome, String>;

/// A message in Envoy's own, looser YAML.
pub(super) fn message(name: &str, value: &Value) -> Result<DynamicMessage, DecodeError> {
    let mut value = loose::strict(name, value);
    if let Some(fields) = value.as_object_mut() {
        fields.insert(
            "@type".to_owned(),
            format!("type.googleapis.com/{name}").into(),
        );
    }
    decode(&value).map(|resource| resource.message)
}

pub(super) const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
const LISTENER: &str = "envoy.config.listener.v3.Listener";

/// The table in the file that a row names, after a change to its YAML.
fn table(file: &Path, row: &Row, change: impl FnOnce(&mut Value)) -> Result<RouteTable, String> {
    let name = row
        .input
        .get("route_config_file")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let path = file.with_file_name("").join(name);
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{name}: {error}"))?;
    let mut value: Value =
        serde_saphyr::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
    change(&mut value);
    let message = message(ROUTES, &value).map_err(|error| format!("{name}: {error}"))?;
    RouteTable::read(&message).map_err(|error| format!("{name}: {error}"))
}

/// A string in a part of a row.
pub(super) fn text<'a>(part: &'a Value, key: &str) -> &'a str {
    part.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A list of `{key, value}` as headers with names in lower case.
fn headers(part: &Value, key: &str) -> Vec<(String, String)> {
    let list = part.get(key).and_then(Value::as_array);
    let header = |it: &Value| {
        (
            text(it, "key").to_ascii_lowercase(),
            text(it, "value").to_owned(),
        )
    };
    list.into_iter().flatten().map(header).collect()
}
