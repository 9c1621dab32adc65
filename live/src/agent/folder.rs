//! A folder of manifests as a cluster: read, completed as controllers would, and read again when
//! something in it changes.
//!
//! A folder is taken as a whole or not at all: while some file cannot be read, the cluster stays as
//! it was, and what is wrong is told. A fixture's folder is one too, with the fixture's nodes.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use nodeway_core::controllers::Controllers;
use nodeway_core::object::{Change, Objects};
use nodeway_core::problem::Problem;
use nodeway_sim::{LoadErrors, Source};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

/// An editor writes a file in several steps: it is read when nothing has changed for that long.
const QUIET: Duration = Duration::from_millis(30);
/// However often it changes, it is read that long after the first change at the latest.
const AT_LATEST: Duration = Duration::from_millis(500);

/// Why a folder cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {folder} for changes: {source}", folder = folder.display())]
pub struct NotWatched {
    folder: PathBuf,
    source: notify::Error,
}

/// A folder, as it was last read without an error.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    objects: Objects,
    /// What is wrong with its Ingresses.
    pub(super) problems: Vec<Problem>,
}

impl Folder {
    pub(super) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            objects: Objects::default(),
            problems: Vec::new(),
        }
    }

    /// Reads it again. What has changed since it was last read without an error.
    pub(super) fn read(&mut self) -> Result<Vec<Change>, LoadErrors> {
        let source = Source::load(std::slice::from_ref(&self.path), None)?;
        let objects = source.objects()?;
        let controllers = match &source.fixture {
            Some(fixture) => fixture.controllers(),
            None => Controllers::default(),
        };
        let (objects, problems) = controllers.complete(objects);
        let changes = self.objects.changes_to(&objects);
        (self.objects, self.problems) = (objects, problems);
        Ok(changes)
    }

    pub(super) const fn objects(&self) -> &Objects {
        &self.objects
    }
}

/// Tells when something in a folder has changed.
pub(super) struct Watch {
    events: Receiver<()>,
    /// It watches as long as it lives.
    _watcher: RecommendedWatcher,
}

impl Watch {
    pub(super) fn on(folder: &Path) -> Result<Self, NotWatched> {
        let (sender, events) = channel();
        let not_watched = |source| NotWatched {
            folder: folder.to_owned(),
            source,
        };
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                let is_a_look = event.as_ref().is_ok_and(|event| event.kind.is_access());
                if !is_a_look {
                    // Nobody listens any more: the agent ends.
                    let _ = sender.send(());
                }
            })
            .map_err(not_watched)?;
        watcher
            .watch(folder, RecursiveMode::Recursive)
            .map_err(not_watched)?;
        Ok(Self {
            events,
            _watcher: watcher,
        })
    }

    /// Waits until something has changed and is quiet again; false when there is nobody to tell.
    pub(super) fn wait(&self) -> bool {
        if self.events.recv().is_err() {
            return false;
        }
        let mut waited = Duration::ZERO;
        while waited < AT_LATEST {
            match self.events.recv_timeout(QUIET) {
                Ok(()) => waited += QUIET,
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }
}
