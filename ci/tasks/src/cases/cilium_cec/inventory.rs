//! What a real config holds, by the plan that it becomes: nothing of it is lost or put aside.

#![expect(
    clippy::indexing_slicing,
    reason = "looking into a JSON value by name gives null where nothing is; it does not panic"
)]

use std::collections::BTreeSet;
use std::path::Path;

use nodeway_core::plan::NodePlan;
use nodeway_core::problem::Severity;
use serde_json::{Map, Value, json};

use super::{Answered, NODE, Outcome, Row, planned};

/// A config that Cilium ships as an example.
pub(super) fn example(row: &Row) -> Answered {
    held(row.input["cec"].clone(), &row.expect["summary"])
}

/// A config that Cilium's operator makes of a Gateway.
pub(super) fn golden(file: &Path, row: &Row) -> Answered {
    let Some(golden) = row.expect["cec_file"].as_str() else {
        return Err("no config is made of it".to_owned());
    };
    let path = file.parent().unwrap_or(file).join(golden);
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{golden}: {error}"))?;
    let config = serde_saphyr::from_str(&text).map_err(|error| format!("{golden}: {error}"))?;
    held(config, &row.expect["summary"])
}

/// Plans a config on a node that it selects, with the Services that it names.
fn held(config: Value, want: &Value) -> Answered {
    let mut items = services(&config);
    items.push(config.clone());
    let labels = &config["spec"]["nodeSelector"]["matchLabels"];
    let (objects, plan) = planned(items, labels)?;
    let metadata = &config["metadata"];
    let is_clusterwide = config["kind"] == "CiliumClusterwideEnvoyConfig";
    let unsaid = if is_clusterwide { "" } else { "default" };
    let namespace = metadata["namespace"].as_str().unwrap_or(unsaid);
    let name = metadata["name"].as_str().unwrap_or_default();
    let own = format!("{namespace}/{name}/");
    let entry = objects
        .envoy_config(namespace, name)
        .or_else(|| objects.clusterwide_envoy_config("", name));
    let spec = entry.map(|it| it.spec.clone()).unwrap_or_default();
    let spec = serde_json::to_value(spec).map_err(|error| error.to_string())?;
    let mut got = json!({
        "kind": config["kind"],
        "name": name,
        "services": named(&spec["services"], "ports"),
        "backend_services": named(&spec["backendServices"], "number"),
        "listeners": listeners(&plan, &own),
        "route_configs": route_configs(&plan, &own),
        "clusters": clusters(&plan, &own),
    });
    if metadata["namespace"].is_string() {
        got["namespace"] = namespace.into();
    }
    if !spec["nodeSelector"].is_null() {
        got["node_selector"] = spec["nodeSelector"].clone();
    }
    // What is only warned of is still told to Envoy.
    let problems = plan
        .problems
        .iter()
        .filter(|it| it.severity == Severity::Error);
    let problems: Vec<String> = problems.map(ToString::to_string).collect();
    if !problems.is_empty() {
        got["problems"] = json!(problems);
    }
    let want = shaped(want);
    Ok(Outcome::of(narrowed(&got, &want), want))
}

/// The Services that a config names, each with an endpoint.
fn services(config: &Value) -> Vec<Value> {
    let own = config["metadata"]["namespace"]
        .as_str()
        .unwrap_or("default");
    let spec = &config["spec"];
    let lists = [
        (&spec["services"], "ports"),
        (&spec["backendServices"], "number"),
    ];
    let mut made = BTreeSet::new();
    let mut items = Vec::new();
    for (list, ports) in lists {
        for named in list.as_array().into_iter().flatten() {
            let namespace = named["namespace"].as_str().unwrap_or(own);
            let name = named["name"].as_str().unwrap_or_default();
            if !made.insert((namespace.to_owned(), name.to_owned())) {
                continue;
            }
            let all = spec_ports(spec, name, &named[ports]);
            let address = format!("10.244.0.{}", made.len());
            let cluster_ip = format!("10.96.0.{}", made.len());
            let service_ports: Vec<Value> = all
                .iter()
                .map(|port| json!({"name": format!("p{port}"), "port": port}))
                .collect();
            let slice_ports: Vec<Value> = all
                .iter()
                .map(|port| json!({"name": format!("p{port}"), "port": 8000, "protocol": "TCP"}))
                .collect();
            items.push(json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name, "namespace": namespace, "uid": name},
                "spec": {"clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "ports": service_ports},
            }));
            items.push(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [address], "conditions": {"ready": true}, "nodeName": NODE}],
                "ports": slice_ports,
            }));
        }
    }
    items
}

