//! `nodeway agent`: keeps a node's Envoys and its kernel on the plan, until it is ended.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use miette::{IntoDiagnostic as _, Report};
use nodeway_live::agent::{self, Agent, AgentError, AgentOptions, From, SourceError};
use nodeway_live::netns::NetNs;
use nodeway_live::stop::AtSignal;
use nodeway_sim::Redirect;

use crate::failure::{Failure, Outcome, unstarted, verdict};
use crate::logs::Logs;
use crate::paint::{BAD, paint};
use crate::screen::say;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Examples:
  nodeway agent --from manifests/ --node node-1
  nodeway agent --from kube --node node-1
  nodeway agent --from fixtures/bookinfo --node node-1 --redirect iptables --metrics 127.0.0.1:9964
  nodeway envoy --node node-1          the node's Envoy, in a process of its own
  nodeway status                       what is planned, acknowledged and served
  nodeway agent cleanup                nothing of an agent is left on this node

Ended or killed, it leaves everything as it is: Envoys, rules and programs go on, and the next agent
takes them up.
Needs root, iptables and ipset. Exit codes: 0 ended, 2 it cannot start, 130 or 143 a signal came before it had started.")]
pub(crate) struct Arguments {
    /// The cluster: a folder of manifests, which is watched, a fixture, or `kube`, the API server of
    /// the cluster that this runs in or of the kubeconfig.
    #[arg(long, value_name = "FOLDER|kube", required = true)]
    from: Option<From>,
    /// Which cluster `kube` is; that of `KUBECONFIG`, or that this runs in, if absent.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The node that this machine is.
    #[arg(long, value_name = "NAME", env = "NODE_NAME", required = true)]
    node: Option<String>,
    /// How packets come to the listener: `tc`, `sk-lookup`, `iptables`.
    #[arg(long, value_name = "WAY", default_value_t = Redirect::Tc)]
    redirect: Redirect,
    /// Where agent and Envoys meet.
    #[arg(long, value_name = "FOLDER", default_value = "/run/nodeway")]
    run_dir: PathBuf,
    /// A folder on a BPF file system, where the kernel's programs outlive the agent.
    #[arg(long, value_name = "FOLDER", default_value = "/sys/fs/bpf/nodeway")]
    pins: PathBuf,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
    /// For how long at most a frontend that is switched on leaves older connections alone.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    arming: u64,
    /// For how long at most a frontend that is switched off serves the connections that it has.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    draining: u64,
    /// Has Envoys write a line for each request to `access.log` in their folders.
    #[arg(long)]
    access_log: bool,
    #[command(flatten)]
    logs: Logs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Takes away what an agent that ended left as it was: programs and pins, rules, sets and routes.
    Cleanup(Cleanup),
}

#[derive(Args)]
#[command(after_help = "\
Packets go past the node's Envoys then. Envoys end with their supervisor, `nodeway envoy`.
Exit codes: 0 nothing is left, 1 an Envoy still runs, 2 something cannot be taken away.")]
struct Cleanup {
    /// The run directory of the agent that was here.
    #[arg(long, value_name = "FOLDER", default_value = "/run/nodeway")]
    run_dir: PathBuf,
    /// The folder of its pins.
    #[arg(long, value_name = "FOLDER", default_value = "/sys/fs/bpf/nodeway")]
    pins: PathBuf,
}

impl Arguments {
    fn options(&self) -> AgentOptions {
        // It is required, but for the subcommand.
        let from = self.from.clone().unwrap_or(From::Kube(None));
        AgentOptions {
            from: from.by(self.kubeconfig.clone()),
            node: self.node.clone().unwrap_or_default(),
            redirect: self.redirect,
            run: self.run_dir.clone(),
            pins: Some(self.pins.clone()),
            access_log: self.access_log,
            metrics: self.metrics,
            arming: Duration::from_secs(self.arming),
            draining: Duration::from_secs(self.draining),
        }
    }
}

fn clean(arguments: &Cleanup) -> Outcome {
    let netns = NetNs::current().into_diagnostic()?;
    let running = agent::cleanup(&netns, &arguments.run_dir, &arguments.pins);
    let running = running.map_err(Report::from_err)?;
    say!("no program, pin, rule, set or route of an agent is left here");
    for envoy in &running {
        let text = format!("Envoy {envoy} still runs: end its supervisor, `nodeway envoy`");
        say!("{}", paint(BAD, text));
    }
    Ok(verdict(running.is_empty()))
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    if let Some(Command::Cleanup(cleanup)) = &arguments.command {
        return clean(cleanup);
    }
    if arguments.redirect == Redirect::Sidecar {
        return Err(Failure::argument(
            "--redirect sidecar: an agent serves a node, and a sidecar its pod".to_owned(),
            "choose `tc`, `sk-lookup` or `iptables`; `nodeway lab` shows sidecars",
        ));
    }
    arguments.logs.begin();
    // Before the agent's threads begin: they inherit who waits for signals.
    let signal = AtSignal::wait(unstarted).into_diagnostic()?;
    let agent = Agent::start(arguments.options()).map_err(failed)?;
    signal.ends(agent.stop());
    tracing::info!("the node is on the plan");
    agent.run();
    Ok(ExitCode::SUCCESS)
}

fn failed(error: AgentError) -> Failure {
    match error {
        AgentError::Source(SourceError::Folder(errors)) => Failure::load(*errors),
        other => Report::from_err(other).into(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::all_there_is(AgentOptions {
        from: From::Kube(Some("kubeconfig".into())),
        node: "n".to_owned(),
        redirect: Redirect::SkLookup,
        run: "run".into(),
        pins: Some("pins".into()),
        access_log: true,
        metrics: Some(([127, 0, 0, 1], 9964).into()),
        arming: Duration::from_secs(1),
        draining: Duration::from_secs(2),
    })]
    #[case::a_folder(AgentOptions {
        from: From::Folder("manifests".into()),
        node: "n".to_owned(),
        redirect: Redirect::Iptables,
        run: "run".into(),
        pins: Some("pins".into()),
        access_log: false,
        metrics: None,
        arming: Duration::from_secs(3),
        draining: Duration::from_secs(4),
    })]
    fn an_agent_of_a_lab_is_told_what_the_lab_means(#[case] options: AgentOptions) {
        let command = ["nodeway".into(), "agent".into()];
        let line = command.into_iter().chain(options.arguments());
        let line = crate::Arguments::try_parse_from(line).unwrap();
        let crate::Command::Agent(arguments) = line.command else {
            panic!("another command");
        };
        assert_eq!(arguments.options(), options);
    }
}
