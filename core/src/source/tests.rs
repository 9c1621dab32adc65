use std::collections::BTreeMap;

use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn one(content: &str) -> Result<Objects, Vec<SourceError>> {
    read(&[Text::new("m.yaml", content)])
}

fn only_error(content: &str) -> SourceError {
    let errors = one(content).expect_err("the text has a mistake");
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors.into_iter().next().unwrap()
}

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: details
spec:
  selector: {app: details}
  ports:
  - port: 9080
    name: http
";

const INGRESS: &str = "\
# an Ingress with a mistake that k8s-openapi alone would not see
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: shop
spec:
  rules:
  - http:
      paths:
      - path: /
        pathtype: Prefix
        backend: {service: {name: details, port: {number: 9080}}}
";

#[rstest]
#[case::no_yaml("a: b: c\n", Fault::Syntax, 1, "")]
#[case::a_tab(
    "apiVersion: v1\nkind: Service\nmetadata:\n\tname: a\n",
    Fault::Syntax,
    4,
    "replace the tab"
)]
#[case::twice_the_same_key("apiVersion: v1\nkind: Pod\nkind: Pod\n", Fault::Syntax, 3, "keep one")]
#[case::a_scalar("hello\n", Fault::NotAnObject, 1, "apiVersion")]
#[case::no_kind(
    "apiVersion: v1\nmetadata: {name: a}\n",
    Fault::NotAnObject,
    1,
    "kind: Service"
)]
#[case::no_version(
    "kind: Service\nmetadata: {name: a}\n",
    Fault::ApiVersion,
    1,
    "apiVersion: v1"
)]
#[case::no_name(
    "apiVersion: v1\nkind: Secret\nmetadata: {}\n",
    Fault::MissingField,
    3,
    "metadata.name"
)]
#[case::no_metadata(
    "apiVersion: v1\nkind: Secret\n",
    Fault::MissingField,
    1,
    "metadata.name"
)]
#[case::a_number_as_name(
    "apiVersion: v1\nkind: Secret\nmetadata:\n  name: 5\n",
    Fault::WrongType,
    4,
    "quote it"
)]
#[case::a_bad_name(
    "apiVersion: v1\nkind: Secret\nmetadata:\n  name: A_b\n",
    Fault::BadName,
    4,
    "lower-case"
)]
#[case::an_old_ingress(
    "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: a}\n",
    Fault::ApiVersion,
    1,
    "networking.k8s.io/v1"
)]
#[case::a_misspelt_kind(
    "apiVersion: v1\nkind: Servic\nmetadata: {name: a}\n",
    Fault::NotAnObject,
    2,
    "kind: Service"
)]
#[case::a_misspelt_field(INGRESS, Fault::UnknownField, 12, "`pathType`")]
#[case::a_wrong_type(
    "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: many\n",
    Fault::WrongType,
    6,
    "of that type"
)]
#[case::a_service_without_ports(
    "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports: []\n",
    Fault::MissingField,
    5,
    "port: 80"
)]
#[case::a_list_without_items("apiVersion: v1\nkind: List\n", Fault::MissingField, 1, "items")]
fn a_mistake_is_told_with_its_line_and_what_to_do(
    #[case] content: &str,
    #[case] fault: Fault,
    #[case] line: u32,
    #[case] fix: &str,
) {
    let error = only_error(content);
    assert_eq!((error.fault, error.place.line), (fault, line), "{error}");
    assert!(error.fix.contains(fix), "{error}");
}

#[test]
fn a_misspelt_field_is_told_with_object_path_and_span() {
    let error = only_error(INGRESS);
    insta::assert_snapshot!(error, @"m.yaml:12:9: Ingress shop/web: spec.rules[0].http.paths[0].pathtype: there is no field `pathtype` here; did you mean `pathType`? Field names are case-sensitive");
    let span = error.place.range().unwrap();
    assert_eq!(&INGRESS[span], "pathtype");
}

#[test]
fn a_text_with_a_byte_order_mark_is_read_and_its_spans_are_right() {
    assert_eq!(one(&format!("\u{feff}{SERVICE}")).unwrap().len(), 1);
    let text = format!("\u{feff}{INGRESS}");
    let error = only_error(&text);
    assert_eq!(&text[error.place.range().unwrap()], "pathtype");
}

#[test]
fn all_mistakes_of_all_files_are_told_at_once_in_order() {
    let broken = "apiVersion: v1\nkind: Pod\n---\na: b: c\n---\nkind: Pod\n";
    let errors = read(&[Text::new("b.yaml", broken), Text::new("a.yaml", INGRESS)]).unwrap_err();
    let places: Vec<_> = errors
        .iter()
        .map(|error| (error.file.to_string(), error.place.line))
        .collect();
    let want = [("a.yaml", 12), ("b.yaml", 1), ("b.yaml", 4), ("b.yaml", 6)];
    assert_eq!(
        places,
        want.map(|(file, line)| (file.to_owned(), line)),
        "{errors:#?}"
    );
}

#[test]
fn two_documents_of_one_object_are_an_error_that_names_both_places() {
    let error = only_error(&format!("{SERVICE}---\n{SERVICE}"));
    assert_eq!(error.fault, Fault::Duplicate);
    assert_eq!(error.place.line, 11);
    assert_eq!(error.other, Some(("m.yaml".into(), 1)));
    assert!(error.reason.contains("m.yaml:1"), "{error}");
}