/// The ports that a Service must have: those that are listed, wherever it is, else one.
fn spec_ports(spec: &Value, name: &str, listed: &Value) -> BTreeSet<u64> {
    let lists = [
        (&spec["services"], "ports"),
        (&spec["backendServices"], "number"),
    ];
    let named = lists.into_iter().flat_map(|(list, field)| {
        let all = list.as_array().into_iter().flatten();
        all.filter(|it| it["name"] == name)
            .map(move |it| &it[field])
    });
    let ports = named
        .chain([listed])
        .flat_map(|it| it.as_array().into_iter().flatten());
    let ports = ports.filter_map(|port| port.as_u64().or_else(|| port.as_str()?.parse().ok()));
    let mut ports: BTreeSet<u64> = ports.collect();
    if ports.is_empty() {
        ports.insert(80);
    }
    ports
}

fn named(list: &Value, ports: &str) -> Value {
    let all = list.as_array().into_iter().flatten();
    let all = all.map(|it| {
        json!({
            "name": it["name"], "namespace": it["namespace"], "ports": it[ports],
            "listener": it.get("listener").cloned().unwrap_or_else(|| "".into()),
        })
    });
    all.collect()
}

fn listeners(plan: &NodePlan, own: &str) -> Value {
    let all = plan.listeners.iter().map(|(name, planned)| {
        let it = serde_json::to_value(&planned.message).unwrap_or_default();
        json!({
            "name": name.strip_prefix(own).unwrap_or(name),
            "listener_filters": own_filters(&it["listenerFilters"]),
            "address": said_address(planned.own_address, &it["address"]),
            "additional_addresses": said_address(planned.own_address, &it["additionalAddresses"]),
            "filter_chains": it["filterChains"].as_array().into_iter().flatten().map(|chain| filter_chain(chain, own)).collect::<Value>(),
        })
    });
    all.collect()
}

/// Where packets are redirected a listener has `original_dst` first: that is ours.
fn own_filters(list: &Value) -> Value {
    let all = names(list).as_array().cloned().unwrap_or_default();
    let all = all.into_iter();
    all.filter(|it| it != "envoy.filters.listener.original_dst")
        .collect()
}

/// The address that the config says; the one that the ledger gives is ours.
fn said_address(own: bool, address: &Value) -> Value {
    if own {
        snake_case(address)
    } else {
        Value::Null
    }
}

/// The names of protobuf in the place of those of its JSON: rows have both.
fn snake_case(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| {
                let mut name = String::new();
                for c in key.chars() {
                    if c.is_ascii_uppercase() {
                        name.push('_');
                    }
                    name.push(c.to_ascii_lowercase());
                }
                (name, snake_case(value))
            });
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.iter().map(snake_case).collect(),
        other => other.clone(),
    }
}

fn filter_chain(chain: &Value, own: &str) -> Value {
    let matches = &chain["filterChainMatch"];
    let filters = chain["filters"].as_array().into_iter().flatten();
    json!({
        "transport_protocol": matches["transportProtocol"],
        "server_names": matches["serverNames"],
        "tls_sds_secrets": certificates(chain, own),
        "filters": filters.map(|it| filter(&it["typedConfig"], own)).collect::<Value>(),
    })
}

fn certificates(chain: &Value, own: &str) -> Value {
    let context = &chain["transportSocket"]["typedConfig"]["commonTlsContext"];
    let all = context["tlsCertificateSdsSecretConfigs"].as_array();
    let names = all
        .into_iter()
        .flatten()
        .filter_map(|it| it["name"].as_str());
    names.map(|it| it.strip_prefix(own).unwrap_or(it)).collect()
}

