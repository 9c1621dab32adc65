//! Standard output, a line at a time. Colours are taken out where nobody sees them, and a reader
//! who has seen enough (`| head`) ends the command in peace.

use std::fmt;
use std::io::{self, Write};

/// Prints a line.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    put(format_args!("{text}\n"));
}

/// Prints a text as it is.
pub(crate) fn put(text: fmt::Arguments<'_>) {
    if let Err(error) = anstream::stdout().lock().write_fmt(text) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            anstream::eprintln!("standard output cannot be written: {error}");
            std::process::exit(2);
        }
        std::process::exit(0);
    }
}

/// Prints a line as `println!` does, without its panic when nobody reads.
macro_rules! say {
    () => { $crate::screen::line(format_args!("")) };
    ($($text:tt)*) => { $crate::screen::line(format_args!($($text)*)) };
}

pub(crate) use say;
