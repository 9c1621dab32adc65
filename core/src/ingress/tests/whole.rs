//! A whole Ingress in both dialects, and that Envoy understands whatever comes out.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::envoy::{decode, validate};
use crate::ingress::{Dialect, HostNetwork};
use crate::problem::Code;

const BOOKINFO: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: basic-ingress, namespace: default}
spec:
  ingressClassName: cilium
  rules:
  - http:
      paths:
      - {path: /details, pathType: Prefix, backend: {service: {name: details, port: {number: 9080}}}}
      - {path: /, pathType: Prefix, backend: {service: {name: productpage, port: {number: 9080}}}}
";

#[rstest]
#[case::today(Dialect::Today)]
#[case::v1_11(Dialect::V1_11)]
fn bookinfos_ingress(#[case] dialect: Dialect) {
    let options = Options {
        dialect,
        ..Options::default()
    };
    let translation = translated(&[manifest(BOOKINFO)], &options);
    assert_eq!(translation.problems, []);
    assert_eq!(translation.configs.len(), 1);
    let text =
        serde_saphyr::to_string(&serde_json::to_value(&translation.configs[0]).unwrap()).unwrap();
    insta::assert_snapshot!(
        format!("bookinfo_{}", dialect.to_string().replace('.', "_")),
        text
    );
}

