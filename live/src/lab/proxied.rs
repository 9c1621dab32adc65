//! A node of a lab with what runs on a real one: an agent, and the supervisor of its Envoy.
//!
//! Both run in the node's network namespace, as processes that can be killed like any, or as
//! threads of the lab's keeper ([`Workers`]). The folder of objects is the fixture's own, so what is
//! changed there while the lab stands reaches its Envoys and kernels. Agent and Envoys meet in a run
//! directory of the node's in the lab's folder, by which others find them, as on a node.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nodeway_core::envoy::bootstrap::AccessEntry;
use nodeway_sim::Redirect;

use crate::agent::status::Status;
use crate::agent::{self, AgentOptions, AskStatusError};
use crate::clock::Deadline;
use crate::envoy::{self, EnvoyError};
use crate::generation::{self, Bounds, GenerationError, Order, SupervisorOptions};
use crate::in_force::{LookError, Looked, look};
use crate::netns::{NetNs, NetNsError};

use super::worker::{Worker, WorkerError, Workers};

/// How long Envoy and kernel may take until they have the whole plan.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at whether they have.
const LOOK: Duration = Duration::from_millis(10);
/// How long an Envoy that was killed may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// For how long connections of before a frontend's switch are left alone, as an agent's are.
const SWITCHING: Duration = Duration::from_secs(300);
/// How long the steps of an Envoy's end may take, where another takes its place.
const BOUNDS: Bounds = Bounds {
    handover: Duration::from_secs(60),
    drain: Duration::from_secs(60),
};

/// Why nothing runs on a node of a lab as it should.
#[derive(Debug, thiserror::Error)]
pub enum ProxiedError {
    /// Its run directory.
    #[error("cannot make {path}: {cause}", path = path.display())]
    Run {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Its agent, or the supervisor of its Envoy.
    #[error("node {node}: {cause}")]
    Worker {
        /// The node.
        node: String,
        /// Why it does not run.
        cause: Box<WorkerError>,
    },
    /// Who its Envoys are.
    #[error(transparent)]
    Generations(#[from] GenerationError),
    /// The access log of one.
    #[error(transparent)]
    Envoy(#[from] EnvoyError),
    /// Its agent says nothing.
    #[error(transparent)]
    Status(#[from] AskStatusError),
    /// Its namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// Envoy or kernel do not get what is planned.
    #[error("node {node} is not on its plan within {SETTLED_WITHIN:?}: {}", awaited.join("; "))]
    NotSettled {
        /// The node.
        node: String,
        /// What is still to come.
        awaited: Vec<String>,
    },
    /// Another process keeps it.
    #[error(
        "the Envoy of node {0} is looked after by the process that keeps the lab: end it there, or make a lab of your own"
    )]
    NotKept(String),
    /// It does not end.
    #[error(
        "Envoy {generation} of node {node} was killed and is not gone; look at it with `ps {pid}`"
    )]
    NotGone {
        /// The node.
        node: String,
        /// The Envoy.
        generation: String,
        /// Its process.
        pid: u32,
    },
}

/// What all nodes of a lab are started with.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// The fixture's folder.
    pub(super) from: PathBuf,
    /// How frontends' packets are led.
    pub(super) redirect: Redirect,
    /// The program of Envoy.
    pub(super) envoy: PathBuf,
    /// How agents and supervisors run.
    pub(super) workers: Workers,
    /// The lab's BPF file system, if its way has programs.
    pub(super) pins: PathBuf,
}

/// A node with its agent. Kept here, all ends with this; found, it stays.
#[derive(Debug)]
pub(super) struct Proxied {
    node: String,
    run: PathBuf,
    kept: Option<Kept>,
}

/// What runs for a node.
#[derive(Debug)]
struct Kept {
    netns: NetNs,
    setting: Setting,
    supervisor: Option<Worker>,
    agent: Option<Worker>,
}

impl Proxied {
    /// Where its agent and Envoy meet.
    pub(super) fn run(&self) -> &Path {
        &self.run
    }

    /// What the node really does.
    pub(super) fn look(&self, netns: &NetNs) -> Result<Looked, LookError> {
        look(&self.run, netns)
    }

    /// Starts both. It takes a moment until all is led ([`Proxied::settle`]).
    pub(super) fn start(
        node: &str,
        netns: &NetNs,
        run: &Path,
        setting: Setting,
    ) -> Result<Self, ProxiedError> {
        // Envoy is another user, and must get to its own folder in it.
        let mut folder = fs::DirBuilder::new();
        let made = folder.recursive(true).mode(0o711).create(run);
        made.map_err(|cause| ProxiedError::Run {
            path: run.to_owned(),
            cause,
        })?;
        let mut own = Self {
            node: node.to_owned(),
            run: run.to_owned(),
            kept: Some(Kept {
                netns: netns.try_clone()?,
                setting,
                supervisor: None,
                agent: None,
            }),
        };
        own.start_supervisor()?;
        own.start_agent()?;
        Ok(own)
    }

    /// That of a lab that another process keeps.
    pub(super) fn found(node: &str, run: &Path) -> Self {
        Self {
            node: node.to_owned(),
            run: run.to_owned(),
            kept: None,
        }
    }

