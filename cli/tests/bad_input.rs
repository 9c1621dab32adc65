//! Bad input gets an answer that names the place and what to do: an error with exit code 2, or a
//! numbered problem beside an answer. Never a panic, never silence.

use std::process::Output;

use rstest::rstest;

use crate::process::nodeway_with;

/// What a reader sees, without the line breaks and frames of a report.
fn words(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    let words: Vec<&str> = text
        .split_whitespace()
        .filter(|word| *word != "│")
        .collect();
    words.join(" ")
}

fn ingress(path: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: shop}}\nspec:\n  \
         ingressClassName: cilium\n  rules:\n  - {path}\n"
    )
}

const BACKEND: &str = "backend: {service: {name: shop, port: {number: 80}}}";

#[rstest]
#[case::explain(&["explain", "-", "--from", "outside", "--to", "http://a/"])]
#[case::check(&["check", "-"])]
#[case::beside_a_folder(&["check", "fixtures/bookinfo/manifests", "-"])]
fn nothing_on_standard_input_is_no_cluster_without_objects(
    #[case] arguments: &[&str],
    #[values("", "\n")] nothing: &str,
) {
    let output = nodeway_with(arguments, nothing);
    let words = words(&output);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("standard input is empty"), "{words}");
}

#[rstest]
#[case::syntax("kind: [Ingress\n", &["-:"])]
#[case::tab("kind: Ingress\n\tmetadata: {}\n", &["-:1", "tab"])]
#[case::no_kind("apiVersion: v1\n", &["-:1", "kind"])]
#[case::not_a_mapping("- 1\n- 2\n", &["-:1", "Kubernetes object"])]
#[case::old_api("apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: a}\n", &["networking.k8s.io/v1"])]
#[case::wrong_type("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: eighty}]}\n", &["-:4", "spec.ports[0].port"])]
#[case::misspelt("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {slector: {}, ports: [{port: 80}]}\n", &["-:4", "spec.slector", "did you mean `selector`"])]
#[case::duplicate_key("kind: Service\nkind: Service\n", &["-:2", "the key `kind` stands twice", "write `---`"])]
#[case::duplicate_field("kind: Service\nspec: {ports: [], ports: []}\n", &["-:2", "the key `ports` stands twice", "keep one of the two"])]
#[case::duplicate_object("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 81}]}\n", &["-:6", "-:1", "Service default/a"])]
#[case::no_name("apiVersion: v1\nkind: Service\nmetadata: {}\n", &["-:3", "metadata.name"])]
#[case::service_without_port("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {a: b}}\n", &["-:4", "spec.ports", "at least one port"])]
#[case::no_path_type("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a}\nspec: {rules: [{http: {paths: [{path: /, backend: {service: {name: a, port: {number: 80}}}}]}}]}\n", &["-:4", "spec.rules[0].http.paths[0].pathType"])]
fn a_manifest_that_cannot_be_read_is_an_error_with_its_place(
    #[case] manifest: &str,
    #[case] fragments: &[&str],
) {
    let output = nodeway_with(
        &["explain", "-", "--from", "outside", "--to", "http://a/"],
        manifest,
    );
    let words = words(&output);
    assert_eq!(output.status.code(), Some(2), "{words}");
    for fragment in fragments.iter().chain(&["help:"]) {
        assert!(words.contains(fragment), "`{fragment}` is not in: {words}");
    }
}

#[rstest]
#[case::deep_nesting(format!("a: {}{}", "[".repeat(5_000), "]".repeat(5_000)))]
#[case::alias_bomb(format!(
    "a: &a [x,x,x,x,x,x,x,x,x]\n{}",
    ('b'..='k').zip('a'..='j').map(|(to, of)| format!("{to}: &{to} [{}]\n", vec![format!("*{of}"); 9].join(","))).collect::<String>()
))]
#[case::binary("\u{0}\u{1}\u{2}".to_owned())]
fn hostile_yaml_is_refused_in_good_time(#[case] manifest: String) {
    let output = nodeway_with(&["translate", "-"], &manifest);
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
}

#[rstest]
#[case::path("http: {paths: [{path: shop, pathType: Prefix, BACKEND}]}", &["NW0011", "spec.rules[0].http.paths[0].path"])]
#[case::expression("http: {paths: [{path: /(, pathType: ImplementationSpecific, BACKEND}]}", &["NW0011", "spec.rules[0].http.paths[0].path"])]
#[case::host("{host: shop_example., http: {paths: [{path: /, pathType: Prefix, BACKEND}]}}", &["NW0010", "spec.rules[0].host"])]
fn a_bad_rule_is_left_out_with_a_numbered_problem(#[case] rule: &str, #[case] fragments: &[&str]) {
    let output = nodeway_with(
        &["translate", "-"],
        &ingress(&rule.replace("BACKEND", BACKEND)),
    );
    let words = words(&output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    for fragment in fragments {
        assert!(words.contains(fragment), "`{fragment}` is not in: {words}");
    }
}

/// A hand-written config on a Service, as a list of its services and its resources.
fn config(services: &str, resources: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: shop}}\nspec: {{selector: {{app: shop}}, ports: [{{port: 80}}]}}\n\
         ---\napiVersion: cilium.io/v2\nkind: CiliumEnvoyConfig\nmetadata: {{name: hand}}\nspec:\n  services: {services}\n  resources: {resources}\n"
    )
}

