//! Filter chains: each server name has one, or Envoy refuses the listener.

use std::collections::BTreeSet;

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::ingress::listener::sds_name;
use crate::ingress::model::SecretName;
use crate::problem::Code;

const SHARED: (&str, &str) = ("ingress.cilium.io/loadbalancer-mode", "shared");
const PASS: (&str, &str) = ("ingress.cilium.io/tls-passthrough", "true");

fn with_tls(name: &str, host: &str, secret: &str) -> Ingress {
    let spec = json!({"rules": [rule(host, &["Prefix / a"])], "tls": [{"hosts": [host], "secretName": secret}]});
    ingress(name, &[SHARED], &spec)
}

fn passed(name: &str, host: &str) -> Ingress {
    ingress(
        name,
        &[SHARED, PASS],
        &json!({"rules": [rule(host, &[&format!("Prefix / {name}")])]}),
    )
}

fn chains(translation: &Translation) -> Vec<Value> {
    translation.configs[0].spec.resources[0]["filterChains"]
        .as_array()
        .unwrap()
        .clone()
}

#[rstest]
#[case::one_certificate_of_two_hosts(vec![with_tls("a", "a.example", "one"), with_tls("b", "b.example", "one")], 1, 0)]
#[case::two_certificates(vec![with_tls("a", "a.example", "one"), with_tls("b", "b.example", "two")], 2, 0)]
#[case::two_certificates_of_one_host(vec![with_tls("a", "a.example", "one"), with_tls("b", "a.example", "two")], 1, 1)]
#[case::ended_and_passed(vec![with_tls("a", "a.example", "one"), passed("b", "a.example")], 1, 1)]
#[case::passed_twice(vec![passed("a", "a.example"), passed("b", "a.example")], 1, 1)]
#[case::passed(vec![passed("a", "a.example"), passed("b", "b.example")], 2, 0)]
fn a_server_name_has_one_chain(
    #[case] ingresses: Vec<Ingress>,
    #[case] tls_chains: usize,
    #[case] conflicts: usize,
) {
    let translation = translated(&ingresses, &unforced());
    let chains = chains(&translation);
    let mut seen = BTreeSet::new();
    let tls: Vec<_> = chains
        .iter()
        .filter(|c| c["filterChainMatch"]["transportProtocol"] == "tls")
        .collect();
    assert_eq!(tls.len(), tls_chains);
    for name in tls
        .iter()
        .flat_map(|chain| chain["filterChainMatch"]["serverNames"].as_array().unwrap())
    {
        assert!(seen.insert(name.as_str().unwrap()), "{name} has two chains");
    }
    let found = translation.problems.iter().filter(|problem| {
        problem.code == Code::RouteClaimedTwice && !problem.reason.contains("at random")
    });
    assert_eq!(found.count(), conflicts);
}

#[test]
fn a_certificate_is_fetched_under_the_name_of_its_copy() {
    let secret = SecretName {
        name: "cert".into(),
        namespace: "default".into(),
    };
    let name = sds_name(&secret, "cilium-secrets");
    let hash = name
        .strip_prefix("cilium-secrets/cilium-sync-secret-")
        .unwrap();
    assert_eq!(hash.len(), 64);
    assert_ne!(
        name,
        sds_name(
            &SecretName {
                name: "rt".into(),
                namespace: "default-ce".into()
            },
            "cilium-secrets"
        )
    );
    assert_eq!(sds_name(&secret, ""), "default/cert");
}