#[test]
fn every_object_knows_the_line_where_it_begins() {
    let text = format!(
        "# Source: chart/templates/a.yaml\n---\n# nothing\n---\n---\n{SERVICE}--- # next\n{}",
        SERVICE.replace("details", "reviews")
    );
    let objects = one(&text).unwrap();
    let lines: Vec<_> = objects
        .iter()
        .map(|(_, entry)| entry.provenance.to_string())
        .collect();
    assert_eq!(lines, ["m.yaml:6", "m.yaml:16"]);
}

#[test]
fn lists_in_lists_and_lists_of_one_kind_are_unrolled() {
    let text = r#"{"apiVersion":"v1","kind":"List","items":[
        {"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"}}]},
        {"apiVersion":"v1","kind":"SecretList","items":[{"metadata":{"name":"s"},"stringData":{"a":"b"}}]}]}"#;
    let objects = one(text).unwrap();
    assert_eq!(objects.len(), 2);
    let secret = objects.secret("default", "s").unwrap();
    assert_eq!(secret.string_data.as_ref().unwrap()["a"], "b");
}

#[test]
fn a_mistake_in_a_list_has_its_path_from_the_list_on() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n}\n  spec: {podCidr: x}\n";
    let error = only_error(text);
    assert_eq!(
        (error.field.as_str(), error.place.line),
        ("items[0].spec.podCidr", 7)
    );
    assert!(error.fix.contains("podCIDR"), "{error}");
}

#[test]
fn json_may_be_indented_with_tabs_and_stand_one_after_the_other() {
    let node = |name: &str| {
        format!(
            "{{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Node\",\n\t\"metadata\": {{\"name\": \"{name}\"}}\n}}\n"
        )
    };
    let objects = one(&format!("{}{}", node("a"), node("b"))).unwrap();
    assert_eq!(objects.len(), 2);
}

#[test]
fn what_a_cluster_gives_out_may_have_fields_of_a_newer_api() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, uid: u, managedFields: [{manager: m, brandNew: 1}]}\nspec: {containers: [], brandNew: 1}\nstatus: {phase: Pending}\n";
    let objects = one(text).unwrap();
    assert_eq!(objects.notes.len(), 2, "{:?}", objects.notes);
    assert!(
        objects.notes[1].starts_with("Pod default/p spec.brandNew"),
        "{:?}",
        objects.notes
    );
}

#[test]
fn kinds_that_cannot_matter_are_counted_and_kinds_that_could_are_named() {
    let object = |version: &str, kind: &str, name: &str| {
        format!("---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\n")
    };
    let text = [
        object("v1", "ConfigMap", "a"),
        object("v1", "ConfigMap", "b"),
        object("networking.k8s.io/v1", "NetworkPolicy", "deny"),
        object("apps/v1", "StatefulSet", "db"),
        object("apps/v1", "StatefulSet", "cache"),
        object("v1", "Pod", "cache-0"),
    ]
    .concat();
    let objects = one(&text).unwrap();
    assert_eq!(
        objects.passed_over,
        BTreeMap::from([("ConfigMap".to_owned(), 2)])
    );
    assert_eq!(
        objects.not_simulated,
        ["NetworkPolicy default/deny", "StatefulSet default/db"]
    );
}

#[test]
fn an_envoy_config_of_the_first_releases_is_read() {
    let text = "apiVersion: cilium.io/v2alpha1\nkind: CiliumEnvoyConfig\nmetadata: {name: c}\nspec:\n  services: [{name: a, namespace: default, listener: l}]\n  backendServices: [{name: b, namespace: default, number: ['80']}]\n  resources: [{'@type': x}]\n";
    let objects = one(text).unwrap();
    let config = objects.envoy_config("default", "c").unwrap();
    assert_eq!(config.spec.services[0].listener, "l");
    assert_eq!(config.spec.backend_services[0].ports, ["80"]);
}

#[rstest]
#[case::block_nesting((0..3_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect())]
#[case::flow_nesting("[".repeat(100_000))]
#[case::json_nesting("{\"a\":".repeat(100_000))]
#[case::a_billion_laughs(
    (1..30).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, n| {
        let before = format!("*a{}", n - 1);
        text + &format!("a{n}: &a{n} [{}]\n", [before.as_str(); 9].join(","))
    })
)]
fn what_nests_or_grows_without_bound_is_refused(#[case] content: String) {
    let error = only_error(&content);
    assert_eq!(error.fault, Fault::Budget, "{error}");
}

#[test]
fn the_deepest_text_that_is_allowed_is_read_on_a_test_threads_stack() {
    let deep = format!(
        "apiVersion: v1\nkind: Foo\nx: {}1{}\n",
        "[".repeat(47),
        "]".repeat(47)
    );
    assert_eq!(one(&deep).unwrap().passed_over["Foo"], 1);
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s).{0,300}") {
        let _ = one(&text);
    }

    /// A manifest with some bytes cut out and some put in: near enough to get past the parser.
    #[test]
    fn no_mangled_manifest_makes_the_reader_panic(
        cut in 0_usize..400,
        len in 0_usize..40,
        put in "[-{}\\[\\]:&*!|> \t\n#%@a0\"']{0,12}",
    ) {
        let text = format!("{SERVICE}---\n{INGRESS}");
        let cut = cut.min(text.len());
        let end = (cut + len).min(text.len());
        let mangled = format!("{}{put}{}", &text[..cut], &text[end..]);
        if let Err(errors) = one(&mangled) {
            let lines = u32::try_from(mangled.lines().count()).unwrap() + 1;
            prop_assert!(errors.iter().all(|error| (1..=lines).contains(&error.place.line)), "{errors:#?}");
            prop_assert!(errors.iter().all(|error| !error.fix.is_empty() && !error.reason.is_empty()));
        }
    }
}