const LISTENER: &str =
    r#"{"@type": type.googleapis.com/envoy.config.listener.v3.Listener, name: mine}"#;
const ROUTES: &str = r#"{"@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration, name: r, virtualHosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: nowhere}}]}]}"#;

#[rstest]
#[case::missing_listener("[{name: shop, listener: yours}]", format!("[{LISTENER}]"), &["NW0002", "spec.services[0].listener", "mine"])]
#[case::missing_cluster("[{name: shop, listener: mine}]", format!("[{LISTENER}, {ROUTES}]"), &["NW0003", "nowhere"])]
#[case::missing_service("[{name: ghost, listener: mine}]", format!("[{LISTENER}]"), &["NW0004", "ghost"])]
#[case::unknown_envoy_field("[{name: shop, listener: mine}]", format!("[{}]", LISTENER.replace("name: mine", "nmae: mine")), &["NW0001", "spec.resources[0]", "nmae"])]
#[case::unknown_type("[]", r#"[{"@type": type.googleapis.com/cilium.NetworkFilter}]"#.to_owned(), &["NW0001", "cilium.NetworkFilter"])]
fn a_config_that_refers_to_nothing_has_a_numbered_problem(
    #[case] services: &str,
    #[case] resources: String,
    #[case] fragments: &[&str],
) {
    let arguments = [
        "explain",
        "-",
        "--from",
        "outside",
        "--to",
        "http://192.0.2.1/",
    ];
    let words = words(&nodeway_with(&arguments, &config(services, &resources)));
    for fragment in fragments {
        assert!(words.contains(fragment), "`{fragment}` is not in: {words}");
    }
}

#[rstest]
#[case::unknown_field("requets: []\n", &["fixture.yaml:1", "requets", "did you mean `requests`"])]
#[case::wrong_type("nodes: many\n", &["fixture.yaml:1", "nodes"])]
#[case::misspelt_expectation("requests:\n- {from: a, to: http://a/, expect: {statsu: 200}}\n", &["fixture.yaml:2", "requests[0].expect.statsu", "`status`"])]
fn a_fixture_is_read_as_strictly_as_an_object(#[case] text: &str, #[case] fragments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("fixture.yaml"), text).unwrap();
    std::fs::create_dir(folder.path().join("manifests")).unwrap();
    std::fs::write(folder.path().join("manifests/a.yaml"), "").unwrap();
    let output = nodeway_with(&["sim", folder.path().to_str().unwrap()], "");
    // Paths are long and wrapped: what is compared has no blanks.
    let words = words(&output).replace(' ', "");
    assert_eq!(output.status.code(), Some(2), "{words}");
    for fragment in fragments {
        let fragment = fragment.replace(' ', "");
        assert!(words.contains(&fragment), "`{fragment}` is not in: {words}");
    }
}

#[rstest]
#[case::no_such_file(&["explain", "nowhere.yaml", "--from", "outside", "--to", "http://a/"], "nowhere.yaml: there is no such file")]
#[case::no_folder(&["sim", "fixtures/bokinfo"], "fixtures/bokinfo: there is no such file or folder")]
#[case::no_fixture(&["sim", "fixtures/bookinfo/manifests"], "it is no fixture")]
#[case::nothing_to_translate(&["translate", "fixtures/bookinfo/manifests/client.yaml"], "has no Ingress")]
#[case::no_client(&["explain", "fixtures/bookinfo", "--from", "default/cleint", "--to", "http://a/"], "default/client")]
#[case::no_url(&["explain", "fixtures/bookinfo", "--from", "outside", "--to", "details"], "it has no scheme")]
#[case::no_header(&["explain", "fixtures/bookinfo", "--from", "outside", "--to", "http://a/", "-H", "host"], "no header field")]
#[case::no_expectation(&["explain", "fixtures/bookinfo", "--from", "outside", "--to", "http://a/", "--expect", "statsu=200"], "`status`")]
#[case::no_redirect(&["explain", "fixtures/bookinfo", "--from", "outside", "--to", "http://a/", "--redirect", "xdp"], "xdp")]
fn a_bad_argument_is_an_error_that_says_what_would_be_right(
    #[case] arguments: &[&str],
    #[case] fragment: &str,
) {
    let output = nodeway_with(arguments, "");
    let words = words(&output);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains(fragment), "`{fragment}` is not in: {words}");
}
