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
mod find;
mod log;
mod process;
mod sockets;
mod user;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nodeway_core::envoy::bootstrap::{
    AccessEntry, BadEntry, Bootstrap, Placement, Settings, bootstrap, told,
};
use nodeway_core::plan::NodePlan;

use crate::clock::Deadline;
use crate::netns::{NetNs, NetNsError};
use crate::process::Process;

pub use admin::Admin;
pub use find::{ENVOY_VERSION, NoEnvoy, find};
pub use user::{RunsAs, user_of_node};

pub(crate) use sockets::not_listening;

use process::Pid;

const BOOTSTRAP: &str = "bootstrap.json";
/// The access log's name in an Envoy's folder, from which it is written.
pub(crate) const ACCESS_LOG: &str = "access.log";
/// Its own log's.
pub(crate) const LOG: &str = "envoy.log";
const PID: &str = "pid";
/// How long an answer of its admin is waited for while it starts, before it is asked again.
const ANSWER: Duration = Duration::from_millis(500);
/// Between two looks at whether it listens: each walks the kernel's whole table of sockets.
const LISTENS_LOOK: Duration = Duration::from_millis(20);
/// Envoy's own words are looked for among that many last lines of its log.
const WORDS: usize = 12;

/// What an Envoy is started with.
#[derive(Clone, Debug)]
pub struct EnvoyOptions {
    /// The program; see [`find`].
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
}

impl EnvoyOptions {
    fn settings(&self) -> Settings {
        Settings {
            node: self.node.clone(),
            // Relative to its folder: the path of a Unix socket has 107 bytes at most.
            admin: admin::SOCKET.to_owned(),
            access_log: self.access_log.then(|| ACCESS_LOG.to_owned()),
            placement: self.placement,
        }
    }
}

/// What can go wrong with an Envoy.
#[derive(Debug, thiserror::Error)]
pub enum EnvoyError {
    /// Something about its folder.
    #[error("cannot {action} {path}: {cause}", path = path.display())]
    Folder {
        /// `make`, `write`, `read`
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The program does not even start.
    #[error("cannot start {program}: {cause}{hint}", program = program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        cause: io::Error,
        /// What to do about it; may be empty.
        hint: &'static str,
    },
    /// A pod's rules leave its Envoy alone by its user, and it cannot run as that one.
    #[error("Envoy for a pod must run as user {uid}, or its own packets come back to it: {why}")]
    User {
        /// The user.
        uid: u32,
        /// Why not.
        why: String,
    },
    /// It ended by itself.
    #[error("Envoy for {node} ended at once. It said:\n{words}")]
    Ended {
        /// The node.
        node: String,
        /// The last lines of its log.
        words: String,
    },
    /// Some sockets do not listen in time.
    #[error(
        "Envoy for {node} does not listen on {} within {within:?}. It said:\n{words}",
        list(missing)
    )]
    NotListening {
        /// The node.
        node: String,
        /// Those that do not.
        missing: BTreeSet<SocketAddr>,
        /// How long was waited.
        within: Duration,
        /// The last lines of its log.
        words: String,
    },
    /// The folder names no Envoy that runs.
    #[error("no Envoy runs for {}; start the lab again", .0.display())]
    Gone(PathBuf),
    /// The access log has a line of another kind.
    #[error("{path}: {cause}", path = path.display())]
    Entry {
        /// The log.
        path: PathBuf,
        /// Which line.
        cause: BadEntry,
    },
    /// The admin gave no answer.
    #[error("the admin of Envoy for {node} does not answer `{what}`: {cause}")]
    Admin {
        /// The node.
        node: String,
        /// What was asked.
        what: String,
        /// What went wrong.
        cause: io::Error,
    },
    /// The namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

fn list(addresses: &BTreeSet<SocketAddr>) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn folder_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EnvoyError {
    let path = path.to_owned();
    move |cause| EnvoyError::Folder {
        action,
        path,
        cause,
    }
}

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
        log::last_words(&self.folder.join(LOG), WORDS)
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

/// Every line so far of the access log of the Envoy in a folder.
pub(crate) fn entries(folder: &Path) -> Result<Vec<AccessEntry>, EnvoyError> {
    let path = folder.join(ACCESS_LOG);
    let text = fs::read_to_string(&path).map_err(folder_error("read", &path))?;
    log::whole_lines(&text)
        .map(AccessEntry::parse)
        .collect::<Result<_, _>>()
        .map_err(|cause| EnvoyError::Entry { path, cause })
}

/// The last lines of a log.
pub(crate) fn last_words(log: &Path) -> String {
    log::last_words(log, WORDS)
}

/// Makes the folder, with the bootstrap and empty logs in it.
fn lay_out(made: &Bootstrap, options: &EnvoyOptions, runs_as: &RunsAs) -> Result<File, EnvoyError> {
    let folder = &options.folder;
    make_folder(folder)?;
    let text = made.json.to_string();
    write(&folder.join(BOOTSTRAP), text.as_bytes())?;
    write(&folder.join(ACCESS_LOG), b"")?;
    let log = write(&folder.join(LOG), b"")?;
    user::give(runs_as, folder, &[BOOTSTRAP, ACCESS_LOG, LOG])
        .map_err(folder_error("give away", folder))?;
    Ok(log)
}

fn command(options: &EnvoyOptions, runs_as: &RunsAs, log: File) -> io::Result<Command> {
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

/// Leaves nothing of a start that came to nothing.
fn abandon<T>(folder: &Path, error: EnvoyError) -> Result<T, EnvoyError> {
    let _ = remove(folder);
    Err(error)
}

fn start_error(options: &EnvoyOptions) -> impl FnOnce(io::Error) -> EnvoyError {
    let program = options.program.clone();
    move |cause| EnvoyError::Start {
        program,
        hint: start_hint(&cause),
        cause,
    }
}

fn start_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "; it, or setpriv (Debian package util-linux) that lowers its rights, is missing"
        }
        io::ErrorKind::PermissionDenied => "; it must be executable",
        _ => "",
    }
}

fn make_folder(folder: &Path) -> Result<(), EnvoyError> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(folder_error("make", parent))?;
    }
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    builder.create(folder).map_err(folder_error("make", folder))
}

fn write(path: &Path, bytes: &[u8]) -> Result<File, EnvoyError> {
    let mut options = File::options();
    options.append(true).create(true).mode(0o600);
    let open = || -> io::Result<File> {
        let mut file = options.open(path)?;
        file.write_all(bytes)?;
        Ok(file)
    };
    open().map_err(folder_error("write", path))
}

fn remove(folder: &Path) -> Result<(), EnvoyError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(folder_error("take away", folder)(error))
        }
        _ => Ok(()),
    }
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
    let words = log::last_words(&options.folder.join(LOG), WORDS);
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
