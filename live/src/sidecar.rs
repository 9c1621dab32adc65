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

mod pod_envoy;

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nix::unistd::geteuid;
use nodeway_core::netfilter::sidecar::PROXY_UID;
use nodeway_core::object::{Change, Objects};
use nodeway_core::plan::{Ledger, Planner};
use tokio::runtime::Runtime;

use crate::kube::{ClientError, Lost, Watched, Wish, connect};
use crate::netfilter::{Netfilter, NetfilterError, Owner, Wanted};
use crate::netns::{NetNs, NetNsError};
use crate::stop::Stop;

pub use pod_envoy::{PodEnvoy, PodEnvoyError, PodEnvoyOptions};

/// Of one change in a cluster several objects tell: it is planned when nothing more comes for that
/// long.
const QUIET: Duration = Duration::from_millis(30);
/// However much comes, it is planned after so many of them.
const AT_MOST: usize = 100;

/// What the Envoy of a pod is kept with.
#[derive(Clone, Debug)]
pub struct SidecarOptions {
    /// Which cluster; that of `KUBECONFIG`, or that this process is in, if absent.
    pub kubeconfig: Option<PathBuf>,
    /// The pod's node.
    pub node: String,
    /// The Envoy.
    pub envoy: PodEnvoyOptions,
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
    Lost(Lost),
    /// Envoy, at the start.
    #[error(transparent)]
    Envoy(#[from] PodEnvoyError),
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

/// Who keeps the Envoy of a pod.
pub struct Sidecar {
    events: Receiver<Event>,
    sender: Sender<Event>,
    watched: Watched,
    /// What the watches run on.
    runtime: Option<Runtime>,
    planner: Planner,
    envoy: PodEnvoy,
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
        let watched = Watched::begin(runtime.handle(), &client, Wish::of_sidecar(), wake);
        let watched = watched.map_err(SidecarError::Lost)?;
        let mut planner = Planner::new(&options.node, Ledger::default());
        let all = Objects::default().changes_to(watched.store().objects());
        plan(&mut planner, all);
        let ended = sender.clone();
        let ended = move |status| {
            // Nobody may wait for it any more.
            let _ = ended.send(Event::Ended(status));
        };
        let envoy = PodEnvoy::start(planner.plan(), options.envoy, ended)?;
        Ok(Self {
            events,
            sender,
            watched,
            runtime: Some(runtime),
            planner,
            envoy,
        })
    }

    /// What ends it from elsewhere. Envoy ends with it.
    #[must_use]
    pub fn stop(&self) -> Stop {
        Stop::by(&self.sender, || Event::Stop)
    }

    /// Keeps Envoy on the plan until it is stopped; Envoy ends with it.
    ///
    /// # Errors
    /// When Envoy ends by itself.
    pub fn run(mut self) -> Result<(), SidecarError> {
        while let Ok(event) = self.events.recv() {
            let last = match event {
                Event::Told => self.calm(),
                last => Some(last),
            };
            match last {
                None => self.follow(),
                Some(Event::Ended(status)) => {
                    let how = status.map_or_else(|error| error.to_string(), |it| it.to_string());
                    return Err(SidecarError::Ended(how));
                }
                Some(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Waits until nothing more is told; whatever else happens comes back.
    fn calm(&self) -> Option<Event> {
        for _ in 0..AT_MOST {
            match self.events.recv_timeout(QUIET) {
                Ok(Event::Told) => {}
                Ok(last) => return Some(last),
                Err(_) => break,
            }
        }
        None
    }

    fn follow(&mut self) {
        let changes = self.watched.take();
        if changes.is_empty() {
            return;
        }
        plan(&mut self.planner, changes);
        if let Err(error) = self.envoy.follow(self.planner.plan()) {
            tracing::error!(%error, "Envoy keeps what it has");
        }
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
