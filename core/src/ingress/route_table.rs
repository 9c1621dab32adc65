//! The RouteConfigurations of a config: one for plain text, one for TLS; a virtual host per host.
//!
//! Envoy takes the first route that matches, so the order is the meaning: exact paths before
//! expressions, these before prefixes, longer before shorter. Two routes that match the same become
//! one whose requests are shared among all their backends.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::cluster;
use super::duration::to_protobuf;
use super::hostname::{ANY, one_label_regex};
use super::listener::{INSECURE_ROUTES, SECURE_ROUTES};
use super::model::{Backend, HttpRoute, Model, PathMatch, Timeout};
use super::options::Options;

/// The routes of each host, in the order of the model; and whether plain text is redirected.
#[derive(Default)]
struct Host<'a> {
    routes: Vec<&'a HttpRoute>,
    redirected: bool,
}

type Hosts<'a> = BTreeMap<&'a str, Host<'a>>;

/// The RouteConfigurations of a model. One that a listener names exists even if it has no routes.
#[must_use]
pub fn route_tables(model: &Model, options: &Options) -> Vec<Value> {
    let insecure = hosts(model, false);
    let secure = hosts(model, true);
    let mut tables = Vec::new();
    if model.has_insecure() || !insecure.is_empty() {
        let redirected: Hosts<'_> = secure
            .iter()
            .filter(|(_, host)| host.redirected)
            .map(redirect_of)
            .collect();
        let mut virtual_hosts = BTreeMap::new();
        for (name, host) in &insecure {
            virtual_hosts.insert(*name, virtual_host(name, host, false, options));
        }
        // A host that is redirected is redirected as a whole, whatever plain text had for it.
        for (name, host) in &redirected {
            virtual_hosts.insert(*name, virtual_host(name, host, true, options));
        }
        tables.push(table(
            INSECURE_ROUTES,
            virtual_hosts.into_values().collect(),
        ));
    }
    if model.has_secure() {
        let virtual_hosts = secure
            .iter()
            .map(|(name, host)| virtual_host(name, host, false, options))
            .collect();
        tables.push(table(SECURE_ROUTES, virtual_hosts));
    }
    tables
}

fn redirect_of<'a>((name, host): (&&'a str, &Host<'a>)) -> (&'a str, Host<'a>) {
    (
        name,
        Host {
            routes: host.routes.clone(),
            redirected: true,
        },
    )
}

fn hosts(model: &Model, secure: bool) -> Hosts<'_> {
    let mut hosts = Hosts::new();
    for listener in model
        .http
        .iter()
        .filter(|listener| listener.is_secure() == secure)
    {
        if listener.routes.is_empty() {
            continue;
        }
        let host = hosts.entry(&listener.hostname).or_default();
        host.routes.extend(&listener.routes);
        host.redirected |= listener.force_https;
    }
    hosts
}

fn table(name: &str, virtual_hosts: Vec<Value>) -> Value {
    let mut table = Map::new();
    table.insert(
        "@type".into(),
        "type.googleapis.com/envoy.config.route.v3.RouteConfiguration".into(),
    );
    table.insert("name".into(), name.into());
    if !virtual_hosts.is_empty() {
        table.insert("virtualHosts".into(), virtual_hosts.into());
    }
    Value::Object(table)
}

fn virtual_host(name: &str, host: &Host<'_>, redirect: bool, options: &Options) -> Value {
    let authority = if options.hostname_suffix_match {
        None
    } else {
        one_label_regex(name)
    };
    let mut merged = merge(&host.routes);
    merged.sort_by_key(|route| precedence(route.path_match));
    let route = |route: &Merged<'_>| {
        let path_match = route_match(route.path_match, authority.as_deref());
        if redirect {
            json!({"match": path_match, "redirect": {"httpsRedirect": true}})
        } else {
            json!({"match": path_match, "route": action(&route.backends, route.timeout)})
        }
    };
    let routes: Vec<Value> = merged.iter().map(route).collect();
    json!({"name": name, "domains": domains(name), "routes": routes})
}

