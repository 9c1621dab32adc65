//! Rows that nobody in this project wrote, answered by this project.
//!
//! A folder of row files is read; each row goes to the answerer of its folder, which says what
//! the row asked for and what came out. What the project does not model is `not simulated`,
//! never a guess.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

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
