//! Cilium's operator on Ingresses: the model, the config, the class, the annotations, who owns what.
//!
//! Where Cilium's tests look at a Go value, the same thing of ours is put into that shape; what is
//! only a matter of form is compared by meaning, and the function that does so says what it ignores.

mod reconcile;

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use nodeway_core::ingress::annotations::{Annotations, Read};
use nodeway_core::ingress::ingest::{Ingested, ingest};
use nodeway_core::ingress::listener::{HostAddress, host_addresses};
use nodeway_core::ingress::model::{HttpListener, Model, PassthroughListener, SecretName, Source};
use nodeway_core::ingress::names::Names;
use nodeway_core::ingress::options::Ports;
use nodeway_core::ingress::shortener::shorten;
use nodeway_core::ingress::translate;
use nodeway_core::ingress::{
    ClassVerdict, HostNetwork, Options, class, cluster, duration, hostname, service,
};
use nodeway_core::ingress::{Mode, route_table};
use nodeway_core::object::{BackendService, EnvoyConfigSpec};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Outcome, Row};

/// Answers a row of `cilium-ingress`.
#[must_use]
pub fn answer(file: &Path, row: &Row) -> Outcome {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let answered = match name.as_ref() {
        "annotations" => annotation(row),
        "cec_parts" => config_parts(row),
        "host_network_addresses" => host_network_addresses(row),
        "hostnames" => hostnames(row),
        "ingestion" => ingestion(row),
        "ingress_class" => ingress_class(row),
        "ingress_to_cec" => ingress_to_config(row),
        "reconcile" => reconcile::answer(row),
        "route_config" => route_config(row),
        "shortener" => shortened(row),
        other => Err(format!("no row file `{other}` is known")),
    };
    answered.unwrap_or_else(Outcome::NotSimulated)
}

/// An answer, or what the row needs that the project has not.
type Answered = Result<Outcome, String>;

/// A part of a row as one of our types. What the type does not know is not simulated.
fn read<T: DeserializeOwned>(value: &Value, key: &str) -> Result<T, String> {
    let part = value.get(key).cloned().unwrap_or_default();
    serde_json::from_value(part).map_err(|error| format!("`{key}`: {error}"))
}

