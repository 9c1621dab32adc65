//! `nodeway check`: what is wrong with manifests, before anything is applied.
//!
//! The findings are those of the plans that every node's agent would make of them, of the operator,
//! and the lints: `check` reads nothing that the simulator would not read too.

mod sarif;

use std::fmt;

use clap::{Args, ValueEnum};
use nodeway_core::object::{ObjectRef, Objects, Provenance};
use nodeway_core::problem::{Code, Problem, Severity};
use nodeway_sim::Sim;
use serde::Serialize;

use crate::cluster::Cluster;
use crate::explain::load;
use crate::failure::{Failure, Outcome, verdict};
use crate::paint::{BAD, FAINT, GOOD, HINT, STRONG, paint};
use crate::screen::say;

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway check manifests/
  nodeway check fixtures/bookinfo --fail-on warning
  helm template shop charts/shop | nodeway check -
  nodeway check kube --read-only --kubeconfig admin.conf
  nodeway check manifests/ -o sarif > nodeway.sarif

Exit codes: 0 no finding as bad as --fail-on, 1 there is one, 2 bad input.")]
pub(crate) struct Arguments {
    /// Files, folders, a fixture, a sysdump (folder or .zip), Envoy's config_dump, `kube` for a
    /// cluster, which is only listed, or `-` for standard input.
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,
    /// How bad a finding must be for exit code 1.
    #[arg(long, value_name = "SEVERITY", default_value = "error")]
    fail_on: FailOn,
    /// `table`, `json` (see the book, "JSON output") or `sarif` (2.1.0).
    #[arg(short, long, default_value = "table")]
    output: Output,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum FailOn {
    Warning,
    Error,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    Table,
    Json,
    Sarif,
}

/// The page of the book that explains a number, from the project's root.
fn page(code: Code) -> String {
    format!("book/src/findings/{code}.md")
}

/// A problem and where a user finds the object.
#[derive(Serialize)]
struct Finding<'a> {
    #[serde(flatten)]
    problem: &'a Problem,
    page: String,
    /// The file as the user named it, `-` for standard input.
    file: Option<&'a str>,
    /// 1-based line where the object begins.
    line: Option<u32>,
}

/// The JSON form.
#[derive(Serialize)]
struct Report<'a> {
    findings: Vec<Finding<'a>>,
    errors: usize,
    warnings: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let source = load(&arguments.sources, &arguments.cluster)?;
    let sim = Sim::from_source(&source)
        .map_err(Failure::load)?
        .start()
        .map_err(Failure::topology)?;
    let problems = sim.findings();
    let report = Report::of(&problems, sim.objects());
    match arguments.output {
        Output::Json => say!("{}", serde_json::to_string_pretty(&report)?),
        Output::Sarif => say!(
            "{}",
            serde_json::to_string_pretty(&sarif::log(&report.findings))?
        ),
        Output::Table => report.print(&source.name, sim.objects().len()),
    }
    Ok(verdict(!report.fails(arguments.fail_on)))
}

impl<'a> Report<'a> {
    fn of(problems: &'a [Problem], objects: &'a Objects) -> Self {
        let count = |severity| {
            let of = problems.iter().filter(|one| one.severity == severity);
            of.count()
        };
        Self {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            findings: problems
                .iter()
                .map(|problem| Finding::of(problem, objects))
                .collect(),
        }
    }

    fn fails(&self, on: FailOn) -> bool {
        self.errors > 0 || (on == FailOn::Warning && self.warnings > 0)
    }

    fn print(&self, source: &str, objects: usize) {
        for finding in &self.findings {
            finding.print();
        }
        let style = match (self.errors, self.warnings) {
            (0, 0) => GOOD,
            (0, _) => HINT,
            _ => BAD,
        };
        say!(
            "{} in {source}, {} with those derived",
            paint(
                style,
                format!(
                    "{}, {}",
                    counted(self.errors, "error"),
                    counted(self.warnings, "warning")
                )
            ),
            counted(objects, "object")
        );
    }
}

impl<'a> Finding<'a> {
    fn of(problem: &'a Problem, objects: &'a Objects) -> Self {
        let (file, line) = written(&problem.object, objects).unzip();
        Self {
            problem,
            page: page(problem.code),
            file,
            line,
        }
    }

    fn print(&self) {
        let Problem {
            code,
            severity,
            object,
            field,
            reason,
            fix,
        } = self.problem;
        let (style, word) = match severity {
            Severity::Error => (BAD, "error"),
            Severity::Warning => (HINT, "warning"),
        };
        let place = match (self.file, self.line) {
            (Some(file), Some(line)) => format!("{file}:{line}: "),
            _ => String::new(),
        };
        say!(
            "{} {place}{}",
            paint(style, format!("{word}[{code}]")),
            paint(STRONG, object)
        );
        if !field.is_empty() {
            say!("  {}", paint(FAINT, field));
        }
        say!("  {reason}");
        say!("  {}", paint(HINT, format!("fix: {fix}")));
        say!();
    }
}

/// `1 error`, `2 errors`.
fn counted(count: usize, what: &str) -> impl fmt::Display {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {what}{end}")
}

/// How many derivations lie between an object and what a user wrote: far fewer than this.
const DERIVATIONS: usize = 8;

/// Where an object, or what it was derived from, is written.
fn written<'a>(object: &ObjectRef, objects: &'a Objects) -> Option<(&'a str, u32)> {
    let mut entry = objects.get(object)?;
    for _ in 0..DERIVATIONS {
        match &entry.provenance {
            Provenance::Written { file, line } => return Some((file, *line)),
            Provenance::Watched { .. } => return None,
            Provenance::Derived { from, .. } => entry = objects.get(from)?,
        }
    }
    None
}
