//! `ci/bench [PART]…`: measures, and prints a table with ratios.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use comfy_table::{Table, presets};
use nodeway_ci::bench::{self, Line};

/// Measures what Nodeway promises. Build it with `--release`; `ci/bench` does.
#[derive(Parser)]
#[command(name = "ci/bench")]
struct Arguments {
    /// Which parts; all but `build` when none is named.
    parts: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// Packet decisions per second.
    Decide,
    /// Simulated packets per second.
    Packets,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.parts.is_empty() {
        arguments.parts = vec![Part::Decide, Part::Packets];
    }
    let mut lines: Vec<Line> = Vec::new();
    for part in arguments.parts {
        lines.extend(match part {
            Part::Decide => bench::decide::run(),
            Part::Packets => match bench::packets::run(7, 200_000) {
                Ok(lines) => lines,
                Err(error) => {
                    eprintln!("error: the simulation to measure cannot be built: {error}");
                    return ExitCode::from(2);
                }
            },
        });
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["WHAT", "FIGURE", "REFERENCE", "RATIO"]);
    for line in lines {
        table.add_row([line.what, line.figure, line.reference, line.ratio]);
    }
    println!("{table}");
    ExitCode::SUCCESS
}
