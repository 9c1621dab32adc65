//! The model and a real Envoy: the same listeners, requests and connections, and no difference
//! allowed.
//!
//! Subjects are drawn ([`subject`]): route tables with requests, filter chains with connections,
//! and configs with which something is wrong. Many at a time, they become the listeners of one
//! Envoy ([`real`]), which reads them from a file; a subject hangs on the seed and its number alone,
//! so that any runs again by itself. What differs is made small ([`shrink`]) before it is told.

mod answer;
mod ask;
mod broken;
mod chain;
mod luck;
mod origin;
mod real;
mod shrink;
mod subject;
mod table;
mod trial;

use std::fmt;
use std::path::Path;

use nodeway_sim::Seed;

use crate::differential::decision::Trouble;
use crate::differential::known::{List, Place};
use real::Real;
use subject::Subject;
use trial::{Difference, Trial};

pub use luck::{Feature, Tally};

/// Subjects whose listeners Envoy has at the same time.
const BATCH: u32 = 120;
/// How many differences are made small and told.
const TOLD: usize = 5;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many cases, at least.
    pub cases: u64,
    /// The seed of all luck.
    pub seed: u64,
    /// One subject alone.
    pub only: Option<u32>,
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Cases that were run: requests, connections, and refused configs.
    pub cases: u64,
    /// Configs that both sides refused.
    pub refused: u64,
    /// How often each feature was drawn.
    pub tally: Tally,
    /// The first differences, small, each with what makes it run again.
    pub told: Vec<String>,
    /// How many differences there were that are not known.
    pub different: u64,
    /// How many are known.
    pub known: u64,
}

impl Report {
    /// Features that were never drawn.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let none = |feature: &&Feature| self.tally.of(**feature) == 0;
        Feature::ALL
            .iter()
            .filter(none)
            .map(|it| it.name())
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tally)?;
        for told in &self.told {
            writeln!(f, "\nDIFFERENT {told}")?;
        }
        write!(
            f,
            "{} cases, {} configs refused by both, {} differences, {} known ones",
            self.cases, self.refused, self.different, self.known
        )
    }
}

/// Runs the suite with this Envoy.
///
/// # Errors
/// When Envoy does not start, or ends.
pub fn run(plan: &Plan, program: &Path) -> Result<Report, Trouble> {
    let mut known = List::read()?;
    let mut envoy = Real::start(program)?;
    let mut report = Report::default();
    let seed = Seed(plan.seed);
    let mut next = plan.only.unwrap_or(0);
    loop {
        let last = if plan.only.is_some() {
            next + 1
        } else {
            next + BATCH
        };
        let subjects: Vec<Subject> = (next..last)
            .map(|number| Subject::draw(seed, number, &mut report.tally))
            .collect();
        next = last;
        batch(plan, &mut envoy, &subjects, &mut known, &mut report)?;
        if plan.only.is_some() || report.cases >= plan.cases {
            return Ok(report);
        }
    }
}

fn batch(
    plan: &Plan,
    envoy: &mut Real,
    subjects: &[Subject],
    known: &mut List,
    report: &mut Report,
) -> Result<(), Trouble> {
    let trials: Vec<Trial<'_>> = subjects
        .iter()
        .map(|subject| Trial {
            listener: &subject.listener,
            probes: &subject.probes,
        })
        .collect();
    let verdicts = trial::run(envoy, &trials)?;
    for (subject, verdict) in subjects.iter().zip(verdicts) {
        let whole = verdict.differences.iter().any(|it| it.probe.is_none());
        report.cases += if verdict.taken { subject.cases() } else { 1 };
        report.refused += u64::from(!verdict.taken && !whole);
        for difference in &verdict.differences {
            if known.reason(&place(), &difference.about).is_some() {
                report.known += 1;
                continue;
            }
            report.different += 1;
            if report.told.len() < TOLD {
                report.told.push(tell(plan, envoy, subject, difference)?);
            }
        }
    }
    Ok(())
}

/// Where the list of known differences has those of this suite.
fn place() -> Place {
    Place {
        fixture: "ci/differential envoy".to_owned(),
        redirect: String::new(),
        request: String::new(),
    }
}

fn tell(
    plan: &Plan,
    envoy: &mut Real,
    subject: &Subject,
    difference: &Difference,
) -> Result<String, Trouble> {
    let (listener, probe, small) = shrink::shrink(envoy, subject, difference)?;
    let yaml = serde_saphyr::to_string(&listener)?;
    let probe = probe.map(|probe| format!("{probe}\n")).unwrap_or_default();
    Ok(format!(
        "{}\n  model: {}\n  envoy: {}\n{yaml}{probe}  again: ci/differential envoy --seed {} --only {}",
        small.about, small.model, small.envoy, plan.seed, subject.number
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(subjects: u32) -> Tally {
        let mut tally = Tally::default();
        for number in 0..subjects {
            let _ = Subject::draw(Seed(1), number, &mut tally);
        }
        tally
    }

    #[test]
    fn every_feature_is_drawn_among_as_many_subjects_as_ci_runs() {
        let tally = tally(2 * BATCH);
        let never: Vec<_> = Feature::ALL
            .iter()
            .filter(|it| tally.of(**it) == 0)
            .collect();
        assert!(never.is_empty(), "{never:?}");
    }

    #[test]
    fn a_subject_hangs_on_the_seed_and_its_number_alone() {
        let mut tally = Tally::default();
        let first = Subject::draw(Seed(7), 40, &mut tally);
        assert_eq!(Subject::draw(Seed(7), 40, &mut tally), first);
        assert_ne!(Subject::draw(Seed(8), 40, &mut tally), first);
    }
}
