//! Objects as they stand at a point of one of Cilium's agent scripts, and its tables then.

#![expect(
    clippy::indexing_slicing,
    reason = "looking into a JSON value by name gives null where nothing is; it does not panic"
)]

use std::collections::{BTreeMap, BTreeSet};

use nodeway_core::frontend::FrontendKind;
use nodeway_core::object::{EnvoyConfig, ObjectRef, Objects};
use nodeway_core::plan::{NodePlan, PlannedEndpoints};
use nodeway_core::service;
use serde_json::{Map, Value, json};

use super::{Answered, Outcome, Row, numbers, planned};

/// Columns of tables that say something of what is configured; all others are Cilium's machinery.
const COLUMNS: [&str; 12] = [
    "Address",
    "BackendServices",
    "Backends",
    "Endpoints",
    "Flags",
    "Labels",
    "Listeners",
    "Name",
    "PortName",
    "References",
    "ServiceName",
    "Services",
];

/// Answers a row.
pub(super) fn answer(row: &Row) -> Answered {
    let items = row.input["objects"].as_array().cloned().unwrap_or_default();
    let (objects, plan) = planned(
        items.into_iter().map(with_filter_chain).collect(),
        &Value::Null,
    )?;
    let seen = Seen {
        objects: &objects,
        plan: &plan,
        numbers: numbers(&plan),
    };
    let (mut got, mut want) = (Map::new(), Map::new());
    for (name, expected) in row.expect.as_object().into_iter().flatten() {
        let (ours, theirs) = seen.part(name, expected)?;
        got.insert(name.clone(), ours);
        want.insert(name.clone(), theirs);
    }
    Ok(Outcome::of(got.into(), want.into()))
}

/// These configs have listeners without a filter chain, which Envoy refuses and so do we. They get
/// one that is never looked at.
fn with_filter_chain(mut object: Value) -> Value {
    let resources = object["spec"]["resources"].as_array_mut();
    for resource in resources.into_iter().flatten() {
        let is_listener = resource["@type"]
            .as_str()
            .is_some_and(|it| it.ends_with(".Listener"));
        if is_listener && resource["filterChains"].is_null() {
            resource["filterChains"] = json!([{"filters": [{
                "name": "tcp",
                "typedConfig": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "statPrefix": "tcp", "cluster": "nowhere",
                },
            }]}]);
        }
    }
    object
}

/// What we have at that point.
struct Seen<'a> {
    objects: &'a Objects,
    plan: &'a NodePlan,
    numbers: BTreeMap<&'a str, u32>,
}

