//! A network namespace by name, kept as `ip netns` keeps it: a mount at `/run/netns/NAME`.
//!
//! Entering a namespace changes a thread, not a process, so whatever must happen inside one runs on
//! a thread of its own ([`NetNs::run`]); a process or a socket that is made there stays there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::net::if_::if_nameindex;
use nix::sched::{CloneFlags, setns, unshare};

/// Where `ip netns` keeps names.
const FOLDER: &str = "/run/netns";

/// What can go wrong with a namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// There is one of that name.
    #[error("there is a network namespace `{0}` already; take it away with `ip netns delete {0}`")]
    Exists(String),
    /// There is none of that name.
    #[error("there is no network namespace `{0}`; `ip netns list` shows those that there are")]
    Missing(String),
    /// The kernel refused.
    #[error(
        "cannot {action} the network namespace `{name}`: {cause}{}",
        hint(cause)
    )]
    Refused {
        /// `create`, `enter`, `delete`, `list`
        action: &'static str,
        /// The namespace.
        name: String,
        /// What the kernel said.
        cause: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run as root, or with CAP_SYS_ADMIN",
        _ => "",
    }
}

fn refused(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> NetNsError {
    let name = name.to_owned();
    move |cause| NetNsError::Refused {
        action,
        name,
        cause,
    }
}

/// An open network namespace. It lives on while this does, even when its name is gone.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    file: File,
}

impl NetNs {
    /// Makes a namespace, with nothing in it but a `lo` that is down.
    ///
    /// # Errors
    /// When there is one of that name, or the kernel refuses.
    pub fn create(name: &str) -> Result<Self, NetNsError> {
        let path = path(name);
        keep_names().map_err(refused("create", name))?;
        match File::create_new(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(NetNsError::Exists(name.to_owned()));
            }
            Err(error) => return Err(refused("create", name)(error)),
        }
        let made = on_a_thread(|| -> nix::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            bind(Path::new("/proc/thread-self/ns/net"), &path)
        });
        if let Err(errno) = made {
            // The name alone means nothing: without it the next try can succeed.
            let _ = std::fs::remove_file(&path);
            return Err(refused("create", name)(errno.into()));
        }
        Self::open(name)
    }

    /// Opens a namespace by name.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(name: &str) -> Result<Self, NetNsError> {
        match File::open(path(name)) {
            Ok(file) => Ok(Self {
                name: name.to_owned(),
                file,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(NetNsError::Missing(name.to_owned()))
            }
            Err(error) => Err(refused("enter", name)(error)),
        }
    }

    /// Opens a namespace that a file stands for: `/proc/PID/ns/net`, or a name in another mount
    /// namespace, as pods of a kind node have it.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn at(path: &Path) -> Result<Self, NetNsError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(refused("enter", &name))?;
        Ok(Self { name, file })
    }

    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> Result<Self, NetNsError> {
        let name = "the current one";
        let file = File::open("/proc/thread-self/ns/net").map_err(refused("enter", name))?;
        Ok(Self {
            name: name.to_owned(),
            file,
        })
    }

    /// The same namespace, held once more.
    ///
    /// # Errors
    /// When the process has no file left.
    pub fn try_clone(&self) -> Result<Self, NetNsError> {
        let file = self
            .file
            .try_clone()
            .map_err(refused("enter", &self.name))?;
        Ok(Self {
            name: self.name.clone(),
            file,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells it from every other that there is.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn inode(&self) -> Result<u64, NetNsError> {
        let metadata = self.file.metadata().map_err(refused("enter", &self.name))?;
        Ok(metadata.ino())
    }

    /// Does something inside, on a thread of its own; the caller stays where it is. Whoever is in it
    /// already needs no right to enter it.
    ///
    /// # Errors
    /// When the kernel does not let us in.
    pub fn run<T: Send>(&self, what: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
        let own = self.inode()?;
        let is_here = Self::current()?.inode()? == own;
        on_a_thread(|| {
            if !is_here {
                setns(&self.file, CloneFlags::CLONE_NEWNET)?;
            }
            Ok(what())
        })
        .map_err(|errno: nix::Error| refused("enter", &self.name)(errno.into()))
    }

    /// The names of its network devices.
    ///
    /// # Errors
    /// When the kernel does not let us in, or does not tell.
    pub fn devices(&self) -> Result<Vec<String>, NetNsError> {
        let names = self.run(|| {
            let all = if_nameindex()?;
            let names = all
                .iter()
                .map(|it| it.name().to_string_lossy().into_owned());
            Ok(names.collect())
        })?;
        names.map_err(|errno: nix::Error| refused("list the devices of", &self.name)(errno.into()))
    }

    /// Takes a name away. The namespace itself goes when its last process and socket do.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses.
    pub fn delete(name: &str) -> Result<(), NetNsError> {
        let path = path(name);
        if !path.exists() {
            return Err(NetNsError::Missing(name.to_owned()));
        }
        match umount2(&path, MntFlags::MNT_DETACH) {
            // A name that was never mounted is left of a crash between the two.
            Ok(()) | Err(nix::Error::EINVAL) => {}
            Err(errno) => return Err(refused("delete", name)(errno.into())),
        }
        std::fs::remove_file(&path).map_err(refused("delete", name))
    }

    /// The names of all namespaces, sorted.
    ///
    /// # Errors
    /// When the folder of names cannot be read.
    pub fn list() -> Result<Vec<String>, NetNsError> {
        let entries = match std::fs::read_dir(FOLDER) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(refused("list", "*")(error)),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Makes the folder of names a mount of its own that mounts spread through, as `ip netns` does:
/// otherwise a name that one mount namespace takes away lives on in others.
fn keep_names() -> io::Result<()> {
    let folder = Path::new(FOLDER);
    std::fs::create_dir_all(folder)?;
    let shared = MsFlags::MS_SHARED | MsFlags::MS_REC;
    match mount(None::<&str>, folder, None::<&str>, shared, None::<&str>) {
        Ok(()) => return Ok(()),
        // Not a mount yet.
        Err(nix::Error::EINVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    bind(folder, folder)?;
    mount(None::<&str>, folder, None::<&str>, shared, None::<&str>)?;
    Ok(())
}

fn bind(from: &Path, to: &Path) -> nix::Result<()> {
    let flags = MsFlags::MS_BIND;
    mount(Some(from), to, None::<&str>, flags, None::<&str>)
}

fn on_a_thread<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(what).join() {
        Ok(value) => value,
        // The thread's panic goes on here, with its message.
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