fn filter(config: &Value, own: &str) -> Value {
    let kind = config["@type"].as_str().unwrap_or_default();
    let kind = kind.rsplit('.').next().unwrap_or_default();
    let short = |it: &Value| {
        it.as_str()
            .map(|it| it.strip_prefix(own).unwrap_or(it).to_owned())
    };
    json!({
        "type": kind,
        "cluster": short(&config["cluster"]),
        "route_config_name": short(&config["rds"]["routeConfigName"]),
        "inline_route_config": short(&config["routeConfig"]["name"]),
        "stat_prefix": config["statPrefix"],
        "use_remote_address": config["useRemoteAddress"],
        "xff_num_trusted_hops": config["xffNumTrustedHops"],
        "http_filters": names(&config["httpFilters"]),
    })
}

fn names(list: &Value) -> Value {
    let all = list.as_array().into_iter().flatten();
    all.map(|it| it["name"].clone()).collect()
}

fn route_configs(plan: &NodePlan, own: &str) -> Value {
    let all = plan.routes.iter().map(|(name, it)| {
        let it = serde_json::to_value(&it.message).unwrap_or_default();
        let hosts = it["virtualHosts"].as_array().into_iter().flatten();
        let hosts = hosts.map(|host| {
            let name = host["name"].as_str().unwrap_or_default();
            json!({
                "name": name.strip_prefix(own).unwrap_or(name),
                "domains": host["domains"],
                "routes": host["routes"].as_array().map_or(0, Vec::len),
            })
        });
        json!({
            "name": name.strip_prefix(own).unwrap_or(name),
            "virtual_hosts": hosts.collect::<Value>(),
        })
    });
    all.collect()
}

fn clusters(plan: &NodePlan, own: &str) -> Value {
    let all = plan.clusters.iter().map(|(name, it)| {
        let it = serde_json::to_value(&it.message).unwrap_or_default();
        json!({
            "name": name.strip_prefix(own).unwrap_or(name),
            "type": it["type"],
            // What is not said is this.
            "lb_policy": it.get("lbPolicy").cloned().unwrap_or_else(|| "ROUND_ROBIN".into()),
            "eds_service_name": it["edsClusterConfig"]["serviceName"],
        })
    });
    all.collect()
}

/// What the row wants, in our shape: routes by their number, lists by name.
fn shaped(want: &Value) -> Value {
    let mut want = want.clone();
    for hosts in want["route_configs"].as_array_mut().into_iter().flatten() {
        for host in hosts["virtual_hosts"].as_array_mut().into_iter().flatten() {
            host["routes"] = host["routes"].as_array().map_or(0, Vec::len).into();
        }
    }
    for listener in want["listeners"].as_array_mut().into_iter().flatten() {
        for field in ["address", "additional_addresses"] {
            if let Some(address) = listener.get_mut(field) {
                *address = snake_case(address);
            }
        }
    }
    for list in ["listeners", "route_configs", "clusters"] {
        if let Some(list) = want[list].as_array_mut() {
            list.sort_by_key(|it| it["name"].to_string());
        }
    }
    want
}

/// The fields of `got` that stand in `want` too, and what ours says beyond.
fn narrowed(got: &Value, want: &Value) -> Value {
    match (got, want) {
        (Value::Object(got), Value::Object(want)) => {
            let mut all: Map<String, Value> = want
                .iter()
                .filter_map(|(key, want)| Some((key.clone(), narrowed(got.get(key)?, want))))
                .collect();
            if let Some(problems) = got.get("problems") {
                all.insert("problems".to_owned(), problems.clone());
            }
            all.into()
        }
        (Value::Array(got), Value::Array(want)) if got.len() == want.len() => {
            let both = got.iter().zip(want);
            both.map(|(got, want)| narrowed(got, want)).collect()
        }
        _ => got.clone(),
    }
}