fn json_of(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// The fields of `got` that stand in `want` too.
fn narrowed(got: &Value, want: &Value) -> Value {
    match (got, want) {
        (Value::Object(got), Value::Object(want)) => want
            .iter()
            .filter_map(|(key, want)| Some((key.clone(), narrowed(got.get(key)?, want))))
            .collect(),
        (Value::Array(got), Value::Array(want)) if got.len() == want.len() => got
            .iter()
            .zip(want)
            .map(|(got, want)| narrowed(got, want))
            .collect(),
        _ => got.clone(),
    }
}

fn annotation(row: &Row) -> Answered {
    let ingress: Ingress =
        serde_json::from_value(json!({ "metadata": row.input })).map_err(|e| e.to_string())?;
    let all = Annotations::of(&ingress);
    let getter = row
        .expect
        .get("getter")
        .and_then(Value::as_str)
        .unwrap_or_default();
    // Cilium's getters of switches and of the type give no error; ours note a mistake all the same.
    let quiet = |value: Value| (value, false);
    let (value, error) = match getter {
        "GetAnnotationServiceType" => quiet(all.service_type().value.into()),
        "GetAnnotationLoadBalancerClass" => quiet(json!(all.loadbalancer_class())),
        "GetAnnotationTLSPassthroughEnabled" => quiet(all.tls_passthrough().value.into()),
        "GetAnnotationForceHTTPSEnabled" => quiet(json!(all.force_https().value)),
        "GetAnnotationIngressLoadbalancerMode" => quiet(mode(all)),
        // An unset policy is an empty text in Go.
        "GetAnnotationServiceExternalTrafficPolicy" => {
            loud(all.external_traffic_policy(), |policy| {
                policy.unwrap_or_default().into()
            })
        }
        "GetAnnotationSecureNodePort" => loud(all.secure_node_port(), |port| json!(port)),
        "GetAnnotationInsecureNodePort" => loud(all.insecure_node_port(), |port| json!(port)),
        "GetAnnotationHostListenerPort" => loud(all.host_listener_port(), |port| json!(port)),
        "GetAnnotationRequestTimeout" => {
            let want = row.expect.get("value").unwrap_or(&Value::Null);
            loud(all.request_timeout(), |timeout| timeout_like(timeout, want))
        }
        other => {
            return Err(format!(
                "today's Cilium has no annotation that `{other}` reads, or it is not read"
            ));
        }
    };
    let got = json!({"getter": getter, "value": value, "error": error});
    Ok(Outcome::of(narrowed(&got, &row.expect), row.expect.clone()))
}

fn loud<T>(read: Read<T>, json: impl FnOnce(T) -> Value) -> (Value, bool) {
    (json(read.value), read.mistake.is_some())
}

/// The mode that is written; an empty text if none is.
fn mode(all: Annotations<'_>) -> Value {
    let (dedicated, shared) = (
        all.loadbalancer_mode(Mode::Dedicated),
        all.loadbalancer_mode(Mode::Shared),
    );
    if dedicated.value == shared.value {
        dedicated.value.to_string().into()
    } else {
        "".into()
    }
}

/// A duration in the spelling of the row: Go's text, or nanoseconds.
fn timeout_like(timeout: Option<Duration>, want: &Value) -> Value {
    match (timeout, want) {
        (Some(timeout), Value::String(text)) if duration::from_go(text) == Some(timeout) => {
            want.clone()
        }
        (Some(timeout), _) => json!(u64::try_from(timeout.as_nanos()).ok()),
        (None, _) => Value::Null,
    }
}

fn shortened(row: &Row) -> Answered {
    let name: String = read(&row.input, "name")?;
    let short = shorten(&name, read(&row.input, "limit")?);
    let got = json!({"length": short.len(), "unchanged": short == name, "name": short});
    Ok(Outcome::of(narrowed(&got, &row.expect), row.expect.clone()))
}

fn host_network_addresses(row: &Row) -> Answered {
    let ports: Vec<u16> = read(&row.input, "ports")?;
    let (primary, additional) =
        host_addresses(&ports, read(&row.input, "ipv4")?, read(&row.input, "ipv6")?);
    let address = |address: &HostAddress| json!({"address": address.address, "port": address.port});
    let got = json!({
        "primary": primary.as_ref().map(address),
        "additional": additional.iter().map(address).collect::<Vec<_>>(),
    });
    Ok(Outcome::of(got, row.expect.clone()))
}

/// Wildcards and their order. How a route's and a listener's hosts meet is the Gateway API's.
fn hostnames(row: &Row) -> Answered {
    let inputs = row.input.as_object().ok_or("no input")?;
    let text = |key: &str| inputs.get(key).and_then(Value::as_str);
    let got = if let (2, Some(route), Some(listener)) = (
        inputs.len(),
        text("routeHostname"),
        text("listenerHostname"),
    ) {
        json!(hostname::wildcards_intersect(route, listener))
    } else if let (1, Some(Value::Array(_))) = (inputs.len(), inputs.values().next()) {
        let mut hosts: Vec<String> = inputs
            .keys()
            .next()
            .map_or_else(|| Ok(Vec::new()), |key| read(&row.input, key))?;
        hosts.sort_by(|a, b| hostname::most_specific_first(a, b));
        json!(hosts)
    } else {
        return Err("hosts of a Gateway's listeners and routes".into());
    };
    Ok(Outcome::of(json!({ "want": got }), row.expect.clone()))
}

fn ingress_class(row: &Row) -> Answered {
    let got = if row.input.get("ingress_class").is_some() {
        let default = class::is_default(&read::<IngressClass>(&row.input, "ingress_class")?);
        json!({"is_default_class": default == Some(true), "error": default.is_none()})
    } else {
        let classes: Vec<IngressClass> = read(&row.input, "ingress_classes")?;
        let ours = classes
            .iter()
            .find(|class| class.metadata.name.as_deref() == Some("cilium"));
        let verdict = ClassVerdict::of(&read(&row.input, "ingress")?, "cilium", ours);
        json!({"managed": verdict.is_ours()})
    };
    Ok(Outcome::of(narrowed(&got, &row.expect), row.expect.clone()))
}

/// The operator's settings of an ingestion row.
fn ingestion_options(options: &Value) -> Result<(Options, Ports), String> {
    let port = |key: &str, default: u16| {
        options
            .get(key)
            .and_then(Value::as_u64)
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(default)
    };
    let timeout = options
        .get("request_timeout")
        .and_then(Value::as_str)
        .and_then(duration::from_go);
    let secret = options
        .get("default_secret")
        .filter(|secret| !secret.is_null());
    let secret: Option<SecretName> = secret
        .map(|_| read(options, "default_secret"))
        .transpose()?;
    let ports = Ports {
        insecure: port("http_port", 80),
        secure: port("https_port", 443),
        passthrough: port("passthrough_port", 443),
    };
    let options = Options {
        default_secret: secret,
        enforce_https: options
            .get("enforce_https")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        request_timeout: timeout,
        ..Options::default()
    };
    Ok((options, ports))
}

fn ingested(input: &Value, options: &str) -> Result<Ingested, String> {
    let (options, ports) = ingestion_options(input.get(options).unwrap_or(&Value::Null))?;
    let ingress: Ingress = read(input, "ingress")?;
    Ok(ingest(&ingress, ports, &options))
}

/// The model, field by field. Only absent and empty fields are the same.
fn ingestion(row: &Row) -> Answered {
    let model = ingested(&row.input, "options")?.model;
    let mut got = Map::new();
    let mut want = Map::new();
    if row.expect.get("listeners").is_some() {
        got.insert("listeners".into(), json_of(&model.http));
        want.insert(
            "listeners".into(),
            json_of(read::<Vec<HttpListener>>(&row.expect, "listeners")?),
        );
    }
    if let Some(key) = ["tls_passthrough_listeners"]
        .into_iter()
        .find(|key| row.expect.get(key).is_some())
    {
        got.insert(key.into(), json_of(&model.tls_passthrough));
        want.insert(
            key.into(),
            json_of(read::<Vec<PassthroughListener>>(&row.expect, key)?),
        );
    }
    if want.is_empty() {
        return Err("the row expects no listeners".into());
    }
    Ok(Outcome::of(got.into(), want.into()))
}

fn config_parts(row: &Row) -> Answered {
    let model: Model = read(&row.input, "model")?;
    let options = Options::default();
    let names = match row.input.get("service") {
        Some(service) => {
            let (name, namespace) = (
                read::<String>(service, "name")?,
                read(service, "namespace")?,
            );
            Names {
                namespace,
                config: name.clone(),
                service: name,
            }
        }
        None => Names::shared(&options),
    };
    let backend = |backend: BackendService| json!({"name": backend.name, "namespace": backend.namespace, "ports": backend.ports});
    let got = json!({
        "backend_services": translate::backend_services(&model).into_iter().map(backend).collect::<Vec<_>>(),
        "cluster_names": field_of_each(&cluster::clusters(&model, &options), "name"),
        "resource_count": translate::resources(&model, &options).len(),
        "cec_spec_services": translate::services(&model, &names),
    });
    Ok(Outcome::of(narrowed(&got, &row.expect), row.expect.clone()))
}

fn field_of_each(values: &[Value], key: &str) -> Value {
    values
        .iter()
        .filter_map(|value| value.get(key).cloned())
        .collect()
}

/// The order of virtual hosts and routes counts. The rows leave out `@type` and the stream's duration
/// that every route action has.
fn route_config(row: &Row) -> Answered {
    let model: Model = read(&row.input, "model")?;
    let mut options = Options::default();
    if let Some(suffix) = row
        .input
        .get("hostname_suffix_match")
        .and_then(Value::as_bool)
    {
        options.hostname_suffix_match = suffix;
    }
    let mut got = json!({ "route_configs": route_table::route_tables(&model, &options) });
    let mut want = row.expect.clone();
    for value in [&mut got, &mut want] {
        leave_out(value, &["@type", "maxStreamDuration"]);
    }
    Ok(Outcome::of(got, want))
}

fn leave_out(value: &mut Value, keys: &[&str]) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !keys.contains(&key.as_str()));
            fields.values_mut().for_each(|value| leave_out(value, keys));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| leave_out(value, keys)),
        _ => {}
    }
}

