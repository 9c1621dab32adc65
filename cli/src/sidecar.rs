//! `nodeway sidecar`: the two halves of what `nodeway inject` puts into a pod.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use miette::{IntoDiagnostic as _, Report};
use nodeway_core::datapath::Family;
use nodeway_core::netfilter::{sidecar, text};
use nodeway_live::envoy;
use nodeway_live::sidecar::{PodEnvoyOptions, Sidecar, SidecarOptions, install_rules};
use nodeway_live::stop::AtSignal;

use crate::failure::{Outcome, unstarted, verdict};
use crate::logs::Logs;
use crate::screen::put;

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway sidecar rules                            what a pod gets, for iptables-restore and ip6tables-restore
  nodeway sidecar rules --install                  in a pod's init container
  nodeway sidecar run                              beside the pod's containers, as user 1337

Exit codes: 0 printed, installed or ended, 2 it cannot be done.")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    half: Half,
}

#[derive(Subcommand)]
enum Half {
    /// Prints the rules that lead all TCP of a pod to its own Envoy, or installs them where it runs.
    Rules(Rules),
    /// Keeps the pod's Envoy on the plan of the cluster's objects.
    Run(Run),
}

#[derive(Args)]
struct Rules {
    /// Installs them in the network namespace that this runs in. Needs `NET_ADMIN` and `NET_RAW`.
    #[arg(long)]
    install: bool,
    /// A port that goes past Envoy in both directions; may be given more than once.
    #[arg(long = "exclude-port", value_name = "PORT")]
    excluded: Vec<u16>,
}

#[derive(Args)]
struct Run {
    /// Which cluster; that of `KUBECONFIG`, or that this runs in, if absent.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The pod's node.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node: String,
    /// The pod's namespace.
    #[arg(
        long,
        value_name = "NAME",
        env = "POD_NAMESPACE",
        default_value = "default"
    )]
    namespace: String,
    /// The pod.
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pod: String,
    /// The pod's addresses, which source ranges of Services may leave out.
    #[arg(
        long,
        value_name = "ADDRESSES",
        env = "POD_IPS",
        value_delimiter = ',',
        required = true
    )]
    addresses: Vec<IpAddr>,
    /// Where Envoy's files are.
    #[arg(long, value_name = "FOLDER", default_value = "/run/nodeway")]
    run_dir: PathBuf,
    /// The program; `$ENVOY` or the one on `PATH` if absent.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// Writes a line for each request to standard output.
    #[arg(long)]
    access_log: bool,
    #[command(flatten)]
    logs: Logs,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.half {
        Half::Rules(arguments) => rules(arguments),
        Half::Run(arguments) => keep(arguments),
    }
}

fn rules(arguments: &Rules) -> Outcome {
    if arguments.install {
        install_rules(&arguments.excluded).map_err(Report::from_err)?;
        return Ok(verdict(true));
    }
    for (family, program) in [(Family::V4, "iptables"), (Family::V6, "ip6tables")] {
        let rules = text::ruleset(&sidecar::rules(family, &arguments.excluded));
        put(format_args!("# for {program}-restore\n{rules}"));
    }
    Ok(verdict(true))
}

fn keep(arguments: &Run) -> Outcome {
    arguments.logs.begin();
    let options = SidecarOptions {
        kubeconfig: arguments.kubeconfig.clone(),
        node: arguments.node.clone(),
        envoy: PodEnvoyOptions {
            pod: format!("{}/{}", arguments.namespace, arguments.pod),
            addresses: arguments.addresses.clone(),
            run: arguments.run_dir.clone(),
            program: envoy::find(arguments.envoy.as_deref()).map_err(Report::from_err)?,
            access_log: arguments.access_log,
        },
    };
    // Before its threads begin: they inherit who waits for signals.
    let signal = AtSignal::wait(unstarted).into_diagnostic()?;
    let sidecar = Sidecar::start(options).map_err(Report::from_err)?;
    signal.ends(sidecar.stop());
    tracing::info!("all is listed, Envoy is started");
    sidecar.run().map_err(Report::from_err)?;
    Ok(ExitCode::SUCCESS)
}
