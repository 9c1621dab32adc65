//! Verdicts on connections that were opened, as recorded and as simulated.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use nodeway_core::datapath::{Hook, Reason};
use nodeway_core::frontend::FrontendKey;
use nodeway_core::recording::{Decision, Recording};
use nodeway_core::trace::{Step, VerdictStep, Way};
use serde::Serialize;

use super::{MOST, note, who};
use crate::cluster::{Ask, Cause, Cluster as _};
use crate::net::{destination, source};
use crate::sim::Sim;

/// A verdict that a hook gave on a connection, however often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// The node.
    pub node: String,
    /// Who opened it.
    pub from: String,
    /// To where.
    pub to: SocketAddr,
    /// The hook: `tc`, `sk-lookup`, `connect`.
    pub hook: String,
    /// The verdict, with its reason: `assign (new-connection)`.
    pub recorded: String,
    /// How often.
    pub times: u64,
    /// What that hook does in the simulation.
    pub simulated: Vec<String>,
    /// Whether the recorded verdict is among that.
    pub held: bool,
}

/// Who opens a connection to where; a call has no source yet.
type Opening = (Option<IpAddr>, SocketAddr);

/// Decisions that are not about a connection that is being opened.
pub(super) fn later(recording: &Recording) -> u64 {
    let decisions = recording.decisions.iter();
    let count = decisions.filter(|it| opening(it).is_none()).count();
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn opening(decision: &Decision) -> Option<Opening> {
    let to = decision.to.filter(|to| to.port() != 0)?;
    let opens = decision.opens() && decision.reason != Reason::NotTcp;
    opens.then(|| (decision.from.map(|it| it.ip()), to))
}

pub(super) fn replay(
    sim: &mut Sim,
    recordings: &[Recording],
    not_replayed: &mut Vec<String>,
) -> Vec<Decided> {
    let mut all = Vec::new();
    let mut too_many = 0;
    for recording in recordings {
        let mut openings: BTreeMap<Opening, BTreeMap<(String, String), u64>> = BTreeMap::new();
        for decision in &recording.decisions {
            if let Some(opening) = opening(decision) {
                let given = (
                    decision.hook.clone(),
                    given(&decision.verdict, decision.reason),
                );
                *openings
                    .entry(opening)
                    .or_default()
                    .entry(given)
                    .or_default() += 1;
            }
        }
        let node = &recording.header.node;
        for (number, (opening, recorded)) in openings.into_iter().enumerate() {
            if number >= MOST {
                too_many += recorded.values().sum::<u64>();
                continue;
            }
            all.extend(one(sim, node, opening, recorded));
        }
    }
    note(
        not_replayed,
        too_many,
        "verdicts: there are too many different connections",
    );
    all
}

/// Opens a connection again, and compares what was decided on it.
fn one(
    sim: &mut Sim,
    node: &str,
    opening: Opening,
    recorded: BTreeMap<(String, String), u64>,
) -> Vec<Decided> {
    let simulated = simulated(sim, node, opening);
    let (from, to) = opening;
    let from = match from {
        Some(from) => who(sim, SocketAddr::new(from, 0)),
        None => format!("Node {node}"),
    };
    let rows = recorded.into_iter().map(|((hook, given), times)| {
        let of_hook = simulated.get(&hook).cloned().unwrap_or_default();
        Decided {
            node: node.to_owned(),
            from: from.clone(),
            to,
            held: of_hook.contains(&given),
            hook,
            recorded: given,
            times,
            simulated: of_hook,
        }
    });
    rows.collect()
}

/// What the node's hooks do about it, by hook.
fn simulated(sim: &mut Sim, node: &str, (from, to): Opening) -> BTreeMap<String, Vec<String>> {
    let key = FrontendKey {
        address: to.ip(),
        port: to.port(),
    };
    let plan = sim.plan(node);
    if plan.is_none_or(|plan| !plan.frontends.contains_key(&key)) {
        // By the decision's own rule, whichever hook asks: the table does not have it.
        let pass = given("pass", Reason::NotAFrontend);
        let hooks = ["tc", "sk-lookup", "connect"].into_iter();
        return hooks
            .map(|it| (it.to_owned(), vec![pass.clone()]))
            .collect();
    }
    let asker = from.map_or_else(|| format!("node/{node}"), |it| it.to_string());
    let way = match sim.request(&asker, Ask::get(format!("http://{to}/"))) {
        Ok(reply) => reply.way,
        Err(failed) => match failed.failure {
            Cause::Network(_) => failed.way,
            Cause::Ask(_) => Way::default(),
        },
    };
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, step) in &way.steps {
        if let Step::Verdict(step) = step
            && *step.node == *node
            && destination(&step.flow) == to
            && is_from(step, from)
        {
            let of_hook = all.entry(hook(step.hook).to_owned()).or_default();
            of_hook.push(given(step.verdict, step.reason));
        }
    }
    all
}

fn is_from(step: &VerdictStep, from: Option<IpAddr>) -> bool {
    match from {
        Some(from) => source(&step.flow).ip() == from,
        None => step.hook == Hook::Connect,
    }
}

/// A hook as the kernel's events name it.
const fn hook(hook: Hook) -> &'static str {
    match hook {
        Hook::TcIngress { .. } => "tc",
        Hook::SkLookup => "sk-lookup",
        Hook::Connect => "connect",
    }
}

fn given(verdict: &str, reason: Reason) -> String {
    format!("{verdict} ({reason})")
}
