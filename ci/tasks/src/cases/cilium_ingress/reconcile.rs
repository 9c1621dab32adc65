//! Which objects there are after the operator has seen a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use nodeway_core::ingress::{HostNetwork, Mode, Operator, Options};
use nodeway_core::object::{Change, EnvoyConfig, Kind, Object, ObjectRef};
use nodeway_core::problem::Severity;
use serde_json::{Map, Value, json};

use super::{Answered, json_of, narrowed, read};
use crate::cases::{Outcome, Row};

/// Everything the row names is compared; what it does not name is not.
pub(super) fn answer(row: &Row) -> Answered {
    let mut operator = Operator::new(options(row.input.get("config").unwrap_or(&Value::Null)));
    let mut cluster = BTreeMap::new();
    for key in ["existing_objects", "objects"] {
        for value in row
            .input
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let object = object(value)?;
            let changes = operator.apply(&Change::Put(object.clone()));
            cluster.insert(object.reference(), object);
            follow(&mut cluster, changes);
        }
    }
    let reconciled = row
        .request
        .get("reconcile")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let (namespace, name) = reconciled
        .split_once('/')
        .ok_or("the row reconciles nothing")?;
    let seen = Seen {
        operator,
        cluster,
        ingress: ObjectRef::new(Kind::Ingress, namespace, name),
    };
    let want = row.expect.as_object().ok_or("the row expects nothing")?;
    let got = want
        .iter()
        .map(|(key, want)| Ok((key.clone(), seen.answer(key, want)?)));
    let got: Map<String, Value> = got.collect::<Result<_, String>>()?;
    Ok(Outcome::of(got.into(), row.expect.clone()))
}

fn follow(cluster: &mut BTreeMap<ObjectRef, Object>, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Put(object) => {
                cluster.insert(object.reference(), object);
            }
            Change::Delete(reference) => {
                cluster.remove(&reference);
            }
        }
    }
}

fn options(config: &Value) -> Options {
    let text = |key: &str, default: &str| {
        config
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or(default)
            .to_owned()
    };
    let host = config.get("host_network").unwrap_or(&Value::Null);
    let port = |key: &str| {
        let port = host.get(key).and_then(Value::as_u64);
        port.and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
    };
    let shared = text("default_loadbalancer_mode", "dedicated") == "shared";
    Options {
        default_mode: if shared {
            Mode::Shared
        } else {
            Mode::Dedicated
        },
        cilium_namespace: text("cilium_namespace", "kube-system"),
        shared_service_name: text("shared_lb_service_name", "cilium-ingress"),
        lb_annotation_prefixes: read(config, "lb_annotation_prefixes").unwrap_or_default(),
        enforce_https: config
            .get("enforce_https")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        host_network: (host.get("enabled") == Some(&Value::Bool(true))).then(|| HostNetwork {
            shared_port: port("shared_port"),
            http_port: port("http_port"),
            https_port: port("https_port"),
            passthrough_port: port("tls_passthrough_port"),
            nodes: None,
        }),
        // The rows are of Cilium's agent, which needs them.
        placeholder_endpoints: true,
        ..Options::default()
    }
}

fn object(value: &Value) -> Result<Object, String> {
    fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> Result<Arc<T>, String> {
        serde_json::from_value(value.clone())
            .map(Arc::new)
            .map_err(|error| error.to_string())
    }
    match value
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
    {
        "Ingress" => parse(value).map(Object::Ingress),
        "IngressClass" => parse(value).map(Object::IngressClass),
        "Service" => parse(value).map(Object::Service),
        "EndpointSlice" => parse(value).map(Object::EndpointSlice),
        "Secret" => parse(value).map(Object::Secret),
        "CiliumEnvoyConfig" => {
            // A leftover may have no spec at all.
            let spec = value.get("spec").cloned().unwrap_or_else(|| json!({}));
            let config = json!({"metadata": value.get("metadata"), "spec": spec});
            parse::<EnvoyConfig>(&config).map(Object::CiliumEnvoyConfig)
        }
        other => Err(format!("an object of kind `{other}`")),
    }
}

/// The cluster after the operator.
struct Seen {
    operator: Operator,
    cluster: BTreeMap<ObjectRef, Object>,
    ingress: ObjectRef,
}

