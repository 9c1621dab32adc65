//! The decision natively and in the kernel: the same packets, tables and sockets, and no
//! difference allowed.
//!
//! A run is rounds. A round has a network namespace with real sockets in every state, tables of
//! frontends, and many packets ([`packet`]), look-ups and connect calls. Natively the tables are
//! literals ([`tables`]); in the kernel they are maps, and sockets are looked up for real
//! ([`sockets`], [`kernel`]). What a case draws depends on the seed, the round and its number
//! alone, so that any case runs again by itself.
//!
//! The kernel keeps three things from programs that are run by hand: a packet cannot be handed to
//! a socket (the refusals are counted, and must be as many as the verdicts that assign), packets
//! shorter than their IP header are not taken (`live/tests/bpf_packets.rs` sends them over a
//! veth), and connect hooks are not run at all (here they are called by real connects).

mod case;
mod connect;
mod kernel;
mod packet;
mod sockets;
mod tables;

use std::collections::BTreeMap;
use std::fmt;

use nodeway_core::datapath::Reason;
use nodeway_core::datapath::layout::Fault;
use nodeway_live::bpf::{Datapath, Pins};
use nodeway_live::netns::NetNs;
use nodeway_sim::Seed;

use case::{Case, Outcome};
pub(crate) use kernel::cgroup;

use kernel::Kernels;
use sockets::Standing;
use tables::Tables;

/// What a suite cannot go on without.
pub type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// Cases of one round; the tables are made once for them.
const ROUND: u32 = 20_000;
/// How many of them are connect calls, which are made by a real client.
const CALLS: u32 = 400;
/// Cases between two readings of the ring of events, which holds 14,563.
const BATCH: u32 = 4_000;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many cases, at least.
    pub cases: u32,
    /// The seed of all luck.
    pub seed: u64,
    /// One case alone: its round and its number.
    pub only: Option<(u32, u32)>,
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Cases that were run.
    pub cases: u64,
    /// How often each hook gave each reason.
    pub draws: BTreeMap<(&'static str, Reason), u64>,
    /// The first differences, each with what makes it run again.
    pub differences: Vec<String>,
    /// How many differences there were.
    pub different: u64,
}

/// The reasons that a hook can give in this suite; every one has to be drawn often enough.
#[must_use]
pub fn reachable(hook: &'static str) -> Vec<Reason> {
    use Reason as R;
    match hook {
        // Only a call gives `node-call`; what else tc says depends on sk_lookup beside it.
        "tc" => {
            let mut all: Vec<Reason> = Reason::ALL.to_vec();
            all.retain(|reason| *reason != R::NodeCall);
            all
        }
        // No packet is parsed, no socket is looked up, and every look-up is about a new connection.
        "sk-lookup" => vec![
            R::NotAFrontend,
            R::NotTcp,
            R::NewConnection,
            R::NoListener,
            R::Draining,
            R::SourceNotInRanges,
        ],
        "connect" => vec![
            R::NotAFrontend,
            R::NotTcp,
            R::NodeCall,
            R::Draining,
            // A frontend with source ranges: the call goes on as packets.
            R::LeftToSkLookup,
        ],
        _ => Vec::new(),
    }
}

impl Report {
    /// Reasons that were drawn too rarely, as lines: fewer than a thousandth of the cases, and
    /// fewer than 1,000.
    #[must_use]
    pub fn rare(&self) -> Vec<String> {
        let least = (self.cases / 1_000).min(1_000);
        let mut rare = Vec::new();
        for hook in ["tc", "sk-lookup", "connect"] {
            for reason in reachable(hook) {
                let draws = self.draws.get(&(hook, reason)).copied().unwrap_or(0);
                if draws < least {
                    rare.push(format!("{hook} gave {reason} {draws} times, not {least}"));
                }
            }
        }
        rare
    }

