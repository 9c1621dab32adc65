//! Pins: names on a BPF file system under which maps and links outlive the process that made them.
//!
//! The layout's version is in each name (`frontends_v1`), so that a Nodeway with another layout
//! never opens maps that it would misread; what it finds of other versions it takes over, link by
//! link, and clears away. The kernel reserves names with dots.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::loaded_programs;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nodeway_core::datapath::layout::VERSION;

/// Why a folder cannot hold pins.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// It is on no BPF file system.
    #[error("`{}` is not on a BPF file system; mount one: mount -t bpf bpf {}", .0.display(), .0.display())]
    NotBpf(PathBuf),
    /// The pin is gone, and what it held is still attached.
    #[error(
        "the pin `{}` is removed, but another process holds its link: end that process",
        .0.display()
    )]
    Held(PathBuf),
    /// The file system refused.
    #[error("cannot {action} the pin `{}`: {cause}", path.display())]
    Refused {
        /// `make`, `read`, `remove`, `rename`
        action: &'static str,
        /// The pin or its folder.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
}

fn refused(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PinError {
    let path = path.to_owned();
    move |cause| PinError::Refused {
        action,
        path,
        cause,
    }
}

fn is_bpf(folder: &Path) -> Result<bool, PinError> {
    let kind = statfs(folder).map_err(|errno| refused("read", folder)(errno.into()))?;
    Ok(kind.filesystem_type() == BPF_FS_MAGIC)
}

/// A folder of pins.
#[derive(Clone, Debug)]
pub struct Pins(PathBuf);

impl Pins {
    /// The folder; it is made if its parent is there.
    ///
    /// # Errors
    /// When it is on no BPF file system.
    pub fn in_folder(folder: &Path) -> Result<Self, PinError> {
        // sysfs lets nobody make a folder: what shall be one of a BPF file system is asked of its
        // parent, which is there.
        let parent = folder.parent().unwrap_or(folder);
        if !folder.is_dir() {
            if !is_bpf(parent)? {
                return Err(PinError::NotBpf(parent.to_owned()));
            }
            std::fs::create_dir(folder).map_err(refused("make", folder))?;
        }
        if !is_bpf(folder)? {
            return Err(PinError::NotBpf(folder.to_owned()));
        }
        Ok(Self(folder.to_owned()))
    }

    /// A folder that an agent says it has: it is not made, and not looked at yet.
    pub(super) fn found(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    /// The pin of a map.
    #[must_use]
    pub fn map(&self, map: &str) -> PathBuf {
        self.pin(&map.to_lowercase())
    }

    /// The pin of a link, by the name of where it is attached.
    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.pin(&format!("link_{name}"))
    }

    fn pin(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}_v{VERSION}"))
    }

    /// Names of what is pinned that satisfy a condition, sorted: links come before maps in each
    /// version, which is the order in which they may go.
    fn find(&self, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, PinError> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.0).map_err(refused("read", &self.0))? {
            let entry = entry.map_err(refused("read", &self.0))?;
            if entry.file_name().to_str().is_some_and(&is_wanted) {
                found.push(entry.path());
            }
        }
        found.sort_by_key(|path| (!is_link(path), path.clone()));
        Ok(found)
    }

    /// The names of this version's links: where something is attached.
    pub(super) fn links(&self) -> Result<Vec<String>, PinError> {
        let suffix = format!("_v{VERSION}");
        let found = self.find(|name| name.starts_with("link_") && name.ends_with(&suffix))?;
        let name = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?;
            let name = name.strip_prefix("link_")?.strip_suffix(&suffix)?;
            Some(name.to_owned())
        };
        Ok(found.iter().filter_map(name).collect())
    }

    /// Clears away what other versions left.
    pub(super) fn remove_others(&self) -> Result<Unpinned, PinError> {
        let suffix = format!("_v{VERSION}");
        self.remove(|name| is_ours(name) && !name.ends_with(&suffix))
    }

    /// Takes everything of ours away, of all versions, and the folder if it is empty then.
    pub(crate) fn remove_all(&self) -> Result<Unpinned, PinError> {
        let unpinned = self.remove(is_ours)?;
        // Somebody else's pins, or a mount of its own: the folder stays.
        let _ = std::fs::remove_dir(&self.0);
        Ok(unpinned)
    }

    fn remove(&self, is_wanted: impl Fn(&str) -> bool) -> Result<Unpinned, PinError> {
        remove(&self.find(is_wanted)?)
    }
}

fn is_link(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("link_"))
}

/// Whether a name ends as all of ours do.
fn is_ours(name: &str) -> bool {
    name.rsplit_once("_v").is_some_and(|(_, version)| {
        !version.is_empty() && version.bytes().all(|digit| digit.is_ascii_digit())
    })
}

/// Puts a pin in the place of another, in one step.
pub(super) fn replace(old: &Path, new: &Path) -> Result<(), PinError> {
    std::fs::rename(new, old).map_err(refused("rename", new))
}

/// Links whose pins are gone, by the programs that they held: the kernel detaches them a moment
/// after the last name and descriptor are gone, and gives the program back after that.
#[must_use = "what was unpinned may still be attached"]
#[derive(Debug, Default)]
pub(crate) struct Unpinned(Vec<(u32, PathBuf)>);

/// Takes pins away, those that are there.
pub(super) fn remove(pins: &[PathBuf]) -> Result<Unpinned, PinError> {
    let mut unpinned = Unpinned::default();
    for pin in pins {
        if is_link(pin)
            && let Ok(pinned) = PinnedLink::from_pin(pin)
            && let Ok(info) = FdLink::from(pinned).info()
        {
            unpinned.0.push((info.program_id(), pin.clone()));
        }
        match std::fs::remove_file(pin) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(refused("remove", pin)(error));
            }
            _ => {}
        }
    }
    Ok(unpinned)
}

/// The kernel needs some milliseconds; what takes longer is held by somebody.
const WAIT_MILLIS: u32 = 3_000;

impl Unpinned {
    /// Waits until the programs are gone, and so surely detached. They must be held nowhere else.
    pub(crate) fn wait(self) -> Result<(), PinError> {
        self.until_none(|| {
            // One that ends meanwhile gives an error, and is not there.
            loaded_programs()
                .flatten()
                .map(|program| program.id())
                .collect()
        })
    }

    /// Waits until no program of these is among those that are attached somewhere.
    pub(super) fn until_none(mut self, attached: impl Fn() -> Vec<u32>) -> Result<(), PinError> {
        for _ in 0..WAIT_MILLIS {
            if self.0.is_empty() {
                return Ok(());
            }
            let there = attached();
            self.0.retain(|(program, _)| there.contains(program));
            std::thread::park_timeout(Duration::from_millis(1));
        }
        match self.0.pop() {
            Some((_, pin)) => Err(PinError::Held(pin)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_of_any_version_are_ours_and_nothing_else_is() {
        assert!(is_ours("frontends_v1"));
        assert!(is_ours("link_sk_lookup_v12"));
        assert!(!is_ours("cilium_calls"));
        assert!(!is_ours("map_v"));
        assert!(!is_ours("map_vx"));
    }

    #[test]
    fn a_folder_elsewhere_is_refused_with_the_mount_that_it_needs() {
        let folder = tempfile::tempdir().unwrap();
        let error = Pins::in_folder(folder.path()).unwrap_err();
        assert!(error.to_string().contains("mount -t bpf bpf"), "{error}");
    }
}
