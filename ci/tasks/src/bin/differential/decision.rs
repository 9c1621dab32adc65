//! `ci/differential decision`: the decision, natively and as eBPF programs in this machine's kernel.

use std::process::ExitCode;

use clap::Args;
use nodeway_ci::differential::decision::{self, Plan};

/// What `ci/differential decision` takes.
#[derive(Args)]
pub(super) struct Decision {
    /// How many packets, look-ups and calls, at least.
    #[arg(long, default_value_t = 1_000_000)]
    cases: u32,
    /// The seed of all luck.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One case alone, as a difference names it.
    #[arg(long, value_name = "ROUND:CASE", value_parser = pair)]
    only: Option<(u32, u32)>,
}

fn pair(text: &str) -> Result<(u32, u32), String> {
    let pair = text.split_once(':').and_then(|(round, case)| {
        let round = round.parse().ok()?;
        Some((round, case.parse().ok()?))
    });
    pair.ok_or_else(|| "a round and a case, such as 3:1207".to_owned())
}

pub(super) fn run(arguments: &Decision) -> ExitCode {
    let Decision { cases, seed, only } = *arguments;
    println!("ci/differential decision --cases {cases} --seed {seed}");
    let report = match decision::run(&Plan { cases, seed, only }) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    println!("{report}");
    let rare = if only.is_none() {
        report.rare()
    } else {
        Vec::new()
    };
    for line in &rare {
        println!("RARE {line}");
    }
    if report.different == 0 && rare.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
