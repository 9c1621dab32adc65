//! Nodeway's end in a cluster, in the order that leaves nothing on its nodes.
//!
//! ```text
//!  agents and Envoys away, on all nodes ─► DaemonSet nodeway-cleanup, on each node ─► that away too
//! ```
//!
//! The DaemonSet is whoever installs to make (a chart's hook, a manifest): so this needs no right to
//! make pods that may do anything on a node, only to look at three DaemonSets and to delete two.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Client;
use kube::api::{Api, DeleteParams};

use crate::cause::with_causes;
use crate::clock::Clock;
use crate::kube::{ClientError, connect};

/// What goes, in this order: frontends are led past an Envoy that ends as long as there is an agent.
pub const WORKERS: [&str; 2] = ["nodeway-envoy", "nodeway-agent"];
/// What takes away what agents left on a node: ready on a node that is clean.
pub const CLEANUP: &str = "nodeway-cleanup";
/// Between two looks.
const AGAIN: Duration = Duration::from_millis(500);

/// Where, and how long it may take.
#[derive(Clone, Debug)]
pub struct UninstallOptions {
    /// Which cluster; that of `KUBECONFIG`, or that this process is in, if absent.
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of the DaemonSets.
    pub namespace: String,
    /// For how long at most a step goes on.
    pub within: Duration,
}

/// Why Nodeway is still there.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// Nobody to ask.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The API server refuses, or is away.
    #[error(
        "DaemonSet {namespace}/{name} cannot be {what}: {said}; it is safe to try the same again"
    )]
    Refused {
        /// Where it is.
        namespace: String,
        /// The DaemonSet.
        name: &'static str,
        /// What was asked for.
        what: &'static str,
        /// What the API server said.
        said: String,
    },
    /// Pods do not end.
    #[error(
        "DaemonSet {namespace}/{name} is deleted and still has pods after {} s: an Envoy may drain, and a node that is down keeps its pods until it is back or deleted (kubectl -n {namespace} get pods -l app={name} -o wide); then try the same again",
        within.as_secs()
    )]
    PodsLeft {
        /// Where it is.
        namespace: String,
        /// The DaemonSet.
        name: &'static str,
        /// How long was waited.
        within: Duration,
    },
    /// Nothing cleans.
    #[error(
        "there is no DaemonSet {namespace}/{CLEANUP} that cleans nodes: apply live/deploy/cleanup.yaml first"
    )]
    NoCleanup {
        /// Where it is looked for.
        namespace: String,
    },
    /// A node is not clean.
    #[error(
        "{clean} of {nodes} nodes are clean after {} s: the others' pods say why (kubectl -n {namespace} logs -l app={CLEANUP} -c cleanup --prefix); a node that is down is cleaned by its restart, but for files in /run/nodeway where that outlives one",
        within.as_secs()
    )]
    NotClean {
        /// Where the DaemonSet is.
        namespace: String,
        /// Nodes that are.
        clean: i32,
        /// Nodes that should be.
        nodes: i32,
        /// How long was waited.
        within: Duration,
    },
}

/// Takes agents and Envoys off all nodes, and waits until the last of their pods has ended. What is
/// gone already is no error.
///
/// # Errors
/// When the API server refuses, or pods do not end in time.
pub fn take_workers_away(options: &UninstallOptions) -> Result<(), UninstallError> {
    let (client, runtime) = connect(options.kubeconfig.as_deref())?;
    runtime.block_on(async {
        let clock = Clock::start();
        for name in WORKERS {
            Worker::new(&client, options, name).take_away(clock).await?;
            tracing::info!(daemonset = name, "gone from all nodes");
        }
        Ok(())
    })
}

/// Waits until each node is clean.
///
/// # Errors
/// When nothing cleans, the API server refuses, or a node is not clean in time.
pub fn wait_for_cleanup(options: &UninstallOptions) -> Result<(), UninstallError> {
    let (client, runtime) = connect(options.kubeconfig.as_deref())?;
    let cleanup = Worker::new(&client, options, CLEANUP);
    runtime.block_on(cleanup.until_ready())
}

/// A DaemonSet of Nodeway's.
struct Worker<'a> {
    api: Api<DaemonSet>,
    name: &'static str,
    options: &'a UninstallOptions,
}

impl<'a> Worker<'a> {
    fn new(client: &Client, options: &'a UninstallOptions, name: &'static str) -> Self {
        Self {
            api: Api::namespaced(client.clone(), &options.namespace),
            name,
            options,
        }
    }

    async fn take_away(&self, clock: Clock) -> Result<(), UninstallError> {
        const MISSING: u16 = 404;
        // In the foreground: it is gone when its last pod is.
        let params = DeleteParams::foreground();
        let deleted = self.api.delete(self.name, &params);
        match deleted.await {
            Err(kube::Error::Api(status)) if status.code == MISSING => return Ok(()),
            done => done.map_err(|error| self.refused("deleted", error))?,
        };
        while self.get().await?.is_some() {
            if clock.now() >= self.options.within {
                return Err(UninstallError::PodsLeft {
                    namespace: self.options.namespace.clone(),
                    name: self.name,
                    within: self.options.within,
                });
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }

    async fn until_ready(&self) -> Result<(), UninstallError> {
        let clock = Clock::start();
        loop {
            let Some(daemonset) = self.get().await? else {
                return Err(UninstallError::NoCleanup {
                    namespace: self.options.namespace.clone(),
                });
            };
            let (clean, nodes) = ready(&daemonset);
            if nodes == Some(clean) {
                tracing::info!(nodes = clean, "all nodes are clean");
                return Ok(());
            }
            if clock.now() >= self.options.within {
                return Err(UninstallError::NotClean {
                    namespace: self.options.namespace.clone(),
                    clean,
                    nodes: nodes.unwrap_or_default(),
                    within: self.options.within,
                });
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn get(&self) -> Result<Option<DaemonSet>, UninstallError> {
        let got = self.api.get_opt(self.name).await;
        got.map_err(|error| self.refused("read", error))
    }

    fn refused(&self, what: &'static str, error: kube::Error) -> UninstallError {
        UninstallError::Refused {
            namespace: self.options.namespace.clone(),
            name: self.name,
            what,
            said: with_causes(&error),
        }
    }
}

/// On how many nodes it is ready, and on how many it should be, once its controller has seen it.
fn ready(daemonset: &DaemonSet) -> (i32, Option<i32>) {
    let Some(status) = &daemonset.status else {
        return (0, None);
    };
    let is_seen = status.observed_generation >= daemonset.metadata.generation;
    let nodes = is_seen.then_some(status.desired_number_scheduled);
    (status.number_ready, nodes)
}
