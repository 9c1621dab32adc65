//! `ci/load`: what becomes of requests while the parts of a node are killed, replaced and changed.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use comfy_table::{Table, presets};
use nodeway_ci::load::{self, LoadError, Options, Row};
use nodeway_ci::output::{Output, Progress, tell};
use nodeway_live::lab;
use nodeway_live::lab::state::Labs;

/// Loads a lab at a fixed rate while things happen to its node, and holds what is promised of them.
#[derive(Parser)]
#[command(
    name = "ci/load",
    after_help = "\
Examples:
  ci/load                                       all events, by tc and iptables: some fifteen minutes
  ci/load --seconds 3 --rate 200                the same, short
  ci/load --event envoy-killed --redirect iptables
  ci/load -o json > load.json

Needs root, Envoy 1.40 and hey (ci/setup gets them). What it makes is gone when it ends, also by
Ctrl-C; what a killed one leaves goes with `nodeway lab down load-PID`.
Exit codes: 0 what is promised was kept, 1 not, 2 it could not be tried."
)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// As a table, or as JSON.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let name = load::name()?;
    let interrupted = nodeway_live::signal::on_interrupt(move || {
        // What is not there yet is made by nobody any more.
        let _ = lab::down(&Labs::here(), &name);
        std::process::exit(130);
    });
    interrupted
        .map_err(|error| LoadError::Missing(format!("signals stay as they are: {error}")))?;
    let mut progress = Progress::begin();
    let rows = load::run(&arguments.options, &mut |what| progress.say(what));
    drop(progress);
    let rows = rows?;
    arguments.output.print(&*rows, print)?;
    Ok(rows.iter().all(|row| row.broken.is_empty()))
}

fn print(rows: &[Row]) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "", "EVENT", "REDIRECT", "LOAD", "REQ/S", "ANSWERED", "FAILED", "EFFECT", "OUTAGE",
    ]);
    for row in rows {
        let failed: u32 = row.loaded.failed.values().sum();
        table.add_row([
            if row.broken.is_empty() { "✓" } else { "✗" }.to_owned(),
            row.event.name().to_owned(),
            row.redirect.to_string(),
            row.connections.name().to_owned(),
            format!("{:.0}", row.loaded.rate),
            row.loaded.answered.to_string(),
            failed.to_string(),
            format!("{} ms", row.happened.effect_ms),
            format!("{} ms", row.probe.outage.as_millis()),
        ]);
    }
    tell(table.trim_fmt());
    for row in rows.iter().filter(|row| !row.broken.is_empty()) {
        let (event, redirect) = (row.event.name(), row.redirect);
        tell(format_args!(
            "{event}, {redirect}, {}: {}",
            row.connections.name(),
            row.broken.join("; ")
        ));
        for (words, count) in &row.loaded.failed {
            tell(format_args!("  {count} × {words}"));
        }
        for (words, count) in &row.probe.failed {
            tell(format_args!("  the probe: {count} × {words}"));
        }
    }
}
