//! What Helm puts between the manifests of a release: hooks, and words for people.

use super::Text;
use super::document::Node;
use super::error::{Place, SourceError};
use super::reader::is_from_cluster;

/// Whether a document is a hook that runs and goes away again: a test's pod or a job. It is no part
/// of what answers requests. In a dump the pod is there, and counts.
pub(super) fn is_passing(node: &Node, kind: &str) -> bool {
    let annotations = node
        .get("metadata")
        .and_then(|metadata| metadata.get("annotations"));
    matches!(kind, "Pod" | "Job")
        && annotations.is_some_and(|annotations| annotations.get("helm.sh/hook").is_some())
        && !is_from_cluster(node)
}

/// `helm install --dry-run`, `helm get all`: manifests between `NAME:`, `MANIFEST:` and `NOTES:`,
/// which are no YAML.
pub(super) fn words_around(text: &Text) -> Option<SourceError> {
    let begins = text.content.trim_start().starts_with("NAME: ");
    let line = text
        .content
        .lines()
        .position(|line| line.trim_end() == "MANIFEST:")
        .filter(|_| begins)?;
    let line = u32::try_from(line).unwrap_or(u32::MAX).saturating_add(1);
    let reason = "Helm's own words stand around the manifests";
    let fix = "give what `helm template` or `helm get manifest` prints";
    Some(SourceError::of_text(text, Place::line(line), reason, fix))
}
