//! A recording's objects: what changes an answer, and nothing that is a secret.
//!
//! Left out are values of Secrets but for certificates, every private key (in its place stands one that
//! says so, since a Secret without one is another case), what containers are told, and notes of
//! whoever wrote the object.
//!
//! More is kept than an agent keeps of what a cluster tells it (`trimmed.rs` of the live crate): a
//! recording may be without slices, which then are made of the pods' conditions, and `check` reads
//! what Deployments and init containers say.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::object::{Kind, Object, Objects};

/// In the place of a private key: PEM whose content is the words "left out by nodeway record".
const NO_KEY: &str = "-----BEGIN PRIVATE KEY-----\nbGVmdCBvdXQgYnkgbm9kZXdheSByZWNvcmQ=\n-----END PRIVATE KEY-----\n";
/// The same as Kubernetes writes a value of a Secret.
const NO_KEY_DATA: &str = "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCmJHVm1kQ0J2ZFhRZ1lua2dibTlrWlhkaGVTQnlaV052Y21RPQotLS0tLUVORCBQUklWQVRFIEtFWS0tLS0tCg==";
/// In the place of any other secret.
const WORDS: &str = "left out by nodeway record";

/// The objects as manifests, one file a kind (`services.yaml`), sorted.
#[must_use]
pub fn manifests(objects: &Objects) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for (reference, entry) in objects.iter() {
        let Some(mut value) = value(&entry.object) else {
            continue;
        };
        left_out(reference.kind, &mut value);
        let Ok(text) = serde_saphyr::to_string(&value) else {
            continue;
        };
        let file = files.entry(file(reference.kind)).or_default();
        if !file.is_empty() {
            file.push_str("---\n");
        }
        file.push_str(&text);
        if !text.ends_with('\n') {
            file.push('\n');
        }
    }
    files
}

fn file(kind: Kind) -> String {
    let name = kind.name().to_lowercase();
    let plural = if name.ends_with('s') { "es" } else { "s" };
    format!("{name}{plural}.yaml")
}

fn value(object: &Object) -> Option<Value> {
    let value = match object {
        Object::Node(it) => serde_json::to_value(it.as_ref()),
        Object::IngressClass(it) => serde_json::to_value(it.as_ref()),
        Object::Ingress(it) => serde_json::to_value(it.as_ref()),
        Object::Service(it) => serde_json::to_value(it.as_ref()),
        Object::EndpointSlice(it) => serde_json::to_value(it.as_ref()),
        Object::Deployment(it) => serde_json::to_value(it.as_ref()),
        Object::Pod(it) => serde_json::to_value(it.as_ref()),
        Object::Secret(it) => serde_json::to_value(it.as_ref()),
        Object::CiliumEnvoyConfig(it) | Object::CiliumClusterwideEnvoyConfig(it) => {
            serde_json::to_value(it.as_ref())
        }
    };
    let mut value = value.ok()?;
    if let Some(fields) = value.as_object_mut() {
        // Cilium's two do not say it themselves.
        let kind = object.kind().name();
        fields.entry("kind").or_insert(kind.into());
        fields.entry("apiVersion").or_insert("cilium.io/v2".into());
    }
    Some(value)
}

/// Takes out of an object what must not be in a recording, and what nobody needs there.
pub fn left_out(kind: Kind, object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
        {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    match kind {
        Kind::Secret => {
            certificate(object, "data", NO_KEY_DATA);
            certificate(object, "stringData", NO_KEY);
        }
        Kind::Pod => {
            keep(object.get_mut("spec"), POD);
            containers(object.pointer_mut("/spec/containers"));
            containers(object.pointer_mut("/spec/initContainers"));
            keep(object.get_mut("status"), POD_STATUS);
        }
        Kind::Deployment => {
            keep(object.pointer_mut("/spec/template/spec"), POD);
            containers(object.pointer_mut("/spec/template/spec/containers"));
            containers(object.pointer_mut("/spec/template/spec/initContainers"));
        }
        Kind::Node => keep(object.get_mut("status"), &["addresses"]),
        Kind::CiliumEnvoyConfig | Kind::CiliumClusterwideEnvoyConfig => hide_keys(object),
        _ => {}
    }
}

const POD: &[&str] = &["nodeName", "hostNetwork", "containers", "initContainers"];
const POD_STATUS: &[&str] = &["phase", "podIP", "podIPs", "hostIP", "conditions"];

/// Keeps of a Secret's values its certificate, and what stands for its key.
fn certificate(secret: &mut Value, field: &str, no_key: &str) {
    let Some(values) = secret.get_mut(field).and_then(Value::as_object_mut) else {
        return;
    };
    let all = std::mem::take(values).into_iter();
    *values = all
        .filter_map(|(name, value)| match &*name {
            "tls.crt" => Some((name, value)),
            "tls.key" => Some((name, no_key.into())),
            _ => None,
        })
        .collect();
}

fn containers(all: Option<&mut Value>) {
    for container in all.and_then(Value::as_array_mut).into_iter().flatten() {
        keep(
            Some(container),
            &["name", "image", "ports", "restartPolicy"],
        );
    }
}

fn keep(value: Option<&mut Value>, fields: &[&str]) {
    if let Some(all) = value.and_then(Value::as_object_mut) {
        *all = std::mem::take(all)
            .into_iter()
            .filter(|(name, _)| fields.contains(&name.as_str()))
            .collect::<Map<_, _>>();
    }
}

/// Envoy's messages may have a key or a password written in them: wherever one stands, by the field's
/// name in its protos.
fn hide_keys(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match &*name.replace('_', "").to_lowercase() {
                    "privatekey" => hide(value, NO_KEY),
                    "password" | "genericsecret" | "sessionticketkeys" => hide(value, WORDS),
                    _ => hide_keys(value),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(hide_keys),
        _ => {}
    }
}

/// Puts words in the place of every text in a value; names of files and fields stay.
fn hide(value: &mut Value, words: &str) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match &*name.replace('_', "").to_lowercase() {
                    "filename" | "environmentvariable" | "name" => {}
                    // Bytes are written as base64.
                    "inlinebytes" => hide(value, "bGVmdCBvdXQ="),
                    _ => hide(value, words),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|it| hide(it, words)),
        Value::String(text) => words.clone_into(text),
        _ => {}
    }
}
