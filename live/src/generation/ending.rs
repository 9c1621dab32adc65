//! How a generation ends: by steps, each of which waits for others up to a bound.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where a generation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It takes connections.
    Running,
    /// It shall end: the agent leads its frontends elsewhere.
    Retiring,
    /// Nothing new comes; its connections are asked to end.
    Draining,
}

impl Phase {
    /// Whether it is to end.
    #[must_use]
    pub const fn is_retiring(self) -> bool {
        !matches!(self, Self::Running)
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Retiring => "retiring",
            Self::Draining => "draining",
        })
    }
}

/// How long a step waits for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// For the agent, which may be dead.
    pub handover: Duration,
    /// For connections to end.
    pub drain: Duration,
}

/// What is seen of a generation that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// For how long it is in its phase.
    pub(super) age: Duration,
    /// Whether the agent said that nothing leads there.
    pub(super) unled: bool,
    /// Its connections, if it says.
    pub(super) connections: Option<u64>,
}

/// What is to be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Wait,
    /// Ask its connections to end.
    Drain,
    /// End it. So many connections are cut, if it says.
    End {
        cut: Option<u64>,
    },
}

pub(super) fn step(phase: Phase, seen: &Seen, bounds: &Bounds) -> Step {
    match phase {
        Phase::Running => Step::Wait,
        Phase::Retiring if seen.unled || seen.age >= bounds.handover => Step::Drain,
        Phase::Draining if seen.connections == Some(0) || seen.age >= bounds.drain => Step::End {
            cut: seen.connections,
        },
        Phase::Retiring | Phase::Draining => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        handover: Duration::from_secs(60),
        drain: Duration::from_secs(30),
    };

    #[rstest]
    #[case::one_that_runs_is_left_alone(Phase::Running, 999, true, Some(0), Step::Wait)]
    #[case::frontends_lead_there(Phase::Retiring, 59, false, Some(0), Step::Wait)]
    #[case::nothing_leads_there(Phase::Retiring, 0, true, Some(7), Step::Drain)]
    #[case::nobody_says_so_in_time(Phase::Retiring, 60, false, Some(7), Step::Drain)]
    #[case::connections_are_open(Phase::Draining, 29, true, Some(1), Step::Wait)]
    #[case::it_does_not_say(Phase::Draining, 29, true, None, Step::Wait)]
    #[case::all_are_closed(Phase::Draining, 1, true, Some(0), Step::End { cut: Some(0) })]
    #[case::some_are_cut(Phase::Draining, 30, true, Some(2), Step::End { cut: Some(2) })]
    #[case::who_knows_how_many_are_cut(Phase::Draining, 30, true, None, Step::End { cut: None })]
    fn a_generation_ends_by_steps(
        #[case] phase: Phase,
        #[case] age: u64,
        #[case] unled: bool,
        #[case] connections: Option<u64>,
        #[case] done: Step,
    ) {
        let seen = Seen {
            age: Duration::from_secs(age),
            unled,
            connections,
        };
        assert_eq!(step(phase, &seen, &BOUNDS), done);
    }
}
