//! Scripts for shells, as the command prints them.

use rstest::rstest;

use crate::help;
use crate::process::nodeway;

#[rstest]
#[case::bash("bash")]
#[case::elvish("elvish")]
#[case::fish("fish")]
#[case::powershell("powershell")]
#[case::zsh("zsh")]
fn each_shells_script_names_every_subcommand(#[case] shell: &str) {
    let script = help::said(&["completions", shell]);
    let words: Vec<&str> = script
        .split(|c: char| !c.is_alphanumeric() && c != '-')
        .collect();
    for subcommand in help::subcommands() {
        for name in &subcommand {
            assert!(words.contains(&name.as_str()), "{name}: {script}");
        }
    }
}

#[test]
fn a_shell_that_is_none_is_bad_input() {
    let output = nodeway(&["completions", "sh"]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("bash, elvish, fish, powershell, zsh"),
        "{told}"
    );
}
