//! Rows of an Ingress and a request: the whole spine, from YAML to the pod that answers.
//!
//! The row's Ingress and its services become a cluster's manifests, as their harness would have
//! made them; the request comes from outside to the Ingress's own LoadBalancer address. Service
//! names are compared by name alone: rows do not say namespaces.

#![expect(
    clippy::indexing_slicing,
    reason = "looking into a JSON value by name gives null where nothing is; it does not panic"
)]

use std::collections::BTreeSet;
use std::path::Path;

use nodeway_core::source::{self, Text};
use nodeway_sim::{Ask, Cluster, Options, Reply, Sim};
use serde_json::{Value, json};

use super::{Outcome, Row};

/// Answers a row of `ingress-conformance`, `k8s-docs` or `bookinfo`.
#[must_use]
pub fn answer(_: &Path, row: &Row) -> Outcome {
    match cluster(row) {
        Ok(cluster) if row.request.is_null() => accepted(&cluster, row),
        Ok(cluster) => requested(cluster, row),
        Err(error) => Outcome::Failed {
            got: json!({ "error": error }),
            want: row.expect.clone(),
        },
    }
}

/// The row's manifests as a running cluster.
fn cluster(row: &Row) -> Result<Sim, String> {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": manifests(row) });
    let text = Text {
        name: row.id.as_str().into(),
        content: list.to_string(),
    };
    let objects = source::read(&[text]).map_err(|errors| {
        errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    })?;
    // The API knows no redirect to TLS: that is a setting of Cilium's operator, not the row's.
    let mut options = Options::default();
    options.controllers.ingress.enforce_https = false;
    Sim::from_objects(objects)
        .options(options)
        .start()
        .map_err(|error| error.to_string())
}

fn manifests(row: &Row) -> Vec<Value> {
    let ingresses = row.input["ingresses"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut items = Vec::new();
    let mut made = BTreeSet::new();
    for service in row.input["services"].as_array().into_iter().flatten() {
        made.insert(service["name"].to_string());
        items.extend(service_of_row(service));
    }
    for ingress in ingresses {
        // What the row has no service for exists all the same where it came from.
        for (name, port) in backends(&ingress) {
            if made.insert(name.to_string()) {
                items.extend(service_of_row(&json!({
                    "name": name, "ports": [{ "port": port, "targetPort": 3000 }], "endpoints": 1,
                })));
            }
        }
        for tls in ingress["spec"]["tls"].as_array().into_iter().flatten() {
            items.push(json!({
                "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
                "metadata": { "name": tls["secretName"] },
                "stringData": { "tls.crt": CERTIFICATE, "tls.key": KEY },
            }));
        }
        items.push(with_class(ingress));
    }
    items
}

/// Some certificate: where a row comes from there is one, and no row looks at it.
const CERTIFICATE: &str = include_str!("../../../../core/src/certificate/shop.pem");
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

/// The harness sets the class under test where the manifest has none.
fn with_class(mut ingress: Value) -> Value {
    let annotated = ingress["metadata"]["annotations"]
        .get("kubernetes.io/ingress.class")
        .is_some();
    let unset = ingress["spec"]["ingressClassName"].is_null() && !annotated;
    if let (true, Some(spec)) = (unset, ingress["spec"].as_object_mut()) {
        spec.insert("ingressClassName".to_owned(), json!("cilium"));
    }
    ingress
}

/// Every service and port that an Ingress names.
fn backends(ingress: &Value) -> Vec<(Value, Value)> {
    let spec = &ingress["spec"];
    let rules = spec["rules"].as_array().into_iter().flatten();
    rules
        .flat_map(|rule| rule["http"]["paths"].as_array().into_iter().flatten())
        .map(|path| &path["backend"]["service"])
        .chain(std::iter::once(&spec["defaultBackend"]["service"]))
        .filter(|service| service.is_object())
        .map(|service| (service["name"].clone(), service["port"]["number"].clone()))
        .collect()
}

/// A Service and the Deployment behind it.
fn service_of_row(service: &Value) -> [Value; 2] {
    let name = &service["name"];
    let labels = json!({ "app": name });
    let ports: Vec<Value> = service["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(n, port)| {
            let mut port = port.clone();
            if port["name"].is_null() {
                port["name"] = json!(format!("p{n}"));
            }
            port
        })
        .collect();
    let image = match name.as_str() {
        // Bookinfo's rows expect what its programs answer (`/ratings` of productpage is 404).
        Some(name @ ("productpage" | "details" | "reviews" | "ratings")) => {
            format!("examples-bookinfo-{name}-v1")
        }
        _ => "echo".to_owned(),
    };
    let kind = service
        .get("type")
        .cloned()
        .unwrap_or_else(|| json!("ClusterIP"));
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "type": kind, "selector": labels, "ports": ports },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
            "spec": {
                "replicas": service.get("endpoints").cloned().unwrap_or_else(|| json!(1)),
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "containers": [{
                        "name": "main", "image": image, "ports": [{ "containerPort": 3000 }],
                    }] },
                },
            },
        }),
    ]
}

