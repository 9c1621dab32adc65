//! One Ingress and the model that it becomes.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::ingress::Mode;
use crate::ingress::annotations::Annotations;
use crate::ingress::model::{HttpListener, SecretName};
use crate::ingress::options::HostNetwork;
use crate::problem::Code;

fn shape(listeners: &[HttpListener]) -> Vec<String> {
    let route = |listener: &HttpListener| {
        let routes = listener
            .routes
            .iter()
            .map(|route| format!("{} -> {}", route.path_match, route.backends[0].name));
        format!(
            "{}:{}{} {}",
            listener.hostname,
            listener.port,
            if listener.is_secure() { " tls" } else { "" },
            routes.collect::<Vec<_>>().join(", ")
        )
    };
    listeners.iter().map(route).collect()
}

#[test]
fn hosts_are_sorted_and_plain_text_comes_first() {
    let spec = json!({
        "rules": [rule("b.example", &["Prefix / b"]), rule("a.example", &["Exact /x a"]), rule("b.example", &["Exact /y b2"])],
        "tls": [{"hosts": ["b.example"], "secretName": "cert"}],
    });
    let got = ingested(&ingress("shop", &[], &spec));
    assert_eq!(
        shape(&got.model.http),
        [
            "a.example:80 path /x -> a",
            "b.example:80 prefix / -> b, path /y -> b2",
            "b.example:443 tls prefix / -> b, path /y -> b2",
        ]
    );
    assert_eq!(got.problems, []);
}

#[test]
fn with_a_catch_all_a_tls_host_serves_only_that() {
    let spec = json!({
        "defaultBackend": {"service": {"name": "any", "port": {"name": "web"}}},
        "rules": [rule("a.example", &["Prefix / a"])],
        "tls": [{"hosts": ["a.example"], "secretName": "cert"}],
    });
    let got = ingested(&ingress(
        "shop",
        &[("ingress.cilium.io/force-https", "enabled")],
        &spec,
    ));
    assert_eq!(
        shape(&got.model.http),
        [
            "*:80 every path -> any",
            "a.example:80 prefix / -> a",
            "a.example:443 tls every path -> any"
        ]
    );
    assert!(
        !got.model.http[2].force_https,
        "the copy of the catch-all forgets the redirect"
    );
    assert_eq!(
        got.model.http[0].routes[0].backends[0].port.to_string(),
        "web"
    );
}

#[rstest]
#[case::unset_and_not_enforced(None, false, false)]
#[case::unset_and_enforced(None, true, true)]
#[case::off_beats_enforced(Some("disabled"), true, false)]
#[case::on_beats_not_enforced(Some("true"), false, true)]
#[case::garbage_is_unset(Some("perhaps"), true, true)]
fn the_annotation_decides_on_the_redirect(
    #[case] annotation: Option<&str>,
    #[case] enforce_https: bool,
    #[case] want: bool,
) {
    let spec = json!({"rules": [rule("a.example", &["Prefix / a"])], "tls": [{"hosts": ["a.example"], "secretName": "cert"}]});
    let annotations: Vec<_> = annotation
        .map(|value| ("ingress.cilium.io/force-https", value))
        .into_iter()
        .collect();
    let options = Options {
        enforce_https,
        ..Options::default()
    };
    let got = read(
        &ingress("shop", &annotations, &spec),
        Ports::SERVICE,
        &options,
    );
    assert_eq!(got.model.http[1].force_https, want);
}

