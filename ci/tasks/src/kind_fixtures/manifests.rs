//! A fixture's manifests for a real cluster: pods get our program, all else stays as it is.

use std::collections::BTreeMap;

use miette::miette;
use nodeway_core::ingress::Mode;
use nodeway_core::ingress::annotations::LOADBALANCER_MODE;
use nodeway_sim::{Backend, Fixture, Place, Sim};
use serde_json::{Value, json};

/// The manifests as one text. `model` knows what each pod's program is.
pub(super) fn for_cluster(fixture: &Fixture, model: &Sim, image: &str) -> miette::Result<String> {
    let mut programs: BTreeMap<String, Vec<Backend>> = BTreeMap::new();
    for (place, backend) in model.programs() {
        if let Place::Pod(pod) = place {
            programs.entry(pod).or_default().push(backend);
        }
    }
    let mut items = Vec::new();
    for text in &fixture.manifests {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text.content)
            .map_err(|error| miette!("{}: {error}", text.name))?;
        for mut document in documents.into_iter().filter(|it| !it.is_null()) {
            give_programs(&mut document, &programs, image);
            give_mode(&mut document, fixture.ingress.mode);
            items.push(document);
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    Ok(list.to_string())
}

/// What the operator of a fixture is told for all Ingresses, each says here for itself: this cluster's
/// operator serves all fixtures.
fn give_mode(object: &mut Value, mode: Mode) {
    if object.get("kind").and_then(Value::as_str) != Some("Ingress") || mode == Mode::default() {
        return;
    }
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if let Some(annotations) = annotations.as_object_mut() {
        let own = annotations.entry(LOADBALANCER_MODE);
        own.or_insert_with(|| json!(mode.to_string()));
    }
}

fn give_programs(object: &mut Value, programs: &BTreeMap<String, Vec<Backend>>, image: &str) {
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    let namespace = object.pointer("/metadata/namespace");
    let namespace = namespace.and_then(Value::as_str).unwrap_or("default");
    let path = format!("{namespace}/{}", name.unwrap_or_default());
    let (at, of) = match object.get("kind").and_then(Value::as_str) {
        Some("Pod") => ("/spec", programs.get(&path)),
        // Its first pod, as the model names it.
        Some("Deployment") => ("/spec/template/spec", programs.get(&format!("{path}-1"))),
        _ => return,
    };
    let version = match at {
        "/spec" => object.pointer("/metadata/labels/version"),
        _ => object.pointer("/spec/template/metadata/labels/version"),
    };
    let version = version.cloned().unwrap_or_default();
    let Some(spec) = object.pointer_mut(at) else {
        return;
    };
    // Nothing of the program that stood there is needed, and a pod ends at once.
    if let Some(spec) = spec.as_object_mut() {
        spec.insert("terminationGracePeriodSeconds".to_owned(), json!(1));
        // Its nodes have other names.
        spec.remove("nodeName");
        spec.remove("serviceAccountName");
        spec.remove("volumes");
        spec.remove("initContainers");
    }
    let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
    let mut of = of.into_iter().flatten();
    for container in containers.into_iter().flatten() {
        let stands_for = container.get("image").cloned().unwrap_or_default();
        let own = json!({
            "name": container.get("name"),
            "ports": container.get("ports").cloned().unwrap_or(json!([])),
            "image": image,
            "imagePullPolicy": "IfNotPresent",
        });
        *container = own;
        let Some(fields) = container.as_object_mut() else {
            continue;
        };
        match of.next() {
            None => {
                fields.insert("command".to_owned(), json!(["sleep", "infinity"]));
            }
            Some(backend) => {
                fields.insert("args".to_owned(), arguments(backend));
                fields.insert(
                    "env".to_owned(),
                    environment(backend, &stands_for, &version),
                );
                let port = backend.ports().first();
                let probe = json!({"tcpSocket": {"port": port}, "periodSeconds": 1});
                fields.insert("readinessProbe".to_owned(), probe);
            }
        }
    }
}

fn arguments(backend: &Backend) -> Value {
    let ports = backend.ports().iter();
    let ports = ports.flat_map(|port| ["--port".to_owned(), port.to_string()]);
    std::iter::once("backend".to_owned()).chain(ports).collect()
}

fn environment(backend: &Backend, image: &Value, version: &Value) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!([
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_NAME", "metadata.name"),
        {"name": "POD", "value": "$(POD_NAMESPACE)/$(POD_NAME)"},
        field("NODE_NAME", "spec.nodeName"),
        {"name": "SERVICE", "value": backend.identity().service},
        {"name": "LABEL_VERSION", "value": version.as_str().unwrap_or_default()},
        {"name": "IMAGE", "value": image.as_str().unwrap_or_default()},
    ])
}
