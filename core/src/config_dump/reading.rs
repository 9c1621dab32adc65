//! The text of a dump becomes a [`ConfigDump`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde_json::Value;

use super::resource::decode_known;
use super::{ConfigDump, tls};
use crate::envoy::Resource;
use crate::plan::{PlannedCluster, PlannedListener, PlannedRoutes, PlannedSecret};
use crate::proxy::{self, Discovery, LoadAssignment};
use crate::source::{Fault, Place, SourceError, Text};

/// Where resources stand: the dump's message, its list, and the fields down to the resource.
const LISTS: [(&str, &str, &[&str]); 10] = [
    ("ClustersConfigDump", "static_clusters", &["cluster"]),
    (
        "ClustersConfigDump",
        "dynamic_active_clusters",
        &["cluster"],
    ),
    (
        "EndpointsConfigDump",
        "static_endpoint_configs",
        &["endpoint_config"],
    ),
    (
        "EndpointsConfigDump",
        "dynamic_endpoint_configs",
        &["endpoint_config"],
    ),
    (
        "RoutesConfigDump",
        "static_route_configs",
        &["route_config"],
    ),
    (
        "RoutesConfigDump",
        "dynamic_route_configs",
        &["route_config"],
    ),
    ("ListenersConfigDump", "static_listeners", &["listener"]),
    (
        "ListenersConfigDump",
        "dynamic_listeners",
        &["active_state", "listener"],
    ),
    ("SecretsConfigDump", "static_secrets", &["secret"]),
    ("SecretsConfigDump", "dynamic_active_secrets", &["secret"]),
];

/// Parts of a dump that change an answer and are not modelled.
const NOT_MODELLED: [&str; 2] = ["ScopedRoutesConfigDump", "EcdsConfigDump"];

/// Reads a dump of which a listener can be reached.
pub(crate) fn read(text: &Text) -> Result<ConfigDump, Box<SourceError>> {
    let dump = parse(text)?;
    if dump.listens.is_empty() {
        let place = Place::line(1);
        let mut reason = "no listener of the dump can be reached".to_owned();
        for note in dump.notes.iter().take(3) {
            reason = format!("{reason}; {note}");
        }
        let fix = "fetch the whole dump of an Envoy that serves: GET /config_dump?include_eds";
        return Err(mistake(
            text,
            place,
            Fault::MissingField,
            "configs",
            &reason,
            fix,
        ));
    }
    Ok(dump)
}

/// Reads a dump, whatever is in it.
pub(super) fn parse(text: &Text) -> Result<ConfigDump, Box<SourceError>> {
    let content = text.content.trim_start_matches('\u{feff}');
    let value: Value = serde_json::from_str(content).map_err(|error| {
        let place = Place {
            line: u32::try_from(error.line()).unwrap_or(u32::MAX),
            column: u32::try_from(error.column()).unwrap_or(u32::MAX),
            span: None,
        };
        let reason = format!("Envoy's config_dump is no JSON: {error}");
        let fix = "fetch it again; it may be cut off";
        mistake(text, place, Fault::Syntax, "", &reason, fix)
    })?;
    let mut reader = Reader::default();
    reader.dump.file = Arc::clone(&text.name);
    let configs = value.get("configs").and_then(Value::as_array);
    for config in configs.into_iter().flatten() {
        reader.config(config);
    }
    Ok(reader.finish())
}

fn mistake(
    text: &Text,
    place: Place,
    fault: Fault,
    field: &str,
    reason: &str,
    fix: &str,
) -> Box<SourceError> {
    Box::new(SourceError {
        file: Arc::clone(&text.name),
        place,
        fault,
        object: None,
        field: field.to_owned(),
        reason: reason.to_owned(),
        fix: fix.to_owned(),
        other: None,
    })
}

#[derive(Default)]
struct Reader {
    dump: ConfigDump,
    /// Endpoints by the name under which clusters fetch them.
    assignments: BTreeMap<String, LoadAssignment>,
    /// Clusters before they have their endpoints.
    clusters: Vec<PlannedCluster>,
    /// The address that stands for a host name.
    addresses: BTreeMap<String, IpAddr>,
}

