//! `ci/kind` runs it: the project's fixtures in a cluster in which Nodeway is deployed.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nodeway_sim::Redirect;

/// Applies each fixture to the cluster of KUBECONFIG, sends its requests, and takes it away again.
#[derive(Parser)]
#[command(name = "kind_fixtures")]
struct Arguments {
    /// The folder of fixtures.
    #[arg(default_value = "fixtures")]
    folder: PathBuf,
    /// The image with `nodeway` and curl that pods get.
    #[arg(long, default_value = "nodeway:dev")]
    image: String,
    /// By which way packets are led in that cluster.
    #[arg(long, default_value_t = Redirect::Tc)]
    redirect: Redirect,
}

fn main() -> miette::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut as_expected = true;
    nodeway_ci::kind_fixtures::run(
        &arguments.folder,
        &arguments.image,
        arguments.redirect,
        &mut |it| {
            as_expected &= it.broken.is_empty();
            if let Some(why) = it.left_out {
                println!(" -  {:<33} left out: {why}", it.fixture);
                return;
            }
            let mark = if it.broken.is_empty() { "✓" } else { "✗" };
            println!(
                " {mark}  {:<33} {} requests, {} expectations hold, {} are not a client's to see",
                it.fixture, it.requests, it.held, it.unseen
            );
            for line in &it.broken {
                println!("      {line}");
            }
        },
    )?;
    Ok(match as_expected {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
