//! gRPC's own tests of the matchers that it has from Envoy.
//!
//! gRPC joins repeated headers with commas, as Envoy did, so rows are asked in that reading.

use std::path::Path;

use nodeway_core::proxy::{RepeatedHeaders, Request, RouteTable};
use serde_json::{Value, json};

use super::envoy_routes::{Answered, ROUTES, matchers, message, text};
use super::{Outcome, Row};

/// Answers a row of `grpc`.
#[must_use]
pub fn answer(_: &Path, row: &Row) -> Outcome {
    let of = |field: &str| row.input.get(field);
    let answered = match (of("route_match"), of("header_matcher")) {
        (Some(matches), _) => path(matches, row),
        (None, Some(matcher)) => header(matcher, row),
        (None, None) => Err("a row of another kind".to_owned()),
    };
    answered.unwrap_or_else(Outcome::NotSimulated)
}

/// Whether a path meets a route's match.
fn path(matches: &Value, row: &Row) -> Answered {
    let table = json!({"name": "table", "virtual_hosts": [{
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": matches, "direct_response": {"status": 200}}],
    }]});
    let table = message(ROUTES, &table).map_err(|error| error.to_string())?;
    let table = RouteTable::read(&table).map_err(|error| error.to_string())?;
    let choice = table.route(&Request {
        path: text(&row.request, "path").to_owned(),
        ..asked()
    });
    met(choice.route.is_some(), row)
}

/// Whether headers meet a matcher.
fn header(matcher: &Value, row: &Row) -> Answered {
    let headers = row.request.get("headers").and_then(Value::as_array);
    let headers = headers.into_iter().flatten().filter_map(|pair| {
        let text = |index| Some(pair.get(index)?.as_str()?.to_owned());
        Some((text(0)?.to_ascii_lowercase(), text(1)?))
    });
    let request = Request {
        headers: headers.collect(),
        ..asked()
    };
    let matcher = matchers::matcher(matcher)?;
    met(
        matcher.matches(&request, RepeatedHeaders::Concatenated),
        row,
    )
}

fn met(is: bool, row: &Row) -> Answered {
    Ok(Outcome::of(json!({"match": is}), row.expect.clone()))
}

fn asked() -> Request {
    Request {
        method: "POST".to_owned(),
        scheme: "http".to_owned(),
        authority: "grpc".to_owned(),
        path: "/".to_owned(),
        headers: Vec::new(),
        random: 0,
    }
}
