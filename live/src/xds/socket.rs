//! The Unix socket: whose it is, what lay there before, and who may connect.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use nix::unistd::{Uid, chown, geteuid};

use super::{XdsError, XdsOptions};

/// A socket that is taken away with this.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    folder: File,
    name: OsString,
    /// Which file it is: another server may have put its own in its place.
    inode: u64,
    allowed: Vec<u32>,
}

impl Socket {
    /// Makes a socket. It has its owner and its mode before it has its name, and takes the place of
    /// one on which nobody listens in one step.
    pub(super) fn bind(
        path: &Path,
        options: &XdsOptions,
    ) -> Result<(Self, UnixListener), XdsError> {
        let failed = |action: &'static str| {
            let path = path.to_owned();
            move |cause| XdsError::Socket {
                action,
                path,
                cause,
            }
        };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let folder = File::open(parent).map_err(failed("open the folder of"))?;
        let name = path.file_name().map(OsString::from);
        let no_name = || failed("bind")(io::ErrorKind::InvalidInput.into());
        let name = name.ok_or_else(no_name)?;
        if UnixStream::connect(within(&folder, &name)).is_ok() {
            return Err(XdsError::InUse(path.to_owned()));
        }
        let new: OsString = format!(".xds-{}", std::process::id()).into();
        let new = within(&folder, &new);
        let _ = fs::remove_file(&new);
        let listener = UnixListener::bind(&new).map_err(failed("bind"))?;
        let own = || -> io::Result<u64> {
            fs::set_permissions(&new, Permissions::from_mode(options.mode))?;
            let owner = options.owner.map(Uid::from_raw);
            if owner.is_some_and(|owner| owner != geteuid()) {
                chown(&new, owner, None)?;
            }
            listener.set_nonblocking(true)?;
            Ok(fs::symlink_metadata(&new)?.ino())
        };
        let inode = own().map_err(failed("give away"));
        let placed = inode.and_then(|inode| {
            fs::rename(&new, within(&folder, &name)).map_err(failed("put in place"))?;
            Ok(inode)
        });
        let inode = placed.inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })?;
        let allowed = [Some(0), Some(geteuid().as_raw()), options.owner];
        let socket = Self {
            path: path.to_owned(),
            folder,
            name,
            inode,
            allowed: allowed.into_iter().flatten().collect(),
        };
        Ok((socket, listener))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The users who may connect.
    pub(super) fn allowed(&self) -> Vec<u32> {
        self.allowed.clone()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let path = within(&self.folder, &self.name);
        if fs::symlink_metadata(&path).is_ok_and(|it| it.ino() == self.inode) {
            // A socket that stays is replaced by the next server.
            let _ = fs::remove_file(&path);
        }
    }
}

/// A file of an open folder: the address of a Unix socket has room for 107 bytes only.
fn within(folder: &File, name: &std::ffi::OsStr) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(name)
}

/// The connections of those who may connect.
pub(super) fn incoming(
    listener: UnixListener,
    allowed: Vec<u32>,
) -> io::Result<impl Stream<Item = io::Result<tokio::net::UnixStream>>> {
    /// How long to wait when there is no file descriptor left.
    const PAUSE: Duration = Duration::from_millis(50);
    let listener = tokio::net::UnixListener::from_std(listener)?;
    Ok(unfold((listener, allowed), |(listener, allowed)| async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => match stream.peer_cred() {
                    Ok(peer) if allowed.contains(&peer.uid()) => {
                        return Some((Ok(stream), (listener, allowed)));
                    }
                    Ok(peer) => tracing::warn!(uid = peer.uid(), "a stranger asks for xDS"),
                    Err(error) => tracing::warn!(%error, "a peer without a user asks for xDS"),
                },
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }))
}
