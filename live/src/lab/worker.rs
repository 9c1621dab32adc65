//! An agent or a supervisor in a lab: a process like on a node, or a thread of the lab's keeper.
//!
//! A process can be killed by anybody at any time, and that is what a lab is for. Threads need no
//! other program: a test of this library has none.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use nix::sys::signal::Signal;

use crate::agent::{Agent, AgentError, AgentOptions};
use crate::envoy;
use crate::generation::{Order, Supervisor, SupervisorError, SupervisorOptions};
use crate::netns::{NetNs, NetNsError};
use crate::process::Process;
use crate::stop::Stop;

/// How the agents and supervisors of a lab run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workers {
    /// As threads of the lab's keeper.
    Threads,
    /// As processes of that program, which is `nodeway`.
    Processes(PathBuf),
}

/// Why one does not run.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A supervisor.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// An agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Its namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// A process is not started.
    #[error("cannot start {program} with its words in {log}: {cause}", program = program.display(), log = log.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Where it would have said something.
        log: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// It ended by itself.
    #[error("`nodeway {what}` ended ({status}). It said:\n{words}")]
    Ended {
        /// `agent`, `envoy`
        what: &'static str,
        /// How.
        status: String,
        /// The last lines of its log.
        words: String,
    },
}

/// One that runs.
#[derive(Debug)]
pub(super) enum Worker {
    Agent(Stop, JoinHandle<()>),
    Supervisor(Sender<Order>, JoinHandle<()>),
    Process {
        what: &'static str,
        child: Child,
        log: PathBuf,
    },
}

impl Worker {
    /// The supervisor of a node's Envoy. What it starts belongs to the node's namespace.
    pub(super) fn supervisor(
        workers: &Workers,
        netns: &NetNs,
        options: SupervisorOptions,
    ) -> Result<Self, WorkerError> {
        if let Workers::Processes(program) = workers {
            return process(program, "envoy", options.arguments(), netns, &options.run);
        }
        let supervisor = netns.run(|| Supervisor::start(options))??;
        let (orders, received) = channel();
        let thread = thread::spawn(move || supervisor.run(&received));
        Ok(Self::Supervisor(orders, thread))
    }

    /// The agent of a node.
    pub(super) fn agent(
        workers: &Workers,
        netns: &NetNs,
        options: AgentOptions,
    ) -> Result<Self, WorkerError> {
        if let Workers::Processes(program) = workers {
            return process(program, "agent", options.arguments(), netns, &options.run);
        }
        let agent = netns.run(|| Agent::start(options))??;
        let stop = agent.stop();
        let thread = thread::spawn(move || agent.run());
        Ok(Self::Agent(stop, thread))
    }

    /// Whether it still runs.
    pub(super) fn check(&mut self) -> Result<(), WorkerError> {
        let Self::Process { what, child, log } = self else {
            return Ok(());
        };
        match child.try_wait() {
            Ok(Some(status)) => Err(WorkerError::Ended {
                what,
                status: status.to_string(),
                words: envoy::last_words(log),
            }),
            _ => Ok(()),
        }
    }

    /// Gives an order to a supervisor.
    pub(super) fn order(&self, order: Order) {
        match self {
            Self::Agent(..) => {}
            Self::Supervisor(orders, _) => {
                // It has ended by itself.
                let _ = orders.send(order);
            }
            Self::Process { child, .. } => {
                if let (Order::Upgrade, Some(process)) = (order, Process::of(child.id())) {
                    process.signal(Signal::SIGHUP);
                }
            }
        }
    }

    /// Ends an agent in peace, and waits for that.
    pub(super) fn end(self) {
        if let Self::Process { mut child, .. } = self {
            if let Some(process) = Process::of(child.id()) {
                process.signal(Signal::SIGTERM);
            }
            // One that has ended by itself is what is wanted.
            let _ = child.wait();
        } else {
            self.kill();
        }
    }

    /// Ends it at once. What it looked after goes on.
    pub(super) fn kill(self) {
        // One that has ended by itself is what is wanted.
        match self {
            Self::Agent(stop, thread) => {
                stop.now();
                let _ = thread.join();
            }
            Self::Supervisor(orders, thread) => {
                let _ = orders.send(Order::Leave);
                let _ = thread.join();
            }
            Self::Process { mut child, .. } => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// A process in a namespace, that writes what it says to a file in the node's run directory.
fn process(
    program: &Path,
    what: &'static str,
    arguments: Vec<OsString>,
    netns: &NetNs,
    run: &Path,
) -> Result<Worker, WorkerError> {
    let log = run.join(format!("{what}.log"));
    let not_started = |cause| WorkerError::Start {
        program: program.to_owned(),
        log: log.clone(),
        cause,
    };
    let mut command = Command::new(program);
    command.arg(what).args(arguments).stdin(Stdio::null());
    let spawned = netns.run(|| {
        let words = File::options().append(true).create(true).open(&log)?;
        command.stdout(words.try_clone()?).stderr(words).spawn()
    })?;
    let child = spawned.map_err(not_started)?;
    Ok(Worker::Process { what, child, log })
}
