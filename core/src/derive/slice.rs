//! A Service's EndpointSlices, as the EndpointSlice controller would make them from its selector.
//!
//! A slice's ports are numbers of pods. A `targetPort` that is a name may be another number in
//! each pod, so pods are put into slices by the numbers that they resolve to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::address::pod_addresses;
use crate::backend;
use crate::object::{Object, ObjectRef, Objects, Provenance, namespace_of};
use crate::selector::{Labels, has_all};
use crate::service::{SERVICE_NAME, of_slice, reference};

use super::{DeriveOptions, name_of};

pub(super) fn derive(objects: &mut Objects, options: &DeriveOptions) {
    let have: BTreeSet<ObjectRef> = objects
        .endpoint_slices()
        .filter_map(|slice| of_slice(slice))
        .collect();
    let pods = PodsByLabel::new(objects);
    let mut made = Vec::new();
    for service in objects.services() {
        let owner = reference(service);
        let selector = service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.as_ref());
        // A Service without a selector has the slices that somebody writes for it.
        let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
            continue;
        };
        let external = service
            .spec
            .as_ref()
            .is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName"));
        if have.contains(&owner) || external {
            continue;
        }
        let pods = pods.selected(&owner.namespace, selector);
        for v6 in families(service, options) {
            made.extend(
                slices(service, &pods, v6)
                    .into_iter()
                    .map(|slice| (owner.clone(), slice)),
            );
        }
    }
    for (from, slice) in made {
        let object = Object::EndpointSlice(Arc::new(slice));
        if objects.get(&object.reference()).is_none() {
            objects.insert(
                object,
                Provenance::Derived {
                    from,
                    by: "endpointslice controller",
                },
            );
        }
    }
}

/// Pods by namespace and one label: no Service looks at all pods.
struct PodsByLabel {
    by_label: BTreeMap<(String, String, String), Vec<Arc<Pod>>>,
}

impl PodsByLabel {
    fn new(objects: &Objects) -> Self {
        let mut by_label: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for pod in objects.pods() {
            for (key, value) in pod.metadata.labels.iter().flatten() {
                let index = (
                    namespace_of(&pod.metadata).to_owned(),
                    key.clone(),
                    value.clone(),
                );
                by_label.entry(index).or_default().push(Arc::clone(pod));
            }
        }
        Self { by_label }
    }

    fn selected(&self, namespace: &str, selector: &Labels) -> Vec<&Pod> {
        let candidates = selector.iter().map(|(key, value)| {
            let index = (namespace.to_owned(), key.clone(), value.clone());
            self.by_label
                .get(&index)
                .map(Vec::as_slice)
                .unwrap_or_default()
        });
        let fewest = candidates.min_by_key(|pods| pods.len()).unwrap_or_default();
        fewest
            .iter()
            .map(Arc::as_ref)
            .filter(|pod| has_all(selector, pod.metadata.labels.as_ref()))
            .collect()
    }
}

/// The Service's families: whether each is IPv6.
fn families(service: &Service, options: &DeriveOptions) -> Vec<bool> {
    let families = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.as_deref())
        .unwrap_or_default();
    if families.is_empty() {
        return if options.ipv6 && options.dual_stack {
            vec![false, true]
        } else {
            vec![false]
        };
    }
    families.iter().map(|family| family == "IPv6").collect()
}

/// A port as a pod resolves it: name, number, protocol, application protocol.
type Resolved = (String, i32, String, Option<String>);

fn slices(service: &Service, pods: &[&Pod], v6: bool) -> Vec<EndpointSlice> {
    let spec = service.spec.clone().unwrap_or_default();
    let publish_all = spec.publish_not_ready_addresses.unwrap_or(false);
    let mut groups: BTreeMap<Vec<Resolved>, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| is_alive(pod)) {
        let Some(ip) = pod_addresses(pod).find(|ip| ip.is_ipv6() == v6) else {
            continue;
        };
        let ports = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| resolve(port, pod))
            .collect();
        groups
            .entry(ports)
            .or_default()
            .push(endpoint(pod, ip, publish_all));
    }
    if groups.is_empty() {
        // The controller leaves an empty slice, so that "no pods" and "no controller" differ.
        groups.insert(Vec::new(), Vec::new());
    }
    let family = if v6 { "ipv6" } else { "ipv4" };
    let name = name_of(&service.metadata);
    (1_usize..)
        .zip(groups)
        .map(|(number, (ports, endpoints))| {
            let suffix = if number == 1 {
                String::new()
            } else {
                format!("-{number}")
            };
            EndpointSlice {
                metadata: ObjectMeta {
                    name: Some(format!("{name}-{family}{suffix}")),
                    namespace: Some(namespace_of(&service.metadata).to_owned()),
                    labels: Some([(SERVICE_NAME.to_owned(), name.to_owned())].into()),
                    ..ObjectMeta::default()
                },
                address_type: if v6 { "IPv6" } else { "IPv4" }.to_owned(),
                ports: Some(ports.into_iter().map(slice_port).collect()),
                endpoints: Some(endpoints),
            }
        })
        .collect()
}

fn is_alive(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

/// A `targetPort` is a number, the name of one of the pod's ports, or by default the port itself.
/// A name that the pod does not have leaves the port out (Kubernetes, `FindPort`).
fn resolve(port: &ServicePort, pod: &Pod) -> Option<Resolved> {
    let protocol = port
        .protocol
        .as_deref()
        .filter(|protocol| !protocol.is_empty())
        .unwrap_or("TCP");
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) if name.is_empty() => port.port,
        Some(IntOrString::String(name)) => {
            let containers = pod.spec.iter().flat_map(backend::containers);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            let found = ports.find(|candidate| {
                candidate.name.as_ref() == Some(name)
                    && candidate
                        .protocol
                        .as_deref()
                        .filter(|p| !p.is_empty())
                        .unwrap_or("TCP")
                        == protocol
            });
            found?.container_port
        }
    };
    Some((
        port.name.clone().unwrap_or_default(),
        number,
        protocol.to_owned(),
        port.app_protocol.clone(),
    ))
}

fn slice_port((name, port, protocol, app_protocol): Resolved) -> EndpointPort {
    EndpointPort {
        name: Some(name),
        port: Some(port),
        protocol: Some(protocol),
        app_protocol,
    }
}

fn endpoint(pod: &Pod, ip: IpAddr, publish_all: bool) -> Endpoint {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let serving = conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let terminating = pod.metadata.deletion_timestamp.is_some();
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(publish_all || (serving && !terminating)),
            serving: Some(publish_all || serving),
            terminating: Some(terminating),
        }),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace_of(&pod.metadata).to_owned()),
            name: pod.metadata.name.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}
