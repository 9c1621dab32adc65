use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::object::Kind;
use crate::source;

fn text(name: &str, content: &str) -> Text {
    Text::new(format!("incident/{name}"), content)
}

const HEAD: &str = "version: 1
nodeway: 0.1.0
node: node-1
at: 2026-11-27T06:00:00Z
redirect: tc
kubeProxy: iptables
";

fn led() -> Led {
    Led {
        table: "map 7 (frontends)".to_owned(),
        frontends: vec![LedFrontend {
            address: "10.96.0.9:80".parse().unwrap(),
            listener_port: 10_001,
            state: FrontendState::Arming,
            ranges: Some(vec!["192.0.2.0/24".parse().unwrap()]),
        }],
        rules: "rules of iptables-save".to_owned(),
        differences: vec!["iptables -t raw lacks: -A A -j B".to_owned()],
    }
}

fn texts() -> Vec<Text> {
    let led = serde_json::to_string_pretty(&led()).unwrap();
    vec![
        text(HEADER, HEAD),
        text(FRONTENDS, &led),
        text("manifests/services.yaml", "kind: Service"),
        text("envoy/g10.json", "{\"configs\": []}"),
        text("envoy/g9.json", "{\"configs\": []}"),
        text(
            DECISIONS,
            "{\"at\":1,\"hook\":\"tc\",\"verdict\":\"deliver\",\"reason\":\"left-to-sk-lookup\",\"from\":\"10.0.0.1:40000\",\"to\":\"10.96.0.9:80\",\"flags\":2}\n{\"at\":2,\"hook\":\"tc\",\"ver",
        ),
    ]
}

#[test]
fn a_recording_says_what_the_kernel_led() {
    let recording = Recording::read("incident", &texts()).unwrap();
    let observed = recording.observed().unwrap();
    assert_eq!(Led::of(&observed), led());
    let envoys: Vec<&str> = observed.envoys.iter().map(|it| &*it.generation).collect();
    assert_eq!(envoys, ["g9", "g10"], "the newest last");
}

#[test]
fn a_line_that_was_being_written_is_passed_over() {
    let recording = Recording::read("incident", &texts()).unwrap();
    assert_eq!(recording.decisions.len(), 1);
    assert!(recording.decisions[0].opens());
}

#[rstest]
#[case::no_header(0, None, "incident/recording.yaml:0: there is no such file")]
#[case::another_form(0, Some(HEAD.replace("version: 1", "version: 2")), "version: a recording of form 2; this nodeway reads form 1")]
#[case::no_frontends(1, None, "incident/frontends.json:0: there is no such file")]
#[case::a_bad_line(
    5,
    Some("{}\n{}\n".to_owned()),
    "incident/decisions.jsonl:1: missing field `at`"
)]
#[case::an_unknown_reason(
    5,
    Some("{\"at\":1,\"hook\":\"tc\",\"verdict\":\"pass\",\"reason\":\"luck\"}\n".to_owned()),
    "no reason of a decision: `luck`"
)]
fn what_is_no_recording_is_told_with_its_place(
    #[case] index: usize,
    #[case] content: Option<String>,
    #[case] told: &str,
) {
    let mut texts = texts();
    match content {
        Some(content) => texts[index].content = content,
        None => drop(texts.remove(index)),
    }
    let errors = Recording::read("incident", &texts).unwrap_err();
    let error = errors[0].to_string();
    assert!(error.contains(told), "{error}");
}

#[rstest]
#[case::a_state(
    1,
    "arming",
    "armed",
    "frontends[0].state: no state of a frontend: `armed`"
)]
#[case::a_mode_of_kube_proxy(0, "iptables", "ipfilter", "kubeProxy")]
fn a_name_that_is_none_is_told_with_its_file_and_field(
    #[case] index: usize,
    #[case] name: &str,
    #[case] wrong: &str,
    #[case] told: &str,
) {
    let mut texts = texts();
    texts[index].content = texts[index].content.replace(name, wrong);
    let error = Recording::read("incident", &texts).unwrap_err()[0].to_string();
    assert!(error.contains(told) && error.contains(wrong), "{error}");
}

#[rstest]
#[case::values_of_a_secret(
    Kind::Secret,
    json!({"data": {"tls.crt": "Y2VydA==", "tls.key": "c2VjcmV0", "token": "c2VjcmV0"}, "stringData": {"tls.key": "secret"}}),
)]
#[case::what_a_container_is_told(
    Kind::Pod,
    json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "secret"}}, "spec": {"containers": [{"name": "a", "env": [{"name": "A", "value": "secret"}], "args": ["secret"]}], "volumes": [{"x": "secret"}]}})
)]
#[case::what_a_deployments_containers_are_told(
    Kind::Deployment,
    json!({"spec": {"template": {"spec": {"initContainers": [{"name": "a", "command": ["secret"]}]}}}})
)]
#[case::a_key_in_a_config(
    Kind::CiliumEnvoyConfig,
    json!({"spec": {"resources": [{"tlsCertificate": {"certificateChain": {"inlineString": "cert"}, "private_key": {"inline_string": "secret"}, "password": {"inlineBytes": "c2VjcmV0"}}}]}})
)]
#[case::a_secret_of_envoys(
    Kind::CiliumClusterwideEnvoyConfig,
    json!({"spec": {"resources": [{"@type": "…Secret", "name": "hmac", "genericSecret": {"secret": {"inlineString": "secret"}}}]}})
)]
fn no_secret_is_in_a_recording(#[case] kind: Kind, #[case] mut object: Value) {
    left_out(kind, &mut object);
    let text = object.to_string();
    assert!(
        !text.contains(":\"secret\"")
            && !text.contains("[\"secret\"")
            && !text.contains("c2VjcmV0"),
        "{text}"
    );
}

#[test]
fn objects_are_read_again_as_they_were_written() {
    let written = Text::new("shop.yaml", include_str!("../plan/shop.yaml"));
    let objects = source::read(&[written]).unwrap();
    let files = manifests(&objects);
    let texts: Vec<Text> = files
        .iter()
        .map(|(name, content)| Text::new(name.as_str(), content.clone()))
        .collect();
    let again = source::read(&texts).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let names = |objects: &crate::object::Objects| -> Vec<String> {
        objects.iter().map(|(it, _)| it.to_string()).collect()
    };
    assert_eq!(names(&again), names(&objects));
    assert_eq!(manifests(&again), files);
}

#[test]
fn a_certificate_without_its_key_is_a_certificate_still() {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "shop", "namespace": "default"},
        "stringData": {"tls.crt": include_str!("../certificate/shop.pem"), "tls.key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"},
    });
    let objects = source::read(&[Text::new("a.json", secret.to_string())]).unwrap();
    let files = manifests(&objects);
    let texts = [Text::new("b.yaml", files["secrets.yaml"].clone())];
    let again = source::read(&texts).unwrap();
    let secret = again.secret("default", "shop").unwrap();
    let reference = crate::object::ObjectRef::new(Kind::Secret, "default", "shop");
    let planned = crate::plan::PlannedSecret::of("shop", reference, secret);
    assert!(planned.certificate.is_ok(), "{:?}", planned.certificate);
    assert!(!files["secrets.yaml"].contains("AAAA"));
}
