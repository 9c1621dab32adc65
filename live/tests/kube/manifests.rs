//! What users apply, asked of a real API server: each manifest is admitted, every field of it known.

use std::fs;
use std::path::{Path, PathBuf};

use super::control_plane::ControlPlane;
use super::{cluster, until};

/// Where Nodeway is.
const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: nodeway-system}\n";

/// A server that has what manifests are applied into.
fn ready() -> ControlPlane {
    let cluster = cluster();
    until("the namespace `default`", || {
        cluster.kubectl(&["get", "namespace", "default"]).ok()
    });
    cluster.apply(NAMESPACE);
    cluster
}

/// Asks whether a file would be taken as it is, by the server and without a warning.
fn asked(cluster: &ControlPlane, file: &Path) -> Result<String, String> {
    let file = file.display().to_string();
    let strict = ["--server-side", "--dry-run=server", "--validate=strict"];
    let known = ["apply", "-o", "name", "-f", &file];
    cluster.kubectl(&[&known[..], &strict[..]].concat())
}

fn yaml_of(folder: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let mut all: Vec<PathBuf> = all
        .filter(|it| it.extension().is_some_and(|it| it == "yaml"))
        .collect();
    all.sort();
    assert!(!all.is_empty(), "{folder}");
    all
}

/// The objects of an API in a page: what its commands print, or a block of it is.
fn manifests_of(page: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut within = false;
    for line in page.lines() {
        if line.starts_with("apiVersion:") {
            all.push(String::new());
            within = true;
        } else if line.starts_with("```") || line.starts_with("$ ") || line == "---" {
            within = false;
        }
        if let Some(manifest) = all.last_mut().filter(|_| within) {
            manifest.push_str(line);
            manifest.push('\n');
        }
    }
    all
}

#[test]
fn every_manifest_that_is_applied_is_admitted_and_has_no_field_that_is_unknown() {
    let cluster = ready();
    let folders = ["crds", "../ci/kind.d", "../fixtures/bookinfo/manifests"].map(yaml_of);
    let deployed = ["deploy/nodeway.yaml", "deploy/cleanup.yaml"].map(PathBuf::from);
    for file in folders.iter().flatten().chain(&deployed) {
        let admitted = asked(&cluster, file);
        let admitted = admitted.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(!admitted.is_empty(), "{}", file.display());
    }
}

#[test]
fn every_manifest_of_the_readme_and_the_book_is_admitted() {
    let cluster = ready();
    let folder = tempfile::tempdir().unwrap();
    let mut pages = vec![PathBuf::from("../README.md")];
    for folder in ["../book/src", "../book/src/walkthrough"] {
        let all = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
        pages.extend(all.filter(|it| it.extension().is_some_and(|it| it == "md")));
    }
    let mut count = 0;
    for page in pages {
        for manifest in manifests_of(&fs::read_to_string(&page).unwrap()) {
            let file = folder.path().join("manifest.yaml");
            fs::write(&file, &manifest).unwrap();
            let admitted = asked(&cluster, &file);
            admitted.unwrap_or_else(|error| panic!("{}: {error}\n{manifest}", page.display()));
            count += 1;
        }
    }
    assert!(count > 0, "no page has a manifest");
}

#[test]
fn a_misspelt_field_of_a_manifest_is_refused_by_its_path() {
    let cluster = ready();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nodeway.yaml");
    let text = fs::read_to_string("deploy/nodeway.yaml").unwrap();
    let misspelt = text.replace("hostNetwork:", "hostNetwrok:");
    assert_ne!(misspelt, text);
    fs::write(&file, misspelt).unwrap();
    let refused = asked(&cluster, &file).unwrap_err();
    assert!(refused.contains("hostNetwrok"), "{refused}");
}
