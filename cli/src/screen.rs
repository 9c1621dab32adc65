//! Standard output, a line at a time. Colours are taken out where nobody sees them, and a reader
//! who has seen enough (`| head`) ends the command in peace.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use terminal_size::terminal_size;

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

/// A table without lines; on a terminal no wider than it.
pub(crate) fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    if let (true, Some((width, _))) = (io::stdout().is_terminal(), terminal_size()) {
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width.0);
    }
    table
}

/// Prints a table without lines, and an empty line behind it; nothing at all when there is no row.
pub(crate) fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut table = plain();
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    if table.row_count() > 0 {
        line(format_args!("{}\n", table.trim_fmt()));
    }
}

/// Prints a line as `println!` does, without its panic when nobody reads.
macro_rules! say {
    () => { $crate::screen::line(format_args!("")) };
    ($($text:tt)*) => { $crate::screen::line(format_args!($($text)*)) };
}

pub(crate) use say;