    /// Has Envoy's supervisor run, which adopts an Envoy that does.
    pub(super) fn start_supervisor(&mut self) -> Result<(), ProxiedError> {
        let (node, run) = (self.node.clone(), self.run.clone());
        let kept = self.kept()?;
        let options = SupervisorOptions {
            run,
            node: node.clone(),
            program: kept.setting.envoy.clone(),
            concurrency: 1,
            access_log: true,
            bounds: BOUNDS,
        };
        let started = Worker::supervisor(&kept.setting.workers, &kept.netns, options);
        kept.supervisor = Some(started.map_err(failed(&node))?);
        Ok(())
    }

    /// Has the agent run, which takes up what an earlier one left.
    pub(super) fn start_agent(&mut self) -> Result<(), ProxiedError> {
        let (node, run) = (self.node.clone(), self.run.clone());
        let kept = self.kept()?;
        let options = AgentOptions {
            from: agent::From::Folder(kept.setting.from.clone()),
            node: node.clone(),
            redirect: kept.setting.redirect,
            run,
            pins: Some(kept.setting.pins.join(&node)),
            access_log: true,
            metrics: None,
            arming: SWITCHING,
            draining: SWITCHING,
        };
        let started = Worker::agent(&kept.setting.workers, &kept.netns, options);
        kept.agent = Some(started.map_err(failed(&node))?);
        Ok(())
    }

    fn kept(&mut self) -> Result<&mut Kept, ProxiedError> {
        let kept = self.kept.as_mut();
        kept.ok_or_else(|| ProxiedError::NotKept(self.node.clone()))
    }

    /// Waits until Envoy has answered to all that is planned, and the kernel leads to it. What
    /// Envoy refuses is an answer.
    pub(super) fn settle(&mut self) -> Result<(), ProxiedError> {
        let deadline = Deadline::within(SETTLED_WITHIN);
        loop {
            let awaited = match self.status() {
                Ok(status) => status.awaited(),
                Err(error) => vec![error.to_string()],
            };
            if awaited.is_empty() {
                return Ok(());
            }
            let node = self.node.clone();
            if let Some(kept) = &mut self.kept {
                for worker in kept.agent.iter_mut().chain(&mut kept.supervisor) {
                    worker.check().map_err(failed(&node))?;
                }
            }
            if !deadline.pause(LOOK) {
                return Err(ProxiedError::NotSettled { node, awaited });
            }
        }
    }

    /// How it stands, by its agent's word.
    pub(super) fn status(&self) -> Result<Status, ProxiedError> {
        Ok(agent::ask_status(&self.run)?)
    }

    /// The lines of the access logs of its Envoys.
    pub(super) fn entries(&self) -> Result<Vec<AccessEntry>, ProxiedError> {
        let mut all = Vec::new();
        for record in generation::list(&self.run)? {
            all.extend(envoy::entries(&record.folder())?);
        }
        Ok(all)
    }

    /// Kills the agent, as `kill -9` does; a thread is ended. What it led goes on.
    pub(super) fn kill_agent(&mut self) -> Result<(), ProxiedError> {
        if let Some(agent) = self.kept()?.agent.take() {
            agent.kill();
        }
        Ok(())
    }

    /// Ends the agent in peace.
    pub(super) fn end_agent(&mut self) -> Result<(), ProxiedError> {
        if let Some(agent) = self.kept()?.agent.take() {
            agent.end();
        }
        Ok(())
    }

    /// Has another Envoy in the place of the one that runs, which drains.
    pub(super) fn upgrade(&mut self) -> Result<(), ProxiedError> {
        if let Some(supervisor) = &self.kept()?.supervisor {
            supervisor.order(Order::Upgrade);
        }
        Ok(())
    }

    /// Kills its Envoy, and before that whoever would start another.
    pub(super) fn crash(&mut self) -> Result<(), ProxiedError> {
        if let Some(supervisor) = self.kept()?.supervisor.take() {
            supervisor.kill();
        }
        self.kill_envoys()
    }

    /// Kills its Envoys.
    pub(super) fn kill_envoys(&self) -> Result<(), ProxiedError> {
        let deadline = Deadline::within(GONE_WITHIN);
        for record in generation::list(&self.run)? {
            record.process.signal(Signal::SIGKILL);
            while record.process.lives() {
                if !deadline.pause(LOOK) {
                    return Err(ProxiedError::NotGone {
                        node: self.node.clone(),
                        generation: record.id,
                        pid: record.process.pid,
                    });
                }
            }
        }
        Ok(())
    }

    /// Kills its Envoy, and has another in its place.
    pub(super) fn restart(&mut self) -> Result<(), ProxiedError> {
        self.crash()?;
        self.start_supervisor()?;
        self.settle()
    }
}

fn failed(node: &str) -> impl Fn(WorkerError) -> ProxiedError {
    move |cause| ProxiedError::Worker {
        node: node.to_owned(),
        cause: Box::new(cause),
    }
}

impl Drop for Proxied {
    fn drop(&mut self) {
        let Some(mut kept) = self.kept.take() else {
            return;
        };
        let workers = kept.agent.take().into_iter().chain(kept.supervisor.take());
        workers.for_each(Worker::kill);
        // One that stays ends with the lab's namespaces.
        let _ = self.kill_envoys();
    }
}