    fn add(&mut self, plan: &Plan, case: &Case, wanted: &Outcome, got: &Outcome) {
        self.cases += 1;
        *self.draws.entry((case.hook(), wanted.reason)).or_default() += 1;
        if wanted == got {
            return;
        }
        self.different += 1;
        if self.differences.len() < 10 {
            self.differences.push(format!(
                "{case}\n  native: {wanted}\n  kernel: {got}\n  again:  ci/differential decision --seed {} --only {}:{}",
                plan.seed, case.round, case.number
            ));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((hook, reason), draws) in &self.draws {
            writeln!(f, "{hook:<10} {:<20} {draws:>9}", reason.name())?;
        }
        for difference in &self.differences {
            writeln!(f, "DIFFERENT {difference}")?;
        }
        write!(f, "{} cases, {} differences", self.cases, self.different)
    }
}

/// Runs the suite.
///
/// # Errors
/// When this machine cannot: no root, no programs, no namespaces.
pub fn run(plan: &Plan) -> Result<Report, Trouble> {
    let scratch = kernel::Scratch::mount()?;
    let mut report = Report::default();
    match plan.only {
        Some((number, case)) => round(plan, number, Some(case), &scratch, &mut report)?,
        None => {
            for number in 0..plan.cases.div_ceil(ROUND) {
                round(plan, number, None, &scratch, &mut report)?;
            }
        }
    }
    Ok(report)
}

/// One round, in a network namespace that goes with it.
fn round(
    plan: &Plan,
    number: u32,
    only: Option<u32>,
    scratch: &kernel::Scratch,
    report: &mut Report,
) -> Result<(), Trouble> {
    let name = format!("nwdiff-{}-{number}", std::process::id());
    let netns = NetNs::create(&name)?;
    let outcome = in_namespace(plan, number, only, &name, scratch.pins(), report);
    drop(netns);
    let deleted = NetNs::delete(&name);
    outcome?;
    Ok(deleted?)
}

fn in_namespace(
    plan: &Plan,
    round: u32,
    only: Option<u32>,
    name: &str,
    scratch: &Pins,
    report: &mut Report,
) -> Result<(), Trouble> {
    let seed = Seed(plan.seed);
    let tables = Tables::draw(&mut seed.stream(&format!("decision/tables/{round}")));
    let netns = NetNs::open(name)?;
    let standing = netns.run(|| Standing::make(&tables))??;
    let mut kernels = Kernels::load(name, &tables, scratch, round.is_multiple_of(2))?;
    let cases = |from: u32, to: u32| {
        (from..to)
            .filter(|number| only.is_none_or(|only| only == *number))
            .map(|number| Case::draw(seed, round, number, number >= ROUND - CALLS, &tables))
            .collect::<Vec<_>>()
    };
    let mut assigns = 0;
    for from in (0..ROUND).step_by(usize::try_from(BATCH)?) {
        let batch = cases(from, (from + BATCH).min(ROUND));
        let got = netns.run(|| kernels.run(&batch))??;
        for (case, got) in batch.iter().zip(&got) {
            let wanted = case.native(&tables);
            assigns += u64::from(case.hook() == "tc" && wanted.assigns());
            report.add(plan, case, &wanted, got);
        }
    }
    if only.is_none() {
        // First: a socket that has gone is why the other counts differ.
        netns.run(|| standing.check(&tables))??;
        // A difference says more than the count that it makes wrong.
        if report.different == 0 {
            kernels.refusals(assigns)?;
        }
    }
    Ok(())
}

/// Faults of the programs that a run by hand must have: as many refused assignments as verdicts
/// that assign, and nothing lost.
fn faults(datapaths: &[&Datapath], assigns: u64) -> Result<(), Trouble> {
    let mut refused = 0;
    for datapath in datapaths {
        let counters = datapath.counters()?;
        refused += counters.faults.get(&Fault::AssignRefused).unwrap_or(&0);
        if let Some(lost) = counters.faults.get(&Fault::EventLost) {
            return Err(format!("{lost} events were lost: the batch is too large").into());
        }
    }
    if refused != assigns {
        return Err(format!("{assigns} verdicts assign, but {refused} were tried").into());
    }
    Ok(())
}
