//! How a task says what it found and where it is: a table or JSON on standard output, progress on standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Output {
    /// Prints what was found: as JSON, or as `table` prints it.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn print<T: Serialize + ?Sized>(
        self,
        found: &T,
        table: impl FnOnce(&T),
    ) -> serde_json::Result<()> {
        match self {
            Self::Table => table(found),
            Self::Json => tell(serde_json::to_string_pretty(found)?),
        }
        Ok(())
    }
}

/// Prints a text and ends its line. Who reads no more has seen enough.
pub fn tell(text: impl Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// The line that says where a task is: on a terminal the next one takes its place, and none is left at the end; elsewhere they
/// follow each other.
#[derive(Debug)]
pub struct Progress {
    on_terminal: bool,
}

impl Progress {
    /// Nothing is said yet.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            on_terminal: io::stderr().is_terminal(),
        }
    }

    /// Says where it is. Who reads no more has seen enough.
    pub fn say(&mut self, what: &str) {
        let (begin, end) = if self.on_terminal {
            ("\r\x1b[K", "")
        } else {
            ("", "\n")
        };
        let _ = write!(io::stderr(), "{begin}{what}{end}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.on_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
