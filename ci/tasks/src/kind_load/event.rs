//! What happens to a cluster while it is loaded, and what is promised of it.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::cluster::{Cluster, ClusterError};
use super::held::Holding;
use crate::load::event::pause;
use crate::load::hey::Loaded;
use crate::load::probe::Seen;

/// How long nothing happens, and how long a node stays away.
const HOLD: Duration = Duration::from_secs(4);

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// Nothing: what the load itself costs.
    Nothing,
    /// The backends are replaced, one after the other.
    BackendsRolled,
    /// The agents are replaced, node by node.
    AgentRolled,
    /// The Envoys are replaced, node by node, the next beside the one that ends.
    EnvoyRolled,
    /// A node with a backend is drained, and comes back.
    NodeDrained,
    /// The API server is killed and comes back; then the backends are replaced, of which every
    /// agent must hear.
    ApiServerRestarted,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Nothing,
        Self::BackendsRolled,
        Self::AgentRolled,
        Self::EnvoyRolled,
        Self::NodeDrained,
        Self::ApiServerRestarted,
    ];

    /// What it is called in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing happens",
            Self::BackendsRolled => "backends rolled",
            Self::AgentRolled => "agents rolled",
            Self::EnvoyRolled => "Envoys rolled",
            Self::NodeDrained => "node drained and back",
            Self::ApiServerRestarted => "API server restarted",
        }
    }

    /// Makes it happen, and says how long it took.
    ///
    /// # Errors
    /// When it cannot be made to happen, or does not end.
    #[expect(clippy::disallowed_methods, reason = "what is measured is time")]
    pub fn happen(self, cluster: &Cluster) -> Result<Duration, ClusterError> {
        let begun = Instant::now();
        match self {
            Self::Nothing => pause(HOLD),
            Self::BackendsRolled => cluster.roll_backends()?,
            Self::AgentRolled => cluster.roll_agents()?,
            Self::EnvoyRolled => cluster.roll_envoys()?,
            Self::NodeDrained => {
                cluster.drain()?;
                pause(HOLD);
                cluster.uncordon()?;
            }
            Self::ApiServerRestarted => {
                cluster.restart_api_server()?;
                cluster.roll_backends()?;
                cluster.in_sync()?;
            }
        }
        Ok(begun.elapsed())
    }

    /// What is promised of it and was not kept.
    ///
    /// Of each: every request is answered, every new connection is served, and no kept connection is
    /// cut that its client uses. One that says nothing cannot be told of an end: it is cut at the end
    /// of its Envoy's drain, and of no other event.
    #[must_use]
    pub fn broken(self, loaded: &Loaded, held: &Holding, probe: &Seen) -> Vec<String> {
        let mut all = Vec::new();
        if loaded.answered == 0 {
            all.push("nothing was answered".to_owned());
        }
        let failed: u32 = loaded.failed.values().sum();
        if failed > 0 {
            all.push(format!("{failed} requests failed"));
        }
        if probe.outage > Duration::ZERO {
            let outage = probe.outage;
            all.push(format!("a new connection was not served for {outage:?}"));
        }
        if probe.resent > 0 {
            let resent = probe.resent;
            all.push(format!("{resent} new connections lost their first SYN"));
        }
        let lost = held.busy.failed + held.idle.failed;
        if lost > 0 {
            all.push(format!("{lost} requests failed on kept connections"));
        }
        if held.busy.cut > 0 {
            let cut = held.busy.cut;
            all.push(format!("{cut} connections in use were cut"));
        }
        if held.idle.cut > 0 && self != Self::EnvoyRolled {
            let cut = held.idle.cut;
            all.push(format!("{cut} idle connections were cut"));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::held::Kept;
    use super::*;

    fn held(busy_cut: u32, idle_cut: u32) -> Holding {
        let cut = |cut| Kept {
            answered: 10,
            cut,
            ..Kept::default()
        };
        Holding {
            busy: cut(busy_cut),
            idle: cut(idle_cut),
        }
    }

    #[rstest]
    #[case::all_is_kept(Event::AgentRolled, 0, 0, 0, 0, 0)]
    #[case::a_request_failed(Event::AgentRolled, 1, 0, 0, 0, 1)]
    #[case::a_new_connection_waited(Event::NodeDrained, 0, 20, 0, 0, 1)]
    #[case::one_in_use_was_cut(Event::EnvoyRolled, 0, 0, 1, 10, 1)]
    #[case::idle_ones_end_with_their_envoy(Event::EnvoyRolled, 0, 0, 0, 10, 0)]
    #[case::and_with_nothing_else(Event::ApiServerRestarted, 0, 0, 0, 10, 1)]
    fn a_promise_is_kept_or_broken(
        #[case] event: Event,
        #[case] failed: u32,
        #[case] outage: u64,
        #[case] busy_cut: u32,
        #[case] idle_cut: u32,
        #[case] broken: usize,
    ) {
        let mut loaded = Loaded {
            answered: 100,
            ..Loaded::default()
        };
        loaded.failed.insert("EOF".to_owned(), failed);
        let probe = Seen {
            outage: Duration::from_millis(outage),
            ..Seen::default()
        };
        let said = event.broken(&loaded, &held(busy_cut, idle_cut), &probe);
        assert_eq!(said.len(), broken, "{said:?}");
    }
}
