//! What a pod gets: two init containers and their volumes.

use serde_json::{Value, json};

use super::Options;
use crate::netfilter::sidecar::{INBOUND, PROXY_UID};

const RULES: &str = "nodeway-rules";
const SIDECAR: &str = "nodeway-sidecar";
const RUN: &str = "nodeway-run";
const TOKEN: &str = "nodeway-token";

/// The init containers' names.
pub(super) const CONTAINERS: [&str; 2] = [RULES, SIDECAR];
/// The volumes' names.
pub(super) const VOLUMES: [&str; 2] = [RUN, TOKEN];

/// Where clients of the API server look for who they are.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The init containers, in their order.
pub(super) fn containers(options: &Options) -> [Value; 2] {
    [rules(options), sidecar(options)]
}

/// Installs the rules and ends. It is root whatever the pod's own user is, and has what the packet
/// filter's tools ask for.
fn rules(options: &Options) -> Value {
    let mut args = vec!["sidecar".to_owned(), "rules".into(), "--install".into()];
    for port in &options.excluded {
        args.extend(["--exclude-port".to_owned(), port.to_string()]);
    }
    json!({
        "name": RULES,
        "image": options.image,
        "args": args,
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
        },
    })
}

/// Keeps the pod's Envoy. Other containers begin when it listens.
fn sidecar(options: &Options) -> Value {
    let mut args = vec!["sidecar", "run"];
    args.extend(options.access_log.then_some("--access-log"));
    let of_pod = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!({
        "name": SIDECAR,
        "image": options.image,
        "args": args,
        "restartPolicy": "Always",
        "env": [
            of_pod("NODE_NAME", "spec.nodeName"),
            of_pod("POD_NAME", "metadata.name"),
            of_pod("POD_NAMESPACE", "metadata.namespace"),
            of_pod("POD_IPS", "status.podIPs"),
        ],
        // The rules lead what is asked at that port to that port.
        "startupProbe": {"tcpSocket": {"port": INBOUND}, "periodSeconds": 1, "failureThreshold": 90},
        "securityContext": {
            "runAsUser": PROXY_UID,
            "runAsGroup": PROXY_UID,
            "runAsNonRoot": true,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": RUN, "mountPath": "/run/nodeway"},
            // A mount of its own: the pod's account may be one that is not mounted.
            {"name": TOKEN, "mountPath": ACCOUNT, "readOnly": true},
        ],
    })
}

/// Where Envoy's files are, and who asks the API server: what a cluster mounts in containers by itself.
pub(super) fn volumes() -> [Value; 2] {
    let namespace = json!({"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}});
    let sources = json!([
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]);
    [
        json!({"name": RUN, "emptyDir": {}}),
        json!({"name": TOKEN, "projected": {"sources": sources}}),
    ]
}
