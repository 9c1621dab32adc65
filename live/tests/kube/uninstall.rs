//! The end of Nodeway in a cluster. No controller is here: tests do what it would.

use std::time::Duration;

use nodeway_live::uninstall::{UninstallOptions, take_workers_away, wait_for_cleanup};

use super::control_plane::ControlPlane;
use super::{WITHIN, get, until};

fn options(cluster: &ControlPlane, within: Duration) -> UninstallOptions {
    UninstallOptions {
        kubeconfig: Some(cluster.kubeconfig()),
        namespace: "default".to_owned(),
        within,
    }
}

/// A server with a DaemonSet.
fn with_daemonset(name: &str) -> ControlPlane {
    let cluster = ControlPlane::start();
    until("the namespace `default`", || {
        cluster.kubectl(&["get", "namespace", "default"]).ok()
    });
    cluster.apply(&format!(
        "
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: {name}, namespace: default}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: it, image: it}}]}}
"
    ));
    cluster
}

fn patch(cluster: &ControlPlane, name: &str, more: &[&str], patch: &str) {
    let what = format!("daemonset/{name}");
    let known = ["patch", &what, "--type=merge", "-p", patch];
    let patched = cluster.kubectl(&[&known[..], more].concat());
    patched.unwrap_or_else(|error| panic!("{error}"));
}

/// As its controller says it.
fn say_ready(cluster: &ControlPlane, nodes: u8, ready: u8) {
    let status = format!(
        r#"{{"status":{{"observedGeneration":1,"desiredNumberScheduled":{nodes},"numberReady":{ready},"currentNumberScheduled":{nodes},"numberMisscheduled":0}}}}"#
    );
    patch(
        cluster,
        "nodeway-cleanup",
        &["--subresource=status"],
        &status,
    );
}

#[test]
fn workers_that_are_gone_already_are_no_error() {
    let cluster = ControlPlane::start();
    take_workers_away(&options(&cluster, WITHIN)).unwrap();
}

#[test]
fn workers_are_gone_when_their_last_pod_is() {
    let cluster = with_daemonset("nodeway-agent");
    // Its pods do not end: that is the garbage collector's to see.
    let left = take_workers_away(&options(&cluster, Duration::ZERO)).unwrap_err();
    let left = left.to_string();
    assert!(
        left.starts_with("DaemonSet default/nodeway-agent is deleted and still has pods"),
        "{left}"
    );
    let agent = get(&cluster, "daemonset/nodeway-agent").unwrap();
    assert_eq!(agent["metadata"]["finalizers"][0], "foregroundDeletion");
    patch(
        &cluster,
        "nodeway-agent",
        &[],
        r#"{"metadata":{"finalizers":null}}"#,
    );
    take_workers_away(&options(&cluster, WITHIN)).unwrap();
    assert_eq!(get(&cluster, "daemonset/nodeway-agent"), None);
}

#[test]
fn nodes_are_clean_when_the_cleanup_is_ready_on_each() {
    let cluster = with_daemonset("nodeway-cleanup");
    let unseen = wait_for_cleanup(&options(&cluster, Duration::ZERO)).unwrap_err();
    assert!(unseen.to_string().starts_with("0 of "), "{unseen}");
    say_ready(&cluster, 3, 2);
    let two = wait_for_cleanup(&options(&cluster, Duration::ZERO)).unwrap_err();
    assert!(
        two.to_string().starts_with("2 of 3 nodes are clean"),
        "{two}"
    );
    say_ready(&cluster, 3, 3);
    wait_for_cleanup(&options(&cluster, Duration::ZERO)).unwrap();
}

#[test]
fn waiting_for_a_cleanup_that_nobody_made_is_told_so_at_once() {
    let cluster = ControlPlane::start();
    let none = wait_for_cleanup(&options(&cluster, WITHIN)).unwrap_err();
    assert!(
        none.to_string().contains("live/deploy/cleanup.yaml"),
        "{none}"
    );
}
