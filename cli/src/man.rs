//! `nodeway man`: manual pages, of the same words as `--help`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::failure::{Failure, Outcome, verdict};
use crate::screen::{put, say};

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway man | man -l -
  nodeway man ~/.local/share/man/man1 && man nodeway-explain

Exit codes: 0 written, 2 something cannot be written.")]
pub(crate) struct Arguments {
    /// Where the pages of all subcommands go; it is made if it is not there. Without it the page of
    /// the command alone is printed.
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    // What `help` says stands in the pages.
    let mut command = crate::Arguments::command().disable_help_subcommand(true);
    command.build();
    let Some(folder) = &arguments.folder else {
        let (_, page) = page(&command).map_err(|error| miette::miette!("{error}"))?;
        put(format_args!("{}", String::from_utf8_lossy(&page)));
        return Ok(verdict(true));
    };
    let mut count = 0_u32;
    fs::create_dir_all(folder)
        .and_then(|()| write(&command, folder, &mut count))
        .map_err(|error| {
            let what = format!("{}: {error}", folder.display());
            Failure::argument(what, "name a folder that can be written to")
        })?;
    say!("{}: {count} pages", folder.display());
    Ok(verdict(true))
}

/// The page of a command, and those of its subcommands.
fn write(command: &Command, folder: &Path, count: &mut u32) -> io::Result<()> {
    for inner in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        write(inner, folder, count)?;
    }
    let (name, page) = page(command)?;
    fs::write(folder.join(name), page)?;
    *count = count.saturating_add(1);
    Ok(())
}

/// A page and its file's name. Examples keep their lines, which clap's own order of sections would fill.
fn page(command: &Command) -> io::Result<(String, Vec<u8>)> {
    let source = concat!("nodeway ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(source).manual("Nodeway");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|it| !it.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(text) = command.get_after_help() {
        let text = text.to_string();
        let (heading, text) = match text.strip_prefix("Examples:\n") {
            Some(examples) => ("EXAMPLES", examples),
            None => ("NOTES", &*text),
        };
        let mut roff = Roff::new();
        roff.control("SH", [heading]).control("nf", []);
        for line in text.lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []).to_writer(&mut page)?;
    }
    Ok((man.get_filename(), page))
}