/// The host with and without a port.
pub(super) fn domains(host: &str) -> Vec<String> {
    if host == ANY {
        vec![ANY.to_owned()]
    } else {
        vec![host.to_owned(), format!("{host}:*")]
    }
}

/// Routes with one match: the first one's time-out holds, and all backends share the requests.
struct Merged<'a> {
    path_match: &'a PathMatch,
    timeout: Timeout,
    backends: Vec<&'a Backend>,
}

fn merge<'a>(routes: &[&'a HttpRoute]) -> Vec<Merged<'a>> {
    let mut merged: Vec<Merged<'a>> = Vec::new();
    let mut places: BTreeMap<&PathMatch, usize> = BTreeMap::new();
    for route in routes {
        let place = *places.entry(&route.path_match).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(first) => first.backends.extend(&route.backends),
            None => merged.push(Merged {
                path_match: &route.path_match,
                timeout: route.timeout,
                backends: route.backends.iter().collect(),
            }),
        }
    }
    // A route without a backend has nowhere to send a request.
    merged.retain(|route| !route.backends.is_empty());
    merged
}

/// What comes first: the longest exact path, then the longest expression, then the longest prefix.
fn precedence(path_match: &PathMatch) -> (Reverse<usize>, Reverse<usize>, Reverse<usize>) {
    let (exact, regex, prefix) = match Path::of(path_match) {
        Path::Exact(path) => (path.len(), 0, 0),
        Path::Regex(regex) => (0, regex.len(), 0),
        Path::Segments(prefix) => (0, 0, prefix.len()),
        Path::Any => (0, 0, 1),
    };
    (Reverse(exact), Reverse(regex), Reverse(prefix))
}

/// How a path match is written for Envoy.
enum Path<'a> {
    Exact(&'a str),
    Segments(&'a str),
    Regex(&'a str),
    Any,
}

impl<'a> Path<'a> {
    fn of(path_match: &'a PathMatch) -> Self {
        if !path_match.exact.is_empty() {
            Self::Exact(&path_match.exact)
        } else if path_match.prefix == "/" {
            Self::Any
        } else if !path_match.prefix.is_empty() {
            // Envoy refuses a path-separated prefix that ends with a slash.
            Self::Segments(
                path_match
                    .prefix
                    .strip_suffix('/')
                    .unwrap_or(&path_match.prefix),
            )
        } else if !path_match.regex.is_empty() {
            Self::Regex(&path_match.regex)
        } else {
            Self::Any
        }
    }
}

fn route_match(path_match: &PathMatch, authority: Option<&str>) -> Value {
    let mut route_match = Map::new();
    match Path::of(path_match) {
        Path::Exact(path) => route_match.insert("path".into(), path.into()),
        Path::Segments(prefix) => route_match.insert("pathSeparatedPrefix".into(), prefix.into()),
        Path::Regex(regex) => route_match.insert("safeRegex".into(), json!({"regex": regex})),
        Path::Any => route_match.insert("prefix".into(), "/".into()),
    };
    if let Some(regex) = authority {
        // Envoy's own `*.` stands for any number of labels; an Ingress means exactly one.
        let header = json!({"name": ":authority", "stringMatch": {"safeRegex": {"regex": regex}}});
        route_match.insert("headers".into(), json!([header]));
    }
    Value::Object(route_match)
}

fn action(backends: &[&Backend], timeout: Timeout) -> Value {
    let mut action = Map::new();
    if let [backend] = backends {
        action.insert("cluster".into(), cluster::name(backend).into());
    } else {
        let weigh = |backend: &&Backend| json!({"name": cluster::name(backend), "weight": backend.weight.unwrap_or(1)});
        let clusters: Vec<Value> = backends.iter().map(weigh).collect();
        action.insert("weightedClusters".into(), json!({"clusters": clusters}));
    }
    match timeout.effective() {
        Some(timeout) => action.insert("timeout".into(), to_protobuf(timeout).into()),
        None => action.insert(
            "maxStreamDuration".into(),
            json!({"maxStreamDuration": "0s"}),
        ),
    };
    Value::Object(action)
}
