//! `nodeway completions`: what a shell must know to complete this command.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::failure::{Outcome, verdict};
use crate::screen::put;

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway completions bash > ~/.local/share/bash-completion/completions/nodeway
  nodeway completions zsh > ~/.zfunc/_nodeway        with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  nodeway completions fish > ~/.config/fish/completions/nodeway.fish

Exit codes: 0 printed, 2 bad input.")]
pub(crate) struct Arguments {
    /// Whose script.
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut script = Vec::new();
    let mut command = crate::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "nodeway", &mut script);
    put(format_args!("{}", String::from_utf8_lossy(&script)));
    Ok(verdict(true))
}