impl Reader {
    fn config(&mut self, config: &Value) {
        let kind = config
            .get("@type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let kind = kind.rsplit_once('.').map_or(kind, |(_, name)| name);
        if NOT_MODELLED.contains(&kind) && config.as_object().is_some_and(|it| it.len() > 1) {
            self.dump.notes.push(format!("not simulated: {kind}"));
        }
        self.dump.has_endpoints |= kind == "EndpointsConfigDump";
        for (_, list, path) in LISTS.iter().filter(|(of, ..)| *of == kind) {
            let entries = field(config, list).and_then(Value::as_array);
            for entry in entries.into_iter().flatten() {
                self.refused(entry);
                let resource = path.iter().try_fold(entry, |value, key| field(value, key));
                if let Some(resource) = resource {
                    self.resource(resource);
                } else if *list == "dynamic_listeners" {
                    self.idle(entry);
                }
            }
        }
    }

    /// A version that Envoy refused; the one before goes on serving.
    fn refused(&mut self, entry: &Value) {
        let Some(state) = field(entry, "error_state") else {
            return;
        };
        let details = field(state, "details")
            .and_then(Value::as_str)
            .unwrap_or("no details");
        let failed = field(state, "failed_configuration");
        let name = [Some(entry), failed]
            .into_iter()
            .flatten()
            .find_map(|value| name_of(value))
            .unwrap_or("a resource");
        self.dump.notes.push(format!(
            "error_state of {name}: Envoy refused its newest version: {details}"
        ));
    }

    /// A listener without an active state serves nobody.
    fn idle(&mut self, entry: &Value) {
        let name = name_of(entry).unwrap_or("a listener");
        let state = ["warming_state", "draining_state"]
            .into_iter()
            .find(|state| field(entry, state).is_some());
        let state = state.map_or("not active", |state| match state {
            "warming_state" => "still warming",
            _ => "draining",
        });
        self.dump.notes.push(format!(
            "listener {name} is {state}: it takes no connection"
        ));
    }

    fn resource(&mut self, value: &Value) {
        let mut value = self.resolved(value);
        drop_empty(&mut value);
        let value = &value;
        let name = name_of(value).unwrap_or_default().to_owned();
        let type_name = value
            .get("@type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let what = type_name
            .rsplit_once('.')
            .map_or(type_name, |(_, kind)| kind);
        let read = decode_known(value).and_then(|(resource, left_out)| {
            if !left_out.is_empty() {
                let key = (resource_kind(&resource), name.clone());
                self.dump.left_out.insert(key, left_out);
            }
            self.take(resource, value, &name)
                .map_err(|error| format!("{}: {}", error.field, error.reason))
        });
        if let Err(reason) = read {
            self.dump
                .notes
                .push(format!("{what} {name} is not simulated: {reason}"));
        }
    }

    fn take(
        &mut self,
        resource: Resource,
        value: &Value,
        name: &str,
    ) -> Result<(), proxy::ReadError> {
        use crate::envoy::ResourceKind as Kind;
        let (message, config) = (resource.message, ConfigDump::reference());
        match resource.kind {
            Kind::Listener => {
                let model = Arc::new(proxy::Listener::read(&message)?);
                self.listener(value, name, |_| PlannedListener {
                    own_address: true,
                    port: 0,
                    model,
                    message,
                    config,
                });
            }
            Kind::RouteConfiguration => {
                let model = Arc::new(proxy::RouteTable::read(&message)?);
                let routes = PlannedRoutes {
                    model,
                    message,
                    config,
                };
                self.dump.plan.routes.insert(name.into(), Arc::new(routes));
            }
            Kind::Cluster => {
                let model = Arc::new(proxy::Cluster::read(&message)?);
                self.clusters.push(PlannedCluster {
                    model,
                    message,
                    config,
                });
            }
            Kind::ClusterLoadAssignment => {
                let read = LoadAssignment::read(&message)?;
                self.assignments.insert(read.cluster_name.clone(), read);
            }
            Kind::Secret => {
                let secret = PlannedSecret::written(&config, "secret", &message);
                self.dump.plan.secrets.insert(name.into(), Arc::new(secret));
            }
        }
        Ok(())
    }

    fn listener(&mut self, value: &Value, name: &str, planned: impl FnOnce(()) -> PlannedListener) {
        let more = field(value, "additional_addresses").and_then(Value::as_array);
        let more = more
            .into_iter()
            .flatten()
            .filter_map(|it| field(it, "address"));
        let all = field(value, "address").into_iter().chain(more);
        let addresses: Vec<SocketAddr> = all.filter_map(socket_address).collect();
        let Some(first) = addresses.first() else {
            self.dump.notes.push(format!(
                "listener {name} is not simulated: it listens on no TCP port of an IP address"
            ));
            return;
        };
        // Envoy makes up a name for a static listener that has none.
        let name: Arc<str> = if name.is_empty() {
            first.to_string().into()
        } else {
            name.into()
        };
        self.dump.listens.insert(Arc::clone(&name), addresses);
        self.dump.plan.listeners.insert(name, Arc::new(planned(())));
    }

    /// A cluster whose hosts are names: an address out of the range for benchmarks (RFC 2544)
    /// stands for each, because no dump says what a name server would.
    fn resolved(&mut self, value: &Value) -> Value {
        let by_name = field(value, "type")
            .and_then(Value::as_str)
            .is_some_and(|kind| matches!(kind, "STRICT_DNS" | "LOGICAL_DNS"));
        let mut value = value.clone();
        if !by_name {
            return value;
        }
        let inline = value
            .get_mut("load_assignment")
            .map(Value::take)
            .or_else(|| value.get_mut("loadAssignment").map(Value::take));
        if let (Some(fields), Some(mut inline)) = (value.as_object_mut(), inline) {
            self.resolve_hosts(&mut inline);
            fields.remove("loadAssignment");
            fields.insert("load_assignment".to_owned(), inline);
            fields.insert("type".to_owned(), "STATIC".into());
        }
        value
    }

    fn resolve_hosts(&mut self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.resolve_hosts(item)),
            Value::Object(fields) => {
                for key in ["socket_address", "socketAddress"] {
                    let Some(address) = fields.get_mut(key).and_then(|it| it.get_mut("address"))
                    else {
                        continue;
                    };
                    let Some(host) = address.as_str().map(str::to_owned) else {
                        continue;
                    };
                    if host.parse::<IpAddr>().is_err() {
                        *address = self.stand_in(&host).to_string().into();
                    }
                }
                fields
                    .values_mut()
                    .for_each(|field| self.resolve_hosts(field));
            }
            _ => {}
        }
    }

