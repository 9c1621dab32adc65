//! The BPF file system of a lab, where its nodes' programs and maps outlive their agents.
//!
//! It is the lab's own, so nothing of it can stay: programs go with the file system.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Why there is none, or it does not go.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} a BPF file system at {path}: {cause}", path = path.display())]
pub struct PinsError {
    action: &'static str,
    path: PathBuf,
    cause: io::Error,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PinsError {
    let path = path.to_owned();
    move |cause| PinsError {
        action,
        path,
        cause,
    }
}

/// Makes one at a folder.
pub(super) fn mount_at(path: &Path) -> Result<(), PinsError> {
    fs::create_dir(path).map_err(failed("make", path))?;
    let kind = Some("bpf");
    let mounted = mount(kind, path, kind, MsFlags::empty(), None::<&str>);
    mounted.map_err(|error| failed("mount", path)(error.into()))
}

/// Takes it away, if there is one.
pub(super) fn unmount(path: &Path) -> Result<(), PinsError> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // Nothing is mounted, or there is no such folder.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(failed("unmount", path)(error.into())),
    }
}
