//! What runs in the pods: backends that say who they are.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use nodeway_core::backend::{self, Identity};
use nodeway_core::certificate::Certificate;
use nodeway_core::object::{Kind, ObjectRef, Objects};
use nodeway_core::plan::PlannedSecret;
use nodeway_core::service;

use crate::backend::{Backend, Tls};

/// What runs in a pod: one program a container, on its own ports and on those that Services lead to.
pub(crate) fn backends(pod: &Pod, reference: &ObjectRef, objects: &Objects) -> Vec<Backend> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let mut led = Vec::new();
    let mut of_service = None;
    for slice in objects.endpoint_slices() {
        let Some(service) = service::of_slice(slice) else {
            continue;
        };
        let here = slice.endpoints.iter().flatten().any(|endpoint| {
            let target = endpoint.target_ref.as_ref();
            target.is_some_and(|target| {
                target.kind.as_deref() == Some(Kind::Pod.name())
                    && target.name.as_deref() == Some(&reference.name)
                    && service.namespace == reference.namespace
            })
        });
        if here {
            of_service.get_or_insert_with(|| service.name.clone());
            let ports = slice.ports.iter().flatten().filter_map(|port| port.port);
            led.extend(ports.filter_map(service::number));
        }
    }
    let label = |key: &str| {
        pod.metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(key))
            .cloned()
    };
    let mounted = mounted(pod, reference, objects);
    let mut first = true;
    let containers = backend::containers(spec).map(|container| {
        let own = container
            .ports
            .iter()
            .flatten()
            .map(|port| port.container_port);
        let https = container.ports.iter().flatten().any(speaks_tls);
        let mut ports: Vec<u16> = own.filter_map(service::number).collect();
        // A port that no container declares is the first one's: declaring is only a hint.
        if std::mem::take(&mut first) {
            ports.extend(led.iter().copied());
        }
        ports.sort_unstable();
        ports.dedup();
        let identity = Identity {
            service: of_service.clone().unwrap_or_default(),
            pod: reference.path(),
            node: spec.node_name.clone().unwrap_or_default(),
            version: label("version").unwrap_or_default(),
            image: container.image.clone().unwrap_or_default(),
        };
        let tls = (https || mounted.is_some()).then(|| Tls {
            mounted: mounted.clone(),
        });
        (!ports.is_empty()).then(|| Backend::new(identity, ports).with_tls(tls))
    });
    containers.flatten().collect()
}

/// The certificate of the first Secret that the pod mounts and that has one.
fn mounted(
    pod: &Pod,
    reference: &ObjectRef,
    objects: &Objects,
) -> Option<(ObjectRef, Arc<Certificate>)> {
    let volumes = pod.spec.as_ref()?.volumes.iter().flatten();
    let names = volumes.filter_map(|volume| volume.secret.as_ref()?.secret_name.as_deref());
    names
        .filter_map(|name| {
            let secret = objects.secret(&reference.namespace, name)?;
            let source = ObjectRef::new(Kind::Secret, &reference.namespace, name);
            let planned = PlannedSecret::of(name, source, secret);
            Some((planned.source, planned.certificate.ok()?))
        })
        .next()
}

/// Whether a port is one for TLS: by its name, or by a number that is used for nothing else.
fn speaks_tls(port: &ContainerPort) -> bool {
    let name = port.name.as_deref().unwrap_or_default();
    name.starts_with("https")
        || name.starts_with("tls")
        || [443, 8443].contains(&port.container_port)
}
