//! What an Envoy is started with, and the command line that says so.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nodeway_core::envoy::bootstrap::{Placement, Settings};

use super::admin;
use super::folder::{ACCESS_LOG, BOOTSTRAP};
use super::user::{self, RunsAs};

/// What an Envoy is started with.
#[derive(Clone, Debug)]
pub struct EnvoyOptions {
    /// The program; see [`find`](super::find).
    pub program: PathBuf,
    /// A folder of its own. It is made, and must not be there yet.
    pub folder: PathBuf,
    /// The node's name.
    pub node: String,
    /// Whether it serves a node or a pod.
    pub placement: Placement,
    /// Worker threads.
    pub concurrency: u16,
    /// The user it runs as, when we are root; see [`RunsAs`].
    pub uid: u32,
    /// Whether each request gets a line in the access log.
    pub access_log: bool,
    /// How long it may take until all sockets listen.
    pub within: Duration,
    /// For how long it asks connections to end before it closes listeners that are to be drained.
    pub drain: Duration,
}

impl EnvoyOptions {
    /// An Envoy for a node, with one worker, as `nobody`, with an access log.
    #[must_use]
    pub fn new(program: PathBuf, folder: PathBuf, node: impl Into<String>) -> Self {
        Self {
            program,
            folder,
            node: node.into(),
            placement: Placement::Node,
            concurrency: 1,
            uid: user::NOBODY,
            access_log: true,
            within: Duration::from_secs(20),
            drain: Duration::from_secs(600),
        }
    }

    /// An Envoy for a pod, as the user whose traffic the pod's rules leave alone.
    #[must_use]
    pub fn sidecar(program: PathBuf, folder: PathBuf, pod: impl Into<String>) -> Self {
        Self {
            placement: Placement::Sidecar,
            uid: nodeway_core::netfilter::sidecar::PROXY_UID,
            ..Self::new(program, folder, pod)
        }
    }

    /// What its bootstrap is made with.
    pub(super) fn settings(&self) -> Settings {
        Settings {
            node: self.node.clone(),
            // Relative to its folder: the path of a Unix socket has 107 bytes at most.
            admin: admin::SOCKET.to_owned(),
            access_log: self.access_log.then(|| ACCESS_LOG.to_owned()),
            placement: self.placement,
        }
    }
}

/// The program with these options, which writes its words into a log.
pub(super) fn command(options: &EnvoyOptions, runs_as: &RunsAs, log: File) -> io::Result<Command> {
    let mut command = runs_as.command(&options.program);
    command
        .args(["--config-path", BOOTSTRAP, "--disable-hot-restart"])
        .args(["--concurrency", &options.concurrency.to_string()])
        // Each line of the access log at once, not after ten seconds.
        .args(["--file-flush-min-size-kb", "0"])
        .args(["--file-flush-interval-msec", "100"])
        .args(["--log-level", "warn"])
        .args(["--drain-time-s", &options.drain.as_secs().to_string()])
        // Who drains wants every client to hear of it at its next answer.
        .args(["--drain-strategy", "immediate"])
        .current_dir(&options.folder)
        // Ctrl-C is for whoever started it.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command)
}
