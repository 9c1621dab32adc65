//! `nodeway operator`: what the Ingresses of a cluster ask for, written there; `nodeway crds`: the kinds
//! that it writes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use miette::{IntoDiagnostic as _, Report};
use nodeway_core::ingress::{Mode, Options};
use nodeway_live::kube::crds;
use nodeway_live::operator::{Operator, OperatorOptions};
use nodeway_live::stop::AtSignal;

use crate::failure::{Outcome, unstarted};
use crate::logs::Logs;
use crate::screen::say;

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway crds | kubectl apply -f -                  once
  nodeway operator --namespace nodeway               by KUBECONFIG, or in a pod by its service account
  nodeway operator --class nodeway --default-mode shared --metrics 0.0.0.0:9965

Of several the one that holds the Lease `nodeway-operator` writes. What is there as it should be is
not written again. While Cilium is in the cluster nothing is written.
Exit codes: 0 ended, 2 it cannot start, 130 or 143 a signal came before it had started.")]
pub(crate) struct Arguments {
    /// Which cluster; that of `KUBECONFIG`, or that this runs in, if absent.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The namespace of the Lease.
    #[arg(
        long,
        value_name = "NAME",
        env = "POD_NAMESPACE",
        default_value = "default"
    )]
    namespace: String,
    /// This one's name among others that wait for the Lease.
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    identity: Option<String>,
    /// The IngressClass whose Ingresses are ours.
    #[arg(long, value_name = "NAME", default_value = "cilium")]
    class: String,
    /// The load balancer of an Ingress that asks for none: `dedicated` or `shared`.
    #[arg(long, value_name = "MODE", default_value = "dedicated", value_parser = mode)]
    default_mode: Mode,
    /// The nodes that have an agent, if not all have one: a config is programmed when these have it.
    #[arg(long, value_name = "LABELS")]
    agents: Option<String>,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    logs: Logs,
}

fn mode(text: &str) -> Result<Mode, String> {
    let all = [Mode::Dedicated, Mode::Shared];
    let found = all.into_iter().find(|it| it.to_string() == text);
    found.ok_or_else(|| format!("`{text}` is neither `dedicated` nor `shared`"))
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    arguments.logs.begin();
    let options = OperatorOptions {
        ingress: Options {
            class: arguments.class.clone(),
            default_mode: arguments.default_mode,
            // A frontend that is led to a listener needs no endpoints.
            placeholder_endpoints: false,
            ..Options::default()
        },
        kubeconfig: arguments.kubeconfig.clone(),
        namespace: arguments.namespace.clone(),
        agents: arguments.agents.clone(),
        metrics: arguments.metrics,
        identity: match &arguments.identity {
            Some(identity) => identity.clone(),
            None => format!("nodeway-operator-{}", std::process::id()),
        },
    };
    // Before the operator's threads begin: they inherit who waits for signals.
    let signal = AtSignal::wait(unstarted).into_diagnostic()?;
    let operator = Operator::start(options).map_err(Report::from_err)?;
    signal.ends(operator.stop());
    tracing::info!("all is listed");
    operator.run();
    Ok(ExitCode::SUCCESS)
}

/// Prints the kinds.
pub(crate) fn print_crds() -> Outcome {
    say!("{}", crds::yaml().trim_end());
    Ok(ExitCode::SUCCESS)
}