/// Rows without a request ask whether the Ingress is taken at all.
fn accepted(cluster: &Sim, row: &Row) -> Outcome {
    let taken = cluster.objects().envoy_configs().next().is_some();
    compare(row, |key| match key {
        "ingress_accepted" => Some(json!(taken)),
        "ingress_status_address" => Some(if taken {
            json!("an address")
        } else {
            Value::Null
        }),
        _ => None,
    })
}

fn requested(mut cluster: Sim, row: &Row) -> Outcome {
    let ingress = &row.input["ingresses"][0]["metadata"];
    let namespace = ingress["namespace"].as_str().unwrap_or("default");
    let name = ingress["name"].as_str().unwrap_or_default();
    let request = &row.request;
    let scheme = request["scheme"].as_str().unwrap_or("http");
    let path = request["path"].as_str().unwrap_or("/");
    let url = format!("{scheme}://cilium-ingress-{name}.{namespace}{path}");
    let mut ask = Ask::get(url).method(request["method"].as_str().unwrap_or("GET"));
    // For https the name in the URL is the SNI; the address is the Ingress's all the same.
    if let Some(host) = request["host"].as_str() {
        ask = ask.header("host", host);
    }
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        ask = ask.header(name, value.as_str().unwrap_or_default());
    }
    let times = request["repeat"].as_u64().unwrap_or(1);
    let mut replies = Vec::new();
    for _ in 0..times {
        match cluster.request("outside", ask.clone()) {
            Ok(reply) => replies.push(reply),
            Err(failed) => {
                let got = json!({ "failure": failed.failure.to_string() });
                return Outcome::Failed {
                    got,
                    want: row.expect.clone(),
                };
            }
        }
    }
    let Some(reply) = replies.last() else {
        return Outcome::NotSimulated("the row asks for no request".to_owned());
    };
    let endpoints: BTreeSet<_> = replies.iter().map(|reply| reply.endpoint).collect();
    compare(row, |key| got(reply, endpoints.len(), &row.expect, key))
}

/// What came out for one key of `expect`, in the shape of the row.
fn got(reply: &Reply, endpoints: usize, want: &Value, key: &str) -> Option<Value> {
    let service = || {
        reply
            .service
            .0
            .as_ref()
            .map(|service| json!(service.name))
            .unwrap_or_default()
    };
    Some(match key {
        "status" => json!(reply.status),
        "backend_service" => service(),
        "not_backend_service" => {
            if service() == want[key] {
                Value::Null
            } else {
                want[key].clone()
            }
        }
        // The cluster is named `namespace:service:port`.
        "backend_port" => {
            let port = reply
                .cluster
                .as_deref()
                .and_then(|cluster| cluster.rsplit(':').next());
            port.and_then(|port| port.parse::<u16>().ok())
                .map_or(Value::Null, |port| json!(port))
        }
        "distinct_endpoints" => json!(endpoints),
        "request_seen_by_backend" => {
            let keys = want[key].as_object().into_iter().flatten();
            keys.map(|(key, _)| (key.clone(), reply.body["saw"][key].clone()))
                .collect()
        }
        _ => return None,
    })
}

/// Compares every key of `expect` but prose.
fn compare(row: &Row, got: impl Fn(&str) -> Option<Value>) -> Outcome {
    let mut seen = serde_json::Map::new();
    let mut want = serde_json::Map::new();
    for (key, value) in row.expect.as_object().into_iter().flatten() {
        if matches!(key.as_str(), "note" | "docs_text") {
            continue;
        }
        let Some(got) = got(key) else {
            return Outcome::NotSimulated(format!("`expect.{key}` is not answered"));
        };
        seen.insert(key.clone(), got);
        want.insert(key.clone(), value.clone());
    }
    Outcome::of(Value::Object(seen), Value::Object(want))
}
