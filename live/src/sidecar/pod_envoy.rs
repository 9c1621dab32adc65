//! The Envoy of a pod as a process, and the files from which it has its plan.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nodeway_core::envoy::bootstrap::{InFiles, Placement, Settings, bootstrap};
use nodeway_core::netfilter::sidecar::PROXY_UID;
use nodeway_core::plan::NodePlan;
use serde_json::Value;

use crate::clock::Deadline;
use crate::process::Process;
use crate::whole_file;

const BOOTSTRAP: &str = "bootstrap.json";
const CLUSTERS: &str = "clusters.json";
const LISTENERS: &str = "listeners.json";
/// As many files Envoy follows, and for each it takes an inotify instance of its user's. Seen with 1.40.
const WATCHES: usize = 2;
/// How long it may take to end.
const GRACE: Duration = Duration::from_secs(5);
/// Between two looks at whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// What the Envoy of a pod is started with.
#[derive(Clone, Debug)]
pub struct PodEnvoyOptions {
    /// The pod, `NAMESPACE/NAME`: Envoy's own name for itself.
    pub pod: String,
    /// The pod's addresses: source ranges of Services may leave it out.
    pub addresses: Vec<IpAddr>,
    /// Where its files are. What is there is replaced.
    pub run: PathBuf,
    /// The program.
    pub program: PathBuf,
    /// Whether each request gets a line on standard output.
    pub access_log: bool,
}

/// Why there is no Envoy.
#[derive(Debug, thiserror::Error)]
pub enum PodEnvoyError {
    /// One of its files.
    #[error("cannot write {path}: {cause}; the folder must be user {PROXY_UID}'s, or everybody's", path = path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Its files cannot be watched: it would abort.
    #[error(
        "Envoy cannot watch its files: {0}; each Envoy takes {WATCHES} inotify instances of user {PROXY_UID}: raise fs.inotify.max_user_instances on the node"
    )]
    NotWatched(notify::Error),
    /// It does not start.
    #[error("cannot start {program}: {cause}; name another with --envoy", program = program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// A running Envoy. When this goes out of scope, so does the process; its files stay.
#[derive(Debug)]
pub struct PodEnvoy {
    options: PodEnvoyOptions,
    written: InFiles,
    process: Option<Process>,
}

impl PodEnvoy {
    /// Starts it on the plan of the pod's node, as who we are and in the calling thread's network;
    /// `ended` is told how it ended.
    ///
    /// # Errors
    /// When a file cannot be written, or the program does not start.
    pub fn start(
        plan: &NodePlan,
        options: PodEnvoyOptions,
        ended: impl FnOnce(io::Result<ExitStatus>) + Send + 'static,
    ) -> Result<Self, PodEnvoyError> {
        let written = files(plan, &options);
        let run = &options.run;
        let mut folder = fs::DirBuilder::new();
        let made = folder.recursive(true).mode(0o700).create(run);
        made.map_err(|cause| not_written(run, cause))?;
        write(run, BOOTSTRAP, &written.json)?;
        write(run, CLUSTERS, &written.clusters)?;
        write(run, LISTENERS, &written.listeners)?;
        watches_are_left().map_err(PodEnvoyError::NotWatched)?;
        // What it says stands where our own words do.
        let spawned = Command::new(&options.program)
            .args(["--config-path", BOOTSTRAP, "--disable-hot-restart"])
            .args(["--concurrency", "1", "--log-level", "warn"])
            .current_dir(run)
            .stdin(Stdio::null())
            .spawn();
        let mut child = spawned.map_err(|cause| PodEnvoyError::Start {
            program: options.program.clone(),
            cause,
        })?;
        let process = Process::of(child.id());
        thread::spawn(move || ended(child.wait()));
        Ok(Self {
            options,
            written,
            process,
        })
    }

    /// Has it follow another plan: what differs is written, clusters first, for listeners name
    /// them.
    ///
    /// # Errors
    /// When a file cannot be written. Envoy keeps what it has then, and the next plan is compared
    /// with that.
    pub fn follow(&mut self, plan: &NodePlan) -> Result<(), PodEnvoyError> {
        let made = files(plan, &self.options);
        let run = &self.options.run;
        if made.clusters != self.written.clusters {
            write(run, CLUSTERS, &made.clusters)?;
            self.written.clusters = made.clusters;
            tracing::info!("clusters have changed");
        }
        if made.listeners != self.written.listeners {
            write(run, LISTENERS, &made.listeners)?;
            self.written.listeners = made.listeners;
            tracing::info!("listeners have changed");
        }
        Ok(())
    }
}

impl Drop for PodEnvoy {
    fn drop(&mut self) {
        let Some(process) = self.process else {
            return;
        };
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            process.signal(signal);
            let deadline = Deadline::within(GRACE);
            while process.lives() && deadline.pause(LOOK) {}
        }
    }
}

/// Whether the kernel has what Envoy takes: without, Envoy aborts and names no reason.
fn watches_are_left() -> notify::Result<()> {
    let watcher = || notify::recommended_watcher(|_: notify::Result<notify::Event>| {});
    let all: notify::Result<Vec<_>> = (0..WATCHES).map(|_| watcher()).collect();
    all.map(drop)
}

/// What the pod's Envoy has of a plan.
fn files(plan: &NodePlan, options: &PodEnvoyOptions) -> InFiles {
    let settings = Settings {
        node: options.pod.clone(),
        admin: "admin.sock".to_owned(),
        access_log: options.access_log.then(|| "/dev/stdout".to_owned()),
        placement: Placement::Sidecar,
    };
    let path = |name| options.run.join(name).to_string_lossy().into_owned();
    bootstrap(&plan.of_client(&options.addresses), &settings)
        .in_files(&path(CLUSTERS), &path(LISTENERS))
}

/// Moves a file into the place of what is there, which Envoy takes notice of.
fn write(folder: &Path, name: &str, value: &Value) -> Result<(), PodEnvoyError> {
    let path = folder.join(name);
    let written = whole_file::write(&path, value.to_string().as_bytes());
    written.map_err(|cause| not_written(&path, cause))
}

fn not_written(path: &Path, cause: io::Error) -> PodEnvoyError {
    PodEnvoyError::Write {
        path: path.to_owned(),
        cause,
    }
}
