//! Tells when something in a folder has changed.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

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

/// A folder is watched as long as this lives.
pub(super) struct Watch {
    _watcher: RecommendedWatcher,
}

/// What is told of a folder that is watched.
pub(super) struct Changes(Receiver<()>);

impl Watch {
    pub(super) fn on(folder: &Path) -> Result<(Self, Changes), NotWatched> {
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
        Ok((Self { _watcher: watcher }, Changes(events)))
    }
}

impl Changes {
    /// Waits until something has changed and is quiet again; false when nobody watches any more.
    pub(super) fn wait(&self) -> bool {
        if self.0.recv().is_err() {
            return false;
        }
        let mut waited = Duration::ZERO;
        while waited < AT_LATEST {
            match self.0.recv_timeout(QUIET) {
                Ok(()) => waited += QUIET,
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }
}