impl Seen<'_> {
    /// A part of the expectation and ours beside it, in one shape.
    fn part(&self, name: &str, expected: &Value) -> Result<(Value, Value), String> {
        let rows = match name {
            "table:services" => self.services(expected),
            "table:frontends" => self.frontends(),
            "table:backends" => self.backends(),
            "table:ciliumenvoyconfigs" => self.configs(),
            "table:envoy-resources" => self.resources(),
            "lb_maps" => return Ok((self.redirects(), redirects_of(expected))),
            "envoy_summary" => return Ok((self.told(), summary(expected))),
            "envoy" => return Ok((self.told(), whole(expected))),
            other => return Err(format!("`{other}` is not known")),
        };
        Ok(same_columns(rows, expected))
    }

    /// Services, and where their frontends lead: Cilium prints the ports if the config has some.
    fn services(&self, expected: &Value) -> Vec<Value> {
        let mut rows = Vec::new();
        for service in self.objects.services() {
            let reference = service::reference(service);
            let led = self
                .plan
                .frontends
                .values()
                .filter(|it| it.service == reference);
            let led: Vec<_> = led.collect();
            let ports: BTreeSet<u16> = led.iter().map(|it| it.service_port).collect();
            let all: BTreeSet<u16> = service::tcp_ports(service)
                .filter_map(|port| service::number(port.port))
                .collect();
            let name = reference.path();
            let said = expected.as_array().into_iter().flatten();
            let mut said = said.filter(|it| it["Name"].as_str() == Some(&name));
            let listed = said.any(|it| it["Flags"].as_str().is_some_and(|it| it.contains("ports")));
            let flags = led.first().map_or(String::new(), |first| {
                let number = self.numbers.get(&*first.listener).copied().unwrap_or(0);
                if ports == all && !listed {
                    return format!("ProxyRedirects={number}");
                }
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                format!("ProxyRedirects={number} (ports: [{}])", ports.join(" "))
            });
            rows.push(json!({"Name": name, "Flags": flags}));
        }
        rows
    }

    fn frontends(&self) -> Vec<Value> {
        let mut rows = Vec::new();
        for service in self.objects.services() {
            let reference = service::reference(service);
            let nodes = self.objects.nodes().map(AsRef::as_ref);
            for (key, kind, number) in service::frontends(service, nodes) {
                let port = service::tcp_ports(service)
                    .find(|port| service::number(port.port) == Some(number));
                let behind = self.behind(&reference, &number.to_string());
                let address = match kind {
                    FrontendKind::NodePort => "0.0.0.0".to_owned(),
                    _ => key.address.to_string(),
                };
                rows.push(json!({
                    "Address": format!("{address}:{}/TCP", key.port),
                    "ServiceName": reference.path(),
                    "PortName": port.and_then(|port| port.name.clone()).unwrap_or_default(),
                    "Backends": tcp(&behind).join(", "),
                }));
            }
        }
        rows
    }

    fn behind(&self, reference: &ObjectRef, port: &str) -> PlannedEndpoints {
        let Some(service) = self.objects.service(&reference.namespace, &reference.name) else {
            return PlannedEndpoints::default();
        };
        let slices = self.objects.endpoint_slices();
        let slices = slices.filter(|slice| service::of_slice(slice).as_ref() == Some(reference));
        service::endpoints(service, slices.map(AsRef::as_ref), port)
    }

    fn backends(&self) -> Vec<Value> {
        let mut all = BTreeSet::new();
        for service in self.objects.services() {
            all.extend(tcp(
                &self.behind(&service::reference(service), service::ALL_PORTS)
            ));
        }
        all.into_iter()
            .map(|address| json!({"Address": address}))
            .collect()
    }

    fn configs(&self) -> Vec<Value> {
        let rows = self.envoy_configs().into_iter().map(|(name, config)| {
            let namespace = config.metadata.namespace.as_deref().unwrap_or_default();
            let path = |name: &str, own: &str| {
                let namespace = if own.is_empty() { namespace } else { own };
                format!("{namespace}/{name}")
            };
            let spec = &config.spec;
            let services = spec.services.iter().map(|it| path(&it.name, &it.namespace));
            let backend = spec.backend_services.iter();
            let backend = backend.map(|it| path(&it.name, &it.namespace));
            let labels = config.metadata.labels.iter().flatten();
            let labels: Vec<String> = labels
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let listeners = self.listeners_of(&name).into_iter();
            let listeners = listeners.map(|listener| {
                let number = self.numbers.get(&*listener).copied().unwrap_or(0);
                format!("{listener}:{number}")
            });
            json!({
                "Name": name,
                "Services": joined(services),
                "BackendServices": joined(backend),
                "Listeners": joined(listeners),
                "Labels": labels.join(", "),
            })
        });
        rows.collect()
    }

    /// Both kinds, by `namespace/name`; the namespace of a clusterwide one is empty.
    fn envoy_configs(&self) -> Vec<(String, &EnvoyConfig)> {
        let namespaced = self.objects.envoy_configs();
        let all = namespaced.chain(self.objects.clusterwide_envoy_configs());
        let mut all: Vec<_> = all
            .map(|config| {
                let metadata = &config.metadata;
                let namespace = metadata.namespace.as_deref().unwrap_or_default();
                let name = metadata.name.as_deref().unwrap_or_default();
                (format!("{namespace}/{name}"), config.as_ref())
            })
            .collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    fn listeners_of(&self, config: &str) -> Vec<String> {
        let of = format!("{config}/");
        let names = self.plan.listeners.keys().filter(|it| it.starts_with(&of));
        names.map(ToString::to_string).collect()
    }

    /// What goes to Envoy, by where it comes from: each Service that a config names, each config.
    fn resources(&self) -> Vec<Value> {
        let mut services: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for row in self.configs() {
            let named = [&row["Services"], &row["BackendServices"]].into_iter();
            for service in named.flat_map(|it| it.as_str().unwrap_or_default().split(", ")) {
                if !service.is_empty() {
                    let of = services.entry(service.to_owned()).or_default();
                    of.insert(row["Name"].as_str().unwrap_or_default().to_owned());
                }
            }
        }
        let synced = services.into_iter().map(|(service, references)| {
            let of =
                |it: &PlannedEndpoints| it.service.as_ref().is_some_and(|it| it.path() == service);
            let sets = self.plan.endpoints.iter();
            let sets = sets.filter(|(_, it)| of(it) && !it.endpoints.is_empty());
            let sets = sets.map(|(name, it)| {
                let addresses = it.endpoints.iter().map(|it| it.address.ip().to_string());
                format!("{name}: {}", joined(addresses))
            });
            json!({
                "Name": format!("backendsync:{service}"),
                "Listeners": "",
                "Endpoints": joined(sets),
                "References": joined(references),
            })
        });
        let configs = self.envoy_configs().into_iter().map(|(name, _)| {
            json!({
                "Name": format!("cec:{name}"),
                "Listeners": joined(self.listeners_of(&name)),
                "Endpoints": "",
                "References": "",
            })
        });
        synced.chain(configs).collect()
    }

    /// Which addresses are led to which listener, as the load balancer's map has it.
    fn redirects(&self) -> Value {
        let led = self.plan.frontends.iter().map(|(key, it)| {
            let number = self.numbers.get(&*it.listener).copied().unwrap_or(0);
            (key.to_string(), json!(number))
        });
        Value::Object(led.collect())
    }

    /// Endpoints and listeners as Envoy is told of them. Of a set without endpoints Cilium says
    /// nothing, and we that it is empty.
    fn told(&self) -> Value {
        let sets = self.plan.endpoints.iter();
        let sets = sets.filter(|(_, it)| !it.endpoints.is_empty());
        let sets = sets.map(|(name, it)| {
            let addresses = it.endpoints.iter().map(|it| it.address.to_string());
            (name.to_string(), json!(addresses.collect::<BTreeSet<_>>()))
        });
        let listeners = self.numbers.iter().map(|(name, number)| {
            let addresses = [format!("127.0.0.1:{number}"), format!("[::1]:{number}")];
            ((*name).to_owned(), json!(addresses))
        });
        told(sets.collect(), listeners.collect())
    }
}

