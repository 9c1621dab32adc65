//! Measurements, as ratios against a reference in the same run.
//!
//! Machines are noisy: contestants take turns, round by round, and each figure is the median of
//! its rounds. A ratio is a median of one round's ratios, so that a slow second hurts both sides; the
//! least and the greatest stand beside it.

pub mod build;
pub mod decide;
pub mod machine;
pub mod packets;
pub mod plan;
pub mod redirect;
pub mod rules;
pub mod sim;
pub mod spread;
pub mod xds;

use std::time::{Duration, Instant};

pub use machine::Machine;
use serde::Serialize;
pub use spread::Spread;

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// What was measured.
    pub what: String,
    /// The figure with its unit.
    pub figure: String,
    /// Against what the ratio is; empty for a plain figure.
    pub reference: String,
    /// The ratio; empty for a plain figure.
    pub ratio: String,
}

impl Line {
    /// A figure without a reference.
    #[must_use]
    pub fn plain(what: impl Into<String>, figure: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            figure: figure.into(),
            reference: String::new(),
            ratio: String::new(),
        }
    }

    /// A figure beside a reference.
    #[must_use]
    pub fn beside(
        what: impl Into<String>,
        figure: impl Into<String>,
        reference: impl Into<String>,
        ratio: Spread,
    ) -> Self {
        Self {
            what: what.into(),
            figure: figure.into(),
            reference: reference.into(),
            ratio: ratio.to_string(),
        }
    }
}

/// How long `work` takes on the machine's clock.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a benchmark measures the machine"
    )]
    let started = Instant::now();
    let outcome = std::hint::black_box(work());
    (started.elapsed(), outcome)
}

/// A duration in microseconds.
#[must_use]
pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Rates of two contestants that take turns, `rounds` times: median rate of each, and each round's
/// first over second. A contestant returns how much it did.
pub fn turns(
    rounds: usize,
    mut first: impl FnMut() -> u64,
    mut second: impl FnMut() -> u64,
) -> (f64, f64, Spread) {
    let mut rates = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let a = rate(&mut first);
        let b = rate(&mut second);
        rates.0.push(a);
        rates.1.push(b);
        rates.2.push(a / b);
    }
    (
        median(&mut rates.0),
        median(&mut rates.1),
        Spread::of(rates.2),
    )
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a benchmark are far below 2^52"
)]
fn rate(contestant: &mut impl FnMut() -> u64) -> f64 {
    let (took, done) = timed(contestant);
    done as f64 / took.as_secs_f64().max(1e-9)
}

/// The middle one; zero of none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// `1.23 M`, `456 k`, `78`.
#[must_use]
pub fn short(rate: f64) -> String {
    match rate {
        r if r >= 1e6 => format!("{:.2} M", r / 1e6),
        r if r >= 1e3 => format!("{:.0} k", r / 1e3),
        r => format!("{r:.0}"),
    }
}