    fn stand_in(&mut self, host: &str) -> IpAddr {
        const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 1]);
        let next = u32::try_from(self.addresses.len()).unwrap_or(0) % (1 << 17);
        let address = IpAddr::V4(Ipv4Addr::from_bits(FIRST + next));
        let address = *self.addresses.entry(host.to_owned()).or_insert(address);
        self.dump.looked_up.insert(address, host.to_owned());
        address
    }

    /// Gives clusters the endpoints that stand beside them.
    fn finish(mut self) -> ConfigDump {
        for mut cluster in std::mem::take(&mut self.clusters) {
            let name: Arc<str> = cluster.model.name.as_str().into();
            // Of a name that was looked up, the dump of endpoints has the real addresses.
            let looked_up = matches!(&cluster.model.discovery, Discovery::Static(written)
                if written.endpoints.iter().any(|it| self.dump.looked_up.contains_key(&it.address.ip())));
            let fetched = cluster.model.discovery == Discovery::Eds || looked_up;
            let assignment = self.assignments.get(&cluster.model.endpoints);
            if let (true, Some(assignment)) = (fetched, assignment) {
                let mut model = (*cluster.model).clone();
                model.discovery = Discovery::Static(assignment.clone());
                cluster.model = Arc::new(model);
            }
            self.dump.plan.clusters.insert(name, Arc::new(cluster));
        }
        tls::assume_unknown(&mut self.dump.plan.listeners, &self.dump.plan.secrets);
        let used: Vec<IpAddr> = self.dump.endpoints().keys().map(SocketAddr::ip).collect();
        self.dump
            .looked_up
            .retain(|address, _| used.contains(address));
        self.dump
    }
}

/// A field by its proto name or its JSON name: the admin endpoint writes the one, tools the other.
fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    if let Some(found) = value.get(name) {
        return Some(found);
    }
    let mut json = String::new();
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else if std::mem::take(&mut upper) {
            json.push(c.to_ascii_uppercase());
        } else {
            json.push(c);
        }
    }
    value.get(&json)
}

/// Takes out what Envoy writes of every endpoint though there is nothing in it: of a locality without
/// a weight it writes 0, which it would refuse itself.
fn drop_empty(value: &mut Value) {
    const OFTEN_EMPTY: [&str; 3] = ["locality", "metadata", "health_check_config"];
    const OFTEN_ZERO: [&str; 2] = ["load_balancing_weight", "loadBalancingWeight"];
    match value {
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        Value::Object(fields) => {
            fields.retain(|key, field| {
                let (key, zero) = (key.as_str(), field.as_u64() == Some(0));
                let empty = field.as_object().is_some_and(serde_json::Map::is_empty);
                !(empty && OFTEN_EMPTY.contains(&key) || zero && OFTEN_ZERO.contains(&key))
            });
            fields.values_mut().for_each(drop_empty);
        }
        _ => {}
    }
}

fn name_of(value: &Value) -> Option<&str> {
    let name = field(value, "name").or_else(|| field(value, "cluster_name"));
    name.and_then(Value::as_str).filter(|name| !name.is_empty())
}

fn resource_kind(resource: &Resource) -> &'static str {
    use crate::envoy::ResourceKind as Kind;
    match resource.kind {
        Kind::Listener => "listener",
        Kind::RouteConfiguration => "route configuration",
        Kind::Cluster => "cluster",
        Kind::ClusterLoadAssignment => "endpoints",
        Kind::Secret => "secret",
    }
}

/// A `core.v3.Address` that is a TCP port of an IP address.
fn socket_address(value: &Value) -> Option<SocketAddr> {
    let socket = field(value, "socket_address")?;
    let udp = field(socket, "protocol").and_then(Value::as_str) == Some("UDP");
    let address: IpAddr = field(socket, "address")?.as_str()?.parse().ok()?;
    let port = field(socket, "port_value")?.as_u64()?;
    (!udp).then_some(SocketAddr::new(address, u16::try_from(port).ok()?))
}
