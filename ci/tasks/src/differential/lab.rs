//! A fixture's requests in the simulator and in the lab.

use std::path::{Path, PathBuf};

use miette::{IntoDiagnostic, WrapErr};
use nodeway_live::lab::name::LabName;
use nodeway_live::lab::state::Labs;
use nodeway_live::lab::{Lab, LabError, LabOptions, Workers};
use nodeway_sim::{Cluster, Fixture, Redirect, RequestSpec, Row, Sim};

use super::known::Place;
use super::same::Outcome;
use super::{Difference, differences};

/// What came of one fixture with one redirect.
#[derive(Debug)]
pub struct Compared {
    /// The fixture's folder below `fixtures`.
    pub fixture: String,
    /// The redirect.
    pub redirect: Redirect,
    /// How many requests were sent to both.
    pub requests: usize,
    /// What differs, and where.
    pub differences: Vec<(Place, Difference)>,
}

/// Every folder below that has a fixture, sorted.
///
/// # Errors
/// When a folder cannot be read.
pub fn fixtures(root: &Path) -> miette::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        if folder.join("fixture.yaml").exists() {
            found.push(folder);
            continue;
        }
        let entries = std::fs::read_dir(&folder)
            .into_diagnostic()
            .wrap_err_with(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry.into_diagnostic()?.path();
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Sends a fixture's requests in both modes. A lab that cannot be made is a difference too.
///
/// # Errors
/// When the simulator cannot run the fixture: that is no question of the lab.
pub fn compare(
    root: &Path,
    folder: &Path,
    redirect: Redirect,
    envoy: &Path,
) -> miette::Result<Compared> {
    let fixture = Fixture::load(folder)
        .into_diagnostic()
        .wrap_err_with(|| folder.display().to_string())?;
    let name = folder.strip_prefix(root).unwrap_or(folder);
    let mut compared = Compared {
        fixture: name.display().to_string(),
        redirect,
        requests: 0,
        differences: Vec::new(),
    };
    let builder = Sim::from_fixture(&fixture).into_diagnostic()?;
    let mut sim = builder.redirect(redirect).start().into_diagnostic()?;
    match lab(&fixture, redirect, envoy) {
        Ok(mut lab) => {
            for spec in &fixture.requests {
                compared.request(spec, &mut sim, &mut lab)?;
            }
        }
        Err(error) => {
            let difference = Difference {
                field: "lab".to_owned(),
                sim: "runs".to_owned(),
                lab: error.to_string(),
            };
            let place = compared.place("");
            compared.differences.push((place, difference));
        }
    }
    Ok(compared)
}

fn lab(fixture: &Fixture, redirect: Redirect, envoy: &Path) -> Result<Lab, LabError> {
    // Several of this process stand side by side, and several processes.
    let thread = format!("{:?}", std::thread::current().id());
    let digits = thread.chars().filter(char::is_ascii_digit);
    let name = format!("diff-{}-{}", std::process::id(), digits.collect::<String>());
    let options = LabOptions {
        name: LabName::new(&name).map_err(|_| LabError::NotYet(name))?,
        envoy: envoy.to_owned(),
        labs: Labs::here(),
        workers: Workers::Threads,
    };
    Lab::up(fixture, Some(redirect), options, &mut |_| {})
}

impl Compared {
    fn place(&self, request: &str) -> Place {
        Place {
            fixture: self.fixture.clone(),
            redirect: self.redirect.to_string(),
            request: request.to_owned(),
        }
    }

    fn request(&mut self, spec: &RequestSpec, sim: &mut Sim, lab: &mut Lab) -> miette::Result<()> {
        if sim.not_applicable(&spec.from).into_diagnostic()?.is_some() {
            return Ok(());
        }
        self.requests += 1;
        let in_sim = sim.request(&spec.from, spec.ask());
        let in_lab = lab.request(&spec.from, spec.ask());
        let sim_row = Row::new(spec, self.redirect, in_sim.clone(), &sim.known());
        let lab_row = Row::new(spec, self.redirect, in_lab.clone(), &lab.known());
        let found = differences(
            sim,
            &Outcome {
                result: in_sim.as_ref().map_err(AsRef::as_ref),
                row: &sim_row.into_diagnostic()?,
            },
            &Outcome {
                result: in_lab.as_ref().map_err(AsRef::as_ref),
                row: &lab_row.into_diagnostic()?,
            },
        );
        let place = self.place(&spec.name);
        let found = found.into_iter().map(|it| (place.clone(), it));
        self.differences.extend(found);
        Ok(())
    }
}