#[rstest]
#[case::none(None, None, None)]
#[case::the_operators(None, Some(10), Some(10))]
#[case::the_annotation(Some("5s"), Some(10), Some(5))]
#[case::garbage(Some("five"), Some(10), Some(10))]
#[case::zero_is_unset(None, Some(0), None)]
fn a_time_out_is_the_annotations_or_the_operators(
    #[case] annotation: Option<&str>,
    #[case] operator: Option<u64>,
    #[case] want: Option<u64>,
) {
    let annotations: Vec<_> = annotation
        .map(|value| ("ingress.cilium.io/request-timeout", value))
        .into_iter()
        .collect();
    let options = Options {
        request_timeout: operator.map(Duration::from_secs),
        ..Options::default()
    };
    let spec = json!({"rules": [rule("", &["Prefix / a"])]});
    let got = read(
        &ingress("shop", &annotations, &spec),
        Ports::SERVICE,
        &options,
    );
    assert_eq!(
        got.model.http[0].routes[0].timeout.request,
        want.map(Duration::from_secs)
    );
}

#[rstest]
#[case::named(json!({"hosts": ["a.example"], "secretName": "own"}), Some("default/own"))]
#[case::default(json!({"hosts": ["a.example"]}), Some("certs/wildcard"))]
#[case::an_empty_name_is_none(json!({"hosts": ["a.example"], "secretName": ""}), Some("certs/wildcard"))]
fn a_certificate_is_the_named_or_the_default_one(#[case] tls: Value, #[case] want: Option<&str>) {
    let options = Options {
        default_secret: Some(SecretName {
            name: "wildcard".into(),
            namespace: "certs".into(),
        }),
        ..Options::default()
    };
    let spec = json!({"rules": [rule("a.example", &["Prefix / a"])], "tls": [tls]});
    let got = read(&ingress("shop", &[], &spec), Ports::SERVICE, &options);
    let secret = got.model.http[1]
        .tls
        .first()
        .map(|secret| format!("{}/{}", secret.namespace, secret.name));
    assert_eq!(secret.as_deref(), want);
}

#[rstest]
#[case::bad_host(json!({"rules": [rule("Shop.example", &["Prefix / a"])]}), Code::BadHost, "spec.rules[0].host")]
#[case::bad_path(json!({"rules": [rule("", &["Prefix a a"])]}), Code::BadPath, "spec.rules[0].http.paths[0].path")]
#[case::bad_regex(
    json!({"rules": [rule("", &["Prefix / a", "ImplementationSpecific /( a"])]}),
    Code::BadPath,
    "spec.rules[0].http.paths[1].path"
)]
#[case::bad_type(json!({"rules": [rule("", &["prefix / a"])]}), Code::BadPath, "spec.rules[0].http.paths[0].pathType")]
#[case::no_paths(json!({"rules": [{"host": "a.example"}]}), Code::BadPath, "spec.rules[0].http")]
#[case::a_resource(
    json!({"defaultBackend": {"resource": {"kind": "Bucket", "name": "b"}}}),
    Code::BadBackend,
    "spec.defaultBackend.resource"
)]
#[case::nothing(json!({"defaultBackend": {}}), Code::BadBackend, "spec.defaultBackend")]
#[case::no_port(
    json!({"defaultBackend": {"service": {"name": "a"}}}),
    Code::BadBackend,
    "spec.defaultBackend.service.port"
)]
#[case::port_out_of_range(
    json!({"defaultBackend": {"service": {"name": "a", "port": {"number": 70_000}}}}),
    Code::BadBackend,
    "spec.defaultBackend.service.port"
)]
#[case::tls_for_nobody(
    json!({"rules": [rule("a.example", &["Prefix / a"])], "tls": [{"hosts": ["b.example"], "secretName": "cert"}]}),
    Code::BadHost,
    "spec.tls[0].hosts[0]"
)]
#[case::bad_tls_host(
    json!({"rules": [rule("", &["Prefix / a"])], "tls": [{"hosts": [""], "secretName": "cert"}]}),
    Code::BadHost,
    "spec.tls[0].hosts[0]"
)]
#[case::no_certificate(
    json!({"rules": [rule("a.example", &["Prefix / a"])], "tls": [{"hosts": ["a.example"]}]}),
    Code::MissingSecret,
    "spec.tls[0].secretName"
)]
fn a_mistake_is_reported_with_its_field(
    #[case] spec: Value,
    #[case] code: Code,
    #[case] field: &str,
) {
    let problems = ingested(&ingress("shop", &[], &spec)).problems;
    let found: Vec<_> = problems
        .iter()
        .map(|problem| (problem.code, problem.field.as_str()))
        .collect();
    assert_eq!(found, [(code, field)]);
}

