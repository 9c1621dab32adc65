//! What a run makes outside of its process: namespaces of one name, and a folder. All of it goes
//! away with [`Ground::clear`], which may be called at any moment, and from any thread.
//!
//! The name is a lab's, so what a killed run leaves goes away with `nodeway lab down NAME`, but for the folder.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nodeway_live::bpf::{PinError, Pins};
use nodeway_live::lab::machines::Machines;
use nodeway_live::lab::name::{BadName, LabName};

/// Why there is no ground to stand on.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// Only root may make namespaces and load programs.
    #[error(
        "this needs root: it makes network namespaces and loads programs into the kernel; run it as root, or: sudo env \"PATH=$PATH\" \"HOME=$HOME\" ci/bench redirect"
    )]
    NotRoot,
    /// The name.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The folder.
    #[error("cannot make {path}: {source}", path = path.display())]
    Folder {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The BPF file system in it.
    #[error("cannot mount a BPF file system: {0}")]
    Mount(nix::Error),
    /// The folder of pins in that.
    #[error(transparent)]
    Pins(#[from] PinError),
}

/// A name for namespaces, and a folder.
#[derive(Clone, Debug)]
pub struct Ground {
    name: LabName,
    folder: PathBuf,
}

impl Ground {
    /// Of this process; a process has one.
    ///
    /// # Errors
    /// Without root, or when the folder cannot be made.
    pub fn new() -> Result<Self, GroundError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(GroundError::NotRoot);
        }
        let name = LabName::new(&format!("bench-{}", std::process::id()))?;
        let folder = env::temp_dir().join(format!("nodeway-{name}"));
        fs::create_dir(&folder).map_err(|source| GroundError::Folder {
            path: folder.clone(),
            source,
        })?;
        Ok(Self { name, folder })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &LabName {
        &self.name
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn bpf(&self) -> PathBuf {
        self.folder.join("bpf")
    }

    /// A place for pins, on a BPF file system of our own.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn pins(&self) -> Result<Pins, GroundError> {
        let (path, kind) = (self.bpf(), Some("bpf"));
        fs::create_dir(&path).map_err(|source| GroundError::Folder {
            path: path.clone(),
            source,
        })?;
        mount(kind, &path, kind, MsFlags::empty(), None::<&str>).map_err(GroundError::Mount)?;
        Ok(Pins::in_folder(&path)?)
    }

    /// Ends what runs in the namespaces, and takes them and the folder away.
    pub fn clear(&self) {
        // What is not there is what we want, and of the rest each is tried.
        let _ = Machines::delete(&self.name);
        let _ = umount2(&self.bpf(), MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.folder);
    }
}
