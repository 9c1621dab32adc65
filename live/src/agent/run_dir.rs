//! The run directory: where an agent meets its Envoys, and what it finds of the one before it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Deadline;

/// How long an agent that was killed may take to be gone.
const LAST: Duration = Duration::from_secs(2);
/// Between two looks at whether it is.
const PAUSE: Duration = Duration::from_millis(20);

/// Why there is no run directory for this agent.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// The kernel refused.
    #[error("cannot {action} {path}: {cause}", path = path.display())]
    Refused {
        /// `make`, `lock`
        action: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// What it said.
        cause: io::Error,
    },
    /// Somebody else has it.
    #[error("another agent runs with {path}: end it, or give this one another --run-dir", path = .0.display())]
    Another(PathBuf),
}

/// A run directory that is this agent's as long as this lives.
#[derive(Debug)]
pub(super) struct RunDir {
    path: PathBuf,
    _lock: fs::File,
}

impl RunDir {
    /// Makes it, if it is not there, and keeps other agents out.
    pub(super) fn take(path: &Path) -> Result<Self, RunDirError> {
        // Envoy is another user, and must get to its own folder in it.
        let mut folder = fs::DirBuilder::new();
        let made = folder.recursive(true).mode(0o711).create(path);
        made.map_err(refused("make", path))?;
        let file = path.join("agent.lock");
        let mut options = fs::File::options();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&file).map_err(refused("make", &file))?;
        let deadline = Deadline::within(LAST);
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if deadline.pause(PAUSE) => {}
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(RunDirError::Another(path.to_owned()));
                }
                Err(fs::TryLockError::Error(cause)) => {
                    return Err(refused("lock", &file)(cause));
                }
            }
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// What an agent remembers.
    pub(super) fn memory(&self) -> PathBuf {
        self.path.join("agent.json")
    }
}

fn refused(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunDirError {
    let path = path.to_owned();
    move |cause| RunDirError::Refused {
        action,
        path,
        cause,
    }
}
