//! A replay: recorded nodes, simulated, and asked again what they were asked.
//!
//! ```text
//!  decisions.jsonl   connections that were opened ─► each again, from the same place ─► the same verdicts?
//!  requests.jsonl    requests that Envoys had     ─► each again                      ─► the same answers?
//! ```
//!
//! Verdicts are compared where connections are opened: what comes later hangs on sockets, which no
//! recording has. Of an answer that a backend gave, what Envoy did for it is compared; what the
//! program in the pod said is its own business.

mod answer;
mod verdict;

use std::net::SocketAddr;

use nodeway_core::in_force::Difference;
use nodeway_core::recording::Recording;
use nodeway_core::redirect::Redirect;
use serde::Serialize;

use crate::net::TopologyError;
use crate::sim::Sim;
use crate::source::LoadErrors;

pub use answer::{Answered, Asked};
pub use verdict::Decided;

/// Different questions of one kind that are asked again at most.
const MOST: usize = 1_000;

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Load(#[from] LoadErrors),
    /// Its objects give no network.
    #[error(transparent)]
    Topology(#[from] TopologyError),
}

/// What came of a replay.
#[derive(Clone, Debug, Serialize)]
pub struct Replay {
    /// How packets were led.
    pub redirect: Redirect,
    /// The nodes that were recorded.
    pub nodes: Vec<Node>,
    /// Verdicts on connections that were opened.
    pub verdicts: Vec<Decided>,
    /// Requests that Envoys had.
    pub requests: Vec<Asked>,
    /// Decisions on packets of connections that stood already, and on what is no TCP: not compared.
    pub later_decisions: u64,
    /// What was recorded and is not asked again, one line a cause.
    pub not_replayed: Vec<String>,
    /// Objects that could change an answer and are not simulated.
    pub not_simulated: Vec<String>,
}

/// One recorded node.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Its name.
    pub node: String,
    /// When it was recorded.
    pub at: String,
    /// Where what it had was not what its objects ask for.
    pub not_as_planned: Vec<String>,
}

impl Replay {
    /// Whether the simulation did all that was recorded.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.verdicts.iter().all(|it| it.held) && self.requests.iter().all(Asked::holds)
    }

    /// How much was compared: different verdicts and answers.
    #[must_use]
    pub fn compared(&self) -> usize {
        self.verdicts.len() + self.requests.len()
    }
}

/// Replays recordings, one of each node, the newest last: its objects are those of the cluster.
///
/// # Errors
/// When one cannot be read, or its objects give no network.
pub fn replay(recordings: &[Recording]) -> Result<Replay, ReplayError> {
    let mut sim = Sim::from_recordings(recordings)?.start()?;
    let mut not_replayed = Vec::new();
    let verdicts = verdict::replay(&mut sim, recordings, &mut not_replayed);
    let requests = answer::replay(&mut sim, recordings, &mut not_replayed);
    let later_decisions = recordings.iter().map(verdict::later).sum();
    let nodes = recordings.iter().map(|it| node(&sim, it)).collect();
    Ok(Replay {
        redirect: sim.settings().redirect,
        nodes,
        verdicts,
        requests,
        later_decisions,
        not_replayed,
        not_simulated: sim.objects().not_simulated.clone(),
    })
}

fn node(sim: &Sim, recording: &Recording) -> Node {
    let header = &recording.header;
    let mut in_force = sim.in_force().iter();
    let differences = in_force
        .find(|it| *it.node == *header.node)
        .map(|it| it.differences.as_slice());
    let differences = differences.unwrap_or_default().iter();
    Node {
        node: header.node.clone(),
        at: header.at.clone(),
        not_as_planned: differences
            .map(|Difference { what, .. }| what.clone())
            .collect(),
    }
}

/// Who has an address, by name; else the address.
fn who(sim: &Sim, address: SocketAddr) -> String {
    let seen = sim.seen(address);
    seen.name.unwrap_or_else(|| address.ip().to_string())
}

/// Says that some of a kind are not asked again.
fn note(all: &mut Vec<String>, count: u64, what: &str) {
    if count > 0 {
        all.push(format!("{count} {what}"));
    }
}
