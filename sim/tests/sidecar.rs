//! Pods with proxies of their own: whose proxy serves whom, and what ends with it.

use nodeway_core::source::Text;
use nodeway_sim::{Cluster, Failure, Redirect, Sim, Source};
use rstest::rstest;

const BOOKINFO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/bookinfo");
const DETAILS: &str = "http://cilium-ingress-basic-ingress/details/0";
const PLAIN: &str = "http://productpage:9080/productpage";

fn bookinfo() -> Sim {
    let builder = Sim::load(BOOKINFO).unwrap().redirect(Redirect::Sidecar);
    builder.seed(7).start().unwrap()
}

/// What ends when a proxy is gone: a status, or how it fails.
#[rstest]
#[case::nobodys("default/ratings-v1-1", "200", "200")]
#[case::the_clients("default/client", "connection-refused", "connection-refused")]
#[case::that_of_who_serves_the_frontend("default/details-v1-1", "503", "200")]
#[case::that_of_who_is_asked_directly("default/productpage-v1-1", "200", "connection-reset")]
#[case::all_of_the_clients_node("node-1", "connection-refused", "connection-refused")]
#[case::all_of_another_node("node-2", "503", "200")]
fn with_a_pods_proxy_all_of_the_pods_connections_end(
    #[case] whose: &str,
    #[case] through_a_listener: &str,
    #[case] passed_through: &str,
) {
    let mut cluster = bookinfo();
    let ends = |cluster: &mut Sim, url| match cluster.get("default/client", url) {
        Ok(reply) => reply.status.to_string(),
        Err(failed) => failed.failure.to_string(),
    };
    assert_eq!(ends(&mut cluster, DETAILS), "200");
    assert_eq!(ends(&mut cluster, PLAIN), "200");
    cluster.crash_proxy(whose).unwrap();
    assert_eq!(ends(&mut cluster, DETAILS), through_a_listener);
    assert_eq!(ends(&mut cluster, PLAIN), passed_through);
    cluster.restart_proxy(whose).unwrap();
    assert_eq!(ends(&mut cluster, DETAILS), "200");
    assert_eq!(ends(&mut cluster, PLAIN), "200");
}

#[test]
fn a_connection_to_a_frontend_ends_as_the_way_declares() {
    let mut cluster = bookinfo();
    cluster.crash_proxy("default/client").unwrap();
    let failed = cluster.get("default/client", DETAILS).unwrap_err();
    assert_eq!(failed.failure, Redirect::Sidecar.without_listener());
    assert_eq!(failed.proxy_node.as_deref(), Some("node-1"));
    let told = failed.to_string();
    assert!(told.contains("REDIRECT --to-ports 15001"), "{told}");
}

#[test]
fn who_has_no_sidecar_asks_as_if_nothing_were_redirected() {
    let mut cluster = bookinfo();
    for from in ["outside", "node/node-1"] {
        assert!(cluster.not_applicable(from).unwrap().is_some());
        let failed = cluster.get(from, DETAILS).unwrap_err();
        assert_eq!(failed.failure, Failure::ConnectionRefused, "{from}");
    }
    let reply = cluster.get("node/node-1", PLAIN).unwrap();
    assert_eq!((reply.status, reply.proxy_pod), (200, None));
    assert_eq!(
        reply.backend_saw.unwrap(),
        "Pod default/productpage-v1-1",
        "the server has one"
    );
}

#[test]
fn a_pod_in_its_nodes_network_has_no_sidecar() {
    let manifests = r"
apiVersion: v1
kind: Pod
metadata: {name: agent}
spec: {hostNetwork: true, containers: [{name: agent, image: curl}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: client, image: curl}]}
";
    let source = Source {
        name: "manifests".to_owned(),
        fixture: None,
        recordings: Vec::new(),
        texts: vec![Text::new("manifests", manifests)],
    };
    let cluster = Sim::from_source(&source).unwrap();
    let cluster = cluster.redirect(Redirect::Sidecar).start().unwrap();
    assert_eq!(cluster.not_applicable("default/client").unwrap(), None);
    assert_eq!(
        cluster.not_applicable("default/agent").unwrap().as_deref(),
        Some("default/agent is a pod in its node's network, which has no sidecar")
    );
}
