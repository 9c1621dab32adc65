//! Dumps as sources: what a running cluster or a running Envoy says of itself.

use std::fs;
use std::path::Path;
use std::process::Output;

use rstest::rstest;
use serde_json::{Value, json};

use crate::process::nodeway;

fn text(output: &Output) -> String {
    let bytes = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(bytes).unwrap()
}

/// A report's words without its frame and line breaks.
fn words(output: &Output) -> String {
    let text = text(output);
    let words: Vec<&str> = text
        .split_whitespace()
        .filter(|word| *word != "│")
        .collect();
    words.join(" ")
}

fn explain_json(sources: &[&str], to: &str, more: &[&str]) -> Value {
    let asked = ["--from", "outside", "--to", to, "-o", "json"];
    let output = nodeway(&[&["explain"], sources, &asked, more].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
}

fn stage<'v>(explained: &'v Value, name: &str) -> &'v Value {
    let stages = explained["stages"].as_array().unwrap();
    stages
        .iter()
        .find(|stage| stage["stage"] == name)
        .unwrap_or_else(|| panic!("no stage {name}: {explained:#}"))
}

const DUMP: &str = "fixtures/dumps/config_dump.json";
const CLUSTER: &str = "fixtures/dumps/cluster.yaml";
const BOOKINFO: &str = "fixtures/bookinfo/manifests";
const DETAILS: &str = "http://cilium-ingress-basic-ingress/details/0";

#[test]
fn a_config_dump_is_followed_from_its_listener_to_an_endpoint() {
    let explained = explain_json(&[DUMP], "http://shop.example:8080/cart/1", &[]);
    let request = &explained["request"];
    assert_eq!(request["status"], 200);
    assert_eq!(request["listener"], "http");
    assert_eq!(request["route"], "prefix /cart");
    assert_eq!(request["cluster"], "cart");
    assert_eq!(request["endpoint"], "10.1.2.3:9000");
    for name in [
        "listener",
        "filter chain",
        "virtual host",
        "route",
        "cluster",
        "endpoint",
    ] {
        let evidence = &stage(&explained, name)["evidence"][0];
        assert_eq!(evidence, &json!(format!("config_dump {DUMP}")), "{name}");
    }
    assert_eq!(explained["stages"][1]["stage"], "listener");
}

#[test]
fn what_of_a_dump_is_not_simulated_is_told_by_field_path() {
    let explained = explain_json(&[DUMP], "http://shop.example:8080/cart/1", &[]);
    let notes = stage(&explained, "listener")["notes"].to_string();
    assert!(
        notes.contains("http_filters[0].typed_config (company.filters.Auth)"),
        "{notes}"
    );
    assert!(notes.contains("a_field_of_next_year"), "{notes}");
    let notes = stage(&explained, "cluster")["notes"].to_string();
    assert!(notes.contains("circuit_breakers"), "{notes}");
    assert!(explained["notes"].to_string().contains("duplicate address"));
}

#[rstest]
#[case::another_path("http://shop.example:8080/", 200, "prefix /")]
#[case::an_address("http://10.9.9.9:8080/cart/", 404, "null")]
#[case::loopback_means_envoys_host("http://127.0.0.1:8080/", 404, "null")]
fn a_listener_is_picked_by_address_and_port(
    #[case] to: &str,
    #[case] status: u16,
    #[case] route: &str,
) {
    let explained = explain_json(&[DUMP], to, &[]);
    assert_eq!(explained["request"]["status"], status, "{explained:#}");
    let found = &explained["request"]["route"];
    assert_eq!(found.as_str().unwrap_or("null"), route);
}

#[test]
fn a_host_name_that_envoy_looks_up_is_answered_by_a_host_that_stands_for_it() {
    let explained = explain_json(&[DUMP], "http://shop.example:8080/", &[]);
    let notes = stage(&explained, "endpoint")["notes"].to_string();
    assert!(
        notes.contains("stands for an address of shop.internal"),
        "{notes}"
    );
}

#[test]
fn where_no_listener_listens_the_listeners_are_named() {
    let explained = explain_json(&[DUMP], "http://shop.example:81/", &[]);
    let stage = stage(&explained, "listener");
    assert_eq!(stage["lost"][0]["why"], "it listens at 0.0.0.0:8080");
    assert_eq!(explained["request"]["failure"], "connection-refused");
}