#[test]
fn a_bad_rule_does_not_take_the_good_ones_with_it() {
    let spec = json!({"rules": [
        rule("no host", &["Prefix / a"]),
        rule("a.example", &["Prefix //x a", "Prefix /ok a", "ImplementationSpecific /[ a"]),
    ]});
    let got = ingested(&ingress("shop", &[], &spec));
    assert_eq!(shape(&got.model.http), ["a.example:80 prefix /ok -> a"]);
    assert_eq!(got.problems.len(), 3);
}

#[test]
fn passed_through_tls_takes_hosts_with_the_path_of_everything() {
    let spec = json!({
        "defaultBackend": {"service": {"name": "any", "port": {"number": 80}}},
        "rules": [rule("a.example", &["Prefix / a", "Prefix /x b"]), rule("", &["Prefix / c"])],
    });
    let got = ingested(&ingress(
        "shop",
        &[("io.cilium.ingress/tls-passthrough", "enabled")],
        &spec,
    ));
    assert_eq!(got.model.http, []);
    let listener = &got.model.tls_passthrough[..];
    assert_eq!(listener.len(), 1);
    assert_eq!(
        (
            listener[0].hostname.as_str(),
            listener[0].port,
            listener[0].routes.len()
        ),
        ("a.example", 443, 1)
    );
    let fields: Vec<_> = got
        .problems
        .iter()
        .map(|problem| problem.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "spec.defaultBackend",
            "spec.rules[0].http.paths[1].path",
            "spec.rules[1].host"
        ]
    );
}

#[rstest]
#[case::behind_a_service(None, Mode::Dedicated, None, (80, 443))]
#[case::the_annotation(Some(None), Mode::Dedicated, Some("9000"), (9000, 9000))]
#[case::unset(Some(None), Mode::Dedicated, None, (8080, 8080))]
#[case::garbage(Some(None), Mode::Dedicated, Some("0"), (8080, 8080))]
#[case::shared(Some(Some(7000)), Mode::Shared, Some("9000"), (7000, 7000))]
#[case::shared_and_unset(Some(None), Mode::Shared, None, (8080, 8080))]
fn on_the_nodes_own_addresses_one_port_serves_everything(
    #[case] host_network: Option<Option<u16>>,
    #[case] mode: Mode,
    #[case] annotation: Option<&str>,
    #[case] want: (u16, u16),
) {
    let annotations: Vec<_> = annotation
        .map(|value| ("ingress.cilium.io/host-listener-port", value))
        .into_iter()
        .collect();
    let ingress = ingress("shop", &annotations, &json!({}));
    let options = Options {
        host_network: host_network.map(|shared_port| HostNetwork {
            shared_port,
            ..HostNetwork::default()
        }),
        ..Options::default()
    };
    let ports = Ports::of(Annotations::of(&ingress), mode, &options, &mut Vec::new());
    assert_eq!((ports.insecure, ports.secure), want);
}

#[test]
fn shared_ports_of_their_own_beat_the_shared_port() {
    let host_network = HostNetwork {
        shared_port: Some(7000),
        https_port: Some(7443),
        ..HostNetwork::default()
    };
    let options = Options {
        host_network: Some(host_network),
        ..Options::default()
    };
    let ingress = ingress("shop", &[], &json!({}));
    let ports = Ports::of(
        Annotations::of(&ingress),
        Mode::Shared,
        &options,
        &mut Vec::new(),
    );
    assert_eq!(
        ports,
        Ports {
            insecure: 7000,
            secure: 7443,
            passthrough: 7000
        }
    );
}
