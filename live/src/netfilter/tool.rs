//! The tools that know the kernel's tables: `iptables`, `ipset`, `nft`.

use std::env;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;

use nodeway_core::datapath::Family;

use crate::netns::{NetNs, NetNsError};

/// What can go wrong with a tool.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It does not start.
    #[error(
        "cannot run `{program}`: {cause}; it is in the Debian package {package} (ci/setup installs it)"
    )]
    Start {
        /// The tool.
        program: String,
        /// Its package.
        package: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
    /// It refused.
    #[error("`{program}` failed in namespace `{namespace}`: {words}{}", told(line))]
    Failed {
        /// The tool.
        program: String,
        /// The namespace.
        namespace: String,
        /// What it said.
        words: String,
        /// The line of its input that it complains about.
        line: Option<String>,
    },
    /// The namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

fn told(line: &Option<String>) -> String {
    line.as_ref()
        .map(|line| format!("; the line was `{line}`"))
        .unwrap_or_default()
}

/// The tools of a family.
const fn iptables(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

pub(super) fn iptables_save(netns: &NetNs, family: Family) -> Result<String, ToolError> {
    let program = format!("{}-save", iptables(family));
    run(netns, &program, &[], "", "iptables")
}

/// Nothing is run for an empty script.
pub(super) fn iptables_restore(
    netns: &NetNs,
    family: Family,
    script: &str,
) -> Result<(), ToolError> {
    if script.is_empty() {
        return Ok(());
    }
    let program = format!("{}-restore", iptables(family));
    let arguments = ["--noflush", "--wait", "5"];
    run(netns, &program, &arguments, script, "iptables").map(drop)
}

pub(super) fn ipset_save(netns: &NetNs) -> Result<String, ToolError> {
    run(netns, "ipset", &["save"], "", "ipset")
}

/// What is there is changed, what is gone is gone: twice is once. Nothing is run for an empty script.
pub(super) fn ipset_restore(netns: &NetNs, script: &str) -> Result<(), ToolError> {
    if script.is_empty() {
        return Ok(());
    }
    run(netns, "ipset", &["restore", "-exist"], script, "ipset").map(drop)
}

/// All of nftables as JSON; none where there is no `nft` to ask.
pub(super) fn nft_ruleset(netns: &NetNs) -> Result<Option<String>, ToolError> {
    match run(netns, "nft", &["-j", "list", "ruleset"], "", "nftables") {
        Err(ToolError::Start { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// One transaction: all of the script, or nothing.
pub(super) fn nft_restore(netns: &NetNs, script: &str) -> Result<(), ToolError> {
    run(netns, "nft", &["-f", "-"], script, "nftables").map(drop)
}

/// Takes an empty table away. Where there is no `nft` it stays, and says nothing.
pub(super) fn nft_delete_table(
    netns: &NetNs,
    family: Family,
    table: &str,
) -> Result<(), ToolError> {
    let family = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    match run(
        netns,
        "nft",
        &["delete", "table", family, table],
        "",
        "nftables",
    ) {
        Err(ToolError::Start { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map(drop),
    }
}

fn run(
    netns: &NetNs,
    program: &str,
    arguments: &[&str],
    input: &str,
    package: &'static str,
) -> Result<String, ToolError> {
    let output = netns.run(|| output(program, arguments, input))?;
    let output = output.map_err(|cause| ToolError::Start {
        program: program.to_owned(),
        package,
        cause,
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words: Vec<&str> = words.lines().map(str::trim).collect();
    let words = words.join(" ").trim().to_owned();
    Err(ToolError::Failed {
        program: program.to_owned(),
        namespace: netns.name().to_owned(),
        line: line_of(&words, input),
        words,
    })
}

fn output(program: &str, arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new(file(program))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdin = child.stdin.take();
    thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(mut stdin) = stdin {
                // A tool that ends before it has read all says why itself.
                let _ = stdin.write_all(input.as_bytes());
            }
        });
        child.wait_with_output()
    })
}

/// The tool's file: a user's `PATH` may leave out where Debian puts tools of the administrator. It is not given a `PATH` of its
/// own to find it by: `std` copies this process's page tables then, which costs more than the tool.
fn file(program: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let mut files = folders.map(|folder| folder.join(program));
    files
        .find(|file| file.is_file())
        .unwrap_or_else(|| PathBuf::from(program))
}

/// The line that a tool names by its number (`line 5 failed`, `Error in line 5:`, `line: 5`).
fn line_of(words: &str, input: &str) -> Option<String> {
    let (_, rest) = words.split_once("line")?;
    let digits: String = rest
        .trim_start_matches([':', ' '])
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let number: usize = digits.parse().ok()?;
    input.lines().nth(number.checked_sub(1)?).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("iptables-restore: line 2 failed", Some("b"))]
    #[case("ipset v7.17: Error in line 1: Set cannot be created", Some("a"))]
    #[case("Error occurred at line: 3", Some("c"))]
    #[case("line 9 failed", None)]
    #[case("it rains", None)]
    fn the_line_that_a_tool_complains_of_is_told(#[case] words: &str, #[case] line: Option<&str>) {
        assert_eq!(line_of(words, "a\nb\nc\n").as_deref(), line);
    }
}
