//! Each lint by what it must tell, and by what it must not.

use rstest::rstest;

use super::*;
use crate::plan::{Ledger, plan};
use crate::source::{Text, read};

/// The findings of a manifest, as `CODE object field`.
fn told(manifest: &str) -> Vec<String> {
    let objects = read(&[Text::new("m.yaml", manifest)]).unwrap();
    let names: Vec<String> = objects
        .nodes()
        .filter_map(|node| node.metadata.name.clone())
        .collect();
    let plans: Vec<_> = names
        .iter()
        .map(|name| plan(&objects, name, Ledger::default()))
        .collect();
    let plans = names.iter().map(String::as_str).zip(&plans);
    let found = lint(&objects, plans);
    found
        .iter()
        .map(|it| format!("{} {} {}", it.code, it.object, it.field))
        .collect()
}

const LISTENER: &str =
    r#"{"@type": type.googleapis.com/envoy.config.listener.v3.Listener, name: web}"#;
const OWN_PORT: &str = r#"{"@type": type.googleapis.com/envoy.config.listener.v3.Listener, name: web, address: {socketAddress: {address: 0.0.0.0, portValue: 80}}}"#;
const CLUSTER: &str =
    r#"{"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: default/a, type: EDS}"#;
const OTHER: &str = r#"{"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: default/a, type: EDS, edsClusterConfig: {serviceName: default/b}}"#;

fn config(name: &str, fields: &str, resources: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumEnvoyConfig\nmetadata: {{name: {name}}}\nspec:\n  resources: [{resources}]\n{fields}---\n"
    )
}

fn node(name: &str, edge: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{edge: \"{edge}\"}}}}\n---\n"
    )
}

#[rstest]
#[case::no_service("", LISTENER, &["NW0024 CiliumEnvoyConfig default/c spec.services"])]
#[case::nothing("", "", &["NW0024 CiliumEnvoyConfig default/c spec.resources"])]
#[case::a_service("  services: [{name: a}]\n", LISTENER, &[])]
#[case::its_own_port("", OWN_PORT, &[])]
#[case::clusters_for_others("", CLUSTER, &[])]
#[case::endpoints_for_others("  backendServices: [{name: a}]\n", "", &[])]
fn a_config_is_without_effect_only_if_no_packet_can_come_to_it(
    #[case] fields: &str,
    #[case] resources: &str,
    #[case] want: &[&str],
) {
    assert_eq!(told(&config("c", fields, resources)), want);
}

#[rstest]
#[case::none_has_it(&["no", "no"], &["NW0025 CiliumEnvoyConfig default/c spec.nodeSelector"])]
#[case::one_has_it(&["no", "yes"], &[])]
#[case::no_node_is_known(&[], &[])]
fn a_selector_that_picks_no_known_node_is_told(#[case] edges: &[&str], #[case] want: &[&str]) {
    let nodes = edges.iter().enumerate();
    let nodes: String = nodes
        .map(|(n, edge)| node(&format!("n{n}"), edge))
        .collect();
    let selector = "  nodeSelector: {matchLabels: {edge: \"yes\"}}\n";
    assert_eq!(told(&(nodes + &config("c", selector, CLUSTER))), want);
}

#[rstest]
#[case::not_alike(OTHER, "", &["NW0027 CiliumEnvoyConfig default/b spec.resources[0]"])]
#[case::alike(CLUSTER, "", &[])]
#[case::on_other_nodes(OTHER, "  nodeSelector: {matchLabels: {edge: \"yes\"}}\n", &[])]
fn a_cluster_of_two_configs_on_one_node_must_be_alike(
    #[case] second: &str,
    #[case] selector: &str,
    #[case] want: &[&str],
) {
    let elsewhere = "  nodeSelector: {matchLabels: {edge: \"no\"}}\n";
    let first = if selector.is_empty() { "" } else { elsewhere };
    let manifest = [
        node("n0", "no"),
        node("n1", "yes"),
        config("a", first, CLUSTER),
        config("b", selector, second),
    ];
    assert_eq!(told(&manifest.concat()), want);
}
