//! `nodeway backend`: a pod's program, which says who it is and what it saw.

use std::process::ExitCode;

use clap::Args;
use miette::{IntoDiagnostic as _, Report};
use nodeway_core::backend::Identity;
use nodeway_live::backend::{Backends, Program};
use nodeway_live::netns::NetNs;
use nodeway_live::signal;

use crate::failure::{Failure, Outcome};
use crate::screen::say;

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway backend --port 9080 --service details --pod default/details-v1-1
  curl http://127.0.0.1:9080/details/0

It is what runs in the pods of a lab, with the same answers, for pods of a real cluster: fields that are
not given are taken from the environment (SERVICE, POD, NODE_NAME, LABEL_VERSION, IMAGE).
Exit codes: 0 ended, 2 it cannot start.")]
pub(crate) struct Arguments {
    /// A port on which it listens; may be repeated.
    #[arg(long, value_name = "PORT", required = true)]
    port: Vec<u16>,
    /// The Service that leads to it.
    #[arg(long, value_name = "NAME", env = "SERVICE", default_value = "")]
    service: String,
    /// Its pod.
    #[arg(long, value_name = "NAMESPACE/NAME", env = "POD", default_value = "")]
    pod: String,
    /// Its node.
    #[arg(long, value_name = "NAME", env = "NODE_NAME", default_value = "")]
    node: String,
    /// Its pod's label `version`.
    #[arg(long, value_name = "VALUE", env = "LABEL_VERSION", default_value = "")]
    label_version: String,
    /// The image of the program that it stands for: those of Bookinfo know their paths, all others
    /// take every path.
    #[arg(long, value_name = "IMAGE", env = "IMAGE", default_value = "")]
    image: String,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let (stops, stop) = std::sync::mpsc::channel();
    // Before the backend's threads begin: they inherit who waits for signals.
    signal::on_interrupt(move || {
        // It has ended by itself.
        let _ = stops.send(());
    })
    .into_diagnostic()?;
    let netns = NetNs::current().map_err(Report::from_err)?;
    let program = Program {
        identity: Identity {
            service: arguments.service.clone(),
            pod: arguments.pod.clone(),
            node: arguments.node.clone(),
            version: arguments.label_version.clone(),
            image: arguments.image.clone(),
        },
        ports: arguments.port.clone(),
        tls: None,
    };
    let backends = Backends::start(&netns, &[program]).map_err(Report::from_err)?;
    if let Some((_, port)) = backends.taken().first() {
        return Err(Failure::argument(
            format!("--port {port}: another program listens there"),
            "choose another port, or end that program",
        ));
    }
    say!("listening on {:?}", arguments.port);
    // It comes when this shall end; then the sockets go with the value.
    let _ = stop.recv();
    drop(backends);
    Ok(ExitCode::SUCCESS)
}
