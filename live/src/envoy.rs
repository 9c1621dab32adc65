//! A real Envoy: found, started in a node's network namespace from a plan, watched, and ended.
//!
//! It starts from a file that has the whole plan ([`nodeway_core::envoy::bootstrap`]), and is
//! ready when each of its listeners' sockets listens: Envoy's own word for that comes too early.
//! All that it has stands in one folder that only its user can read. It is started without hot
//! restart, so two of them share no memory, however many labs a machine has; an upgrade is a new
//! process on ports of its own.
//!
//! A folder outlives the process that made it: a command can start an Envoy and leave it
//! ([`Envoy::leave`]), the next one finds it again ([`Envoy::adopt`]).

mod admin;
mod error;
mod find;
mod folder;
mod log;
mod options;
mod process;
mod sockets;
mod user;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nodeway_core::envoy::bootstrap::{AccessEntry, Bootstrap, Placement, bootstrap, told};
use nodeway_core::plan::NodePlan;

use crate::clock::Deadline;
use crate::netns::NetNs;
use crate::process::Process;

pub use admin::Admin;
pub use error::EnvoyError;
pub use find::{ENVOY_VERSION, NoEnvoy, find};
pub use options::EnvoyOptions;
pub use user::{RunsAs, user_of_node};

pub(crate) use folder::{ACCESS_LOG, LOG, entries, last_words};
pub(crate) use sockets::not_listening;

use error::start_error;
use folder::{lay_out, remove, write};
use options::command;
use process::Pid;

const PID: &str = "pid";
/// How long an answer of its admin is waited for while it starts, before it is asked again.
const ANSWER: Duration = Duration::from_millis(500);
/// Between two looks at whether it listens: each walks the kernel's whole table of sockets.
const LISTENS_LOOK: Duration = Duration::from_millis(20);

/// A running Envoy. When this goes out of scope, so does the process and its folder.
#[derive(Debug)]
pub struct Envoy {
    node: String,
    folder: PathBuf,
    pid: Pid,
    runs_as: RunsAs,
    /// Whether it lives on without us.
    left: bool,
}

impl Envoy {
    /// Starts an Envoy in a namespace with a whole plan, and waits until every listener's socket
    /// listens.
    ///
    /// # Errors
    /// When the folder is there already, the program does not start, or Envoy refuses the plan;
    /// nothing is left then.
    pub fn start(
        netns: &NetNs,
        plan: &NodePlan,
        options: &EnvoyOptions,
    ) -> Result<Self, EnvoyError> {
        Self::start_with(netns, &bootstrap(plan, &options.settings()), options)
    }

    /// Starts an Envoy in a namespace that is told everything by an agent, and waits until its
    /// admin answers; `agent` is the path of the agent's socket, from the Envoy's folder.
    ///
    /// # Errors
    /// When the folder is there already, or the program does not start or ends again; nothing is
    /// left then.
    pub fn start_told(
        netns: &NetNs,
        agent: &str,
        options: &EnvoyOptions,
    ) -> Result<Self, EnvoyError> {
        let envoy = Self::start_with(netns, &told(&options.settings(), agent), options)?;
        // It has no listener yet whose socket could be waited for.
        envoy.wait_for_admin(options.within)?;
        Ok(envoy)
    }

    fn start_with(
        netns: &NetNs,
        made: &Bootstrap,
        options: &EnvoyOptions,
    ) -> Result<Self, EnvoyError> {
        let runs_as = user::choose(options.uid, &options.program);
        if let (Placement::Sidecar, RunsAs::Ourselves { uid, why }) = (options.placement, &runs_as)
            && *uid != options.uid
        {
            return Err(EnvoyError::User {
                uid: options.uid,
                why: why.clone(),
            });
        }
        let log = lay_out(made, options, &runs_as)?;
        let child = netns.run(|| command(options, &runs_as, log)?.spawn());
        let child = match child.map(|child| child.map_err(start_error(options))) {
            Ok(Ok(child)) => child,
            Ok(Err(error)) => return abandon(&options.folder, error),
            Err(error) => return abandon(&options.folder, error.into()),
        };
        let envoy = Self {
            node: options.node.clone(),
            folder: options.folder.clone(),
            pid: Pid::of_child(child),
            runs_as,
            left: false,
        };
        write(&envoy.folder.join(PID), envoy.pid.to_text().as_bytes())?;
        envoy.wait(&made.sockets.iter().copied().collect(), options.within)?;
        Ok(envoy)
    }

    /// Finds the Envoy of a folder again, which another process left.
    ///
    /// # Errors
    /// When it does not run any more.
    pub fn adopt(folder: &Path, node: impl Into<String>) -> Result<Self, EnvoyError> {
        let gone = || EnvoyError::Gone(folder.to_owned());
        let text = fs::read_to_string(folder.join(PID)).map_err(|_| gone())?;
        let pid = Pid::from_text(&text).filter(Pid::lives).ok_or_else(gone)?;
        Ok(Self::found(folder, node.into(), pid))
    }

    /// Finds an Envoy again by its process.
    pub(crate) fn adopt_process(folder: &Path, node: &str, process: Process) -> Self {
        Self::found(folder, node.to_owned(), Pid::of(process))
    }

