//! The translation as a whole; what one file decides alone is tested in that file.

mod ingest;
mod operator;
mod routes;
mod server_names;
mod services;
mod whole;

use k8s_openapi::api::networking::v1::Ingress;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::ingest::{Ingested, ingest as read};
use super::options::Ports;
use super::{Options, Translation, translate};
use crate::object::{Object, Objects, Provenance};

/// An object as a manifest has it.
fn manifest<T: DeserializeOwned>(text: &str) -> T {
    let value: Value = serde_saphyr::from_str(text).unwrap();
    serde_json::from_value(value).unwrap()
}

/// An Ingress of our class in `default` with this spec and these annotations.
fn ingress(name: &str, annotations: &[(&str, &str)], spec: &Value) -> Ingress {
    let mut spec = spec.clone();
    spec["ingressClassName"] = "cilium".into();
    let annotations: Value = annotations
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "annotations": annotations}, "spec": spec,
    }))
    .unwrap()
}

/// A rule for a host (empty for none) with paths `type path service`.
fn rule(host: &str, paths: &[&str]) -> Value {
    let path = |text: &&str| {
        let words: Vec<&str> = text.split(' ').collect();
        json!({"pathType": words[0], "path": words[1],
            "backend": {"service": {"name": words[2], "port": {"number": 80}}}})
    };
    let mut rule = json!({"http": {"paths": paths.iter().map(path).collect::<Vec<_>>()}});
    if !host.is_empty() {
        rule["host"] = host.into();
    }
    rule
}

/// What an Ingress asks for behind a Service, with Cilium's defaults but without forced TLS.
fn ingested(ingress: &Ingress) -> Ingested {
    read(ingress, Ports::SERVICE, &unforced())
}

fn unforced() -> Options {
    Options {
        enforce_https: false,
        ..Options::default()
    }
}

/// A cluster with these Ingresses, translated.
fn translated(ingresses: &[Ingress], options: &Options) -> Translation {
    let mut objects = Objects::default();
    for ingress in ingresses {
        let provenance = Provenance::Written {
            file: "ingress.yaml".into(),
            line: 1,
        };
        objects.insert(Object::Ingress(ingress.clone().into()), provenance);
    }
    translate(&objects, options)
}
