//! Node selectors that pick none of the nodes.

use k8s_openapi::api::core::v1::Node;

use crate::object::{Kind, ObjectRef, Objects, Provenance};
use crate::problem::{Code, Problem, Severity};
use crate::selector::selects;

use super::config::Config;

/// How many nodes are named.
const NAMED: usize = 4;

/// A selector that picks no node, where the source has the cluster's nodes: of those that are made
/// up nobody knows the labels.
pub(super) fn picks_none(config: &Config<'_>, objects: &Objects) -> Option<Problem> {
    let selector = config.source.spec.node_selector.as_ref()?;
    let known = objects.nodes().any(|node| {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let reference = ObjectRef::cluster(Kind::Node, name);
        let entry = objects.get(&reference);
        entry.is_some_and(|it| !matches!(it.provenance, Provenance::Derived { .. }))
    });
    // A selector that is none is the plan's to tell.
    let picks = |node: &Node| selects(selector, node.metadata.labels.as_ref()).unwrap_or(true);
    if !known || objects.nodes().any(|node| picks(node)) {
        return None;
    }
    let names: Vec<&str> = objects
        .nodes()
        .filter_map(|node| node.metadata.name.as_deref())
        .take(NAMED)
        .collect();
    let count = objects.nodes().count();
    let more = if count > names.len() { ", …" } else { "" };
    Some(Problem {
        code: Code::NoSuchNode,
        severity: Severity::Warning,
        object: config.reference.clone(),
        field: "spec.nodeSelector".to_owned(),
        reason: format!(
            "none of the {count} nodes has such labels ({}{more}), so the config applies nowhere",
            names.join(", ")
        ),
        fix: "correct the selector, or label a node".to_owned(),
    })
}
