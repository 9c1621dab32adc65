//! `nodeway uninstall`: the two steps of Nodeway's end in a cluster that must be waited for.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use miette::Report;
use nodeway_live::uninstall::{self, UninstallOptions};

use crate::failure::Outcome;
use crate::logs::Logs;
use crate::screen::say;

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway uninstall workers --namespace nodeway-system
  kubectl apply -f live/deploy/cleanup.yaml
  nodeway uninstall cleanup --namespace nodeway-system
  kubectl delete namespace nodeway-system

The chart's pre-delete hook takes the same steps: after `helm uninstall` nothing is left on a node.
What the operator wrote (configs, Services) goes with its Ingress.
Exit codes: 0 done, 2 it cannot be done, or not in time; the same again is safe.")]
pub(crate) struct Arguments {
    /// What is done, and waited for.
    #[arg(value_enum)]
    step: Step,
    /// Which cluster; that of `KUBECONFIG`, or that this runs in, if absent.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The namespace that Nodeway is in.
    #[arg(
        long,
        value_name = "NAME",
        env = "POD_NAMESPACE",
        default_value = "nodeway-system"
    )]
    namespace: String,
    /// For how long at most it goes on.
    #[arg(long, value_name = "SECONDS", default_value_t = 240)]
    timeout: u64,
    #[command(flatten)]
    logs: Logs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Step {
    /// Deletes the DaemonSets of Envoys and agents, and waits until their last pod has ended.
    Workers,
    /// Waits until the DaemonSet `nodeway-cleanup` has cleaned each node.
    Cleanup,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    arguments.logs.begin();
    let options = UninstallOptions {
        kubeconfig: arguments.kubeconfig.clone(),
        namespace: arguments.namespace.clone(),
        within: Duration::from_secs(arguments.timeout),
    };
    match arguments.step {
        Step::Workers => {
            uninstall::take_workers_away(&options).map_err(Report::from_err)?;
            say!("no agent and no Envoy is left; next: live/deploy/cleanup.yaml");
        }
        Step::Cleanup => {
            uninstall::wait_for_cleanup(&options).map_err(Report::from_err)?;
            say!("nothing of an agent is left on any node");
        }
    }
    Ok(ExitCode::SUCCESS)
}
