//! Listeners tried on both sides: the model reads them, Envoy takes or refuses them, and what comes
//! to those that both take is answered by both.

use serde_json::Value;

use super::answer::{Answer, differences, expected, read, real, telling};
use super::ask::Client;
use super::real::Real;
use super::subject::{Probe, placed};
use crate::differential::decision::Trouble;

/// A listener to try, and what comes to it.
pub(super) struct Trial<'a> {
    pub(super) listener: &'a Value,
    pub(super) probes: &'a [Probe],
}

/// One way in which both sides differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// Which of the trial's probes; none for the listener as a whole.
    pub(super) probe: Option<usize>,
    /// What it is about.
    pub(super) about: String,
    /// What the model says.
    pub(super) model: String,
    /// What Envoy says.
    pub(super) envoy: String,
}

impl Difference {
    /// Whether it is the same thing about another listener: the same words may read differently there.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.about == other.about
            && self.probe.is_some() == other.probe.is_some()
            && (self.probe.is_some() || self.reason() == other.reason())
    }

    /// Why a side refuses a listener, without the listener's address.
    fn reason(&self) -> (bool, String) {
        let letters = self.envoy.chars().filter(|it| !it.is_ascii_digit());
        (self.model == TAKEN, letters.collect())
    }
}

/// What is said of a listener that is taken.
pub(super) const TAKEN: &str = "taken";

/// How a trial went.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    pub(super) differences: Vec<Difference>,
    /// Whether both sides took the listener.
    pub(super) taken: bool,
}

/// Tries some listeners at once.
pub(super) fn run(envoy: &mut Real, trials: &[Trial<'_>]) -> Result<Vec<Verdict>, Trouble> {
    let placed: Vec<_> = trials
        .iter()
        .enumerate()
        .map(|(at, trial)| {
            let address = envoy.address(at);
            (
                address,
                placed(trial.listener, &format!("{}", address.ip()), address),
            )
        })
        .collect();
    let told: Vec<Value> = placed
        .iter()
        .map(|(_, listener)| telling(listener))
        .collect();
    let refused = envoy.push(&told)?;
    let mut verdicts = Vec::new();
    for (trial, (address, listener)) in trials.iter().zip(&placed) {
        let mut verdict = Verdict::default();
        match (read(listener), refused.get(&address.ip().to_string())) {
            (Err(_), Some(_)) => {}
            (Err(model), None) => verdict.differences.push(whole(model, TAKEN.to_owned())),
            (Ok(_), Some(envoy)) => verdict
                .differences
                .push(whole(TAKEN.to_owned(), envoy.clone())),
            (Ok(listener), None) => {
                verdict.taken = true;
                let mut client = Client::new(*address);
                for (at, probe) in trial.probes.iter().enumerate() {
                    let probe = probe.to(address.port());
                    let wanted = expected(&listener, &probe, *address);
                    let got = real(&mut client, &probe, *address);
                    verdict.differences.extend(compared(at, &wanted, &got));
                }
            }
        }
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

fn whole(model: String, envoy: String) -> Difference {
    Difference {
        probe: None,
        about: "listener".to_owned(),
        model,
        envoy,
    }
}

fn compared(at: usize, wanted: &Answer, got: &Answer) -> Option<Difference> {
    let all = differences(wanted, got);
    // The route first: what else differs mostly comes of it.
    let order = ["error", "route", "status", "cluster"];
    let first = all.iter().min_by_key(|(about, ..)| {
        order
            .iter()
            .position(|it| it == about)
            .unwrap_or(order.len())
    });
    let (about, model, envoy) = first.cloned()?;
    let envoy = match got.get("error") {
        Some(error) => error.clone(),
        None => envoy,
    };
    Some(Difference {
        probe: Some(at),
        about,
        model,
        envoy,
    })
}
