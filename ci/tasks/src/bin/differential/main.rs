//! `ci/differential SUITE`: two of the same, held against each other. Needs root.

mod decision;
mod lab;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Two of the same, held against each other. Needs root.
#[derive(Parser)]
#[command(name = "ci/differential")]
struct Arguments {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    /// The decision, natively and as eBPF programs in this machine's kernel.
    Decision(decision::Decision),
    /// Every fixture's requests in the simulator, and in network namespaces with the kernel and Envoy.
    Lab(lab::Lab),
}

fn main() -> miette::Result<ExitCode> {
    match Arguments::parse().suite {
        Suite::Decision(arguments) => Ok(decision::run(&arguments)),
        Suite::Lab(arguments) => lab::run(&arguments),
    }
}
