//! The Service of an Ingress with an address of its own, and what it keeps from an older version.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::annotations::{Annotations, Mistake};
use super::model::{Model, ServiceWish};
use super::names::Names;
use super::options::Options;
use crate::object::EnvoyConfig;

/// The label of every Service that is made for an Ingress.
pub const INGRESS_LABEL: &str = "cilium.io/ingress";

/// An address that nobody has, for agents that program no frontend without a backend.
const PLACEHOLDER: (&str, i32) = ("192.192.192.192", 9999);

/// The Service of a dedicated Ingress.
#[must_use]
pub fn dedicated(
    ingress: &Ingress,
    model: &Model,
    names: &Names,
    options: &Options,
    mistakes: &mut Vec<Mistake>,
) -> Service {
    let annotations = Annotations::of(ingress);
    let policy = annotations.external_traffic_policy().noting(mistakes);
    let wish = match model.http.first() {
        Some(listener) => listener.service.as_ref(),
        None => model
            .tls_passthrough
            .first()
            .and_then(|listener| listener.service.as_ref()),
    };
    let service_type = match wish {
        Some(wish) => wish.service_type.as_str(),
        None if options.host_network.is_some() => "ClusterIP",
        None => "LoadBalancer",
    };
    let class = annotations
        .loadbalancer_class()
        .filter(|_| service_type == "LoadBalancer");
    let mut labels = copied(ingress.metadata.labels.as_ref(), options);
    labels.insert(INGRESS_LABEL.into(), "true".into());
    let annotations = copied(ingress.metadata.annotations.as_ref(), options);
    Service {
        metadata: ObjectMeta {
            name: Some(names.service.clone()),
            namespace: Some(names.namespace.clone()),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: owner(ingress, None),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some(service_type.to_owned()),
            ports: Some(ports(wish, model.http.is_empty())),
            load_balancer_class: class.map(str::to_owned),
            external_traffic_policy: policy
                .filter(|_| service_type != "ClusterIP")
                .map(str::to_owned),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn ports(wish: Option<&ServiceWish>, passthrough_only: bool) -> Vec<ServicePort> {
    let port = |name: &str, port: i32, node_port: Option<u16>| ServicePort {
        name: Some(name.into()),
        protocol: Some("TCP".into()),
        port,
        node_port: node_port.map(i32::from),
        ..ServicePort::default()
    };
    let http = port("http", 80, wish.and_then(|wish| wish.insecure_node_port));
    let https = port("https", 443, wish.and_then(|wish| wish.secure_node_port));
    if passthrough_only {
        vec![https]
    } else {
        vec![http, https]
    }
}

/// Those of an Ingress's annotations or labels that its Service takes over.
fn copied(all: Option<&BTreeMap<String, String>>, options: &Options) -> BTreeMap<String, String> {
    let wanted = |key: &String| {
        options
            .lb_annotation_prefixes
            .iter()
            .any(|prefix| key.starts_with(prefix))
    };
    let all = all.into_iter().flatten();
    all.filter(|(key, _)| wanted(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Names the Ingress as the controller, so that what is made for it goes when it goes.
///
/// Only an Ingress that is stored in a cluster has a UID, and only by that can it own something.
#[must_use]
pub fn owner(ingress: &Ingress, block_owner_deletion: Option<bool>) -> Option<Vec<OwnerReference>> {
    let uid = ingress.metadata.uid.clone().filter(|uid| !uid.is_empty())?;
    Some(vec![OwnerReference {
        api_version: "networking.k8s.io/v1".into(),
        kind: "Ingress".into(),
        name: ingress.metadata.name.clone().unwrap_or_default(),
        uid,
        controller: Some(true),
        block_owner_deletion,
    }])
}

/// Endpoints with an address that nobody has.
#[must_use]
pub fn placeholder(service: &Service) -> EndpointSlice {
    let (address, port) = PLACEHOLDER;
    let name = service.metadata.name.clone().unwrap_or_default();
    let labels = [
        (INGRESS_LABEL.to_owned(), "true".to_owned()),
        ("kubernetes.io/service-name".to_owned(), name),
    ];
    EndpointSlice {
        address_type: "IPv4".into(),
        endpoints: Some(vec![Endpoint {
            addresses: vec![address.into()],
            ..Endpoint::default()
        }]),
        ports: Some(vec![EndpointPort {
            port: Some(port),
            ..EndpointPort::default()
        }]),
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(BTreeMap::from(labels)),
            owner_references: service.metadata.owner_references.clone(),
            ..ObjectMeta::default()
        },
    }
}

/// The Service that is wanted, with what others added to the one that is there: addresses,
/// NodePorts, a class, labels, its status.
#[must_use]
pub fn merged(there: &Service, wanted: &Service) -> Service {
    let mut service = there.clone();
    merge_metadata(&mut service.metadata, &wanted.metadata);
    let mut spec = there.spec.clone().unwrap_or_default();
    if let Some(wanted) = &wanted.spec {
        let old = spec.ports.take().unwrap_or_default();
        let mut ports = wanted.ports.clone().unwrap_or_default();
        for port in &mut ports {
            // What nobody asks for the API server has filled in.
            if let Some(old) = old.iter().find(|old| old.port == port.port) {
                port.node_port = port.node_port.or(old.node_port);
                port.target_port = port.target_port.take().or_else(|| old.target_port.clone());
                port.protocol = port.protocol.take().or_else(|| old.protocol.clone());
            }
        }
        spec.ports = Some(ports);
        spec.type_.clone_from(&wanted.type_);
        spec.selector.clone_from(&wanted.selector);
        spec.load_balancer_class = spec
            .load_balancer_class
            .or_else(|| wanted.load_balancer_class.clone());
        spec.external_traffic_policy = wanted
            .external_traffic_policy
            .clone()
            .or_else(|| spec.external_traffic_policy.take());
    }
    service.spec = Some(spec);
    service
}

/// The config that is wanted, with the labels and annotations that others added to the one there.
#[must_use]
pub fn merged_config(there: &EnvoyConfig, wanted: &EnvoyConfig) -> EnvoyConfig {
    let mut config = EnvoyConfig {
        metadata: there.metadata.clone(),
        spec: wanted.spec.clone(),
    };
    merge_metadata(&mut config.metadata, &wanted.metadata);
    config
}

/// The endpoints that are wanted, with the labels and annotations that others added.
#[must_use]
pub fn merged_endpoints(there: &EndpointSlice, wanted: &EndpointSlice) -> EndpointSlice {
    let mut slice = EndpointSlice {
        metadata: there.metadata.clone(),
        ..wanted.clone()
    };
    merge_metadata(&mut slice.metadata, &wanted.metadata);
    slice
}

fn merge_metadata(there: &mut ObjectMeta, wanted: &ObjectMeta) {
    if wanted.owner_references.is_some() {
        there.owner_references.clone_from(&wanted.owner_references);
    }
    extend(&mut there.labels, wanted.labels.as_ref());
    extend(&mut there.annotations, wanted.annotations.as_ref());
}

fn extend(there: &mut Option<BTreeMap<String, String>>, wanted: Option<&BTreeMap<String, String>>) {
    if let Some(wanted) = wanted {
        there.get_or_insert_with(BTreeMap::new).extend(
            wanted
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
    }
}
