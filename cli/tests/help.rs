//! What `--help` says that there is.

use crate::process::nodeway;

/// What a command prints that succeeds.
pub(crate) fn said(arguments: &[&str]) -> String {
    let output = nodeway(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Every subcommand, with those before it: `[lab]`, `[lab, up]`.
pub(crate) fn subcommands() -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let mut unread = vec![Vec::new()];
    while let Some(path) = unread.pop() {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = said(&arguments);
        let listed = help.split_once("\nCommands:\n").map(|(_, rest)| rest);
        let listed = listed.unwrap_or_default().split("\n\n").next();
        for line in listed.unwrap_or_default().lines() {
            // A long description goes on further to the right.
            let Some(entry) = line.strip_prefix("  ").filter(|it| !it.starts_with(' ')) else {
                continue;
            };
            let name = entry.split(' ').next().unwrap_or_default();
            if name != "help" {
                let mut inner = path.clone();
                inner.push(name.to_owned());
                unread.push(inner.clone());
                all.push(inner);
            }
        }
    }
    assert!(all.iter().any(|it| it.join(" ") == "explain"), "{all:?}");
    all
}
