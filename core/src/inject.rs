//! Manifests whose pods get an Envoy of their own: the way `sidecar` in a cluster, by rewriting what
//! is to be applied.
//!
//! Each pod gets two init containers before all others. The first installs the rules of
//! [`netfilter::sidecar`](crate::netfilter::sidecar) in the pod's network namespace and ends. The
//! second stays (an init container with `restartPolicy: Always`, Kubernetes 1.29 and later): it follows
//! the cluster's objects and keeps the pod's Envoy on their plan. So init containers of the pod's own
//! go by its Envoy too, and a Job's pod ends when its work has. Nothing else of a manifest changes,
//! and what was put in before is put in anew: rewriting twice is rewriting once.

mod parts;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::netfilter::sidecar::{INBOUND, OUTBOUND, PROXY_UID};
use crate::object::DEFAULT_NAMESPACE;

/// What pods get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The image with `nodeway` and `envoy`.
    pub image: String,
    /// Ports that go past the proxy in both directions, such as those of health checks.
    pub excluded: Vec<u16>,
    /// Whether the Envoy writes a line for each request, to the container's log.
    pub access_log: bool,
}

/// Manifests, rewritten.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Injected {
    /// All documents in their order.
    pub documents: Vec<Value>,
    /// The objects whose pods have a sidecar now.
    pub with: Vec<String>,
    /// Those that would make pods and are as they were.
    pub left: Vec<Left>,
}

/// An object that is as it was, though it makes pods.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {why}")]
pub struct Left {
    /// `DaemonSet default/logs`
    pub object: String,
    /// Why.
    pub why: NoSidecar,
}

/// Why pods cannot have a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSidecar {
    /// Rules would be the node's.
    #[error(
        "`hostNetwork: true`: its pods have no network of their own, the rules would lead all traffic of the node; take it out, or leave the pods to the node's agent"
    )]
    HostNetwork,
    /// The rules leave that user alone.
    #[error(
        "container `{0}` runs as user {PROXY_UID}, whose connections the rules leave alone as the proxy's; choose another runAsUser"
    )]
    ProxysUser(String),
    /// The proxy needs it.
    #[error("container `{0}` has port {1}, which is the proxy's; choose another")]
    ProxysPort(String, u64),
    /// The object is none that a cluster would take.
    #[error("`{0}` is missing or of another type; see `kubectl explain`")]
    Malformed(String),
}

/// Puts a sidecar into each pod that the documents make.
#[must_use]
pub fn inject(documents: Vec<Value>, options: &Options) -> Injected {
    let mut injected = Injected::default();
    for mut document in documents {
        each_object(&mut document, &mut |object| {
            let Some(path) = pod_spec(object) else {
                return;
            };
            let title = title(object);
            match put_into(object, path, options) {
                Ok(()) => injected.with.push(title),
                Err(why) => injected.left.push(Left { object: title, why }),
            }
        });
        injected.documents.push(document);
    }
    injected
}

/// Calls `what` with an object, or with each of a list.
fn each_object(document: &mut Value, what: &mut dyn FnMut(&mut Value)) {
    let is_list = text(document, "kind").ends_with("List");
    match document.get_mut("items").and_then(Value::as_array_mut) {
        Some(items) if is_list => items.iter_mut().for_each(|it| each_object(it, what)),
        _ => what(document),
    }
}

/// Where an object has the spec of its pods; nothing if it makes none.
fn pod_spec(object: &Value) -> Option<&'static [&'static str]> {
    let version = text(object, "apiVersion");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    Some(match (group, text(object, "kind")) {
        ("", "Pod") => &["spec"],
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job")
        | ("", "ReplicationController") => &["spec", "template", "spec"],
        ("batch", "CronJob") => &["spec", "jobTemplate", "spec", "template", "spec"],
        _ => return None,
    })
}

/// `Deployment default/shop`
fn title(object: &Value) -> String {
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let namespace = match text(metadata, "namespace") {
        "" => DEFAULT_NAMESPACE,
        namespace => namespace,
    };
    let name = match text(metadata, "name") {
        "" => text(metadata, "generateName"),
        name => name,
    };
    format!("{} {namespace}/{name}", text(object, "kind"))
}

/// A text in an object; empty when it is absent.
fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Puts a sidecar into a pod's spec, or changes nothing.
fn put_into(object: &mut Value, path: &[&str], options: &Options) -> Result<(), NoSidecar> {
    let found = path
        .iter()
        .try_fold(object, |at, field| at.get_mut(field))
        .and_then(Value::as_object_mut);
    let spec = found.ok_or_else(|| NoSidecar::Malformed(path.join(".")))?;
    refuse(spec)?;
    let mut init = others(spec, "initContainers", &parts::CONTAINERS)?;
    init.splice(0..0, parts::containers(options));
    let mut volumes = others(spec, "volumes", &parts::VOLUMES)?;
    volumes.extend(parts::volumes());
    spec.insert("initContainers".to_owned(), init.into());
    spec.insert("volumes".to_owned(), volumes.into());
    Ok(())
}

/// What a list has beside the named, which were put in before.
fn others(spec: &Map<String, Value>, field: &str, named: &[&str]) -> Result<Vec<Value>, NoSidecar> {
    match spec.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            let others = items.iter().filter(|it| !named.contains(&text(it, "name")));
            Ok(others.cloned().collect())
        }
        Some(_) => Err(NoSidecar::Malformed(field.to_owned())),
    }
}

/// Whether pods cannot have a sidecar.
fn refuse(spec: &Map<String, Value>) -> Result<(), NoSidecar> {
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        return Err(NoSidecar::HostNetwork);
    }
    let user = |of: Option<&Value>| of?.get("securityContext")?.get("runAsUser")?.as_u64();
    let of_pod = spec
        .get("securityContext")
        .and_then(|it| it.get("runAsUser")?.as_u64());
    let mut all = others(spec, "containers", &[])?;
    all.extend(others(spec, "initContainers", &parts::CONTAINERS)?);
    for container in &all {
        let name = || text(container, "name").to_owned();
        if user(Some(container)).or(of_pod) == Some(PROXY_UID.into()) {
            return Err(NoSidecar::ProxysUser(name()));
        }
        let ports = container.get("ports").and_then(Value::as_array);
        let ports = ports.into_iter().flatten();
        let mut numbers = ports.filter_map(|it| it.get("containerPort")?.as_u64());
        let own = |port: &u64| [OUTBOUND, INBOUND].map(u64::from).contains(port);
        if let Some(port) = numbers.find(own) {
            return Err(NoSidecar::ProxysPort(name(), port));
        }
    }
    Ok(())
}
