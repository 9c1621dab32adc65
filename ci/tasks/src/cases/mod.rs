//! Rows that nobody in this project wrote, answered by this project.
//!
//! A folder of row files is read; each row goes to the answerer of its folder, which says what
//! the row asked for and what came out. What the project does not model is `not simulated`,
//! never a guess.

pub mod cilium_cec;
pub mod cilium_ingress;
pub mod envoy_routes;
pub mod grpc;
pub mod netfilter;
pub mod pending;
pub mod requests;

use std::fmt;
use std::path::{Path, PathBuf};

use miette::{IntoDiagnostic, WrapErr, miette};
use serde::Deserialize;
use serde_json::{Value, json};

/// One row, as `README.md` of the cases describes it.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    /// Unique among all rows.
    pub id: String,
    /// What goes in.
    #[serde(default)]
    pub input: Value,
    /// What is asked; null where the row is a pure translation.
    #[serde(default)]
    pub request: Value,
    /// What must come out; only what stands here is compared.
    #[serde(default)]
    pub expect: Value,
    /// Everything else (`needs`, `config_needs`, `note`, …).
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

/// What came of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All that stands in `expect` came out.
    Passed,
    /// Something else came out.
    Failed {
        /// What came out, in the shape of `want`.
        got: Value,
        /// What stands in the row.
        want: Value,
    },
    /// The row needs what the project does not model: what that is.
    NotSimulated(String),
}

impl Outcome {
    /// Compares what came out with what the row wants.
    #[must_use]
    pub fn of(got: Value, want: Value) -> Self {
        if got == want {
            Self::Passed
        } else {
            Self::Failed { got, want }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed { .. } => "failed",
            Self::NotSimulated(_) => "not simulated",
        })
    }
}

/// Answers the rows of one row file. `file` is the row file's path: `*_file` inputs are relative to it.
pub type Answer = fn(file: &Path, row: &Row) -> Outcome;

/// Who answers the rows of a folder, or of one file. What is not named here is left alone.
const ANSWERERS: &[(&str, Answer)] = &[
    ("bookinfo", requests::answer),
    ("cilium-cec/agent_scripts.yaml", cilium_cec::answer),
    ("cilium-cec/examples.yaml", cilium_cec::answer),
    ("cilium-cec/flags.yaml", cilium_cec::answer),
    ("cilium-cec/gateway_model_to_cec.yaml", cilium_cec::answer),
    ("cilium-ingress", cilium_ingress::answer),
    ("envoy-routes", envoy_routes::answer),
    ("grpc", grpc::answer),
    ("ingress-conformance", requests::answer),
    ("istio/iptables_capture.yaml", netfilter::istio),
    ("k8s-docs", requests::answer),
    ("redirect", netfilter::redirect),
];

/// A row and what came of it.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The row file, relative to the folder of all (`k8s-docs/ingress_tables.yaml`).
    pub file: String,
    /// The row's id.
    pub id: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What the row expects.
    pub want: Value,
}

impl Answered {
    /// The row as one JSON object: `file`, `id`, `result`, `got`, `want`.
    #[must_use]
    pub fn json(&self) -> Value {
        let (got, want) = match &self.outcome {
            Outcome::Passed => (self.want.clone(), self.want.clone()),
            Outcome::Failed { got, want } => (got.clone(), want.clone()),
            Outcome::NotSimulated(why) => (json!({ "not simulated": why }), self.want.clone()),
        };
        json!({
            "file": self.file,
            "id": self.id,
            "result": self.outcome.to_string(),
            "got": got,
            "want": want,
        })
    }
}

/// Answers every row of every row file below `folder`, in the order of files and rows.
///
/// # Errors
/// When the folder is missing, has no row file, or a row file does not parse.
pub fn run(folder: &Path) -> miette::Result<Vec<Answered>> {
    if !folder.is_dir() {
        return Err(miette!(
            help = "name a folder of row files: ci/cases DIR, or NODEWAY_CASES=DIR",
            "no outside cases at {}",
            folder.display()
        ));
    }
    let mut answered = Vec::new();
    for (name, answer) in ANSWERERS {
        let named = folder.join(name);
        let files = match named.is_file() {
            true => vec![named],
            false => row_files(&named)?,
        };
        for path in files {
            let file = path
                .strip_prefix(folder)
                .unwrap_or(&path)
                .display()
                .to_string();
            for row in rows(&path)? {
                let outcome = answer(&path, &row);
                answered.push(Answered {
                    file: file.clone(),
                    id: row.id,
                    outcome,
                    want: row.expect,
                });
            }
        }
    }
    if answered.is_empty() {
        return Err(miette!(
            "{} holds no row file that is answered so far",
            folder.display()
        ));
    }
    Ok(answered)
}

/// The YAML files right in a folder, by name; none if the folder is missing.
fn row_files(folder: &Path) -> miette::Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_diagnostic()? {
        let path = entry.into_diagnostic()?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The rows of a file; none if it is no list of rows (an input that rows name).
fn rows(path: &Path) -> miette::Result<Vec<Row>> {
    let text = std::fs::read_to_string(path)
        .into_diagnostic()
        .wrap_err_with(|| format!("reading {}", path.display()))?;
    if !text.lines().any(|line| line.starts_with("- id:")) {
        return Ok(Vec::new());
    }
    serde_saphyr::from_str(&text)
        .map_err(|error| miette!("{}: {error}", path.display()))
        .wrap_err("a row file is a YAML list of rows with an `id` each")
}
