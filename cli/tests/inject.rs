//! `nodeway inject`: what it prints can be applied, and what it leaves is told.

use std::process::Output;

use rstest::rstest;

use crate::process::nodeway_with;

/// Runs `nodeway inject` with that standard input.
fn inject(arguments: &[&str], stdin: &str) -> Output {
    nodeway_with(&[&["inject"], arguments].concat(), stdin)
}

fn printed(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap()
}

/// All that a reader of YAML 1.1 takes for something else when it is not quoted, and long texts.
const CLIENT: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: client, annotations: {a: "yes", b: "0644", c: "1e3", d: "~", e: "12:30:00", f: "a: b # c"}}
spec:
  containers:
  - name: client
    image: curl
    command: [sh, -c, "while true; do curl --silent --max-time 1 http://shop/details/0 || echo failed; sleep 1; done # forever"]
    args: ["first\n  second\n\n", ""]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: shop}
data: {"on": "  indented\ntext"}
"#;
const NODE_EXPORTER: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: exporter, namespace: monitoring}
spec: {template: {spec: {hostNetwork: true, containers: [{name: exporter, image: exporter}]}}}
";

#[test]
fn a_pod_and_what_stands_beside_it_are_printed_as_yaml() {
    insta::assert_snapshot!(printed(inject(&["-"], CLIENT)));
}

#[test]
fn what_is_printed_is_printed_again_as_it_is() {
    let once = printed(inject(&["-"], CLIENT));
    assert_eq!(printed(inject(&["-"], &once)), once);
}

#[test]
fn yaml_and_json_say_the_same() {
    let yaml = printed(inject(&["-"], CLIENT));
    let json = printed(inject(&["-", "-o", "json"], CLIENT));
    let of_yaml: Vec<serde_json::Value> = serde_saphyr::from_multiple(&yaml).unwrap();
    let of_json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(of_json["items"], serde_json::json!(of_yaml));
}

#[test]
fn arguments_come_to_the_pods() {
    let printed = printed(inject(
        &[
            "-",
            "--image",
            "my/nodeway:1",
            "--exclude-port",
            "8081",
            "--access-log",
        ],
        CLIENT,
    ));
    for wanted in ["my/nodeway:1", "--exclude-port", "\"8081\"", "--access-log"] {
        assert!(printed.contains(wanted), "{wanted} is not in\n{printed}");
    }
}

#[rstest]
#[case::all_have_one(&["-"], CLIENT, 0, "")]
#[case::one_cannot(&["-"], NODE_EXPORTER, 1, "left as it is: DaemonSet monitoring/exporter: `hostNetwork: true`")]
#[case::nothing_makes_pods(&["-"], "apiVersion: v1\nkind: Service\n", 0, "note: nothing in - makes pods")]
#[case::bad_input(&["-"], "kind: [Pod\n", 2, "-:")]
#[case::no_such_file(&["fixtures/none"], "", 2, "no such file")]
#[case::no_port(&["-", "--exclude-port", "0"], "", 2, "0 is not in 1")]
fn the_exit_code_tells_pods_without_a_sidecar_from_bad_input(
    #[case] arguments: &[&str],
    #[case] stdin: &str,
    #[case] code: i32,
    #[case] said: &str,
) {
    let output = inject(arguments, stdin);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.contains(said), "{told}");
}
