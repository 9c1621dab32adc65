//! `nodeway check`: exit codes, and the two forms that machines read.

use std::process::Output;

use rstest::rstest;
use serde_json::{Value, json};

use crate::process::nodeway_with;

/// Runs `nodeway check` with that standard input.
fn check(arguments: &[&str], stdin: &str) -> Output {
    nodeway_with(&[&["check"], arguments].concat(), stdin)
}

fn json_of(arguments: &[&str], stdin: &str) -> Value {
    serde_json::from_slice(&check(arguments, stdin).stdout).unwrap()
}

const CLEAN: &str = "fixtures/bookinfo";
const TWO_LISTENERS: &str = "fixtures/incidents/cilium-48269-duplicate-listener";
/// A class of somebody else: a warning, no error.
const FOREIGN: &str = "\
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: k8s.io/ingress-nginx}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec: {ingressClassName: nginx, defaultBackend: {service: {name: shop, port: {number: 80}}}}
";

#[rstest]
#[case::clean(&[CLEAN, "--fail-on", "warning"], "", 0)]
#[case::error(&[TWO_LISTENERS], "", 1)]
#[case::warning_is_no_error(&["-"], FOREIGN, 0)]
#[case::warning_asked_for(&["-", "--fail-on", "warning"], FOREIGN, 1)]
#[case::bad_input(&["-"], "kind: [Ingress\n", 2)]
#[case::no_such_file(&["fixtures/none"], "", 2)]
fn the_exit_code_tells_findings_from_bad_input(
    #[case] arguments: &[&str],
    #[case] stdin: &str,
    #[case] code: i32,
) {
    let output = check(arguments, stdin);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
}

#[rstest]
#[case(&[CLEAN], "", "0 errors, 0 warnings in fixtures/bookinfo")]
#[case(&["-"], FOREIGN, "0 errors, 1 warning in -")]
#[case(&[TWO_LISTENERS], "", "1 error, 0 warnings in")]
fn the_last_line_counts(#[case] arguments: &[&str], #[case] stdin: &str, #[case] start: &str) {
    let output = check(arguments, stdin);
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.starts_with(start), "{last}");
}

#[test]
fn a_finding_as_json_names_the_object_the_field_and_the_place() {
    let report = json_of(&[TWO_LISTENERS, "-o", "json"], "");
    let finding = json!({
        "code": "NW0009",
        "severity": "error",
        "object": "CiliumEnvoyConfig default/shop",
        "field": "spec.resources[1].name",
        "reason": "the config has two of type Listener named `web`; the whole config is left out",
        "fix": "rename one of the two, or take it out",
        "page": "book/src/findings/NW0009.md",
        "file": format!("{TWO_LISTENERS}/manifests/config.yaml"),
        "line": 1,
    });
    assert_eq!(
        report,
        json!({ "findings": [finding], "errors": 1, "warnings": 0 })
    );
}

#[test]
fn a_finding_of_the_second_document_has_that_documents_line() {
    let report = json_of(&["-", "-o", "json"], FOREIGN);
    let finding = &report["findings"][0];
    assert_eq!(
        (&finding["file"], &finding["line"]),
        (&json!("-"), &json!(6))
    );
}

#[test]
fn sarif_has_what_its_schema_requires() {
    let log = json_of(&[TWO_LISTENERS, "-o", "sarif"], "");
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    assert_eq!(run["tool"]["driver"]["name"], "nodeway");
    let result = &run["results"][0];
    assert_eq!(
        (&result["ruleId"], &result["level"]),
        (&json!("NW0009"), &json!("error"))
    );
    assert!(
        result["message"]["text"]
            .as_str()
            .unwrap()
            .contains("two of type Listener")
    );
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(
        place["artifactLocation"]["uri"],
        format!("{TWO_LISTENERS}/manifests/config.yaml")
    );
    assert_eq!(place["region"]["startLine"], 1);
    assert_eq!(
        result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"],
        "CiliumEnvoyConfig default/shop spec.resources[1].name"
    );
}

#[test]
fn a_sarif_result_points_at_its_rule() {
    let log = json_of(&[TWO_LISTENERS, "-o", "sarif"], "");
    let run = &log["runs"][0];
    let index = run["results"][0]["ruleIndex"].as_u64().unwrap();
    let rule = &run["tool"]["driver"]["rules"][usize::try_from(index).unwrap()];
    assert_eq!(
        (&rule["id"], &rule["name"]),
        (&json!("NW0009"), &json!("DuplicateResource"))
    );
    assert!(
        rule["helpUri"]
            .as_str()
            .unwrap()
            .ends_with("/book/src/findings/NW0009.md")
    );
}

#[test]
fn sarif_of_standard_input_names_no_file() {
    let log = json_of(&["-", "-o", "sarif"], FOREIGN);
    let location = &log["runs"][0]["results"][0]["locations"][0];
    assert_eq!(location.get("physicalLocation"), None);
    assert_eq!(log["runs"][0]["results"][0]["level"], "warning");
}

#[test]
fn sarif_without_a_finding_has_an_empty_list_of_results() {
    let log = json_of(&[CLEAN, "-o", "sarif"], "");
    assert_eq!(log["runs"][0]["results"], json!([]));
}

const EQUAL_CHAINS: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: twice}
spec:
  services: [{name: shop}]
  resources:
  - "@type": type.googleapis.com/envoy.config.listener.v3.Listener
    name: web
    filterChains:
    - filterChainMatch: {serverNames: [a.example]}
      filters: &tcp
      - name: tcp
        typedConfig:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          statPrefix: tcp
          cluster: default/shop
    - filterChainMatch: {serverNames: [a.example]}
      filters: *tcp
"#;

#[test]
fn filter_chains_of_one_match_are_told_with_both_paths() {
    let report = json_of(&["-", "-o", "json"], EQUAL_CHAINS);
    let findings = report["findings"].as_array().unwrap();
    let refused = findings.iter().find(|it| it["code"] == "NW0018").unwrap();
    assert_eq!(
        refused["field"],
        "spec.resources[0].filterChains[1].filterChainMatch"
    );
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("filterChains[0]"), "{reason}");
}
