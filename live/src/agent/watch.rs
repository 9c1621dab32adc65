//! Tells when something in a folder has changed.
//!
//! The kernel tells of it by inotify. A user has 128 instances of that by default, which a machine with
//! several clusters of kind uses up: then the folder is looked at again and again.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use notify::{Config, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher};

/// An editor writes a file in several steps: it is read when nothing has changed for that long.
const QUIET: Duration = Duration::from_millis(30);
/// However often it changes, it is read that long after the first change at the latest.
const AT_LATEST: Duration = Duration::from_millis(500);

/// How often a folder is looked at that the kernel does not tell of.
const LOOK: Duration = Duration::from_millis(500);

/// Why a folder cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {folder} for changes: {cause}", folder = folder.display())]
pub struct NotWatched {
    folder: PathBuf,
    cause: notify::Error,
}

/// A folder is watched as long as this lives.
pub(super) struct Watch {
    _watcher: Box<dyn Watcher + Send>,
}

/// What is told of a folder that is watched.
pub(super) struct Changes(Receiver<()>);

impl Watch {
    pub(super) fn on(folder: &Path) -> Result<(Self, Changes), NotWatched> {
        match Self::by::<RecommendedWatcher>(folder) {
            Err(NotWatched { cause, .. }) if is_used_up(&cause) => {
                let folder_shown = folder.display();
                tracing::warn!(
                    folder = %folder_shown, %cause,
                    "the kernel has no inotify left for this user, and the folder is looked at twice a second; raise the sysctl fs.inotify.max_user_instances"
                );
                Self::by::<PollWatcher>(folder)
            }
            watched => watched,
        }
    }

    fn by<W: Watcher + Send + 'static>(folder: &Path) -> Result<(Self, Changes), NotWatched> {
        let (sender, events) = channel();
        let not_watched = |cause| NotWatched {
            folder: folder.to_owned(),
            cause,
        };
        let told = move |event: notify::Result<notify::Event>| {
            let is_a_look = event.as_ref().is_ok_and(|event| event.kind.is_access());
            if !is_a_look {
                // Nobody listens any more: the agent ends.
                let _ = sender.send(());
            }
        };
        let config = Config::default().with_poll_interval(LOOK);
        let watcher = W::new(told, config).map_err(not_watched)?;
        let mut watcher: Box<dyn Watcher + Send> = Box::new(watcher);
        watcher
            .watch(folder, RecursiveMode::Recursive)
            .map_err(not_watched)?;
        Ok((Self { _watcher: watcher }, Changes(events)))
    }
}

/// Whether the kernel refuses for want of instances or watches, and not for the folder's sake.
fn is_used_up(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => true,
        notify::ErrorKind::Io(error) => error.raw_os_error() == Some(nix::libc::EMFILE),
        _ => false,
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    type On = fn(&Path) -> Result<(Watch, Changes), NotWatched>;

    #[rstest]
    #[case::told(Watch::by::<RecommendedWatcher>)]
    #[case::looked_at(Watch::by::<PollWatcher>)]
    fn a_change_is_noticed(#[case] on: On) {
        let folder = tempfile::tempdir().unwrap();
        let (watch, changes) = on(folder.path()).unwrap();
        std::fs::write(folder.path().join("a.yaml"), "a").unwrap();
        assert!(changes.wait());
        drop(watch);
    }

    #[test]
    fn what_the_kernel_has_no_room_for_is_looked_at() {
        let none_left = std::io::Error::from_raw_os_error(nix::libc::EMFILE);
        assert!(is_used_up(&notify::Error::io(none_left)));
        let no_folder = std::io::Error::from_raw_os_error(nix::libc::ENOENT);
        assert!(!is_used_up(&notify::Error::io(no_folder)));
    }
}
