//! `cilium sysdump`: which of its files hold objects that can change an answer.
//!
//! A sysdump is a folder (or a zip of it) with logs, metrics, tables and Kubernetes objects, a list
//! of one kind in each file. The names are those of Cilium's CLI: cilium/cilium,
//! `cilium-cli/sysdump/constants.go` at 5d2ab36786e5, what is written into each is in `sysdump.go`
//! at d460879e20d4; a name ends in the time of the dump, `20060102-150405` in Go's notation. Other
//! YAML and JSON in it (Helm values, flows, redacted Secrets, Cilium's own workloads) is no source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What stands before the time in the names of files with objects.
const WITH_OBJECTS: &[&str] = &[
    "cilium-configmap",
    "ciliumclusterwideenvoyconfigs",
    "ciliumclusterwidenetworkpolicies",
    "ciliumegressgatewaypolicies",
    "ciliumenvoyconfigs",
    // Despite the name these are the Ingresses of `networking.k8s.io`.
    "ciliumingresses",
    "ciliumlocalredirectpolicies",
    "ciliumnetworkpolicies",
    "gatewayapi-gatewayclasses",
    "gatewayapi-gateways",
    "gatewayapi-grpcroutes",
    "gatewayapi-httproutes",
    "gatewayapi-referencegrants",
    "gatewayapi-tcroutes",
    "gatewayapi-tlsroutes",
    "gatewayapi-udproutes",
    "ingressclasses",
    "k8s-endpoints",
    "k8s-namespaces",
    "k8s-networkpolicies",
    "k8s-nodes",
    "k8s-pods",
    "k8s-services",
];

/// Whether a file of that name holds objects of a sysdump.
pub(super) fn has_objects(name: &str) -> bool {
    name.strip_suffix(".yaml")
        .and_then(without_time)
        .is_some_and(|stem| WITH_OBJECTS.contains(&stem))
}

/// `k8s-pods` of `k8s-pods-20260301-101500`.
fn without_time(name: &str) -> Option<&str> {
    let mut parts = name.rsplitn(3, '-');
    let (clock, day, stem) = (parts.next()?, parts.next()?, parts.next()?);
    let digits =
        |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    (digits(clock, 6) && digits(day, 8)).then_some(stem)
}

/// Of some files, those that are read: in a sysdump's folder and below it only those with objects.
pub(super) fn only_objects(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let is_one = |path: &Path| {
        path.file_name()
            .is_some_and(|name| has_objects(&name.to_string_lossy()))
    };
    let folders: BTreeSet<PathBuf> = files
        .iter()
        .filter(|path| is_one(path))
        .filter_map(|path| Some(path.parent()?.to_owned()))
        .collect();
    let in_dump = |path: &Path| {
        path.ancestors()
            .skip(1)
            .any(|folder| folders.contains(folder))
    };
    files
        .into_iter()
        .filter(|path| is_one(path) || !in_dump(path))
        .collect()
}
