//! A request through a route table.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use nodeway_core::proxy::{
    Action, Context, Forward, RepeatedHeaders, Request, RouteChoice, RouteTable,
};
use serde_json::{Map, Value, json};

use super::super::{Outcome, Row};
use super::matchers::matcher;
use super::{Answered, headers, table, text};

/// The client of Envoy's test harnesses.
const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A row of `config_impl`: what a route does with a request.
pub(super) fn config_impl(file: &Path, row: &Row) -> Answered {
    let table = table(file, row, |_| {})?;
    let request = request(row);
    let context = Context {
        remote: Some(CLIENT),
        // What the mocked tracer of that test says.
        trace_id: Some("trace-id".to_owned()),
        ..Context::default()
    };
    let choice = table.route_in(&request, &context);
    if let Action::NotSimulated { fields } = &choice.action {
        return Err(fields.join(", "));
    }
    let mut got = Map::new();
    for key in row.expect.as_object().into_iter().flat_map(Map::keys) {
        got.insert(key.clone(), config_impl_part(key, &choice)?);
    }
    Ok(Outcome::of(Value::Object(got), row.expect.clone()))
}

fn config_impl_part(key: &str, choice: &RouteChoice) -> Result<Value, String> {
    let forward = match &choice.action {
        Action::Forward(forward) => Some(&**forward),
        _ => None,
    };
    if let Some(name) = key.strip_prefix("request_header:") {
        let value = forward.and_then(|forward| header(&forward.headers, name));
        let unknown = choice
            .not_simulated
            .iter()
            .find(|field| field.contains("requestHeadersToAdd"));
        return match (value, unknown) {
            (None, Some(field)) => Err(field.clone()),
            (value, _) => Ok(json!(value)),
        };
    }
    Ok(match key {
        "cluster" => json!(forward.map(|forward| &forward.cluster)),
        "path_rewrite" => json!(forward.map(|forward| &forward.path)),
        "host_rewrite" => json!(forward.map(|forward| &forward.authority)),
        "cluster_not_found_response_code" => {
            json!(forward.map(|forward| forward.cluster_not_found))
        }
        "virtual_host" => json!(choice.virtual_host.as_ref().map(|host| &*host.name)),
        "route_name" => json!(choice.route.as_ref().map(|route| &*route.name)),
        // Only its absence is ever asked for.
        "route" if matches!(choice.action, Action::NotFound { .. }) => Value::Null,
        "route" => json!("there is one"),
        "direct_response" if forward.is_some() => Value::Null,
        "direct_response" => json!("it is no forwarding route"),
        "redirect_uri" => match &choice.action {
            Action::Redirect { location, .. } => json!(location),
            _ => Value::Null,
        },
        "response_code" => match &choice.action {
            Action::Redirect { status, .. } | Action::Direct { status, .. } => json!(status),
            _ => Value::Null,
        },
        other => return Err(format!("the row asks for `{other}`")),
    })
}

/// A row of `router_check`: what Envoy's route table checker reports.
pub(super) fn router_check(file: &Path, row: &Row) -> Answered {
    let runtime = text(&row.request, "runtime");
    let table = table(file, row, |yaml| check_runtime(yaml, runtime))?;
    let request = request(row);
    let context = Context {
        remote: Some(CLIENT),
        repeated_headers: RepeatedHeaders::default(),
        trace_id: None,
        metadata: metadata(row),
    };
    let choice = table.route_in(&request, &context);
    if let Action::NotSimulated { fields } = &choice.action {
        return Err(fields.join(", "));
    }
    let mut got = Map::new();
    let mut want = row.expect.clone();
    for (key, wanted) in row.expect.as_object().into_iter().flatten() {
        match key.as_str() {
            "request_header_matches" | "response_header_matches" => {
                // Matchers that hold stand in `got`; those that do not are missing there.
                let headers = checked_headers(key, &choice, &request);
                got.insert(key.clone(), holding(wanted, &headers, &context)?);
            }
            // The checker reports a direct response as a redirect to the request's own URL.
            "path_redirect" if matches!(choice.action, Action::Direct { .. }) => {
                if let Some(want) = want.as_object_mut() {
                    want.remove(key);
                }
            }
            _ => {
                got.insert(
                    key.clone(),
                    router_check_part(key, &choice, &table, (&request, &context))?,
                );
            }
        }
    }
    Ok(Outcome::of(Value::Object(got), want))
}