fn told(endpoints: Map<String, Value>, listeners: Map<String, Value>) -> Value {
    json!({"endpoints": endpoints, "listeners": listeners})
}

fn joined(all: impl IntoIterator<Item = String>) -> String {
    all.into_iter().collect::<Vec<_>>().join(", ")
}

fn tcp(endpoints: &PlannedEndpoints) -> Vec<String> {
    let all = endpoints.endpoints.iter();
    all.map(|it| format!("{}/TCP", it.address)).collect()
}

/// Both tables with the columns that the expected one has and that say something, in one order.
fn same_columns(rows: Vec<Value>, expected: &Value) -> (Value, Value) {
    let expected = expected.as_array().cloned().unwrap_or_default();
    let columns: BTreeSet<String> = expected
        .iter()
        .filter_map(Value::as_object)
        .flat_map(|row| row.keys().cloned())
        .filter(|name| COLUMNS.contains(&name.as_str()))
        .collect();
    let narrow = |rows: Vec<Value>| {
        let rows = rows.into_iter().map(|row| {
            let of = |name: &String| (name.clone(), row.get(name).cloned().unwrap_or_default());
            Value::Object(columns.iter().map(of).collect())
        });
        let mut rows: Vec<Value> = rows.collect();
        rows.sort_by_key(|row| (row["Name"].to_string(), row["Address"].to_string()));
        Value::Array(rows)
    };
    (narrow(rows), narrow(expected))
}

/// `envoy_summary` in our shape.
fn summary(expected: &Value) -> Value {
    let sets = expected["endpoints"].as_object().into_iter().flatten();
    let sets = sets.map(|(name, all)| {
        let all = all.as_array().into_iter().flatten();
        let all: BTreeSet<&str> = all.filter_map(Value::as_str).collect();
        (name.clone(), json!(all))
    });
    let listeners = expected["listeners"].as_object().into_iter().flatten();
    let listeners = listeners.map(|(name, it)| {
        let more = it["additional_addresses"].as_array().into_iter().flatten();
        let all: Vec<&Value> = std::iter::once(&it["address"]).chain(more).collect();
        (name.clone(), json!(all))
    });
    told(sets.collect(), listeners.collect())
}

/// `envoy` in our shape.
fn whole(expected: &Value) -> Value {
    let at = |address: &Value| {
        let socket = &address["address"]["socket_address"];
        let ip = socket["address"].as_str()?.parse().ok()?;
        let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
        Some(std::net::SocketAddr::new(ip, port).to_string())
    };
    let sets = expected["endpoints"].as_object().into_iter().flatten();
    let sets = sets.map(|(name, it)| {
        let localities = it["endpoints"].as_array().into_iter().flatten();
        let all = localities.flat_map(|it| it["lb_endpoints"].as_array().into_iter().flatten());
        let all: BTreeSet<String> = all.filter_map(|it| at(&it["endpoint"])).collect();
        (name.clone(), json!(all))
    });
    let listeners = expected["listener"].as_object().into_iter().flatten();
    let listeners = listeners.map(|(name, it)| {
        let more = it["additional_addresses"].as_array().into_iter().flatten();
        let all: Vec<String> = std::iter::once(it).chain(more).filter_map(at).collect();
        (name.clone(), json!(all))
    });
    told(sets.collect(), listeners.collect())
}

/// Of the load balancer's maps: the services' first slots, where they lead to a proxy.
fn redirects_of(expected: &Value) -> Value {
    let entries = expected.as_array().into_iter().flatten();
    let led = entries.filter(|it| it["map"] == "SVC" && it["L7Proxy"].is_number());
    let led = led.map(|it| {
        let address = it["ADDR"]
            .as_str()
            .unwrap_or_default()
            .trim_end_matches("/TCP");
        (address.to_owned(), it["L7Proxy"].clone())
    });
    // A NodePort at every address is a form of Cilium's: the node's own stands beside it.
    let led = led.filter(|(address, _)| !address.starts_with("0.0.0.0:"));
    Value::Object(led.collect())
}
