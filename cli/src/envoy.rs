//! `nodeway envoy`: the node's Envoy, started, watched and replaced; told everything by the agent.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::time::Duration;

use clap::Args;
use miette::{IntoDiagnostic as _, Report};
use nodeway_live::envoy;
use nodeway_live::generation::{Bounds, Order, Supervisor, SupervisorOptions};
use nodeway_live::signal::{self, Signal};

use crate::failure::Outcome;
use crate::logs::Logs;

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway envoy --node node-1                      beside `nodeway agent --node node-1`
  nodeway envoy --node node-1 --envoy ./envoy      another program
  kill -HUP PID                                    a new Envoy in the place of the old one, which drains

Envoy is a process of its own: it goes on when this one is killed, and the next one adopts it.
SIGTERM and Ctrl-C drain it and end; the same once more ends it at once.
Exit codes: 0 ended, 2 Envoy does not start.")]
pub(crate) struct Arguments {
    /// The node that this machine is.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node: String,
    /// Where agent and Envoys meet.
    #[arg(long, value_name = "FOLDER", default_value = "/run/nodeway")]
    run_dir: PathBuf,
    /// The program; `$ENVOY`, the one on `PATH` or that of ci/setup if absent.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// Worker threads.
    #[arg(long, value_name = "N", default_value_t = 2)]
    concurrency: u16,
    /// Writes a line for each request to `access.log` in Envoy's folder.
    #[arg(long)]
    access_log: bool,
    /// How long one that is to end waits for the agent to lead its frontends elsewhere.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    handover: u64,
    /// How long its connections may take to end; those that are left then are cut and counted.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    drain: u64,
    #[command(flatten)]
    logs: Logs,
}

impl Arguments {
    fn options(&self, program: PathBuf) -> SupervisorOptions {
        SupervisorOptions {
            run: self.run_dir.clone(),
            node: self.node.clone(),
            program,
            concurrency: self.concurrency,
            access_log: self.access_log,
            bounds: Bounds {
                handover: Duration::from_secs(self.handover),
                drain: Duration::from_secs(self.drain),
            },
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    arguments.logs.begin();
    let program = envoy::find(arguments.envoy.as_deref()).map_err(Report::from_err)?;
    let (sender, orders) = channel();
    let mut ending = false;
    signal::on_each(move |signal| {
        let order = match signal {
            Signal::SIGHUP => Order::Upgrade,
            _ if ending => Order::EndNow,
            _ => {
                ending = true;
                Order::End
            }
        };
        sender.send(order).is_ok()
    })
    .into_diagnostic()?;
    let supervisor = Supervisor::start(arguments.options(program)).map_err(Report::from_err)?;
    supervisor.run(&orders);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_supervisor_of_a_lab_is_told_what_the_lab_means() {
        let options = SupervisorOptions {
            run: "run".into(),
            node: "n".to_owned(),
            program: "an-envoy".into(),
            concurrency: 3,
            access_log: true,
            bounds: Bounds {
                handover: Duration::from_secs(1),
                drain: Duration::from_secs(4),
            },
        };
        let command = ["nodeway".into(), "envoy".into()];
        let line = command.into_iter().chain(options.arguments());
        let line = crate::Arguments::try_parse_from(line).unwrap();
        let crate::Command::Envoy(arguments) = line.command else {
            panic!("another command");
        };
        let program = arguments.envoy.clone().unwrap();
        assert_eq!(arguments.options(program), options);
    }
}
