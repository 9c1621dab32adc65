//! A [`Model`] becomes a `CiliumEnvoyConfig`: its services, its backends and its Envoy resources.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::dialect::Dialect;
use super::model::Model;
use super::names::Names;
use super::options::Options;
use super::shortener::{DNS_LABEL, shorten};
use super::{cluster, legacy, listener, route_table};
use crate::object::{BackendService, EnvoyConfig, EnvoyConfigSpec, ServiceListener};

/// Says whether Envoy speaks to backends from the client's own address; for an Ingress it does not.
pub const SOURCE_ADDRESS_ANNOTATION: &str = "cec.cilium.io/use-original-source-address";

/// Writes a model as a config.
#[must_use]
pub fn config(model: &Model, names: &Names, options: &Options) -> EnvoyConfig {
    let spec = match options.dialect {
        Dialect::V1_11 => legacy::spec(model, names, options),
        Dialect::Today => EnvoyConfigSpec {
            services: services(model, names),
            backend_services: backend_services(model),
            resources: resources(model, options),
            node_selector: options
                .host_network
                .as_ref()
                .and_then(|host| host.nodes.clone()),
        },
    };
    EnvoyConfig {
        metadata: ObjectMeta {
            name: Some(names.config.clone()),
            namespace: Some(names.namespace.clone()),
            annotations: Some(BTreeMap::from([(
                SOURCE_ADDRESS_ANNOTATION.into(),
                "false".into(),
            )])),
            ..ObjectMeta::default()
        },
        spec,
    }
}

/// The Service whose ports lead to the listener. One listener serves all of them, so it is not named.
#[must_use]
pub fn services(model: &Model, names: &Names) -> Vec<ServiceListener> {
    vec![ServiceListener {
        name: shorten(&names.service, DNS_LABEL),
        namespace: names.namespace.clone(),
        listener: String::new(),
        ports: model.ports(),
    }]
}

/// The Services whose endpoints Envoy must know, sorted by namespace and name.
#[must_use]
pub fn backend_services(model: &Model) -> Vec<BackendService> {
    let mut ports: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    for backend in model.http_backends().chain(model.passthrough_backends()) {
        ports
            .entry((&backend.namespace, &backend.name))
            .or_default()
            .insert(backend.port.to_string());
    }
    let service = |((namespace, name), ports): ((&str, &str), BTreeSet<String>)| BackendService {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        ports: ports.into_iter().collect(),
    };
    ports.into_iter().map(service).collect()
}

/// Listeners, then RouteConfigurations, then clusters.
#[must_use]
pub fn resources(model: &Model, options: &Options) -> Vec<Value> {
    let mut resources = listener::listeners(model, options);
    resources.extend(route_table::route_tables(model, options));
    resources.extend(cluster::clusters(model, options));
    resources
}
