//! The Envoy of one pod, kept on the plan of a cluster's objects from within the pod.
//!
//! ```text
//!  API server ─► watches ─► Planner ─► bootstrap::sidecar ─► clusters.json, listeners.json ─► Envoy
//! ```
//!
//! It runs as the user whom the pod's rules leave alone, so that neither its questions to the API
//! server nor Envoy's connections come back to it. Envoy reads a file again when another is moved in
//! its place; with the API server gone it keeps what it has. Process and Envoy live and end
//! together: the pod's kubelet starts both again.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use std::{fs, thread};

use nix::sys::signal::Signal as UnixSignal;
use nix::unistd::geteuid;
use nodeway_core::envoy::bootstrap::{InFiles, Placement, Settings, bootstrap};
use nodeway_core::netfilter::sidecar::PROXY_UID;
use nodeway_core::object::{Change, Objects};
use nodeway_core::plan::{Ledger, Planner};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::kube::{ClientError, Lost, Watched, Wish, connect};
use crate::netfilter::{Netfilter, NetfilterError, Owner, Wanted};
use crate::netns::{NetNs, NetNsError};
use crate::process::Process;
use crate::whole_file;

const BOOTSTRAP: &str = "bootstrap.json";
const CLUSTERS: &str = "clusters.json";
const LISTENERS: &str = "listeners.json";
/// Of one change in a cluster several objects tell: files are written when nothing more comes for
/// that long.
const QUIET: Duration = Duration::from_millis(30);
/// However much comes, they are written after so many pauses.
const AT_MOST: usize = 10;
/// How long Envoy may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// What the Envoy of a pod is started with.
#[derive(Clone, Debug)]
pub struct SidecarOptions {
    /// Which cluster; that of `KUBECONFIG`, or that this process is in, if absent.
    pub kubeconfig: Option<PathBuf>,
    /// The pod's node.
    pub node: String,
    /// The pod, `NAMESPACE/NAME`: Envoy's own name for itself.
    pub pod: String,
    /// The pod's addresses: source ranges of Services may leave it out.
    pub addresses: Vec<IpAddr>,
    /// Where Envoy's files are. What is there is replaced.
    pub run: PathBuf,
    /// The program of Envoy.
    pub program: PathBuf,
    /// Whether each request gets a line on standard output.
    pub access_log: bool,
}

