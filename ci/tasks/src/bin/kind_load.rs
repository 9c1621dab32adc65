//! `ci/kind-load`: what becomes of requests while a kind cluster's parts are rolled, drained and restarted.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use comfy_table::{Table, presets};
use nodeway_ci::kind_load::{self, Options, Row, cluster};
use nodeway_ci::output::{Output, tell};
use nodeway_live::signal::on_interrupt;

/// Loads a kind cluster at a fixed rate while things happen to it, and holds what is promised of them.
#[derive(Parser)]
#[command(
    name = "ci/kind-load",
    after_help = "\
Examples:
  ci/kind-load                                  all events, by tc, in a cluster of its own
  ci/kind-load --redirect iptables agent-rolled envoy-rolled
  KUBECONFIG=FILE ci/kind-load node-drained     a cluster that `ci/kind --keep` left
  ci/kind-load -o json > kind-load.json

Needs root, what ci/kind needs, and hey (ci/setup gets it).
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
    // One that cannot be held back ends the process at once, as without it.
    let _ = on_interrupt(|| {
        cluster::leave();
        std::process::exit(130);
    });
    let rows = kind_load::run(&arguments.options, &mut |what| {
        let _ = writeln!(io::stderr(), "ci/kind-load: {what}");
    });
    cluster::leave();
    let rows = rows?;
    arguments.output.print(&*rows, print)?;
    Ok(rows.iter().all(|row| row.broken.is_empty()))
}

fn print(rows: &[Row]) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "", "EVENT", "LOAD", "TOOK", "REQUESTS", "FAILED", "RESETS", "TIMEOUTS", "GAP", "CONTROL",
        "TOLD", "CUT", "IDLE CUT",
    ]);
    for row in rows {
        let failed: u32 = row.loaded.failed.values().sum();
        let of_kind = |kinds: &[&str]| -> u32 {
            let all = row.loaded.failed.iter();
            let these = all.filter(|(words, _)| kinds.iter().any(|kind| words.contains(kind)));
            these.map(|(_, count)| count).sum()
        };
        table.add_row([
            if row.broken.is_empty() { "✓" } else { "✗" }.to_owned(),
            row.event.name().to_owned(),
            row.connections.name().to_owned(),
            format!("{} s", row.took_ms.div_ceil(1000)),
            (row.loaded.answered + failed).to_string(),
            failed.to_string(),
            of_kind(&["reset", "EOF", "broken pipe"]).to_string(),
            of_kind(&["deadline", "timeout", "Timeout"]).to_string(),
            format!("{} ms", row.probe.outage.max(row.probe.slowest).as_millis()),
            format!(
                "{} ms",
                row.control.outage.max(row.control.slowest).as_millis()
            ),
            row.held.busy.told.to_string(),
            row.held.busy.cut.to_string(),
            row.held.idle.cut.to_string(),
        ]);
    }
    tell(table.trim_fmt());
    for row in rows.iter().filter(|row| !row.broken.is_empty()) {
        let (event, connections) = (row.event.name(), row.connections.name());
        tell(format_args!(
            "{event}, {connections}: {}",
            row.broken.join("; ")
        ));
        for (words, count) in &row.loaded.failed {
            tell(format_args!("  {count} × {words}"));
        }
        for (words, count) in &row.probe.failed {
            tell(format_args!("  the probe: {count} × {words}"));
        }
    }
    tell(format_args!(
        "\
GAP: the longest time that a new connection waited for its answer; CONTROL: the same of a pod asked past Nodeway.
TOLD, CUT: kept connections in use that ended by the server's word, or without; IDLE CUT: kept ones that said nothing."
    ));
}
