//! `ci/bench [PART]…`: measures, and prints a table with ratios.

use std::error::Error;
use std::path::Path;
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
    /// Packets per second through a node's rules, and tracked connections.
    Rules,
    /// First plans, and one changed endpoint.
    Plan,
    /// Simulated packets per second.
    Packets,
    /// Simulated over wall time.
    Sim,
    /// A cold build: minutes of compiling from nothing.
    Build,
}

impl Part {
    fn run(self) -> Result<Vec<Line>, Box<dyn Error>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        Ok(match self {
            Self::Decide => bench::decide::run(),
            Self::Rules => bench::rules::run(5, 50_000)?,
            Self::Plan => bench::plan::run(3, &[100, 1_000, 10_000])?,
            Self::Packets => bench::packets::run(7, 200_000)?,
            Self::Sim => bench::sim::run(&root.join("fixtures/bookinfo"), 5, 200)?,
            Self::Build => bench::build::run(&root, "nodeway")?,
        })
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.parts.is_empty() {
        arguments.parts = vec![
            Part::Decide,
            Part::Rules,
            Part::Plan,
            Part::Packets,
            Part::Sim,
        ];
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["WHAT", "FIGURE", "REFERENCE", "RATIO"]);
    for part in arguments.parts {
        match part.run() {
            Ok(lines) => {
                for line in lines {
                    table.add_row([line.what, line.figure, line.reference, line.ratio]);
                }
            }
            Err(error) => {
                eprintln!("error: this cannot be measured: {error}");
                return ExitCode::from(2);
            }
        }
    }
    println!("{table}");
    ExitCode::SUCCESS
}
