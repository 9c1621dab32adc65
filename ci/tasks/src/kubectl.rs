//! A cluster by its own tools: what `kubectl`, `docker` and the like say, and what they fail for.

use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Why a program of the cluster's says nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It does not run.
    #[error("cannot run `{program}`: {error}; `ci/kind` says what it needs")]
    Start {
        /// `kubectl`, `docker`
        program: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// It ran and failed.
    #[error("`{command}` failed: {words}")]
    Failed {
        /// All of it.
        command: String,
        /// What it said.
        words: String,
    },
    /// What it prints is no JSON.
    #[error("`kubectl {arguments}` prints no JSON: {error}")]
    Json {
        /// What was asked.
        arguments: String,
        /// Why.
        error: serde_json::Error,
    },
}

/// What `kubectl` prints.
///
/// # Errors
/// When it does not run, or fails.
pub fn kubectl(arguments: &[&str]) -> Result<String, ProgramError> {
    run("kubectl", arguments, "")
}

/// What `kubectl` prints that reads this.
///
/// # Errors
/// When it does not run, or fails.
pub fn feed(arguments: &[&str], input: &str) -> Result<String, ProgramError> {
    run("kubectl", arguments, input)
}

/// Applies manifests.
///
/// # Errors
/// When one is refused.
pub fn apply(manifests: &str) -> Result<(), ProgramError> {
    feed(&["apply", "-f", "-"], manifests).map(drop)
}

/// What `kubectl` prints as JSON; an API server has five seconds.
///
/// # Errors
/// When it fails, or prints something else.
pub fn json(arguments: &[&str]) -> Result<Value, ProgramError> {
    let all = [arguments, &["--output=json", "--request-timeout=5s"]].concat();
    serde_json::from_str(&kubectl(&all)?).map_err(|error| ProgramError::Json {
        arguments: arguments.join(" "),
        error,
    })
}

/// The items of a list of objects.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    let items = list.get("items").and_then(Value::as_array);
    items.into_iter().flatten()
}

/// A text in an object, by its place there; empty if there is none.
#[must_use]
pub fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default().to_owned()
}

/// What a program prints that reads `input`.
///
/// # Errors
/// When it does not run, or fails.
pub fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, ProgramError> {
    let start = |error| ProgramError::Start {
        program: program.to_owned(),
        error,
    };
    let output = spoken(program, arguments, input).map_err(start)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = [&*output.stdout, &*output.stderr].concat();
    Err(ProgramError::Failed {
        command: [&[program], arguments].concat().join(" "),
        words: String::from_utf8_lossy(&words).trim().to_owned(),
    })
}

fn spoken(program: &str, arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    child.wait_with_output()
}
