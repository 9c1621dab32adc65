//! What a lab leaves on the machine, written down before it is made: so that another command finds
//! it, and takes it away even when the one that made it crashed.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::process::Process;
use crate::whole_file;
use nodeway_sim::Redirect;
use serde::{Deserialize, Serialize};

use super::name::LabName;

/// The file in a lab's folder.
const FILE: &str = "lab.json";

/// Where the folders of labs are: `/run/nodeway/lab`; without root, `$XDG_RUNTIME_DIR/nodeway/lab`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labs {
    folder: PathBuf,
}

/// What can go wrong with a lab's folder.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is a lab of that name.
    #[error(
        "there is a lab `{0}` already; end it with `nodeway lab down --name {0}`, or give this one another --name"
    )]
    Exists(LabName),
    /// There is none.
    #[error("there is no lab `{name}`; {}", instead(.others))]
    Missing {
        /// What was asked for.
        name: LabName,
        /// Those that there are.
        others: Vec<String>,
    },
    /// The file system.
    #[error("cannot {action} {path}: {cause}{}", hint(cause), path = path.display())]
    Folder {
        /// `make`, `read`, `write`, `take away`
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// What is written there is not ours.
    #[error("{path} is no lab's state: {cause}; take its folder away by hand", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
}

fn instead(names: &[String]) -> String {
    if names.is_empty() {
        "there is none at all: `nodeway lab up FIXTURE` makes one".to_owned()
    } else {
        format!("there is `{}`", names.join("`, `"))
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; a lab needs root",
        _ => "",
    }
}

fn folder(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |cause| StateError::Folder {
        action,
        path,
        cause,
    }
}

/// A lab, as it stands in its folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its name.
    pub name: String,
    /// The folder of the fixture.
    pub fixture: PathBuf,
    /// How packets come to listeners.
    pub redirect: Redirect,
    /// The process in which its backends run.
    pub keeper: Process,
    /// Whether all stands.
    pub ready: bool,
}

impl Labs {
    /// Those of this machine, for whoever runs this.
    #[must_use]
    pub fn here() -> Self {
        // An Envoy that root starts runs as somebody else, who must get to its folder.
        let of_user = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
        let of_user = of_user.filter(|_| !nix::unistd::geteuid().is_root());
        let run = of_user.map_or_else(|| PathBuf::from("/run"), PathBuf::from);
        Self::at(run.join("nodeway/lab"))
    }

    /// Those of that folder.
    #[must_use]
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder of a lab, whether it is there or not.
    #[must_use]
    pub fn folder(&self, name: &LabName) -> PathBuf {
        self.folder.join(name.as_str())
    }

    /// Where the agent of a lab's node meets its Envoys, as `nodeway status --run-dir` wants it.
    #[must_use]
    pub fn run_folder(&self, name: &LabName, node: &str) -> PathBuf {
        self.folder(name).join("node").join(node)
    }

    /// Where a lab's BPF file system is, for the ways that have programs.
    #[must_use]
    pub fn pins(&self, name: &LabName) -> PathBuf {
        self.folder(name).join("bpf")
    }

    /// Makes a lab's folder with its state.
    ///
    /// # Errors
    /// When there is one.
    pub fn create(&self, name: &LabName, state: &State) -> Result<(), StateError> {
        let own = self.folder(name);
        fs::create_dir_all(&self.folder).map_err(folder("make", &self.folder))?;
        // Others may pass to folders of their own in it, and see nothing.
        match fs::DirBuilder::new().mode(0o711).create(&own) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StateError::Exists(name.clone()));
            }
            made => made.map_err(folder("make", &own))?,
        }
        self.write(name, state)
    }

    /// Writes a lab's state in the place of what is there.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&self, name: &LabName, state: &State) -> Result<(), StateError> {
        let path = self.folder(name).join(FILE);
        let text = serde_json::to_vec_pretty(state).map_err(|cause| StateError::Unreadable {
            path: path.clone(),
            cause,
        })?;
        whole_file::write(&path, &text).map_err(folder("write", &path))
    }

    /// A lab's state.
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn read(&self, name: &LabName) -> Result<State, StateError> {
        let path = self.folder(name).join(FILE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StateError::Missing {
                    name: name.clone(),
                    others: self.list(),
                });
            }
            read => read.map_err(folder("read", &path))?,
        };
        serde_json::from_slice(&text).map_err(|cause| StateError::Unreadable { path, cause })
    }

    /// The names of all labs, sorted.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Takes a lab's folder away.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove(&self, name: &LabName) -> Result<(), StateError> {
        let own = self.folder(name);
        match fs::remove_dir_all(&own) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(folder("take away", &own)(error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            name: "x".to_owned(),
            fixture: PathBuf::from("fixtures/x"),
            redirect: Redirect::Iptables,
            keeper: Process::own(),
            ready: false,
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (labs, name) = (
            Labs::at(folder.path().join("lab")),
            LabName::new("x").unwrap(),
        );
        labs.create(&name, &state()).unwrap();
        assert_eq!(labs.read(&name).unwrap(), state());
        assert_eq!(labs.list(), ["x"]);
        labs.remove(&name).unwrap();
        assert_eq!(labs.list(), [""; 0]);
    }

    #[test]
    fn a_name_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let (labs, name) = (
            Labs::at(folder.path().to_owned()),
            LabName::new("x").unwrap(),
        );
        labs.create(&name, &state()).unwrap();
        let error = labs.create(&name, &state()).unwrap_err().to_string();
        assert!(error.contains("nodeway lab down --name x"), "{error}");
    }

    #[test]
    fn a_lab_that_is_not_there_says_which_are() {
        let folder = tempfile::tempdir().unwrap();
        let labs = Labs::at(folder.path().to_owned());
        labs.create(&LabName::new("one").unwrap(), &state())
            .unwrap();
        let error = labs.read(&LabName::new("two").unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "there is no lab `two`; there is `one`");
    }

    #[test]
    fn a_process_is_told_from_another_of_its_number() {
        let own = Process::own();
        assert!(own.lives());
        let before = Process {
            started: own.started - 1,
            ..own
        };
        assert!(!before.lives());
    }
}
