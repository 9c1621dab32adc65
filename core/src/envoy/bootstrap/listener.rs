//! A listener with its routes written in, and a line in the access log for each request.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value, json};

use super::{Settings, access_log, as_json, items, text};
use crate::plan::{NodePlan, PlannedListener};

/// A planned listener, with its routes written in.
pub(super) fn written(
    name: &str,
    planned: &PlannedListener,
    plan: &NodePlan,
    settings: &Settings,
) -> Value {
    let mut listener = as_json(&planned.message).unwrap_or_default();
    each_filter(&mut listener, |_, kind, config| {
        if kind.ends_with(HTTP) {
            write_routes(config, plan);
        }
    });
    if let Some(path) = &settings.access_log {
        log(name, &mut listener, path);
    }
    listener
}

const HTTP: &str = ".HttpConnectionManager";
const TCP: &str = ".TcpProxy";

/// Has a listener write a line for each request, connection and refusal, with the place in its
/// table of each route that it has itself.
pub(super) fn log(name: &str, listener: &mut Value, path: &str) {
    each_filter(listener, |chain, kind, config| {
        if kind.ends_with(HTTP) {
            if let Some(routes) = config.get_mut("routeConfig") {
                number(routes);
            }
            push(
                config,
                "accessLog",
                access_log::request((name, chain), path),
            );
        } else if kind.ends_with(TCP) {
            push(
                config,
                "accessLog",
                access_log::connection((name, chain), path),
            );
        }
    });
    if let Some(fields) = listener.as_object_mut() {
        push(fields, "accessLog", access_log::refused(name, path));
    }
}

/// Lets filter chains and the access log see the address that the client meant.
pub(super) fn see_destination(listener: &mut Map<String, Value>) {
    const TYPE: &str = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
    let filters = listener
        .entry("listenerFilters")
        .or_insert_with(|| json!([]));
    let Some(filters) = filters.as_array_mut() else {
        return;
    };
    let is_there = |filter: &Value| {
        let config = filter.get("typedConfig");
        config.is_some_and(|config| text(config, "@type").ends_with(TYPE))
    };
    if !filters.iter().any(is_there) {
        let filter = json!({
            "name": "envoy.filters.listener.original_dst",
            "typedConfig": {"@type": format!("type.googleapis.com/{TYPE}")},
        });
        filters.insert(0, filter);
    }
}

/// Calls `what` with each network filter: its filter chain (none for the default one), the type of
/// its config, and the config.
fn each_filter(
    listener: &mut Value,
    mut what: impl FnMut(Option<usize>, &str, &mut Map<String, Value>),
) {
    let mut of_chain = |index: Option<usize>, chain: &mut Value| {
        for filter in items(chain, "filters") {
            let config = filter.get_mut("typedConfig").and_then(Value::as_object_mut);
            if let Some(config) = config {
                let kind = config.get("@type").and_then(Value::as_str);
                let kind = kind.unwrap_or_default().to_owned();
                what(index, &kind, config);
            }
        }
    };
    for (index, chain) in items(listener, "filterChains").enumerate() {
        of_chain(Some(index), chain);
    }
    if let Some(chain) = listener.get_mut("defaultFilterChain") {
        of_chain(None, chain);
    }
}

/// Routes in the place of the name by which they would be fetched. There are none where the plan
/// has none of that name.
fn write_routes(manager: &mut Map<String, Value>, plan: &NodePlan) {
    if let Some(rds) = manager.remove("rds") {
        let name = text(&rds, "routeConfigName");
        let planned = plan.routes.get(name);
        let routes = planned.and_then(|planned| as_json(&planned.message));
        let routes = routes.unwrap_or_else(|| json!({"name": name}));
        manager.insert("routeConfig".to_owned(), routes);
    }
    let routes = manager
        .get_mut("routeConfig")
        .and_then(Value::as_object_mut);
    if let Some(routes) = routes {
        // Fetched routes may name a cluster that is not there: its requests get 503. So may all.
        let validate = routes.entry("validateClusters");
        validate.or_insert_with(|| json!(false));
    }
}

/// Gives each route its place in the table as metadata, which the access log can name. Its own
/// name stays.
pub(super) fn number(routes: &mut Value) {
    for (h, host) in items(routes, "virtualHosts").enumerate() {
        for (r, route) in items(host, "routes").enumerate() {
            let Some(route) = route.as_object_mut() else {
                continue;
            };
            let metadata = route.entry("metadata").or_insert_with(|| json!({}));
            let Some(metadata) = metadata.as_object_mut() else {
                continue;
            };
            let filters = metadata
                .entry("filterMetadata")
                .or_insert_with(|| json!({}));
            if let Some(filters) = filters.as_object_mut() {
                let place = json!({access_log::ROUTE_KEY: format!("{h}/{r}")});
                filters.insert(access_log::METADATA.to_owned(), place);
            }
        }
    }
}

pub(super) fn push(fields: &mut Map<String, Value>, name: &str, item: Value) {
    let list = fields.entry(name).or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

/// The TCP sockets that a listener opens.
pub(super) fn sockets(listener: &Value) -> Vec<SocketAddr> {
    let off = |name| listener.get(name).and_then(Value::as_bool) == Some(false);
    if off("bindToPort") {
        return Vec::new();
    }
    let additional = listener
        .get("additionalAddresses")
        .and_then(Value::as_array);
    let additional = additional.into_iter().flatten();
    let additional = additional.filter_map(|it| it.get("address"));
    let all = listener.get("address").into_iter().chain(additional);
    all.filter_map(socket).collect()
}

fn socket(address: &Value) -> Option<SocketAddr> {
    let address = address.get("socketAddress")?;
    if text(address, "protocol") == "UDP" {
        return None;
    }
    let ip: IpAddr = text(address, "address").parse().ok()?;
    let port = u16::try_from(address.get("portValue")?.as_u64()?).ok()?;
    Some(SocketAddr::new(ip, port))
}