    fn found(folder: &Path, node: String, pid: Pid) -> Self {
        Self {
            node,
            folder: folder.to_owned(),
            runs_as: user::of_process(pid.process().pid),
            pid,
            left: true,
        }
    }

    /// Lets it live on when this process ends.
    #[must_use]
    pub fn leave(mut self) -> Self {
        self.left = true;
        self
    }

    /// The node or pod that it serves.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.process().pid
    }

    /// As whom it runs.
    #[must_use]
    pub fn runs_as(&self) -> &RunsAs {
        &self.runs_as
    }

    /// Whether it runs.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.pid.lives()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn words(&self) -> String {
        last_words(&self.folder.join(LOG))
    }

    /// Every line of its access log so far.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn entries(&self) -> Result<Vec<AccessEntry>, EnvoyError> {
        entries(&self.folder)
    }

    /// The lines about one way, as soon as there is one: Envoy writes it after the last byte of
    /// the answer, which can be a moment after the client has read it. Empty after `within`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn entries_of(&self, way: &str, within: Duration) -> Result<Vec<AccessEntry>, EnvoyError> {
        let deadline = Deadline::within(within);
        loop {
            let mut entries = self.entries()?;
            entries.retain(|entry| entry.way.as_deref() == Some(way));
            if !entries.is_empty() || !deadline.pause(Duration::from_millis(2)) {
                return Ok(entries);
            }
        }
    }

    /// What the admin answers to a GET (`/config_dump`, `/stats?format=json`).
    ///
    /// # Errors
    /// When it does not answer, or not with 200.
    pub fn admin(&self, what: &str) -> Result<String, EnvoyError> {
        self.said(what, Admin::of(&self.folder).get(what))
    }

    /// Has the admin do something (`/logging?level=debug`, `/reset_counters`).
    ///
    /// # Errors
    /// When it does not answer, or not with 200.
    pub fn order(&self, what: &str) -> Result<String, EnvoyError> {
        self.said(what, Admin::of(&self.folder).post(what))
    }

    fn said(&self, what: &str, answer: io::Result<String>) -> Result<String, EnvoyError> {
        answer.map_err(|cause| EnvoyError::Admin {
            node: self.node.clone(),
            what: what.to_owned(),
            cause,
        })
    }

    pub(crate) const fn process(&self) -> Process {
        self.pid.process()
    }

    /// Ends it at once, as a crash does: nothing is said to anyone. The folder stays.
    pub fn crash(&mut self) {
        self.pid.kill();
    }

    /// Ends it and takes its folder away.
    ///
    /// # Errors
    /// When the folder cannot be taken away.
    pub fn stop(mut self) -> Result<(), EnvoyError> {
        self.left = true;
        self.pid.end();
        remove(&self.folder)
    }

    fn check_alive(&self) -> Result<(), EnvoyError> {
        if self.pid.lives() {
            return Ok(());
        }
        Err(EnvoyError::Ended {
            node: self.node.clone(),
            words: self.words(),
        })
    }

    fn wait_for_admin(&self, within: Duration) -> Result<(), EnvoyError> {
        let deadline = Deadline::within(within);
        let admin = Admin::of(&self.folder).within(ANSWER);
        loop {
            self.check_alive()?;
            match admin.get("/server_info") {
                Ok(_) => return Ok(()),
                Err(cause) if !deadline.pause(Duration::from_millis(5)) => {
                    return Err(EnvoyError::Admin {
                        node: self.node.clone(),
                        what: "/server_info".to_owned(),
                        cause,
                    });
                }
                Err(_) => {}
            }
        }
    }

    fn wait(&self, sockets: &BTreeSet<SocketAddr>, within: Duration) -> Result<(), EnvoyError> {
        let deadline = Deadline::within(within);
        loop {
            self.check_alive()?;
            let missing = sockets::not_listening(self.pid.process().pid, sockets);
            if missing.is_empty() {
                return Ok(());
            }
            if !deadline.pause(LISTENS_LOOK) {
                return Err(EnvoyError::NotListening {
                    node: self.node.clone(),
                    missing,
                    within,
                    words: self.words(),
                });
            }
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        if !self.left {
            self.pid.end();
            // What cannot be taken away now, `down` takes away with the whole lab.
            let _ = remove(&self.folder);
        }
    }
}

/// Leaves nothing of a start that came to nothing.
fn abandon<T>(folder: &Path, error: EnvoyError) -> Result<T, EnvoyError> {
    let _ = remove(folder);
    Err(error)
}

/// Whether an Envoy would start from a plan: asks the program itself, which opens no socket.
///
/// # Errors
/// What Envoy has against it, in its own words.
pub fn validate(plan: &NodePlan, options: &EnvoyOptions) -> Result<(), EnvoyError> {
    let made = bootstrap(plan, &options.settings());
    let log = lay_out(&made, options, &RunsAs::ourselves())?;
    let output = command(options, &RunsAs::ourselves(), log).and_then(|mut command| {
        command.args(["--mode", "validate"]);
        command.status()
    });
    let words = last_words(&options.folder.join(LOG));
    remove(&options.folder)?;
    match output {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(EnvoyError::Ended {
            node: options.node.clone(),
            words,
        }),
        Err(cause) => Err(start_error(options)(cause)),
    }
}
