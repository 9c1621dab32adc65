//! `ci/differential SUITE`: two of the same, held against each other.

mod decision;
mod envoy;
mod lab;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Two of the same, held against each other. The decision and the lab need root.
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
    /// The model of Envoy, and a real Envoy. Needs no root.
    Envoy(envoy::Envoy),
    /// Every fixture's requests in the simulator, and in network namespaces with the kernel and Envoy.
    Lab(lab::Lab),
}

fn main() -> miette::Result<ExitCode> {
    match Arguments::parse().suite {
        Suite::Decision(arguments) => Ok(decision::run(&arguments)),
        Suite::Envoy(arguments) => envoy::run(&arguments),
        Suite::Lab(arguments) => lab::run(&arguments),
    }
}