fn router_check_part(
    key: &str,
    choice: &RouteChoice,
    table: &RouteTable,
    (request, context): (&Request, &Context),
) -> Result<Value, String> {
    let forward: Option<&Forward> = match &choice.action {
        Action::Forward(forward) => Some(forward),
        _ => None,
    };
    let part = |of: fn(&Forward) -> &str| json!(forward.map(of).unwrap_or_default());
    let host = choice.virtual_host.as_ref().filter(|_| forward.is_some());
    Ok(match key {
        "cluster_name" => part(|forward| &forward.cluster),
        "path_rewrite" => part(|forward| &forward.path),
        "host_rewrite" => part(|forward| &forward.authority),
        "virtual_host_name" => json!(host.map(|host| &*host.name).unwrap_or_default()),
        "virtual_cluster_name" => {
            let host = host.and_then(|host| table.virtual_hosts.get(host.index));
            json!(
                host.and_then(|host| host.virtual_cluster(request, context))
                    .unwrap_or_default()
            )
        }
        "path_redirect" => match &choice.action {
            Action::Redirect { location, .. } => json!(location),
            _ => json!(""),
        },
        "code_redirect" => match &choice.action {
            Action::Redirect { status, .. } | Action::Direct { status, .. } => json!(status),
            _ => json!(0),
        },
        other => return Err(format!("the row asks for `{other}`")),
    })
}

/// The headers that a check of headers looks at.
fn checked_headers(key: &str, choice: &RouteChoice, request: &Request) -> Request {
    let mut checked = request.clone();
    match &choice.action {
        Action::Forward(forward) if key == "request_header_matches" => {
            checked.authority.clone_from(&forward.authority);
            checked.path.clone_from(&forward.path);
            checked.headers.clone_from(&forward.headers);
        }
        _ if key == "request_header_matches" => {}
        action => {
            checked.headers.clear();
            if let Action::Direct { body, .. } = action {
                checked
                    .headers
                    .push(("content-length".to_owned(), body.len().to_string()));
                checked
                    .headers
                    .push(("content-type".to_owned(), "text/plain".to_owned()));
            }
            choice.response.apply(&mut checked.headers);
        }
    }
    checked
}

/// Those of some matchers that hold.
fn holding(matchers: &Value, headers: &Request, context: &Context) -> Result<Value, String> {
    let mut holding = Vec::new();
    for value in matchers.as_array().into_iter().flatten() {
        if matcher(value)?.matches(headers, context.repeated_headers) {
            holding.push(value.clone());
        }
    }
    Ok(Value::Array(holding))
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

/// A row's request. Both harnesses make `x-forwarded-proto` what the scheme is.
fn request(row: &Row) -> Request {
    let part = &row.request;
    let is = |key: &str| part.get(key).and_then(Value::as_bool);
    let scheme = match (part.get("scheme"), is("ssl")) {
        (Some(scheme), _) => scheme.as_str().unwrap_or_default(),
        (None, Some(true)) => "https",
        (None, _) => "http",
    };
    let mut all = headers(part, "headers");
    all.extend(headers(part, "additional_request_headers"));
    if is("internal") == Some(true) {
        all.push(("x-envoy-internal".to_owned(), "true".to_owned()));
    }
    Request {
        method: text(part, "method").to_owned(),
        scheme: scheme.to_owned(),
        authority: text(part, "authority").to_owned(),
        path: text(part, "path").to_owned(),
        headers: all,
        random: part
            .get("random_value")
            .and_then(Value::as_u64)
            .unwrap_or_default(),
    }
}

/// The checker's own runtime: a key that the row does not name is off, whatever the route's
/// default, and one that it names also takes the number that equals the numerator.
fn check_runtime(value: &mut Value, named: &str) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| check_runtime(item, named)),
        Value::Object(fields) => {
            if let Some(fraction) = fields.get_mut("runtime_fraction") {
                let on = text(fraction, "runtime_key") == named;
                if let Some(numerator) = fraction.pointer_mut("/default_value/numerator") {
                    *numerator = if on {
                        json!(numerator.as_u64().map(|it| it + 1))
                    } else {
                        json!(0)
                    };
                }
            }
            fields
                .values_mut()
                .for_each(|value| check_runtime(value, named));
        }
        _ => {}
    }
}

/// Dynamic metadata that the row sets, entry by entry; a later one replaces only where it may.
fn metadata(row: &Row) -> std::collections::BTreeMap<String, Value> {
    let mut metadata = std::collections::BTreeMap::new();
    for entry in row
        .request
        .get("dynamic_metadata")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let name = text(entry, "metadata_namespace").to_owned();
        let value = entry.get("value").cloned().unwrap_or_default();
        if entry.get("allow_overwrite").and_then(Value::as_bool) == Some(true) {
            metadata.insert(name, value);
        } else {
            metadata.entry(name).or_insert(value);
        }
    }
    metadata
}
