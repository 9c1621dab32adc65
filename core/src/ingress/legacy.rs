//! The form of Cilium 1.11: the listener is named after the config, routes are prefixes, clusters
//! are whole services.
//!
//! That release wrote backends in no particular order; here the one that catches most comes first.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::annotations::{LOADBALANCER_MODE, TLS_PASSTHROUGH};
use super::listener::{router, tls_inspector};
use super::mode::Mode;
use super::model::{Backend, HttpRoute, Model, PathMatch};
use super::names::Names;
use super::options::Options;
use super::route_table::domains;
use crate::object::{BackendService, EnvoyConfigSpec, ObjectRef, ServiceListener};
use crate::problem::{Code, Problem, Severity};

/// Takes out of a model what 1.11 did not know, and says so.
#[must_use]
pub fn leave_out_unknown(ingress: &ObjectRef, mode: Mode, model: &mut Model) -> Vec<Problem> {
    let problem = |annotation: &str, reason: &str| Problem {
        code: Code::Unsupported,
        severity: Severity::Warning,
        object: ingress.clone(),
        field: format!("metadata.annotations[{annotation}]"),
        reason: reason.to_owned(),
        fix: "translate it in today's dialect".to_owned(),
    };
    let mut problems = Vec::new();
    if mode == Mode::Shared {
        let reason = "Cilium 1.11 knew no shared Ingresses, so this one has an address of its own";
        problems.push(problem(LOADBALANCER_MODE, reason));
    }
    if !model.tls_passthrough.is_empty() {
        let reason = "Cilium 1.11 passed no TLS through, so these hosts are left out";
        problems.push(problem(TLS_PASSTHROUGH, reason));
        model.tls_passthrough.clear();
    }
    problems
}

/// Writes a model in the form of 1.11.
#[must_use]
pub fn spec(model: &Model, names: &Names, options: &Options) -> EnvoyConfigSpec {
    let backends = backends(model);
    let redirected = model
        .http
        .iter()
        .any(|listener| listener.is_secure() && listener.force_https);
    let mut resources = vec![listener(model, names, options, redirected)];
    resources.push(route_table(model, &routes_name(names)));
    if redirected {
        resources.push(redirect_table(&redirect_name(names)));
    }
    resources.extend(backends.iter().map(|backend| cluster(backend)));
    EnvoyConfigSpec {
        services: vec![ServiceListener {
            name: names.service.clone(),
            namespace: names.namespace.clone(),
            listener: names.config.clone(),
            ports: Vec::new(),
        }],
        backend_services: backends
            .iter()
            .map(|backend| BackendService {
                name: backend.name.clone(),
                namespace: backend.namespace.clone(),
                ports: Vec::new(),
            })
            .collect(),
        resources,
        node_selector: None,
    }
}

fn routes_name(names: &Names) -> String {
    format!("{}_route", names.config)
}

fn redirect_name(names: &Names) -> String {
    format!("{}_redirect", names.config)
}

fn cluster_name(backend: &Backend) -> String {
    format!("{}/{}", backend.namespace, backend.name)
}

/// Each service once; the one behind the shortest path first.
fn backends(model: &Model) -> Vec<&Backend> {
    let mut seen = BTreeSet::new();
    let mut routes: Vec<&HttpRoute> = model
        .http
        .iter()
        .flat_map(|listener| &listener.routes)
        .collect();
    routes.sort_by_key(|route| text(&route.path_match).len());
    let backends = routes.into_iter().flat_map(|route| &route.backends);
    backends
        .filter(|backend| seen.insert((&backend.namespace, &backend.name)))
        .collect()
}

fn listener(model: &Model, names: &Names, options: &Options, redirected: bool) -> Value {
    let plain = if redirected {
        redirect_name(names)
    } else {
        routes_name(names)
    };
    let mut chains = vec![json!({
        "filterChainMatch": {"transportProtocol": "raw_buffer"},
        "filters": [connection_manager(names, &plain)],
    })];
    // One certificate for all hosts: the first one's.
    let secret = model.http.iter().flat_map(|listener| &listener.tls).next();
    if let Some(secret) = secret {
        let name = format!(
            "{}/{}-{}",
            options.secrets_namespace, secret.namespace, secret.name
        );
        chains.push(json!({
            "filterChainMatch": {"transportProtocol": "tls"},
            "filters": [connection_manager(names, &routes_name(names))],
            "transportSocket": {
                "name": "envoy.transport_sockets.tls",
                "typedConfig": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "commonTlsContext": {"tlsCertificateSdsSecretConfigs": [{"name": name}]},
                },
            },
        }));
    }
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": names.config,
        "filterChains": chains,
        "listenerFilters": [tls_inspector()],
    })
}

fn connection_manager(names: &Names, routes: &str) -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "statPrefix": names.config,
            "rds": {"routeConfigName": routes},
            "httpFilters": [{"name": "envoy.filters.http.router", "typedConfig": router()}],
        },
    })
}

fn route_table(model: &Model, name: &str) -> Value {
    let mut hosts: BTreeMap<&str, BTreeMap<Rank<'_>, &Backend>> = BTreeMap::new();
    // Plain text and TLS have the same routes; two of one match would leave the second one dead.
    for listener in &model.http {
        for route in &listener.routes {
            let Some(backend) = route.backends.first() else {
                continue;
            };
            hosts
                .entry(&listener.hostname)
                .or_default()
                .entry(Rank::of(&route.path_match))
                .or_insert(backend);
        }
    }
    let virtual_hosts: Vec<Value> = hosts
        .into_iter()
        .map(|(host, routes)| {
            let routes: Vec<Value> = routes
                .into_iter()
                .map(|(rank, backend)| json!({"match": rank.json(), "route": {"cluster": cluster_name(backend)}}))
                .collect();
            json!({"name": host, "domains": domains(host), "routes": routes})
        })
        .collect();
    json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": name,
        "virtualHosts": virtual_hosts,
    })
}

/// Exact paths first, then prefixes; the longer first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank<'a> {
    Exact(std::cmp::Reverse<usize>, &'a str),
    Prefix(std::cmp::Reverse<usize>, &'a str),
}

impl<'a> Rank<'a> {
    fn of(path_match: &'a PathMatch) -> Self {
        let text = text(path_match);
        let longest_first = std::cmp::Reverse(text.len());
        if path_match.exact.is_empty() {
            Self::Prefix(longest_first, text)
        } else {
            Self::Exact(longest_first, text)
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Exact(_, path) => json!({"path": path}),
            Self::Prefix(_, prefix) => json!({"prefix": prefix}),
        }
    }
}

fn text(path_match: &PathMatch) -> &str {
    let written = [&path_match.exact, &path_match.prefix, &path_match.regex]
        .into_iter()
        .find(|text| !text.is_empty());
    written.map_or("/", String::as_str)
}

fn redirect_table(name: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": name,
        "virtualHosts": [{
            "name": "default-redirect",
            "domains": ["*"],
            "routes": [{
                "match": {"prefix": "/"},
                "redirect": {"httpsRedirect": true, "responseCode": "PERMANENT_REDIRECT"},
            }],
        }],
    })
}

fn cluster(backend: &Backend) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": cluster_name(backend),
        "type": "EDS",
        "connectTimeout": "5s",
        "outlierDetection": {"consecutiveLocalOriginFailure": 2, "splitExternalLocalOriginErrors": true},
    })
}
