//! The `nodeway` command.
//!
//! Each subcommand is a thin shell: it reads a source, asks `nodeway-core` or `nodeway-sim`, and
//! prints. Exit code 0: all is as expected; 1: something is not; 2: bad input.

mod absent;
#[cfg(feature = "live")]
mod agent;
#[cfg(feature = "live")]
mod backend;
mod captures;
mod check;
mod cluster;
mod completions;
#[cfg(feature = "live")]
mod envoy;
mod explain;
mod failure;
mod inject;
#[cfg(feature = "live")]
mod lab;
#[cfg(feature = "live")]
mod logs;
mod man;
#[cfg(feature = "live")]
mod operator;
mod paint;
mod record;
mod replay;
mod rules;
mod screen;
mod side_by_side;
#[cfg(feature = "live")]
mod sidecar;
mod sim;
#[cfg(feature = "live")]
mod status;
mod translate;
#[cfg(feature = "live")]
mod uninstall;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Shows, tests and runs the way of a request through a service mesh with one Envoy per node.
#[derive(Parser)]
#[command(name = "nodeway", version, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  nodeway sim fixtures/bookinfo
  nodeway explain fixtures/bookinfo --from default/client --to http://cilium-ingress-basic-ingress/details/0
  nodeway translate fixtures/bookinfo/manifests/ingress.yaml
  nodeway check manifests/ --fail-on warning
  kubectl get ing,svc,endpointslices,pods,nodes,cec,ccec -A -o yaml | nodeway explain - --from outside --to http://192.0.2.10/

Exit codes: 0 as expected, 1 not as expected, 2 bad input.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a fixture's requests on a simulated cluster and checks its expectations.
    Sim(sim::Arguments),
    /// Runs a fixture for real: network namespaces, the kernel's redirect, Envoy. Needs root.
    #[cfg(feature = "live")]
    Lab(lab::Arguments),
    /// Keeps a node's Envoys and its kernel on the plan of a folder's manifests. Needs root.
    #[cfg(feature = "live")]
    Agent(agent::Arguments),
    /// Says what a node's agent has planned, told, acknowledged and served; `status kube`: what configs say of all nodes.
    #[cfg(feature = "live")]
    Status(status::Arguments),
    /// Keeps a node's Envoy running: starts, watches and replaces it. Needs root.
    #[cfg(feature = "live")]
    Envoy(envoy::Arguments),
    /// Writes the configs and Services that a cluster's Ingresses ask for.
    #[cfg(feature = "live")]
    Operator(operator::Arguments),
    /// A pod's program, which says who it is and what it saw.
    #[cfg(feature = "live")]
    Backend(backend::Arguments),
    /// Takes Nodeway off a cluster's nodes, and waits until they are clean.
    #[cfg(feature = "live")]
    Uninstall(uninstall::Arguments),
    /// Prints the kinds of its own that a cluster must know, for `kubectl apply -f -`.
    #[cfg(feature = "live")]
    Crds,
    /// Shows the way of one request, with the reason and the evidence at each stage.
    Explain(explain::Arguments),
    /// Writes down what a node has and does, to be replayed; or makes a fixture of a dump.
    Record(record::Arguments),
    /// Runs a recording in the simulator, and says where the two part.
    Replay(replay::Arguments),
    /// Prints the CiliumEnvoyConfig that an Ingress becomes.
    Translate(translate::Arguments),
    /// Gives each pod of manifests an Envoy of its own: sidecars, the baseline to compare with.
    Inject(inject::Arguments),
    /// What `inject` puts into a pod: its rules, and who keeps its Envoy.
    #[cfg(feature = "live")]
    Sidecar(sidecar::Arguments),
    /// Says what is wrong with manifests, before they are applied.
    Check(check::Arguments),
    /// Prints the rules of a node's packet filter, as the tools take them.
    Rules(rules::Arguments),
    /// Prints what a shell must know to complete this command.
    Completions(completions::Arguments),
    /// Prints this command's manual page, or writes those of all subcommands.
    Man(man::Arguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => match absent::failure(&error) {
            Some(failure) => return failure.report(),
            None => error.exit(),
        },
    };
    let outcome = match &arguments.command {
        Command::Sim(arguments) => sim::run(arguments),
        #[cfg(feature = "live")]
        Command::Lab(arguments) => lab::run(arguments),
        #[cfg(feature = "live")]
        Command::Agent(arguments) => agent::run(arguments),
        #[cfg(feature = "live")]
        Command::Status(arguments) => status::run(arguments),
        #[cfg(feature = "live")]
        Command::Envoy(arguments) => envoy::run(arguments),
        #[cfg(feature = "live")]
        Command::Operator(arguments) => operator::run(arguments),
        #[cfg(feature = "live")]
        Command::Backend(arguments) => backend::run(arguments),
        #[cfg(feature = "live")]
        Command::Uninstall(arguments) => uninstall::run(arguments),
        #[cfg(feature = "live")]
        Command::Crds => operator::print_crds(),
        Command::Explain(arguments) => explain::run(arguments),
        Command::Record(arguments) => record::run(arguments),
        Command::Replay(arguments) => replay::run(arguments),
        Command::Translate(arguments) => translate::run(arguments),
        Command::Inject(arguments) => inject::run(arguments),
        #[cfg(feature = "live")]
        Command::Sidecar(arguments) => sidecar::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Rules(arguments) => rules::run(arguments),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Man(arguments) => man::run(arguments),
    };
    outcome.unwrap_or_else(|failure| failure.report())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_commands_of_the_feature_live_are_there_with_it_and_only_with_it() {
        let command = super::Arguments::command();
        for name in super::absent::LIVE {
            let found = command.find_subcommand(name).is_some();
            assert_eq!(found, cfg!(feature = "live"), "{name}");
        }
    }

    #[test]
    fn a_command_of_the_feature_live_is_not_called_unknown_without_it() {
        use clap::Parser;
        let told = |name: &str| {
            let error = super::Arguments::try_parse_from(["nodeway", name, "up"]).err();
            error.is_some_and(|error| super::absent::failure(&error).is_some())
        };
        assert_eq!(told("lab"), !cfg!(feature = "live"));
        assert!(!told("lap"));
    }

    #[test]
    fn an_option_of_the_feature_live_is_not_called_unexpected_without_it() {
        use clap::Parser;
        let told = |command: &str, option: &str| {
            let error = super::Arguments::try_parse_from(["nodeway", command, option]).err();
            error.is_some_and(|error| super::absent::failure(&error).is_some())
        };
        for option in super::absent::LIVE_OPTIONS {
            assert_eq!(told("explain", option), !cfg!(feature = "live"), "{option}");
        }
        assert!(!told("explain", "--lives"));
    }
}
