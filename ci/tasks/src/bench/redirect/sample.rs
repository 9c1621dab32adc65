//! What one way cost once, and what it costs beside another.

use std::time::Duration;

use serde::Serialize;

use super::load::{Connections, Loaded};
use super::way::Way;
use crate::bench::spread::Spread;

/// One run of the load generator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Answers per second.
    pub requests_per_second: f64,
    /// Median latency, in microseconds.
    pub p50_us: f64,
    /// 99th percentile of latency, in microseconds.
    pub p99_us: f64,
    /// Envoy's CPU time for a request, in microseconds.
    pub envoy_us: f64,
    /// Envoy's and the load generator's together, with what the kernel did in their context.
    pub both_us: f64,
    /// Of all CPUs, whoever kept them busy.
    pub machine_us: f64,
    /// Connections that failed and answers that were no success.
    pub failed: u32,
}

impl Sample {
    /// What the load generator said, and how long each ran meanwhile.
    #[must_use]
    pub fn of(loaded: &Loaded, envoy: Duration, load: Duration, machine: Duration) -> Self {
        let requests = f64::from(loaded.requests.max(1));
        let each = |time: Duration| time.as_secs_f64() * 1e6 / requests;
        Self {
            requests_per_second: loaded.rate,
            p50_us: loaded.p50,
            p99_us: loaded.p99,
            envoy_us: each(envoy),
            both_us: each(envoy + load),
            machine_us: each(machine),
            failed: loaded.failed,
        }
    }
}

/// All runs of one way, one a round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The way.
    pub way: Way,
    /// Frontends that were there.
    pub frontends: u32,
    /// Whether connections were kept.
    pub connections: Connections,
    /// One a round.
    pub rounds: Vec<Sample>,
    /// Rates, and each round's over that of [`Way::Straight`] in the same round.
    pub requests_per_second: Spread,
    /// See there.
    pub rate_ratio: Spread,
    /// In microseconds.
    pub p50_us: Spread,
    /// In microseconds.
    pub p99_us: Spread,
    /// In microseconds.
    pub envoy_us: Spread,
    /// In microseconds, and each round's over that of [`Way::Straight`] in the same round.
    pub both_us: Spread,
    /// See there.
    pub both_ratio: Spread,
    /// In microseconds.
    pub machine_us: Spread,
    /// Failures of all rounds.
    pub failed: u32,
}

impl Row {
    /// Of the rounds of a way, beside those of going straight.
    #[must_use]
    pub fn of(
        (way, frontends, connections): (Way, u32, Connections),
        rounds: &[Sample],
        straight: &[Sample],
    ) -> Self {
        let each = |figure: fn(&Sample) -> f64| Spread::of(rounds.iter().map(figure));
        let ratio = |figure: fn(&Sample) -> f64| {
            let pairs = rounds.iter().zip(straight);
            Spread::of(pairs.map(|(own, straight)| figure(own) / figure(straight)))
        };
        Self {
            way,
            frontends,
            connections,
            rounds: rounds.to_vec(),
            requests_per_second: each(|it| it.requests_per_second),
            rate_ratio: ratio(|it| it.requests_per_second),
            p50_us: each(|it| it.p50_us),
            p99_us: each(|it| it.p99_us),
            envoy_us: each(|it| it.envoy_us),
            both_us: each(|it| it.both_us),
            both_ratio: ratio(|it| it.both_us),
            machine_us: each(|it| it.machine_us),
            failed: rounds.iter().map(|it| it.failed).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_divided_by_requests() {
        let loaded = Loaded {
            requests: 1_000,
            ..Loaded::default()
        };
        let [one, two, five] = [1, 2, 5].map(Duration::from_millis);
        let sample = Sample::of(&loaded, one, two, five);
        assert_eq!((sample.envoy_us, sample.both_us), (1.0, 3.0));
        assert_eq!(sample.machine_us, 5.0);
    }

    #[test]
    fn a_ratio_is_of_one_rounds_two_sides() {
        let rate = |requests_per_second| Sample {
            requests_per_second,
            ..Sample::default()
        };
        // A slow second hurts both sides of its round.
        let straight = [100.0, 10.0, 100.0].map(rate);
        let own = [90.0, 9.0, 80.0].map(rate);
        let row = Row::of((Way::Tc, 10, Connections::New), &own, &straight);
        assert_eq!(row.rate_ratio.median, 0.9);
        assert_eq!((row.rate_ratio.min, row.rate_ratio.max), (0.8, 0.9));
        assert_eq!(row.requests_per_second.median, 80.0);
    }
}