/// The whole config, from the model and, where the row has it, from the Ingress.
///
/// An empty `listener` of a service is an absent one; of the metadata only what the row has counts
/// (the owner is set in another place).
fn ingress_to_config(row: &Row) -> Answered {
    let model: Model = read(&row.input, "model")?;
    let options = config_options(row.input.get("options").unwrap_or(&Value::Null))?;
    let source = source(&model).ok_or("a model without a source")?;
    let names = Names::dedicated(&source.namespace, &source.name);
    let want = row.expect.get("cec").ok_or("the row has no config")?;
    let ingress: Ingress = match row
        .input
        .get("ingress")
        .filter(|ingress| !ingress.is_null())
    {
        Some(_) => read(&row.input, "ingress")?,
        None => {
            let metadata = json!({"name": source.name, "namespace": source.namespace});
            serde_json::from_value(json!({ "metadata": metadata }))
                .map_err(|error| error.to_string())?
        }
    };
    let mut models = vec![model];
    if row
        .input
        .get("ingress")
        .is_some_and(|ingress| !ingress.is_null())
    {
        models.push(ingested(&row.input, "ingress_options")?.model);
    }
    let want_spec = json_of(read::<EnvoyConfigSpec>(want, "spec")?);
    let want_metadata = want.get("metadata").cloned().unwrap_or_default();
    let want = json!({
        "metadata": want_metadata,
        "spec": want_spec,
        "service type": row.expect.get("loadbalancer_service_type"),
    });
    for model in models {
        let config = translate::config(&model, &names, &options);
        let service = service::dedicated(&ingress, &model, &names, &options, &mut Vec::new());
        let service_type = row
            .expect
            .get("loadbalancer_service_type")
            .and(service.spec.and_then(|spec| spec.type_));
        let got = json!({
            "metadata": narrowed(&json_of(&config.metadata), &want_metadata),
            "spec": config.spec,
            "service type": service_type,
        });
        if got != want {
            return Ok(Outcome::of(got, want));
        }
    }
    Ok(Outcome::Passed)
}

