use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::envoy::decode;

fn table(routes: Value) -> RouteTable {
    let mut value = routes;
    value["@type"] = json!("type.googleapis.com/envoy.config.route.v3.RouteConfiguration");
    RouteTable::read(&decode(&value).unwrap().message).unwrap()
}

fn request(authority: &str, path: &str) -> Request {
    Request {
        method: "GET".to_owned(),
        scheme: "http".to_owned(),
        authority: authority.to_owned(),
        path: path.to_owned(),
        headers: Vec::new(),
        random: 0,
    }
}

fn cluster(choice: &RouteChoice) -> &str {
    match &choice.action {
        Action::Forward(forward) => &forward.cluster,
        other => panic!("{other:?}"),
    }
}

fn hosts() -> RouteTable {
    let host = |name: &str, domains: &[&str]| {
        json!({"name": name, "domains": domains,
               "routes": [{"match": {"prefix": "/"}, "route": {"cluster": name}}]})
    };
    table(json!({"virtualHosts": [
        host("any", &["*"]),
        host("suffix", &["*.example.com"]),
        host("longer", &["*-x.example.com"]),
        host("prefix", &["example.*"]),
        host("exact", &["example.com", "example.com:8080"]),
    ]}))
}

#[rstest]
#[case::exact("example.com", "exact")]
#[case::any_case("EXAMPLE.com", "exact")]
#[case::with_a_port_of_its_own("example.com:8080", "exact")]
#[case::with_another_port("example.com:9090", "prefix")]
#[case::suffix("a.example.com", "suffix")]
#[case::several_labels("b.a.example.com", "suffix")]
#[case::longest_suffix("a-x.example.com", "longer")]
#[case::a_wildcard_is_not_empty("-x.example.com", "suffix")]
#[case::nothing_before_the_dot(".example.com", "any")]
#[case::prefix("example.org", "prefix")]
#[case::none("other", "any")]
fn a_host_finds_its_most_specific_domain(#[case] host: &str, #[case] name: &str) {
    let choice = hosts().route(&request(host, "/"));
    assert_eq!(cluster(&choice), name);
}
