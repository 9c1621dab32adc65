//! What is kept of an object that a watch tells: a cluster has many of them, and most of what they say
//! changes no plan.
//!
//! Less is kept than in a recording ([`nodeway_core::recording::left_out`]): a cluster's own slices say
//! which pods are ready, so that a pod's conditions need not be told at each change of them; and a
//! certificate's key is kept, since Envoy is told it.

use nodeway_core::object::Kind;
use serde_json::{Map, Value};

/// Annotations that repeat the object, or say who wrote it when.
const UNREAD_ANNOTATIONS: [&str; 2] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
];

/// The values of a certificate's Secret; all others are nobody's business here.
const CERTIFICATE: [&str; 2] = ["tls.crt", "tls.key"];

/// Takes out what is never read.
pub(super) fn trim(kind: Kind, object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(Value::Object(all)) = metadata.get_mut("annotations") {
            all.retain(|name, _| !UNREAD_ANNOTATIONS.contains(&name.as_str()));
        }
    }
    match kind {
        Kind::Pod => {
            let containers = ["containers", "initContainers"];
            let kept = ["nodeName", "hostNetwork"].into_iter().chain(containers);
            keep(object, "spec", &kept.collect::<Vec<_>>());
            keep(object, "status", &["phase", "podIP", "podIPs", "hostIP"]);
            for list in containers {
                let list = object.pointer_mut(&format!("/spec/{list}"));
                let list = list.and_then(Value::as_array_mut);
                for container in list.into_iter().flatten() {
                    retain(container, &["name", "image", "ports", "restartPolicy"]);
                }
            }
        }
        Kind::Node => {
            keep(object, "spec", &["podCIDR", "podCIDRs"]);
            keep(object, "status", &["addresses"]);
        }
        Kind::Secret => keep(object, "data", &CERTIFICATE),
        Kind::Service => keep(object, "status", &["loadBalancer"]),
        _ => {}
    }
}

/// Keeps these fields of a field.
fn keep(object: &mut Value, field: &str, fields: &[&str]) {
    if let Some(value) = object.get_mut(field) {
        retain(value, fields);
    }
}

fn retain(value: &mut Value, fields: &[&str]) {
    if let Some(all) = value.as_object_mut() {
        *all = std::mem::take(all)
            .into_iter()
            .filter(|(name, _)| fields.contains(&name.as_str()))
            .collect::<Map<_, _>>();
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::of_every_kind(
        Kind::CiliumEnvoyConfig,
        json!({"metadata": {"name": "a", "managedFields": [1], "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "b": "c"}}, "spec": {"x": 1}}),
        json!({"metadata": {"name": "a", "annotations": {"b": "c"}}, "spec": {"x": 1}})
    )]
    #[case::of_a_pod(
        Kind::Pod,
        json!({"spec": {"nodeName": "n", "volumes": [1], "containers": [{"name": "c", "image": "i", "env": [1]}], "initContainers": [{"name": "d", "restartPolicy": "Always", "env": [1]}]}, "status": {"podIP": "10.0.0.1", "conditions": [1]}}),
        json!({"spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}], "initContainers": [{"name": "d", "restartPolicy": "Always"}]}, "status": {"podIP": "10.0.0.1"}})
    )]
    #[case::of_a_secret(
        Kind::Secret,
        json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "a", "tls.key": "b", "ca.crt": "c"}}),
        json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "a", "tls.key": "b"}})
    )]
    #[case::of_a_node(
        Kind::Node,
        json!({"spec": {"taints": [1], "podCIDR": "10.0.0.0/24"}, "status": {"images": [1], "addresses": []}}),
        json!({"spec": {"podCIDR": "10.0.0.0/24"}, "status": {"addresses": []}})
    )]
    fn what_no_plan_hangs_on_is_not_kept(
        #[case] kind: Kind,
        #[case] mut object: Value,
        #[case] kept: Value,
    ) {
        trim(kind, &mut object);
        assert_eq!(object, kept);
    }
}