fn source(model: &Model) -> Option<Source> {
    let http = model.http.iter().flat_map(|listener| &listener.sources);
    let passthrough = model
        .tls_passthrough
        .iter()
        .flat_map(|listener| &listener.sources);
    http.chain(passthrough).next().cloned()
}

fn config_options(options: &Value) -> Result<Options, String> {
    let flag =
        |key: &str, default: bool| options.get(key).and_then(Value::as_bool).unwrap_or(default);
    let seconds = |key: &str| {
        Duration::from_secs(options.get(key).and_then(Value::as_u64).unwrap_or_default())
    };
    if !flag("dedicated", true) {
        return Err("a shared config whose Service the row does not name".into());
    }
    let host_network = if flag("host_network_enabled", false) {
        Some(HostNetwork {
            nodes: read(options, "node_label_selector")?,
            ..HostNetwork::default()
        })
    } else {
        None
    };
    Ok(Options {
        secrets_namespace: read(options, "secrets_namespace")?,
        use_proxy_protocol: flag("use_proxy_protocol", false),
        use_alpn: flag("use_alpn", false),
        host_network,
        ipv4: flag("ipv4", true),
        ipv6: flag("ipv6", true),
        stream_idle_timeout: seconds("stream_idle_timeout_s"),
        cluster_idle_timeout: seconds("cluster_idle_timeout_s"),
        use_remote_address: flag("use_remote_address", true),
        xff_num_trusted_hops: read::<Option<u32>>(options, "xff_num_trusted_hops")?
            .unwrap_or_default(),
        hostname_suffix_match: flag("hostname_suffix_match", false),
        ..Options::default()
    })
}
