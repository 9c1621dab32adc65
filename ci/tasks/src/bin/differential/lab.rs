//! `ci/differential lab`: every fixture's requests in the simulator and in the lab, compared.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Args;
use comfy_table::{Table, presets};
use miette::IntoDiagnostic as _;
use nodeway_ci::differential::known::List;
use nodeway_ci::differential::lab::{Compared, compare, fixtures};
use nodeway_live::envoy;
use nodeway_sim::{Fixture, Redirect};

/// What `ci/differential lab` takes.
#[derive(Args)]
pub(super) struct Lab {
    /// Fixtures, by their folders below `fixtures`; all if none is named.
    fixtures: Vec<String>,
    /// One redirect alone.
    #[arg(long, value_name = "WAY")]
    redirect: Option<Redirect>,
    /// The program of Envoys; `$ENVOY` or the one on `PATH` if absent.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// How many labs stand at a time: four for each core if absent, as they wait most of their time.
    #[arg(long)]
    jobs: Option<usize>,
}

pub(super) fn run(arguments: &Lab) -> miette::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let root = root.canonicalize().into_diagnostic()?;
    let all = fixtures(&root)?;
    let asked = |folder: &PathBuf| {
        let names = &arguments.fixtures;
        names.is_empty() || names.iter().any(|name| folder.starts_with(root.join(name)))
    };
    let folders: Vec<PathBuf> = all.into_iter().filter(asked).collect();
    let envoy = envoy::find(arguments.envoy.as_deref()).into_diagnostic()?;
    let ways: Vec<Redirect> = match arguments.redirect {
        Some(way) => vec![way],
        None => Redirect::ALL.to_vec(),
    };
    let work: Vec<(PathBuf, Redirect)> = folders
        .iter()
        .flat_map(|folder| ways.iter().map(|way| (folder.clone(), *way)))
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.unwrap_or(4 * cores);
    let compared = compare_all(&root, work, &envoy, jobs)?;
    let whole = arguments.redirect.is_none();
    tell(&compared, whole)
}

/// Compares everything, some at a time, and tells it in the order in which it was given. What takes longest begins
/// first: a lab in which nobody answers waits for seconds at each request.
#[expect(clippy::disallowed_methods, reason = "how long each took is told")]
fn compare_all(
    root: &Path,
    work: Vec<(PathBuf, Redirect)>,
    envoy: &Path,
    jobs: usize,
) -> miette::Result<Vec<Compared>> {
    let mut work: Vec<_> = work.into_iter().enumerate().collect();
    work.sort_by_cached_key(|(_, (folder, _))| Reverse(requests_of(folder)));
    let queue = Mutex::new(work.into_iter());
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((index, (folder, way))) = next else {
                        return;
                    };
                    let begun = Instant::now();
                    let result = compare(root, &folder, way, envoy);
                    if let Ok(compared) = &result {
                        eprintln!("{}, {way}: {:.1?}", compared.fixture, begun.elapsed());
                    }
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.insert(index, result);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.into_values().collect()
}

/// How many a fixture has; one that cannot be read says so when it is compared.
fn requests_of(folder: &Path) -> usize {
    Fixture::load(folder).map_or(0, |fixture| fixture.requests.len())
}

/// Prints a line a fixture and every difference, and says whether all are known.
fn tell(compared: &[Compared], whole: bool) -> miette::Result<ExitCode> {
    let mut list = List::read()?;
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["FIXTURE", "REDIRECT", "REQUESTS", "DIFFERENT", "KNOWN"]);
    let (mut requests, mut new, mut told) = (0, 0, Vec::new());
    for one in compared {
        let mut known = 0;
        for (place, difference) in &one.differences {
            match list.reason(place, &difference.field) {
                Some(_) => known += 1,
                None => told.push(format!(
                    "{}, {}, {}: {difference}",
                    place.fixture, place.redirect, place.request
                )),
            }
        }
        new += one.differences.len() - known;
        requests += one.requests;
        table.add_row([
            one.fixture.clone(),
            one.redirect.to_string(),
            one.requests.to_string(),
            (one.differences.len() - known).to_string(),
            known.to_string(),
        ]);
    }
    println!("{table}");
    for line in &told {
        println!("different: {line}");
    }
    let ran: Vec<&str> = compared.iter().map(|it| it.fixture.as_str()).collect();
    // With one redirect alone it cannot be seen.
    let useless = if whole {
        list.useless(&ran)
    } else {
        Vec::new()
    };
    for known in &useless {
        println!("no longer different, take it off ci/differential.known.yaml: {known:?}");
    }
    println!("{requests} requests in both modes, {new} differences that are not known");
    Ok(if new == 0 && useless.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
