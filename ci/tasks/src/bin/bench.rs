//! `ci/bench [PART]…`: measures, and prints a table with ratios. `ci/bench redirect`: what a
//! redirect costs, on this machine's kernel.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Parser, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use nodeway_ci::bench::redirect::ground::Ground;
use nodeway_ci::bench::{self, Line, Machine, redirect};
use nodeway_ci::output::{Output, Progress, tell};
use serde::Serialize;

/// Measures what Nodeway promises. Build it with `--release`; `ci/bench` does.
#[derive(Parser)]
#[command(name = "ci/bench", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,
    /// Which parts; all but `build` when none is named.
    parts: Vec<Part>,
    /// `build` once more as it was at a commit before, which is the reference then; may be said again.
    #[arg(long, value_name = "COMMIT")]
    at: Vec<String>,
    /// As a table, or as JSON.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Subcommand)]
enum Task {
    /// What each redirect costs beside going straight to Envoy. Needs root; about ten minutes.
    Redirect(Redirect),
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  ci/bench redirect
  ci/bench redirect --frontends 10 --rounds 9 --seconds 5
  ci/bench redirect --rounds 1 --seconds 1 --frontends 10     a smoke test, half a minute
  ci/bench redirect -o json > cost.json

Needs root, Envoy 1.40, wrk and clang (ci/setup gets them), and two cores that are left alone.
What it makes is gone when it ends, also by Ctrl-C; what a killed one leaves goes with
`nodeway lab down bench-PID`, and its folder in /tmp by hand.")]
struct Redirect {
    #[command(flatten)]
    options: redirect::Options,
    /// As tables, or as JSON with every round.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// Packet decisions per second.
    Decide,
    /// Packets per second through a node's rules, and tracked connections.
    Rules,
    /// First plans, and one changed endpoint.
    Plan,
    /// A first push to an Envoy over xDS, and one changed endpoint.
    Xds,
    /// Simulated packets per second.
    Packets,
    /// Simulated over wall time.
    Sim,
    /// A cold build: minutes of compiling from nothing.
    Build,
}

impl Part {
    fn run(self, at: &[String]) -> Result<Vec<Line>, Box<dyn Error>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        Ok(match self {
            Self::Decide => bench::decide::run(),
            Self::Rules => bench::rules::run(5, 50_000)?,
            Self::Plan => bench::plan::run(3, &[100, 1_000, 10_000])?,
            Self::Xds => bench::xds::run(10_000, 10, 20)?,
            Self::Packets => bench::packets::run(7, 200_000)?,
            Self::Sim => bench::sim::run(&root.join("fixtures/bookinfo"), 5, 200)?,
            Self::Build => bench::build::run(&root, "nodeway", at)?,
        })
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if let Some(Task::Redirect(arguments)) = &arguments.task {
        return match redirect(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: this cannot be measured: {error}");
                ExitCode::from(2)
            }
        };
    }
    if arguments.parts.is_empty() {
        arguments.parts = vec![
            Part::Decide,
            Part::Rules,
            Part::Plan,
            Part::Xds,
            Part::Packets,
            Part::Sim,
        ];
    }
    if !arguments.at.is_empty() && !arguments.parts.contains(&Part::Build) {
        eprintln!("error: --at is for the part `build`: ci/bench build --at COMMIT");
        return ExitCode::from(2);
    }
    let mut measured = Measured {
        machine: Machine::now(),
        lines: Vec::new(),
    };
    for part in arguments.parts {
        let name = part.to_possible_value();
        let name = name.as_ref().map_or("", |value| value.get_name());
        eprint!("ci/bench: {name}");
        let (took, lines) = bench::timed(|| part.run(&arguments.at));
        eprintln!(" ({} s)", took.as_secs());
        match lines {
            Ok(lines) => measured.lines.extend(lines),
            Err(error) => {
                eprintln!("error: this cannot be measured: {error}");
                return ExitCode::from(2);
            }
        }
    }
    measured.machine.end();
    match arguments.output.print(&measured, Measured::print) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: this cannot be told: {error}");
            ExitCode::from(2)
        }
    }
}

/// What was measured, and on what.
#[derive(Serialize)]
struct Measured {
    machine: Machine,
    lines: Vec<Line>,
}

impl Measured {
    fn print(&self) {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(["WHAT", "FIGURE", "REFERENCE", "RATIO"]);
        for line in &self.lines {
            table.add_row([&line.what, &line.figure, &line.reference, &line.ratio]);
        }
        tell(format_args!(
            "{}\nratios are medians of rounds, with the least and the greatest\n\n{table}",
            self.machine
        ));
    }
}

fn redirect(arguments: &Redirect) -> Result<(), Box<dyn Error>> {
    let ground = Ground::new()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let (seen, own) = (Arc::clone(&interrupted), ground.clone());
    nodeway_live::signal::on_interrupt(move || {
        seen.store(true, Ordering::SeqCst);
        // Whoever is about to make something fails by now, or has made it: once more for that.
        own.clear();
        own.clear();
        std::process::exit(130);
    })?;
    let mut progress = Progress::begin();
    let outcome = redirect::run(&arguments.options, &ground, &mut |what| progress.say(what));
    // What was interrupted fails too, and whoever clears up ends this process.
    while interrupted.load(Ordering::SeqCst) {
        std::thread::park();
    }
    drop(progress);
    arguments.output.print(&outcome?, |report| tell(report))?;
    Ok(())
}
