//! What `record` makes of sources, and what `replay` says of what is none.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::process::nodeway;

fn told(output: &Output) -> String {
    let bytes = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(bytes).unwrap()
}

const DETAILS: &str = "default/client http://cilium-ingress-basic-ingress/details/0";

#[test]
fn a_source_becomes_a_fixture_that_expects_what_comes_of_it_now() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("made");
    let folder = folder.to_str().unwrap();
    let made = nodeway(&[
        "record",
        "fixtures/bookinfo",
        "-o",
        folder,
        "--ask",
        DETAILS,
    ]);
    assert!(made.status.success(), "{}", told(&made));
    let fixture = fs::read_to_string(format!("{folder}/fixture.yaml")).unwrap();
    insta::assert_snapshot!(fixture);
    let run = nodeway(&["sim", folder]);
    assert!(run.status.success(), "{}", told(&run));
    assert!(
        told(&run).contains("5 of 5 expectations hold"),
        "{}",
        told(&run)
    );
}

#[test]
fn an_archive_on_standard_output_has_the_fixture() {
    let made = nodeway(&["record", "fixtures/bookinfo", "-o", "-"]);
    assert!(made.status.success(), "{}", told(&made));
    let mut archive = tar::Archive::new(made.stdout.as_slice());
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|it| it.unwrap().path().unwrap().display().to_string())
        .collect();
    assert!(
        names.contains(&"manifests/services.yaml".to_owned()),
        "{names:?}"
    );
}

#[test]
fn no_private_key_gets_into_a_fixture() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("made");
    let made = nodeway(&[
        "record",
        "fixtures/tls-two-hosts",
        "-o",
        folder.to_str().unwrap(),
    ]);
    assert!(made.status.success(), "{}", told(&made));
    let secrets = fs::read_to_string(folder.join("manifests/secrets.yaml")).unwrap();
    let written = fs::read_dir("../fixtures/tls-two-hosts/manifests").unwrap();
    let mut keys = 0;
    for file in written {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let of_key = text.lines().filter(|it| it.trim().len() > 60);
        for line in of_key.filter(|it| is_in_key(&text, it)) {
            keys += 1;
            assert!(!secrets.contains(line.trim()), "{line}");
        }
    }
    assert!(keys > 0, "the fixture has private keys");
}

/// Whether a line of base64 is of a private key, by the nearest `BEGIN` or name before it.
fn is_in_key(text: &str, line: &str) -> bool {
    let before = text.split(line).next().unwrap_or_default();
    let key = before.rfind("PRIVATE KEY").max(before.rfind("tls.key"));
    let certificate = before
        .rfind("BEGIN CERTIFICATE")
        .max(before.rfind("tls.crt"));
    key > certificate || line.contains("tls.key")
}

#[test]
fn what_is_there_already_is_not_written_over() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().to_str().unwrap();
    let made = nodeway(&["record", "fixtures/bookinfo", "-o", folder]);
    assert_eq!(made.status.code(), Some(2));
    assert!(told(&made).contains("is there already"), "{}", told(&made));
    assert_eq!(fs::read_dir(Path::new(folder)).unwrap().count(), 0);
}

#[test]
fn an_envoys_dump_makes_no_fixture() {
    let made = nodeway(&["record", "fixtures/dumps/config_dump.json", "-o", "-"]);
    assert_eq!(made.status.code(), Some(2));
    assert!(
        told(&made).contains("this is Envoy's config_dump"),
        "{}",
        told(&made)
    );
}

#[test]
fn an_ask_without_a_url_says_how_it_is_written() {
    let made = nodeway(&[
        "record",
        "fixtures/bookinfo",
        "-o",
        "-",
        "--ask",
        "default/client",
    ]);
    assert_eq!(made.status.code(), Some(2));
    assert!(
        told(&made).contains("--ask 'default/client http://shop/'"),
        "{}",
        told(&made)
    );
}

#[test]
fn a_fixture_is_no_recording() {
    let replayed = nodeway(&["replay", "fixtures/bookinfo"]);
    assert_eq!(replayed.status.code(), Some(2));
    assert!(
        told(&replayed).contains("is no recording"),
        "{}",
        told(&replayed)
    );
}
