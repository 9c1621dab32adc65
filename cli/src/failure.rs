//! Why a command could not do what it was asked: reports on standard error, exit code 2.

use std::process::ExitCode;

use miette::{Diagnostic, LabeledSpan, NamedSource, Report, SourceSpan, miette};
use nodeway_core::source::{SourceError, Text};
use nodeway_sim::{AskError, LoadError, LoadErrors, RunError, TopologyError};

/// What a command gives: whether all was as expected, or why there is no answer.
pub(crate) type Outcome = Result<ExitCode, Failure>;

/// 0 if all is as expected, 1 if not.
pub(crate) fn verdict(as_expected: bool) -> ExitCode {
    if as_expected {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Ends this process at a signal that comes before there is what it would end.
#[cfg(feature = "live")]
pub(crate) fn unstarted(signal: nodeway_live::signal::Signal) {
    tracing::info!("{signal} before it had started");
    std::process::exit(128 + signal as i32);
}

/// Bad input: everything that is wrong with it, at once.
pub(crate) struct Failure(Vec<Report>);

impl Failure {
    /// An argument is wrong.
    pub(crate) fn argument(what: String, fix: &str) -> Self {
        Self(vec![miette!(help = fix, "{what}")])
    }

    /// Sources cannot be read.
    pub(crate) fn load(errors: LoadErrors) -> Self {
        let LoadErrors { errors, texts } = errors;
        Self(
            errors
                .into_iter()
                .map(|error| load_error(error, &texts))
                .collect(),
        )
    }

    /// A fixture cannot be run.
    pub(crate) fn run(error: RunError) -> Self {
        match error {
            RunError::Load(errors) => Self::load(errors),
            other => Self(vec![miette!("{other}")]),
        }
    }

    /// The objects give no network.
    pub(crate) fn topology(error: TopologyError) -> Self {
        Self(vec![miette!("{error}")])
    }

    /// The request cannot be sent.
    pub(crate) fn ask(error: &AskError) -> Self {
        Self(vec![miette!("{error}")])
    }

    /// Prints every report and gives the exit code of bad input.
    pub(crate) fn report(&self) -> ExitCode {
        for report in &self.0 {
            anstream::eprintln!("{report:?}");
        }
        ExitCode::from(2)
    }
}

impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        Self(vec![report])
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self(vec![miette!(
            "the answer cannot be written as JSON: {error}"
        )])
    }
}

fn load_error(error: LoadError, texts: &[Text]) -> Report {
    match error {
        LoadError::Path { path, reason, fix } => miette!(help = fix, "{path}: {reason}"),
        LoadError::Text(error) => Mistake::of(*error, texts).into(),
    }
}

/// A mistake in a text, with the line that holds it.
#[derive(Debug, thiserror::Error)]
#[error("{title}")]
struct Mistake {
    title: String,
    fix: String,
    source_code: Option<NamedSource<String>>,
    label: Option<LabeledSpan>,
}

impl Mistake {
    fn of(error: SourceError, texts: &[Text]) -> Self {
        let text = texts.iter().find(|text| text.name == error.file);
        let span = text.and_then(|text| span(&error, &text.content));
        let mut title = format!("{}:{}: ", error.file, error.place.line);
        if let Some(object) = &error.object {
            title.push_str(&format!("{object}: "));
        }
        if !error.field.is_empty() {
            title.push_str(&format!("{}: ", error.field));
        }
        title.push_str(&error.reason);
        Self {
            title,
            fix: error.fix,
            label: span.map(|span| LabeledSpan::new_with_span(Some("here".to_owned()), span)),
            source_code: text
                .filter(|_| span.is_some())
                .map(|text| NamedSource::new(&*text.name, text.content.clone())),
        }
    }
}

/// The bytes to underline: those that the reader named, else the whole line.
fn span(error: &SourceError, content: &str) -> Option<SourceSpan> {
    if let Some(range) = error.place.range() {
        return (range.end <= content.len()).then(|| range.into());
    }
    let line = usize::try_from(error.place.line).ok()?.checked_sub(1)?;
    let start = content
        .split_inclusive('\n')
        .take(line)
        .map(str::len)
        .sum::<usize>();
    let text = content.get(start..)?.lines().next()?;
    let indent = text.len() - text.trim_start().len();
    Some((start + indent, text.trim().len()).into())
}

impl Diagnostic for Mistake {
    fn help(&self) -> Option<Box<dyn std::fmt::Display + '_>> {
        Some(Box::new(&self.fix))
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source_code
            .as_ref()
            .map(|source| source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.label.iter().cloned()))
    }
}
