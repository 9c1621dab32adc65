//! `ci/differential envoy`: the model of Envoy, and a real Envoy.

#![expect(clippy::disallowed_methods, reason = "how long it took is told")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use miette::{IntoDiagnostic as _, miette};
use nodeway_ci::differential::envoy::{self, Plan};
use nodeway_live::envoy::find;

/// What `ci/differential envoy` takes.
#[derive(Args)]
pub(super) struct Envoy {
    /// How many requests, connections and refused configs, at least.
    #[arg(long, default_value_t = 2_000)]
    cases: u64,
    /// The seed of all luck.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One subject alone (a listener and what comes to it), as a difference names it.
    #[arg(long, value_name = "SUBJECT")]
    only: Option<u32>,
    /// The program; `$ENVOY` or the one on `PATH` if absent.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
}

pub(super) fn run(arguments: &Envoy) -> miette::Result<ExitCode> {
    let Envoy {
        cases, seed, only, ..
    } = *arguments;
    println!("ci/differential envoy --cases {cases} --seed {seed}");
    let program = find(arguments.envoy.as_deref()).into_diagnostic()?;
    let began = Instant::now();
    let report = envoy::run(&Plan { cases, seed, only }, &program)
        .map_err(|error| miette!("the suite cannot go on: {error}"))?;
    println!("{report} in {} s", began.elapsed().as_secs());
    let missing = if only.is_none() {
        report.missing()
    } else {
        Vec::new()
    };
    for feature in &missing {
        println!("NEVER DRAWN {feature}");
    }
    Ok(if report.different == 0 && missing.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