/// Why a pod has no Envoy, or no rules.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// Its own packets would come back to it.
    #[error(
        "a pod's Envoy must run as user {PROXY_UID}, whose connections the pod's rules leave alone, and this is user {0}; set the container's runAsUser, or start it with `setpriv --reuid={PROXY_UID}`"
    )]
    User(u32),
    /// The API server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It does not tell.
    #[error(
        "{0}; may the pod's service account watch nodes, services, endpointslices and the kinds of nodeway? kubectl apply -f live/deploy/sidecar.yaml"
    )]
    Lost(#[from] Lost),
    /// A file of Envoy's.
    #[error("cannot write {path}: {source}; the folder must be user {PROXY_UID}'s, or everybody's", path = path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Envoy does not start.
    #[error("cannot start {program}: {source}", program = program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Envoy ended by itself.
    #[error("the pod's Envoy ended by itself ({0}); its last words are above")]
    Ended(String),
    /// The pod's rules.
    #[error(transparent)]
    Rules(#[from] NetfilterError),
    /// The pod's network.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

/// Installs the rules that lead all TCP of the calling thread's network namespace to the proxy in it.
/// `excluded` ports go past it.
///
/// # Errors
/// When the namespace is not ours to change; what was there is there then.
pub fn install_rules(excluded: &[u16]) -> Result<(), SidecarError> {
    let netns = NetNs::current()?;
    Netfilter::new(Owner::Nodeway).apply(&netns, &Wanted::sidecar(excluded))?;
    Ok(())
}

/// What happens to it.
enum Event {
    /// The API server told something.
    Told,
    /// Envoy ended.
    Ended(io::Result<ExitStatus>),
    /// It shall end.
    Stop,
}

/// Ends it from elsewhere.
#[derive(Clone, Debug)]
pub struct Stop(Sender<Event>);

impl Stop {
    /// Ends Envoy and who keeps it.
    pub fn now(&self) {
        // It has ended by itself.
        let _ = self.0.send(Event::Stop);
    }
}

/// The Envoy of a pod.
pub struct Sidecar {
    options: SidecarOptions,
    events: Receiver<Event>,
    sender: Sender<Event>,
    watched: Watched,
    /// What the watches run on.
    runtime: Option<Runtime>,
    planner: Planner,
    written: InFiles,
    envoy: Option<Process>,
}

impl Sidecar {
    /// Waits until the API server has told all, and starts Envoy on that.
    ///
    /// # Errors
    /// When something of it is not there or refused.
    pub fn start(options: SidecarOptions) -> Result<Self, SidecarError> {
        let uid = geteuid().as_raw();
        if uid != PROXY_UID {
            return Err(SidecarError::User(uid));
        }
        let (sender, events) = channel();
        let (client, runtime) = connect(options.kubeconfig.as_deref())?;
        let told = sender.clone();
        let wake = move || {
            // It has ended.
            let _ = told.send(Event::Told);
        };
        let watched = Watched::begin(runtime.handle(), &client, Wish::of_sidecar(), wake)?;
        let mut planner = Planner::new(&options.node, Ledger::default());
        plan(
            &mut planner,
            Objects::default().changes_to(watched.store().objects()),
        );
        let written = files(&planner, &options);
        make_folder(&options.run)?;
        write(&options.run, BOOTSTRAP, &written.json)?;
        write(&options.run, CLUSTERS, &written.clusters)?;
        write(&options.run, LISTENERS, &written.listeners)?;
        let child = command(&options).spawn();
        let mut child = child.map_err(|source| SidecarError::Start {
            program: options.program.clone(),
            source,
        })?;
        let envoy = Process::of(child.id());
        let ended = sender.clone();
        // Nobody may listen any more.
        thread::spawn(move || drop(ended.send(Event::Ended(Child::wait(&mut child)))));
        Ok(Self {
            options,
            events,
            sender,
            watched,
            runtime: Some(runtime),
            planner,
            written,
            envoy,
        })
    }

    /// What ends it from elsewhere.
    #[must_use]
    pub fn stop(&self) -> Stop {
        Stop(self.sender.clone())
    }

    /// Keeps Envoy on the plan until it is stopped.
    ///
    /// # Errors
    /// When Envoy ends by itself.
    pub fn run(mut self) -> Result<(), SidecarError> {
        while let Ok(event) = self.events.recv() {
            match event {
                Event::Told => {
                    if let Some(last) = self.calm() {
                        return self.end(last);
                    }
                    self.follow();
                }
                last => return self.end(last),
            }
        }
        Ok(())
    }

    /// Waits until nothing more is told; whatever else happens ends that.
    fn calm(&self) -> Option<Event> {
        for _ in 0..AT_MOST {
            match self.events.recv_timeout(QUIET) {
                Ok(Event::Told) => {}
                Ok(last) => return Some(last),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        None
    }

    /// Plans anew, and writes the files that differ: clusters first, for listeners name them.
    fn follow(&mut self) {
        let changes = self.watched.take();
        if changes.is_empty() {
            return;
        }
        plan(&mut self.planner, changes);
        let made = files(&self.planner, &self.options);
        let run = &self.options.run;
        let mut done = Ok(());
        if made.clusters != self.written.clusters {
            done = write(run, CLUSTERS, &made.clusters);
            tracing::info!("clusters have changed");
        }
        if made.listeners != self.written.listeners {
            done = done.and_then(|()| write(run, LISTENERS, &made.listeners));
            tracing::info!("listeners have changed");
        }
        match done {
            Ok(()) => self.written = made,
            // What is not written differs still at the next change.
            Err(error) => tracing::error!(%error, "Envoy keeps what it has"),
        }
    }

    fn end(&self, last: Event) -> Result<(), SidecarError> {
        if let Event::Ended(status) = last {
            let status = status.map_or_else(|error| error.to_string(), |it| it.to_string());
            return Err(SidecarError::Ended(status));
        }
        for signal in [UnixSignal::SIGTERM, UnixSignal::SIGKILL] {
            if let Some(envoy) = &self.envoy {
                envoy.signal(signal);
            }
            while let Ok(event) = self.events.recv_timeout(GRACE) {
                if matches!(event, Event::Ended(_)) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn plan(planner: &mut Planner, changes: Vec<Change>) {
    for change in changes {
        for problem in &planner.apply(change).problems_found {
            tracing::warn!(%problem, "found");
        }
    }
}

/// What the pod's Envoy has of a plan.
fn files(planner: &Planner, options: &SidecarOptions) -> InFiles {
    let settings = Settings {
        node: options.pod.clone(),
        admin: "admin.sock".to_owned(),
        access_log: options.access_log.then(|| "/dev/stdout".to_owned()),
        placement: Placement::Sidecar,
    };
    let plan = planner.plan().of_client(&options.addresses);
    let path = |name| options.run.join(name).to_string_lossy().into_owned();
    bootstrap(&plan, &settings).in_files(&path(CLUSTERS), &path(LISTENERS))
}

/// Envoy as our child: what it says stands where our own words do.
fn command(options: &SidecarOptions) -> Command {
    let mut command = Command::new(&options.program);
    command
        .args(["--config-path", BOOTSTRAP, "--disable-hot-restart"])
        .args(["--concurrency", "1", "--log-level", "warn"])
        .current_dir(&options.run)
        .stdin(Stdio::null());
    command
}

fn make_folder(folder: &Path) -> Result<(), SidecarError> {
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(folder);
    made.map_err(|source| not_written(folder, source))
}

fn write(folder: &Path, name: &str, value: &Value) -> Result<(), SidecarError> {
    let path = folder.join(name);
    let written = whole_file::write(&path, value.to_string().as_bytes());
    written.map_err(|source| not_written(&path, source))
}

fn not_written(path: &Path, source: io::Error) -> SidecarError {
    SidecarError::Write {
        path: path.to_owned(),
        source,
    }
}