#[test]
fn a_dump_beside_other_sources_is_one_error() {
    let output = nodeway(&[
        "explain",
        DUMP,
        CLUSTER,
        "--from",
        "outside",
        "--to",
        "http://x/",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        words(&output).contains("name the dump alone"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_truncated_dump_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let whole =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(DUMP)).unwrap();
    let path = folder.path().join("d.json");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let path = path.to_str().unwrap();
    let output = nodeway(&["explain", path, "--from", "outside", "--to", "http://x/"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        words(&output).contains("it may be cut off"),
        "{}",
        text(&output)
    );
}

#[test]
fn the_clusters_own_config_chooses_the_redirect_and_is_named() {
    let explained = explain_json(&[BOOKINFO, CLUSTER], DETAILS, &[]);
    assert_eq!(explained["request"]["redirect"], "tc");
    let chosen = explained["redirect_chosen_by"].as_str().unwrap();
    assert!(
        chosen.contains("ConfigMap kube-system/cilium-config"),
        "{chosen}"
    );
    assert!(chosen.contains("cluster.yaml:3"), "{chosen}");
    assert!(chosen.contains("enable-bpf-tproxy is true"), "{chosen}");
}

#[test]
fn who_asks_for_a_redirect_overrides_the_clusters() {
    let explained = explain_json(&[BOOKINFO, CLUSTER], DETAILS, &["--redirect", "sk-lookup"]);
    assert_eq!(explained["request"]["redirect"], "sk-lookup");
    assert_eq!(explained["redirect_chosen_by"], "asked for");
}

#[test]
fn without_bpf_a_cluster_is_said_to_use_iptables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    fs::write(&path, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cilium-config, namespace: kube-system}\ndata: {enable-bpf-tproxy: 'false', proxy-portrange-min: '15000', proxy-portrange-max: '15010'}\n").unwrap();
    let explained = explain_json(&[BOOKINFO, path.to_str().unwrap()], DETAILS, &[]);
    let chosen = explained["redirect_chosen_by"].as_str().unwrap();
    assert!(chosen.contains("enable-bpf-tproxy is not true"), "{chosen}");
    let frontend = stage(&explained, "frontend")["decided"].as_str().unwrap();
    assert!(frontend.contains("(port 150"), "{frontend}");
}

#[test]
fn a_policy_that_selects_the_backend_is_named_at_the_endpoint() {
    let explained = explain_json(&[BOOKINFO, CLUSTER], DETAILS, &[]);
    let notes = stage(&explained, "endpoint")["notes"].to_string();
    assert!(
        notes.contains("CiliumNetworkPolicy default/only-get"),
        "{notes}"
    );
    assert!(notes.contains("may answer 403"), "{notes}");
    let explained = explain_json(
        &[BOOKINFO, CLUSTER],
        "http://cilium-ingress-basic-ingress/",
        &[],
    );
    assert_eq!(
        stage(&explained, "endpoint")["notes"],
        Value::Null,
        "another pod answers"
    );
}

#[test]
fn a_source_named_twice_is_one_error() {
    let output = nodeway(&[
        "explain",
        BOOKINFO,
        BOOKINFO,
        "--from",
        "outside",
        "--to",
        "http://x/",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        text(&output).matches("named twice").count(),
        1,
        "{}",
        text(&output)
    );
    assert!(
        !words(&output).contains("the same object"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_zip_that_is_none_is_told_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sysdump.zip");
    fs::write(&path, "PK\u{3}\u{4} cut off").unwrap();
    let path = path.to_str().unwrap();
    let output = nodeway(&["explain", path, "--from", "outside", "--to", "http://x/"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        words(&output).contains("fetch it again"),
        "{}",
        text(&output)
    );
}

/// A dump with one listener for TLS, whose certificate is not in it, and the cluster behind it.
fn tls_dump(cluster: &Value) -> Value {
    let http = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "https",
        "route_config": {"name": "inline", "virtual_hosts": [
            {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]},
        ]},
        "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    });
    let chain = |name: &str| {
        json!({
            "name": name,
            "filter_chain_match": {"server_names": [name]},
            "filters": [{"name": "http", "typed_config": http}],
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": "not-dumped"}]},
            }},
        })
    };
    let listener = json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": "https",
        "address": {"socket_address": {"address": "10.0.0.5", "port_value": 443}},
        "listener_filters": [{"name": "tls", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}],
        "filter_chains": [chain("a.example"), chain("b.example")],
    });
    json!({"configs": [
        {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "static_clusters": [{"cluster": cluster}]},
        {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "static_listeners": [{"listener": listener}]},
    ]})
}

fn app(address: &str, more: Value) -> Value {
    let mut cluster = json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": "app",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {"address": address, "port_value": 8080}}}},
        ]}]},
    });
    if let (Some(fields), Value::Object(more)) = (cluster.as_object_mut(), more) {
        fields.extend(more);
    }
    cluster
}

#[rstest]
#[case::of_another_host("10.1.1.1", json!({}))]
#[case::of_envoys_own_host("127.0.0.1", json!({}))]
#[case::that_speaks_tls("10.1.1.1", json!({"transport_socket": {"name": "tls", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}}}))]
#[case::at_the_address_of_the_client("203.0.113.1", json!({}))]
#[case::at_an_address_that_envoy_would_have_here("192.0.2.1", json!({}))]
fn an_endpoint_answers_behind_a_chain_chosen_by_server_name(
    #[case] address: &str,
    #[case] more: Value,
    #[values("https://b.example/x", "https://10.0.0.5/x")] to: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump.json");
    fs::write(&path, tls_dump(&app(address, more)).to_string()).unwrap();
    let path = path.to_str().unwrap();
    let explained = explain_json(&[path], to, &["-H", "host: b.example"]);
    assert_eq!(explained["request"]["status"], 200, "{explained:#}");
    assert_eq!(explained["request"]["endpoint"], format!("{address}:8080"));
    let chain = stage(&explained, "filter chain")["decided"]
        .as_str()
        .unwrap();
    assert_eq!(chain, "number 1 of https");
}
