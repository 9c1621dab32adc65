//! Where an agent's objects come from: a folder of manifests, or a cluster's API server.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::Sender;
use std::thread;

use nodeway_core::object::{Change, Objects};
use nodeway_core::problem::Problem;
use nodeway_sim::LoadErrors;
use tokio::runtime::Runtime;

use super::Event;
use super::folder::Folder;
use super::status::SourceStatus;
use super::watch::{NotWatched, Watch};
use crate::kube::{
    Beside, BesideCilium, ClientError, Conditions, Found, Lost, Watched, Wish, connect,
    refuse_beside_cilium,
};

/// What stands for the API server where a folder could stand.
const KUBE: &str = "kube";

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A folder of manifests, or a fixture.
    Folder(PathBuf),
    /// The API server of the cluster that a kubeconfig names; without one, that of `KUBECONFIG`, or
    /// that this process is in.
    Kube(Option<PathBuf>),
}

impl From {
    /// What stands after `--from`.
    #[must_use]
    pub fn argument(&self) -> OsString {
        match self {
            Self::Folder(folder) => folder.clone().into_os_string(),
            Self::Kube(_) => KUBE.into(),
        }
    }

    /// The same cluster, by that kubeconfig; a folder needs none.
    #[must_use]
    pub fn by(self, kubeconfig: Option<PathBuf>) -> Self {
        match self {
            Self::Kube(_) => Self::Kube(kubeconfig),
            folder => folder,
        }
    }
}

impl FromStr for From {
    type Err = std::convert::Infallible;

    /// `kube`, or a folder; one of that name is `./kube`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            KUBE => Self::Kube(None),
            folder => Self::Folder(folder.into()),
        })
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Kube(_) => f.write_str("the API server"),
        }
    }
}

/// Why there are no objects.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// What the folder holds.
    #[error(transparent)]
    Folder(#[from] Box<LoadErrors>),
    /// The folder cannot be watched.
    #[error(transparent)]
    Watch(#[from] NotWatched),
    /// There is no API server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It is another's.
    #[error(transparent)]
    BesideCilium(#[from] BesideCilium),
    /// It does not tell.
    #[error("{0}; are the kinds of nodeway known there? nodeway crds | kubectl apply -f -")]
    Lost(Lost),
}

/// The objects, followed as long as this lives.
pub(crate) enum Source {
    /// A folder.
    Folder {
        /// As it was last read.
        folder: Box<Folder>,
        /// What is wrong with what stands there now.
        error: Option<String>,
        _watch: Watch,
    },
    /// An API server.
    Kube {
        /// What it told.
        watched: Box<Watched>,
        /// What it is told of configs.
        conditions: Conditions,
        /// Whether Cilium has come.
        beside: Beside,
        /// What the watches run on.
        runtime: Option<Runtime>,
    },
}

impl Source {
    /// Reads all there is, and tells the agent of changes from then on.
    pub(super) fn begin(
        from: &From,
        node: &str,
        agent: Sender<Event>,
    ) -> Result<(Self, Vec<Change>), SourceError> {
        match from {
            From::Folder(path) => {
                let mut folder = Box::new(Folder::at(path));
                if !path.exists() {
                    // It says so better than a watch.
                    folder.read().map_err(Box::new)?;
                }
                // What changes from here on is told, so that nothing is missed between two looks.
                let (watch, changes) = Watch::on(path)?;
                let first = folder.read().map_err(Box::new)?;
                thread::spawn(move || while changes.wait() && agent.send(Event::Source).is_ok() {});
                let source = Self::Folder {
                    folder,
                    error: None,
                    _watch: watch,
                };
                Ok((source, first))
            }
            From::Kube(kubeconfig) => {
                let wake = move || {
                    // The agent has ended.
                    let _ = agent.send(Event::Source);
                };
                let (client, runtime) = connect(kubeconfig.as_deref())?;
                runtime.block_on(refuse_beside_cilium(&client))?;
                let wishes = Wish::of_agent(Some(node));
                let watched = Watched::begin(runtime.handle(), &client, wishes, wake.clone());
                let watched = watched.map_err(SourceError::Lost)?;
                let first = Objects::default().changes_to(watched.store().objects());
                let source = Self::Kube {
                    beside: Beside::follow(runtime.handle(), &client, wake),
                    conditions: Conditions::begin(runtime.handle(), client, node),
                    watched: Box::new(watched),
                    runtime: Some(runtime),
                };
                Ok((source, first))
            }
        }
    }

    /// What has changed since. What cannot be taken changes nothing, and is told ([`Source::error`]).
    pub(super) fn read(&mut self) -> Vec<Change> {
        match self {
            Self::Folder { folder, error, .. } => match folder.read() {
                Ok(changes) => {
                    *error = None;
                    changes
                }
                Err(errors) => {
                    *error = Some(errors.to_string());
                    Vec::new()
                }
            },
            Self::Kube { watched, .. } => watched.take(),
        }
    }

    /// Why what there is now cannot be taken, or is not told; what there was is in force.
    pub(super) fn error(&self) -> Option<String> {
        match self {
            Self::Folder { error, .. } => error.clone(),
            Self::Kube { watched, .. } => watched.store().error(),
        }
    }

    /// Where is said what became of configs; nowhere for a folder.
    pub(super) const fn conditions(&self) -> Option<&Conditions> {
        match self {
            Self::Folder { .. } => None,
            Self::Kube { conditions, .. } => Some(conditions),
        }
    }

    /// What of Cilium's has come into the cluster since the beginning.
    pub(super) fn cilium(&self) -> Vec<Found> {
        match self {
            Self::Folder { .. } => Vec::new(),
            Self::Kube { beside, .. } => beside.found(),
        }
    }

    pub(super) fn objects(&self) -> &Objects {
        match self {
            Self::Folder { folder, .. } => folder.objects(),
            Self::Kube { watched, .. } => watched.store().objects(),
        }
    }

    /// What is wrong with Ingresses; in a cluster that is the operator's to tell.
    pub(super) fn problems(&self) -> &[Problem] {
        match self {
            Self::Folder { folder, .. } => &folder.problems,
            Self::Kube { .. } => &[],
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Self::Kube { runtime, .. } = self
            && let Some(runtime) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}

/// The objects of the cluster that an agent is in, as it says where they come from: read once, with
/// the pods of all nodes.
///
/// # Errors
/// When they cannot be read.
pub(crate) fn read_once(said: &SourceStatus) -> Result<Objects, SourceError> {
    match said.folder.as_deref() {
        Some(folder) => read_folder(folder),
        None => {
            let (client, runtime) = connect(said.kubeconfig.as_deref())?;
            let wishes = Wish::of_agent(None);
            let watched = Watched::begin(runtime.handle(), &client, wishes, || {});
            let watched = watched.map_err(SourceError::Lost)?;
            runtime.shutdown_background();
            Ok(watched.store().objects().clone())
        }
    }
}

fn read_folder(path: &Path) -> Result<Objects, SourceError> {
    let mut folder = Folder::at(path);
    folder.read().map_err(Box::new)?;
    Ok(folder.objects().clone())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_said_so() {
        let (agent, _events) = channel();
        let from = From::Folder("no/such/folder".into());
        let error = Source::begin(&from, "node-1", agent).err();
        let text = error.map(|it| it.to_string()).unwrap_or_default();
        assert!(text.contains("there is no such file or folder"), "{text}");
    }
}
