use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::cluster::Ask;
use crate::fixture::Expect;

const SERVICE: &str =
    "{apiVersion: v1, kind: Service, metadata: {name: NAME}, spec: {ports: [{port: 80}]}}\n";

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn load(folder: &tempfile::TempDir, path: &str) -> Result<Source, String> {
    let at = shown(folder.path());
    Source::load(&[folder.path().join(path)], None)
        .map_err(|errors| errors.to_string().replace(&format!("{at}/"), ""))
}

fn fixture_of(text: &str) -> Result<Fixture, String> {
    source::read_one(&Text::new("fixture.yaml", text))
        .map_err(|errors| LoadErrors::of(errors, Vec::new()).to_string())
}

#[test]
fn a_folder_is_read_whole_and_in_order_whatever_the_file_system_says() {
    let folder = folder(&[
        ("b.yaml", &SERVICE.replace("NAME", "b")),
        ("a/z.yml", &SERVICE.replace("NAME", "z")),
        ("notes.txt", "no manifest"),
        (".hidden/x.yaml", "no: manifest"),
    ]);
    let source = load(&folder, "").unwrap();
    let names: Vec<_> = source.texts.iter().map(|text| &text.name).collect();
    assert!(
        names[0].ends_with("a/z.yml") && names[1].ends_with("b.yaml"),
        "{names:?}"
    );
    assert_eq!(source.objects().unwrap().services().count(), 2);
}

#[test]
fn a_folder_with_a_fixture_is_one_and_so_is_its_file() {
    let folder = folder(&[
        ("fixture.yaml", "title: one\nnodes: [a, b, c]\n"),
        ("manifests/s.yaml", &SERVICE.replace("NAME", "s")),
    ]);
    for path in ["", "fixture.yaml"] {
        let fixture = load(&folder, path).unwrap().fixture.unwrap();
        assert_eq!(fixture.nodes.0, ["a", "b", "c"]);
        assert_eq!(fixture.objects().unwrap().len(), 1);
    }
}

#[test]
fn standard_input_is_given_and_read_once() {
    let dash = PathBuf::from("-");
    let text = SERVICE.replace("NAME", "s");
    let source = Source::load(std::slice::from_ref(&dash), Some(text.clone())).unwrap();
    assert_eq!(source.objects().unwrap().len(), 1);
    let twice = Source::load(&[dash.clone(), dash], Some(text)).unwrap_err();
    assert_eq!(
        twice.to_string(),
        "-: standard input was read already; name `-` once"
    );
}

#[test]
fn what_cannot_be_read_says_which_path_and_what_to_do() {
    let folder = folder(&[
        ("fixture.yaml", "title: no manifests\n"),
        ("empty/x.txt", ""),
    ]);
    let error = |path| load(&folder, path).unwrap_err();
    assert_eq!(
        error("nowhere"),
        "nowhere: there is no such file or folder; check the path"
    );
    assert_eq!(
        error(""),
        "manifests: there is no such file or folder; check the path"
    );
    assert_eq!(
        error("empty"),
        "empty: no file in this folder ends in .yaml, .yml or .json; name a folder with manifests"
    );
}

#[test]
fn a_fixture_is_short_because_everything_has_a_default() {
    let fixture =
        fixture_of("requests:\n- {from: default/client, to: http://details:9080/}\n").unwrap();
    assert_eq!(fixture.nodes.0, ["node-1", "node-2"]);
    assert_eq!(fixture.outside, ["client"]);
    let request = &fixture.requests[0];
    assert_eq!(request.ask(), Ask::get("http://details:9080/"));
    assert_eq!(request.expect, Expect::default());
}

#[rstest]
#[case::misspelt(
    "titel: x",
    "fixture.yaml:1:1: titel: there is no field `titel` here; did you mean `title`?"
)]
#[case::misspelt_below(
    "requests:\n- from: a\n  to: http://b\n  expect:\n    statsu: 200",
    "fixture.yaml:5:5: requests[0].expect.statsu: there is no field `statsu` here; did you mean `status`?"
)]
#[case::wrong_type(
    "requests:\n- from: a\n  to: http://b\n  expect: {status: fine}",
    "requests[0].expect.status: invalid type: string \"fine\""
)]
#[case::missing("requests:\n- from: a", "requests[0]: missing field `to`; add `to`")]
#[case::missing_and_misspelt(
    "requests:\n- {from: a, too: b}",
    "requests[0].too: there is no field `too` here; did you mean `to`?"
)]
#[case::no_nodes(
    "nodes: 0",
    "nodes: invalid value: integer `0`, expected a number of nodes from 1 to 5000"
)]
#[case::a_node_twice("nodes: [a, a]", "`a` is no name, or is there twice")]
#[case::redirect(
    "redirect: magic",
    "unknown variant `magic`, expected `tc` or `sk-lookup`"
)]
#[case::empty("", "the file is empty")]
#[case::two_documents("title: a\n---\ntitle: b", "fixture.yaml:3:1: a second document")]
#[case::no_mapping("- a", "fixture.yaml:1:1: this is no mapping of fields")]
fn a_bad_fixture_names_file_line_and_field(#[case] text: &str, #[case] want: &str) {
    let error = fixture_of(text).unwrap_err();
    assert!(error.contains(want), "{error}");
}

proptest! {
    #[test]
    fn a_mangled_fixture_is_an_error_and_never_a_panic(
        at in 0_usize..200,
        noise in "[\\PC\n\t]{0,12}",
    ) {
        let good = "title: one\nnodes: 2\noutside: [a]\nseed: 7\nrequests:\n- name: n\n  from: default/client\n  to: http://x/y\n  headers: {a: b}\n  expect: {status: 200, redirected: true}\n";
        let mut text = good.to_owned();
        text.insert_str(at.min(good.len()), &noise);
        let _ = fixture_of(&text);
    }
}
