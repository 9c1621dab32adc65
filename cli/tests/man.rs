//! Manual pages, as the command writes them.

use std::fs;

use crate::help;
use crate::process::nodeway;

#[test]
fn every_subcommand_has_a_page_with_its_examples() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    let told = help::said(&["man", &pages.to_string_lossy()]);
    let subcommands = help::subcommands();
    let count = subcommands.len() + 1;
    assert!(told.ends_with(&format!(": {count} pages\n")), "{told}");
    assert_eq!(fs::read_dir(&pages).unwrap().count(), count);
    for subcommand in subcommands {
        let name = format!("nodeway-{}", subcommand.join("-"));
        let page = fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS\n"), "{name}: {page}");
        let arguments: Vec<&str> = subcommand.iter().map(String::as_str).collect();
        let help = help::said(&[&arguments[..], &["--help"]].concat());
        let has_examples = help.contains("\nExamples:\n");
        assert_eq!(page.contains(".SH EXAMPLES\n.nf\n"), has_examples, "{name}");
    }
}

#[test]
fn the_commands_own_page_is_printed_and_names_the_others() {
    let page = help::said(&["man"]);
    assert!(page.contains("\n.TH nodeway 1 "), "{page}");
    assert!(page.contains("nodeway\\-explain(1)"), "{page}");
    assert!(
        page.contains("\n  nodeway sim fixtures/bookinfo\n"),
        "{page}"
    );
}

#[test]
fn a_folder_that_cannot_be_made_is_bad_input() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let folder = file.path().join("man1");
    let output = nodeway(&["man", &folder.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("name a folder that can be written to"),
        "{told}"
    );
}
