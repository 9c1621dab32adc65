//! Every incident: what happened to its users happens in sim, by every redirect.

use std::path::PathBuf;

use nodeway_sim::{Fixture, Redirect, RunOptions, run};
use rstest::rstest;

#[rstest]
fn an_incident_happens_again_by_every_redirect(
    #[files("../fixtures/incidents/*/fixture.yaml")] file: PathBuf,
) {
    let fixture = Fixture::load(file.parent().unwrap()).unwrap_or_else(|it| panic!("{it}"));
    for redirect in Redirect::ALL {
        let options = RunOptions {
            redirect: Some(*redirect),
            ..RunOptions::default()
        };
        let report = run(&fixture, options).unwrap_or_else(|it| panic!("{it}"));
        assert!(report.expectations > 0, "an incident expects something");
        let broken: Vec<_> = report
            .requests
            .iter()
            .filter(|row| !row.holds())
            .map(|row| format!("{}: {:?}", row.name, row.expectations))
            .collect();
        assert!(broken.is_empty(), "{redirect}:\n{}", broken.join("\n"));
    }
}

#[rstest]
fn an_incident_says_symptom_cause_and_cure(
    #[files("../fixtures/incidents/*/fixture.yaml")] file: PathBuf,
) {
    let page = file.parent().unwrap().join("README.md");
    let text = std::fs::read_to_string(&page).unwrap_or_else(|it| panic!("{page:?}: {it}"));
    for wanted in [
        "\n## Symptom\n",
        "\n## Cause\n",
        "\n## What Nodeway says\n",
        "\n## Cure\n",
    ] {
        assert!(text.contains(wanted), "{page:?} has no part {wanted:?}");
    }
    for command in ["$ nodeway check ", "$ nodeway explain "] {
        assert!(text.contains(command), "{page:?} does not show {command:?}");
    }
}
