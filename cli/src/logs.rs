//! The log of a command that runs for long: on standard error, one event a line.

use std::io::{self, IsTerminal as _};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

#[derive(Args)]
pub(crate) struct Logs {
    /// What is logged, as `RUST_LOG` takes it: `warn`, `info`, `nodeway_live=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "RUST_LOG")]
    log: String,
    /// The form of the log.
    #[arg(long, value_enum, default_value_t = Form::Text)]
    log_format: Form,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    Text,
    Json,
}

impl Logs {
    /// Logs from now on.
    pub(crate) fn begin(&self) {
        let filter = EnvFilter::new(&self.log);
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false);
        match self.log_format {
            Form::Text => logs.init(),
            Form::Json => logs.json().init(),
        }
    }
}