#[test]
fn an_article_of_1_11_finds_its_names() {
    let options = Options {
        dialect: Dialect::V1_11,
        ..Options::default()
    };
    let translation = translated(&[manifest(BOOKINFO)], &options);
    let config = serde_json::to_value(&translation.configs[0]).unwrap();
    let name = "cilium-ingress-default-basic-ingress";
    assert_eq!(config["metadata"]["name"], name);
    assert_eq!(
        config["spec"]["services"],
        json!([{"listener": name, "name": "cilium-ingress-basic-ingress", "namespace": "default"}])
    );
    let services: Vec<_> = config["spec"]["backendServices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["name"])
        .collect();
    assert_eq!(services, ["productpage", "details"]);
    let names: Vec<_> = config["spec"]["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["name"])
        .collect();
    assert_eq!(
        names,
        [
            name,
            &format!("{name}_route"),
            "default/productpage",
            "default/details"
        ]
    );
    let routes = config["spec"]["resources"][1]["virtualHosts"][0]["routes"].clone();
    assert_eq!(
        routes,
        json!([
            {"match": {"prefix": "/details"}, "route": {"cluster": "default/details"}},
            {"match": {"prefix": "/"}, "route": {"cluster": "default/productpage"}},
        ])
    );
}

#[rstest]
#[case::shared("ingress.cilium.io/loadbalancer-mode", "shared", 1)]
#[case::passed_through("ingress.cilium.io/tls-passthrough", "true", 0)]
fn what_1_11_did_not_know_is_said(
    #[case] annotation: &str,
    #[case] value: &str,
    #[case] configs: usize,
) {
    let spec = json!({"rules": [rule("a.example", &["Prefix / a"])]});
    let options = Options {
        dialect: Dialect::V1_11,
        ..Options::default()
    };
    let translation = translated(&[ingress("shop", &[(annotation, value)], &spec)], &options);
    assert_eq!(translation.configs.len(), configs);
    let unsupported = translation
        .problems
        .iter()
        .find(|problem| problem.code == Code::Unsupported);
    assert_eq!(
        unsupported.unwrap().field,
        format!("metadata.annotations[{annotation}]")
    );
}

/// A table with TLS: plain text is redirected as a whole, and TLS has the routes.
#[test]
fn an_enforced_redirect_of_1_11_is_a_table_of_its_own() {
    let spec = json!({"rules": [rule("a.example", &["Prefix / a"])], "tls": [{"hosts": ["a.example"], "secretName": "c"}]});
    let options = Options {
        dialect: Dialect::V1_11,
        ..Options::default()
    };
    let translation = translated(&[ingress("shop", &[], &spec)], &options);
    let resources = &translation.configs[0].spec.resources;
    let routes = |chain: usize| {
        resources[0]["filterChains"][chain]["filters"][0]["typedConfig"]["rds"]["routeConfigName"]
            .as_str()
            .unwrap()
    };
    assert_eq!(
        [routes(0), routes(1)],
        [
            "cilium-ingress-default-shop_redirect",
            "cilium-ingress-default-shop_route"
        ]
    );
    let redirect = &resources[2]["virtualHosts"][0]["routes"][0]["redirect"];
    assert_eq!(
        redirect,
        &json!({"httpsRedirect": true, "responseCode": "PERMANENT_REDIRECT"})
    );
}

/// Every resource of every config is one that Envoy knows and whose rules it keeps.
fn understood(translation: &Translation) -> Result<(), TestCaseError> {
    for value in translation
        .configs
        .iter()
        .flat_map(|config| &config.spec.resources)
    {
        let resource =
            decode(value).map_err(|error| TestCaseError::fail(format!("{error} in {value}")))?;
        if let Err(violation) = validate(&resource.message) {
            return Err(TestCaseError::fail(format!("{violation:?} in {value}")));
        }
    }
    Ok(())
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("a.example".to_owned()),
        Just("*.example".to_owned()),
        Just("b.example".to_owned()),
        ".{0,12}",
    ]
}

fn path() -> impl Strategy<Value = Value> {
    let text = prop_oneof!["(/[a-z]{0,3}){1,3}", "/[a-z.*+?()\\[\\]|^$]{0,8}", ".{0,6}"];
    let path_type = prop_oneof!["Exact", "Prefix", "ImplementationSpecific", "[a-z]{0,2}"];
    (text, path_type, "[a-z]{0,3}", -1..70_000_i64).prop_map(|(path, path_type, service, port)| {
        json!({"path": path, "pathType": path_type, "backend": {"service": {"name": service, "port": {"number": port}}}})
    })
}

fn any_ingress() -> impl Strategy<Value = Ingress> {
    let rules = prop::collection::vec((host(), prop::collection::vec(path(), 0..4)), 0..4);
    let tls = prop::collection::vec((prop::collection::vec(host(), 0..3), "[a-z]{0,2}"), 0..3);
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), "[a-z0-9]{0,3}");
    (0..4_usize, rules, tls, switches).prop_map(
        |(name, rules, tls, (is_shared, passed, forced, timeout))| {
            let rules: Vec<Value> = rules
                .into_iter()
                .map(|(host, paths)| json!({"host": host, "http": {"paths": paths}}))
                .collect();
            let tls: Vec<Value> = tls
                .into_iter()
                .map(|(hosts, secret)| json!({"hosts": hosts, "secretName": secret}))
                .collect();
            let text = |on: bool| if on { "true" } else { "false" };
            let annotations = [
                (
                    "ingress.cilium.io/loadbalancer-mode",
                    if is_shared { "shared" } else { "dedicated" },
                ),
                ("ingress.cilium.io/tls-passthrough", text(passed)),
                ("ingress.cilium.io/force-https", text(forced)),
                ("ingress.cilium.io/request-timeout", timeout.as_str()),
            ];
            ingress(
                ["a", "b", "c", "d"][name],
                &annotations,
                &json!({"rules": rules, "tls": tls}),
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn envoy_understands_whatever_comes_out(
        ingresses in prop::collection::vec(any_ingress(), 1..4),
        legacy in any::<bool>(),
        host_network in any::<bool>(),
    ) {
        let options = Options {
            dialect: if legacy { Dialect::V1_11 } else { Dialect::Today },
            host_network: host_network.then(HostNetwork::default),
            use_alpn: true,
            use_proxy_protocol: true,
            xff_num_trusted_hops: 2,
            ..Options::default()
        };
        let translation = translated(&ingresses, &options);
        understood(&translation)?;
        for config in &translation.configs {
            for chains in config.spec.resources.iter().filter_map(|resource| resource["filterChains"].as_array()) {
                let mut matches: Vec<String> = Vec::new();
                for chain in chains {
                    let transport = &chain["filterChainMatch"]["transportProtocol"];
                    match chain["filterChainMatch"]["serverNames"].as_array() {
                        Some(names) => matches.extend(names.iter().map(|name| format!("{transport} {name}"))),
                        None => matches.push(transport.to_string()),
                    }
                }
                let all = matches.len();
                matches.sort_unstable();
                matches.dedup();
                prop_assert_eq!(matches.len(), all, "Envoy refuses two chains of one match");
            }
            for table in config.spec.resources.iter().filter_map(|resource| resource["virtualHosts"].as_array()) {
                let mut domains: Vec<&str> =
                    table.iter().flat_map(|host| host["domains"].as_array().unwrap()).filter_map(Value::as_str).collect();
                let all = domains.len();
                domains.sort_unstable();
                domains.dedup();
                prop_assert_eq!(domains.len(), all, "Envoy refuses a domain of two virtual hosts");
            }
        }
    }
}
