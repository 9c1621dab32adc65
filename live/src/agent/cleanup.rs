//! What is left when a node is an agent's no more: nothing. An agent that ends leaves all that it led as
//! it is, so that the next one takes it up; taking it away is asked for on its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::run_dir::{RunDir, RunDirError};
use super::served::SOCKET;
use crate::bpf::{self, DetachError};
use crate::generation::{self, GenerationError};
use crate::netfilter::{Netfilter, NetfilterError, Owner};
use crate::netns::NetNs;

/// Why something is left.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// An agent runs, or the run directory is closed to us.
    #[error(transparent)]
    Run(#[from] RunDirError),
    /// Programs or pins.
    #[error(transparent)]
    Programs(#[from] DetachError),
    /// Rules, sets or routes.
    #[error(transparent)]
    Rules(#[from] Box<NetfilterError>),
    /// The records of Envoys.
    #[error(transparent)]
    Generations(#[from] GenerationError),
    /// What an agent left in its run directory.
    #[error("cannot remove {path}: {cause}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// Takes away what agents of this namespace left: programs and their pins, rules, sets, routes, and
/// what they remembered. Packets go past their Envoys from then on. Says which Envoys still run.
///
/// # Errors
/// When an agent runs, or something cannot be taken away; the same call again does the rest.
pub fn cleanup(netns: &NetNs, run: &Path, pins: &Path) -> Result<Vec<String>, CleanupError> {
    // Without a run directory there was no agent that could be running.
    let _lock = run.exists().then(|| RunDir::take(run)).transpose()?;
    bpf::remove_all(netns, pins)?;
    let rules = Netfilter::new(Owner::Nodeway).remove(netns);
    rules.map_err(Box::new)?;
    for name in ["agent.json", "agent.lock", SOCKET, generation::AGENT_SOCKET] {
        let path = run.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(CleanupError::File { path, cause: error });
            }
            _ => {}
        }
    }
    let running = generation::list(run)?;
    // It stays with what others have in it.
    let _ = fs::remove_dir(run);
    Ok(running.into_iter().map(|it| it.id).collect())
}
