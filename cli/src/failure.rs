//! Why a command could not do what it was asked: reports on standard error, exit code 2.

use std::process::ExitCode;

/// Bad input: everything that is wrong with it, at once.
pub(crate) struct Failure(Vec<miette::Report>);

impl Failure {
    /// Several things are wrong.
    pub(crate) fn all(reports: impl IntoIterator<Item = miette::Report>) -> Self {
        Self(reports.into_iter().collect())
    }

    /// Prints every report and gives the exit code of bad input.
    pub(crate) fn report(&self) -> ExitCode {
        for report in &self.0 {
            anstream::eprintln!("{report:?}");
        }
        ExitCode::from(2)
    }
}

impl<E: Into<miette::Report>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(vec![error.into()])
    }
}

/// What a command gives: whether all was as expected, or why there is no answer.
pub(crate) type Outcome = Result<ExitCode, Failure>;

/// 0 if all is as expected, 1 if not.
pub(crate) fn verdict(as_expected: bool) -> ExitCode {
    if as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
