//! What a redirect costs: the same Envoy and the same client, reached straight and by each way.
//!
//! ```text
//!  wrk, on one core              Envoy, one worker on another core, answers by itself
//!  client's pod ── veth ── node ── a way: programs, rules, routes ──► listener
//! ```
//!
//! In each round, for each number of frontends, each way is installed, loaded with kept connections
//! and then with new ones, and taken away again; the next round begins with another way. A ratio is
//! one of a round's way to the same round's straight connections, so that a slow minute of the
//! machine hurts both; what is printed is the median of the rounds' ratios with the least and the
//! greatest. Then the programs by hand ([`by_hand`]).
//!
//! Envoy answers itself: what is behind it would only hide the difference. So by `sidecar` the
//! client's own Envoy answers, and what a mesh has in front of the pod that answers is left out.

pub mod bed;
pub mod by_hand;
pub mod cpu;
pub mod ground;
pub mod load;
pub mod report;
pub mod sample;
pub mod way;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use nodeway_live::envoy::{self, NoEnvoy};

use crate::bench::Machine;
use bed::{Bed, BedError};
use by_hand::ByHandError;
use cpu::Cores;
use ground::{Ground, GroundError};
use load::{Connections, Load, LoadError};
use report::{Report, Tools};
use sample::{Row, Sample};
use way::{Way, turns};

/// Rounds of programs by hand for each round of load: they take milliseconds.
const BY_HAND: usize = 5;

/// What `ci/bench redirect` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rounds; in each, every way takes its turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// Seconds of load for each way, once with kept and once with new connections.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=60))]
    pub seconds: u16,
    /// How many frontends there are, one after another.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "10,1000,10000",
        value_parser = clap::value_parser!(u32).range(1..=50_000)
    )]
    pub frontends: Vec<u32>,
    /// Connections at a time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub connections: u16,
    /// With kube-proxy's rules on the node, for no service: then connections that go straight to
    /// Envoy are tracked too, as on most nodes, and those of frontends still are not.
    #[arg(long)]
    pub kube_proxy: bool,
    /// The program of Envoy; `$ENVOY` or the one on `PATH` if absent.
    #[arg(long, value_name = "FILE")]
    pub envoy: Option<PathBuf>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// No Envoy.
    #[error(transparent)]
    NoEnvoy(#[from] NoEnvoy),
    /// No place for it.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// No load generator.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// No bed.
    #[error(transparent)]
    Bed(#[from] BedError),
    /// No programs by hand.
    #[error(transparent)]
    ByHand(#[from] ByHandError),
    /// No cores.
    #[error("cannot see which cores there are: {0}")]
    Cores(io::Error),
}

/// Measures everything, and tells what it is about to do. What it makes is gone afterwards.
///
/// # Errors
/// When something is missing or refused.
pub fn run(
    options: &Options,
    ground: &Ground,
    tell: &mut dyn FnMut(&str),
) -> Result<Report, RedirectError> {
    let outcome = measure(options, ground, tell);
    ground.clear();
    outcome
}

fn measure(
    options: &Options,
    ground: &Ground,
    tell: &mut dyn FnMut(&str),
) -> Result<Report, RedirectError> {
    let program = envoy::find(options.envoy.as_deref())?;
    let cores = Cores::choose().map_err(RedirectError::Cores)?;
    let mut machine = Machine::now();
    let tools = Tools {
        wrk: load::version()?,
        clang: by_hand::clang_version()?,
        ..Tools::of(cores, &program)
    };
    let mut sizes = options.frontends.clone();
    sizes.sort_unstable();
    sizes.dedup();
    tell("a node, its clients, and their Envoys");
    let bed = Bed::new(ground, &program, cores, &sizes)?;
    if options.kube_proxy {
        bed.install_kube_proxy()?;
    }
    let rows = load_all(&bed, options, &sizes, tell)?;
    tell("programs by hand");
    let pins = ground.pins()?;
    let most = sizes.last().copied().unwrap_or(1);
    let rounds = usize::from(options.rounds) * BY_HAND;
    let programs = by_hand::run(&bed, &pins, most, rounds)?;
    machine.end();
    Ok(Report {
        machine,
        tools,
        rounds: options.rounds,
        seconds: options.seconds,
        connections: options.connections,
        kube_proxy: options.kube_proxy,
        rows,
        programs_frontends: most,
        programs,
    })
}

/// Loads Envoy by every way, for every number of frontends, in every round.
fn load_all(
    bed: &Bed,
    options: &Options,
    sizes: &[u32],
    tell: &mut dyn FnMut(&str),
) -> Result<Vec<Row>, RedirectError> {
    let load = Load {
        connections: options.connections,
        seconds: options.seconds,
    };
    let rounds = usize::from(options.rounds);
    let mut samples: BTreeMap<(Connections, u32, Way), Vec<Sample>> = BTreeMap::new();
    let (mut done, all) = (0, rounds * sizes.len() * Way::ALL.len());
    for round in 0..rounds {
        for size in sizes {
            for way in turns(&Way::ALL, round) {
                done += 1;
                let (name, number) = (way.name(), round + 1);
                tell(&format!(
                    "{done}/{all}: round {number}, {size} frontends, {name}"
                ));
                let installed = bed.install(way, *size)?;
                installed.check(round)?;
                for connections in Connections::ALL {
                    let sample = installed.measure(round, load, connections)?;
                    let key = (connections, *size, way);
                    samples.entry(key).or_default().push(sample);
                }
                installed.remove()?;
            }
        }
    }
    let row = |(key, rounds): (&(Connections, u32, Way), &Vec<Sample>)| {
        let (connections, frontends, way) = *key;
        let straight = samples.get(&(connections, frontends, Way::Straight));
        let straight = straight.map(Vec::as_slice).unwrap_or_default();
        Row::of((way, frontends, connections), rounds, straight)
    };
    Ok(samples.iter().map(row).collect())
}
