//! A place of a lab, for a command that is run there.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nodeway_sim::{Fixture, Place};

use super::machines::Machines;
use super::name::LabName;
use super::state::State;
use super::{LabError, model};
use crate::netns::NetNs;
use std::sync::Arc;

/// Why a place cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// Its names cannot be written down.
    #[error("cannot write {path}: {cause}", path = path.display())]
    Hosts {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// They cannot be put in their place.
    #[error("cannot give the command an /etc/hosts of its own: {0}")]
    Mount(nix::Error),
}

/// A place, and what names mean there.
#[derive(Debug)]
pub struct Site {
    place: Place,
    netns: Arc<NetNs>,
    hosts: String,
}

impl Site {
    /// The place that somebody calls so in a lab.
    ///
    /// # Errors
    /// When nobody is called so, or the lab does not stand.
    pub fn find(
        fixture: &Fixture,
        state: &State,
        name: &LabName,
        from: &str,
    ) -> Result<Self, LabError> {
        let model = model(fixture, Some(state.redirect))?;
        let place = model.place(from)?;
        let machines = Machines::open(model.topology(), name)?;
        let netns = machines.get(&place).cloned();
        let netns = netns.ok_or_else(|| LabError::NotReady(name.clone()))?;
        let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost\n");
        for (address, name) in model.hosts(&place) {
            // Writing to a String does not fail.
            let _ = writeln!(hosts, "{address} {name}");
        }
        Ok(Self {
            place,
            netns,
            hosts,
        })
    }

    /// Does something there, where `/etc/hosts` has the names of the place; `folder` is the lab's.
    ///
    /// # Errors
    /// When the place cannot be entered.
    pub fn enter<T: Send>(
        &self,
        folder: &Path,
        what: impl FnOnce() -> T + Send,
    ) -> Result<T, LabError> {
        let name = self.place.to_string().replace('/', ".");
        let path = folder.join(format!("hosts-{name}"));
        fs::write(&path, &self.hosts).map_err(|cause| SiteError::Hosts {
            path: path.clone(),
            cause,
        })?;
        let entered = self.netns.run(|| {
            own_hosts(&path)?;
            Ok(what())
        })?;
        Ok(entered.map_err(SiteError::Mount)?)
    }
}

/// Puts a file in the place of `/etc/hosts`, for this thread and what it starts.
fn own_hosts(path: &Path) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    let bind = MsFlags::MS_BIND;
    mount(Some(path), "/etc/hosts", None::<&str>, bind, None::<&str>)
}
