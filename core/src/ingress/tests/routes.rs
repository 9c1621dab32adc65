//! RouteConfigurations: the order of routes is their meaning.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::ingress::route_table::route_tables;

/// The routes of one host of one table, in words.
fn routes(tables: &[Value], table: &str, host: &str) -> Vec<String> {
    let table = tables.iter().find(|found| found["name"] == table).unwrap();
    let host = table["virtualHosts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|found| found["name"] == host)
        .unwrap();
    host["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(route)
        .collect()
}

fn route(route: &Value) -> String {
    let found = ["path", "prefix", "pathSeparatedPrefix"]
        .into_iter()
        .find_map(|key| {
            route["match"][key]
                .as_str()
                .map(|text| format!("{key} {text}"))
        });
    let found = found.unwrap_or_else(|| {
        format!(
            "regex {}",
            route["match"]["safeRegex"]["regex"].as_str().unwrap()
        )
    });
    match route["route"]["cluster"].as_str() {
        Some(cluster) => format!("{found} -> {cluster}"),
        None => format!(
            "{found} -> {}",
            route
                .get("redirect")
                .unwrap_or(&route["route"]["weightedClusters"])
        ),
    }
}

fn tables(spec: &Value) -> Vec<Value> {
    route_tables(&ingested(&ingress("shop", &[], spec)).model, &unforced())
}

#[test]
fn exact_beats_expression_beats_prefix_and_longer_beats_shorter() {
    let spec = json!({"rules": [rule("", &[
        "Prefix / all", "Prefix /a/ a", "Prefix /a/b ab", "ImplementationSpecific /i.* i",
        "ImplementationSpecific /impl.* impl", "Exact /e e", "Exact /e/ e2",
    ])]});
    assert_eq!(
        routes(&tables(&spec), "listener-insecure", "*"),
        [
            "path /e/ -> default:e2:80",
            "path /e -> default:e:80",
            "regex /impl.* -> default:impl:80",
            "regex /i.* -> default:i:80",
            "pathSeparatedPrefix /a/b -> default:ab:80",
            "pathSeparatedPrefix /a -> default:a:80",
            "prefix / -> default:all:80",
        ]
    );
}

#[test]
fn equally_long_paths_stay_in_the_order_of_the_ingress() {
    let spec = json!({"rules": [rule("", &["Prefix /b b", "Prefix /a a", "Prefix /c c"])]});
    let got = routes(&tables(&spec), "listener-insecure", "*");
    assert_eq!(
        got.iter().map(|route| &route[20..22]).collect::<Vec<_>>(),
        ["/b", "/a", "/c"]
    );
}

#[test]
fn two_backends_of_one_path_share_its_requests() {
    let spec = json!({"rules": [rule("", &["Prefix /a one", "Prefix /b b"]), rule("", &["Prefix /a two"])]});
    let got = routes(&tables(&spec), "listener-insecure", "*");
    assert_eq!(
        got[0],
        r#"pathSeparatedPrefix /a -> {"clusters":[{"name":"default:one:80","weight":1},{"name":"default:two:80","weight":1}]}"#
    );
    assert_eq!(got.len(), 2);
}

#[test]
fn a_host_has_two_domains_and_a_wildcard_is_one_label() {
    let spec = json!({"rules": [rule("*.shop.example", &["Prefix / a"]), rule("shop.example", &["Prefix / a"])]});
    let tables = tables(&spec);
    let hosts = tables[0]["virtualHosts"].as_array().unwrap();
    assert_eq!(
        hosts[0]["domains"],
        json!(["*.shop.example", "*.shop.example:*"])
    );
    assert_eq!(
        hosts[0]["routes"][0]["match"]["headers"],
        json!([{"name": ":authority", "stringMatch": {"safeRegex": {"regex": "^[^.]+[.]shop[.]example$"}}}])
    );
    assert_eq!(
        hosts[1]["domains"],
        json!(["shop.example", "shop.example:*"])
    );
    assert_eq!(hosts[1]["routes"][0]["match"].get("headers"), None);
}

#[test]
fn a_forced_host_is_redirected_in_plain_text_and_served_with_tls() {
    let spec = json!({
        "rules": [rule("a.example", &["Prefix /x a"]), rule("b.example", &["Prefix / b"])],
        "tls": [{"hosts": ["a.example"], "secretName": "cert"}],
    });
    let ingress = ingress(
        "shop",
        &[("ingress.cilium.io/force-https", "enabled")],
        &spec,
    );
    let tables = route_tables(&ingested(&ingress).model, &unforced());
    assert_eq!(
        routes(&tables, "listener-insecure", "a.example"),
        [r#"pathSeparatedPrefix /x -> {"httpsRedirect":true}"#]
    );
    assert_eq!(
        routes(&tables, "listener-insecure", "b.example"),
        ["prefix / -> default:b:80"]
    );
    assert_eq!(
        routes(&tables, "listener-secure", "a.example"),
        ["pathSeparatedPrefix /x -> default:a:80"]
    );
}

#[rstest]
#[case::limited("10s", json!({"cluster": "default:a:80", "timeout": "10s"}))]
#[case::not_limited("", json!({"cluster": "default:a:80", "maxStreamDuration": {"maxStreamDuration": "0s"}}))]
fn a_time_out_takes_the_place_of_the_streams_duration(#[case] timeout: &str, #[case] want: Value) {
    let annotations: &[_] = if timeout.is_empty() {
        &[]
    } else {
        &[("ingress.cilium.io/request-timeout", timeout)]
    };
    let ingress = ingress(
        "shop",
        annotations,
        &json!({"rules": [rule("", &["Prefix / a"])]}),
    );
    let tables = route_tables(&ingested(&ingress).model, &unforced());
    assert_eq!(tables[0]["virtualHosts"][0]["routes"][0]["route"], want);
}