impl Seen {
    /// The answer to one field of `expect`, in its shape.
    fn answer(&self, key: &str, want: &Value) -> Result<Value, String> {
        let made_for = |field: &str, kind| {
            let made = self.made(kind).unwrap_or_default();
            Ok(narrowed(made.pointer(field).unwrap_or(&Value::Null), want))
        };
        match key {
            "exists" => Ok(self.filtered(want, true)),
            "absent" => Ok(self.filtered(want, false)),
            "service_spec" => made_for("/spec", Kind::Service),
            "service_labels" | "service_labels_contain" => {
                made_for("/metadata/labels", Kind::Service)
            }
            "service_annotations" | "service_annotations_contain" => {
                made_for("/metadata/annotations", Kind::Service)
            }
            "endpointslice_labels" | "endpointslice_labels_contain" => {
                made_for("/metadata/labels", Kind::EndpointSlice)
            }
            "endpointslice_annotations" | "endpointslice_annotations_contain" => {
                made_for("/metadata/annotations", Kind::EndpointSlice)
            }
            "cec_labels" | "cec_labels_contain" => {
                made_for("/metadata/labels", Kind::CiliumEnvoyConfig)
            }
            "cec_annotations" | "cec_annotations_contain" => {
                made_for("/metadata/annotations", Kind::CiliumEnvoyConfig)
            }
            "shared_cec_resources" => Ok(self.shared_resources()),
            "name_max_length" => Ok(self
                .longest_name()
                .min(want.as_u64().unwrap_or_default())
                .into()),
            "ingress_status_ips" => Ok(self.operator.addresses(&self.ingress).into()),
            "model" => Ok(narrowed(&self.model(), want)),
            // The same thing in our words: see the problem itself.
            "error_contains" => Ok(if self.refused() {
                want.clone()
            } else {
                Value::Null
            }),
            other => Err(format!("what the row asks with `{other}`")),
        }
    }

    /// Those of the named objects that are there, or are not.
    fn filtered(&self, want: &Value, there: bool) -> Value {
        let is_there = |named: &&Value| {
            let field = |key: &str| named.get(key).and_then(Value::as_str).unwrap_or_default();
            self.cluster.keys().any(|object| {
                object.kind.name() == field("kind")
                    && object.namespace == field("namespace")
                    && object.name == field("name")
            })
        };
        want.as_array()
            .into_iter()
            .flatten()
            .filter(|named| is_there(named) == there)
            .cloned()
            .collect()
    }

    /// The object of that kind that was made for the Ingress: the only one of its namespace.
    fn made(&self, kind: Kind) -> Option<Value> {
        let mine = |(name, _): &(&ObjectRef, &Object)| {
            name.kind == kind && name.namespace == self.ingress.namespace
        };
        match self.cluster.iter().find(mine)?.1 {
            Object::Service(service) => Some(json_of(service.as_ref())),
            Object::EndpointSlice(slice) => Some(json_of(slice.as_ref())),
            Object::CiliumEnvoyConfig(config) => Some(json_of(config.as_ref())),
            _ => None,
        }
    }

    fn shared_resources(&self) -> Value {
        let shared = self.cluster.values().find_map(|object| match object {
            Object::CiliumEnvoyConfig(config)
                if config.metadata.namespace.as_deref() != Some(&self.ingress.namespace) =>
            {
                Some(config)
            }
            _ => None,
        });
        match shared {
            Some(config) if !config.spec.resources.is_empty() => "not empty".into(),
            Some(_) => "empty".into(),
            None => Value::Null,
        }
    }

    fn longest_name(&self) -> u64 {
        let made = self
            .cluster
            .keys()
            .filter(|name| name.kind != Kind::Ingress);
        made.map(|name| name.name.len() as u64)
            .max()
            .unwrap_or_default()
    }

    fn model(&self) -> Value {
        let model = self
            .operator
            .model(&self.ingress)
            .cloned()
            .unwrap_or_default();
        let ports: Vec<u16> = model.http.iter().map(|listener| listener.port).collect();
        let passthrough: Vec<u16> = model
            .tls_passthrough
            .iter()
            .map(|listener| listener.port)
            .collect();
        json!({
            "http_listeners": model.http.len(),
            "http_listener_ports": ports,
            "tls_passthrough_listeners": model.tls_passthrough.len(),
            "tls_passthrough_listener_ports": passthrough,
        })
    }

    fn refused(&self) -> bool {
        let refused = |problem: &nodeway_core::problem::Problem| {
            problem.severity == Severity::Error
                && problem.object == self.ingress
                && problem.field == "spec"
        };
        self.operator.problems().iter().any(refused)
    }
}
