//! Pods of a Deployment, as its controller and its ReplicaSet's would make them.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::object::{Kind, Object, ObjectRef, Objects, Provenance, namespace_of};
use crate::selector::selects;

use super::name_of;

/// A number of replicas above this is a slip of the finger, and would not fit a node's range.
const MOST_REPLICAS: i32 = 1_000;

pub(super) fn derive(objects: &mut Objects) {
    let deployments: Vec<Arc<Deployment>> = objects.deployments().map(Arc::clone).collect();
    for deployment in deployments {
        if !has_pods(objects, &deployment) {
            make_pods(objects, &deployment);
        }
    }
}

fn has_pods(objects: &Objects, deployment: &Deployment) -> bool {
    let Some(spec) = &deployment.spec else {
        return true;
    };
    objects.pods().any(|pod| {
        namespace_of(&pod.metadata) == namespace_of(&deployment.metadata)
            && selects(&spec.selector, pod.metadata.labels.as_ref()).unwrap_or(false)
    })
}

/// Pods are `<deployment>-<n>`: a reader can tell them apart, and a run names them like the next.
fn make_pods(objects: &mut Objects, deployment: &Deployment) {
    let Some(spec) = &deployment.spec else { return };
    let wanted = spec.replicas.unwrap_or(1);
    let namespace = namespace_of(&deployment.metadata);
    let name = name_of(&deployment.metadata);
    if wanted > MOST_REPLICAS {
        objects.notes.push(format!(
            "Deployment {namespace}/{name} spec.replicas: {wanted} replicas, of which {MOST_REPLICAS} are derived"
        ));
    }
    let template = spec.template.metadata.clone().unwrap_or_default();
    let from = ObjectRef::new(Kind::Deployment, namespace, name);
    for number in 1..=wanted.min(MOST_REPLICAS) {
        let metadata = ObjectMeta {
            name: Some(format!("{name}-{number}")),
            namespace: Some(namespace.to_owned()),
            labels: template.labels.clone(),
            annotations: template.annotations.clone(),
            ..ObjectMeta::default()
        };
        let pod = Object::Pod(Arc::new(Pod {
            metadata,
            spec: spec.template.spec.clone(),
            status: None,
        }));
        if objects.get(&pod.reference()).is_none() {
            objects.insert(
                pod,
                Provenance::Derived {
                    from: from.clone(),
                    by: "deployment controller",
                },
            );
        }
    }
}
