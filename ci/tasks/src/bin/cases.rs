//! `ci/cases [DIR] [-o json] [--check]`: rows from outside, answered and counted.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use comfy_table::{Table, presets};
use nodeway_ci::cases::{Answered, pending, run};
use nodeway_ci::output::{Output, tell};

/// Answers the rows of a folder of row files and counts them per file.
#[derive(Parser)]
#[command(name = "ci/cases")]
struct Arguments {
    /// A folder of folders of row files.
    #[arg(env = "NODEWAY_CASES", default_value = "../shared/cases")]
    folder: PathBuf,
    /// `table`: a line a row file; `json`: an object a row.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Fails unless the rows that don't pass are exactly those of `ci/cases.pending.yaml`.
    #[arg(long)]
    check: bool,
}

fn main() -> miette::Result<ExitCode> {
    let arguments = Arguments::parse();
    let answered = run(&arguments.folder)?;
    match arguments.output {
        Output::Table => tell(table(&answered)),
        Output::Json => answered.iter().for_each(|row| tell(row.json())),
    }
    if !arguments.check {
        return Ok(ExitCode::SUCCESS);
    }
    let differences = pending::compare(&answered)?;
    for difference in &differences {
        eprintln!("ci/cases: {difference}");
    }
    Ok(if differences.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A line per row file, in the order of the files, and a sum.
fn table(answered: &[Answered]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["ROW FILE", "PASSED", "FAILED", "NOT SIMULATED", "TOTAL"]);
    let mut sum = [0usize; 4];
    for rows in answered.chunk_by(|a, b| a.file == b.file) {
        let counts = ["passed", "failed", "not simulated"].map(|name| {
            rows.iter()
                .filter(|row| row.outcome.to_string() == name)
                .count()
        });
        let line: Vec<usize> = counts.into_iter().chain([rows.len()]).collect();
        sum.iter_mut().zip(&line).for_each(|(sum, n)| *sum += n);
        let file = rows.first().map(|row| row.file.clone()).unwrap_or_default();
        table.add_row(std::iter::once(file).chain(line.iter().map(ToString::to_string)));
    }
    table.add_row(std::iter::once("all".to_owned()).chain(sum.iter().map(ToString::to_string)));
    table
}
