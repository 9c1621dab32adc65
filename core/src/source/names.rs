//! What a document is called, and which names a cluster would take.

use super::document::{Node, Tree};
use super::error::Fault;
use super::mistake::{Mistake, mistake};
use crate::object::{DEFAULT_NAMESPACE, Kind};

/// `Ingress default/basic-ingress`, as far as the document says.
pub(super) fn title(node: &Node) -> Option<String> {
    let kind = node.text("kind")?;
    let (namespace, name) = namespace_and_name(node);
    let clusterwide = node
        .get("metadata")
        .and_then(|metadata| metadata.text("namespace"))
        .is_none()
        && (kind.contains("Cluster") || matches!(kind, "Node" | "IngressClass" | "GatewayClass"));
    match (name.is_empty(), clusterwide) {
        (true, _) => Some(kind.to_owned()),
        (false, true) => Some(format!("{kind} {name}")),
        (false, false) => Some(format!("{kind} {namespace}/{name}")),
    }
}

pub(super) fn namespace_and_name(node: &Node) -> (&str, &str) {
    let metadata = node.get("metadata");
    let text = |field| {
        metadata
            .and_then(|metadata| metadata.text(field))
            .filter(|text| !text.is_empty())
    };
    (
        text("namespace").unwrap_or(DEFAULT_NAMESPACE),
        text("name").unwrap_or_default(),
    )
}

/// A name is a DNS subdomain, a namespace or a Service's name a DNS label (Kubernetes, "Object
/// Names and IDs"). They stand in Envoy's names and in host names, so nothing else may pass.
pub(super) fn check_names(node: &Node, kind: Kind) -> Result<(), Mistake> {
    let (namespace, name) = namespace_and_name(node);
    for field in ["name", "namespace"] {
        let written = node
            .get("metadata")
            .and_then(|metadata| metadata.get(field));
        if written.is_some_and(|node| !matches!(&node.tree, Tree::Scalar(value) if value.is_string() || value.is_null())) {
            let reason = format!("`{field}` is no text");
            return Err(mistake(Fault::WrongType, &["metadata", field], &reason, "quote it"));
        }
    }
    if name.is_empty() {
        let generated = node
            .get("metadata")
            .is_some_and(|metadata| metadata.get("generateName").is_some());
        let reason = if generated {
            "an object with `generateName` has its name only in a cluster"
        } else {
            "the object has no name"
        };
        return Err(mistake(
            Fault::MissingField,
            &["metadata", "name"],
            reason,
            "add `metadata.name`",
        ));
    }
    let longest = if kind == Kind::Service { 63 } else { 253 };
    if !is_dns(name, longest, kind != Kind::Service) {
        return Err(mistake(
            Fault::BadName,
            &["metadata", "name"],
            &format!("Kubernetes refuses the name `{name}`"),
            &format!("use lower-case letters, digits and `-`, at most {longest} of them"),
        ));
    }
    if kind.namespaced() && !is_dns(namespace, 63, false) {
        return Err(mistake(
            Fault::BadName,
            &["metadata", "namespace"],
            &format!("Kubernetes refuses the namespace `{namespace}`"),
            "use lower-case letters, digits and `-`, at most 63 of them",
        ));
    }
    Ok(())
}

fn is_dns(name: &str, longest: usize, dots: bool) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= longest
        && name.split('.').all(|label| {
            label.starts_with(alphanumeric)
                && label.ends_with(alphanumeric)
                && label.chars().all(|c| alphanumeric(c) || c == '-')
        })
        && (dots || !name.contains('.'))
}
