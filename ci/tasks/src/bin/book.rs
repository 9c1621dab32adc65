//! `ci/book [--update] [--kind]`: the book's commands, run and compared.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use nodeway_ci::book::Part;

/// Runs every command of the book and compares what it prints with what the page says.
#[derive(Parser)]
#[command(name = "ci/book")]
struct Arguments {
    /// Rewrites the pages to say what the commands print now.
    #[arg(long)]
    update: bool,
    /// Runs the pages that need a cluster of kind, in the place of all others.
    #[arg(long)]
    kind: bool,
}

fn main() -> miette::Result<ExitCode> {
    let arguments = Arguments::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = std::fs::canonicalize(&root).unwrap_or(root);
    let part = match arguments.kind {
        true => Part::Kind,
        false => Part::Machine,
    };
    let outcome = nodeway_ci::book::run(&root, part, arguments.update)?;
    let differences = &outcome.differences;
    for difference in differences {
        let page = difference
            .page
            .strip_prefix(&root)
            .unwrap_or(&difference.page);
        eprintln!(
            "{}:{}: $ {}\n{}\n",
            page.display(),
            difference.line,
            difference.command,
            difference.text
        );
    }
    println!(
        "{} commands of the book, {} not as the book says",
        outcome.run,
        differences.len()
    );
    if outcome.left_out > 0 {
        println!("{} were left out: they need root", outcome.left_out);
        if std::env::var_os("CI").is_some() {
            eprintln!("with CI set, nothing may be left out: run it as root");
            return Ok(ExitCode::FAILURE);
        }
    }
    if !differences.is_empty() {
        eprintln!("when the change is meant: ci/book --update, then read the diff");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
