//! The rows that don't pass, each with its reason: one checked-in list that can only shrink.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use miette::{IntoDiagnostic, WrapErr, miette};

use super::{Answered, Outcome};

/// The list, by id.
///
/// # Errors
/// When `ci/cases.pending.yaml` is missing or is no mapping of id to reason.
pub fn list() -> miette::Result<BTreeMap<String, String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cases.pending.yaml");
    let text = std::fs::read_to_string(&path)
        .into_diagnostic()
        .wrap_err("ci/cases.pending.yaml")?;
    serde_saphyr::from_str(&text).map_err(|error| miette!("ci/cases.pending.yaml: {error}"))
}

/// What differs between the list and what was answered, in a sentence each.
///
/// # Errors
/// When the list cannot be read.
pub fn compare(answered: &[Answered]) -> miette::Result<Vec<String>> {
    let pending = list()?;
    let mut differences = Vec::new();
    let mut seen = BTreeSet::new();
    for row in answered {
        seen.insert(row.id.as_str());
        match (&row.outcome, pending.get(&row.id)) {
            (Outcome::Passed, None)
            | (Outcome::Failed { .. } | Outcome::NotSimulated(_), Some(_)) => {}
            (Outcome::Passed, Some(_)) => differences.push(format!(
                "{} passes now: take it off ci/cases.pending.yaml",
                row.id
            )),
            (Outcome::Failed { got, want }, None) => differences.push(format!(
                "{} ({}) failed: got {got}, want {want}",
                row.id, row.file
            )),
            (Outcome::NotSimulated(why), None) => {
                differences.push(format!("{} ({}) is not simulated: {why}", row.id, row.file))
            }
        }
    }
    for id in pending.keys().filter(|id| !seen.contains(id.as_str())) {
        differences.push(format!(
            "{id} is on ci/cases.pending.yaml and no row has that id"
        ));
    }
    Ok(differences)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cases::run;

    /// Where the outside cases are: they are not part of the project.
    fn folder() -> PathBuf {
        std::env::var_os("NODEWAY_CASES").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases"),
            PathBuf::from,
        )
    }

    #[test]
    fn the_rows_that_do_not_pass_are_exactly_those_of_the_list() {
        let folder = folder();
        assert!(
            folder.is_dir(),
            "the outside cases are not at {}: set NODEWAY_CASES to their folder",
            folder.display()
        );
        assert_eq!(
            compare(&run(&folder).unwrap()).unwrap(),
            Vec::<String>::new()
        );
    }
}
