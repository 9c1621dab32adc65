//! The record of a generation in the run directory, as supervisor and agent read it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Phase;
use crate::envoy::{self, Admin};
use crate::process::Process;
use crate::whole_file;

/// The folder of all generations in the run directory.
const FOLDER: &str = "envoy";
/// The agent's socket in the run directory, where Envoys ask by xDS.
pub(crate) const AGENT_SOCKET: &str = "xds.sock";
/// The number of the last generation that was begun.
const LAST: &str = "last";

/// Why records cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The kernel refused.
    #[error("cannot {action} {path}: {cause}", path = path.display())]
    File {
        /// `read`, `write`, `list`
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        cause: io::Error,
    },
    /// A record of another form.
    #[error(
        "{path} is no record of an Envoy ({reason}): another version of nodeway wrote it; end its Envoy with that version, or delete the file if none runs",
        path = path.display()
    )]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What is written down of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Record {
    /// Its name on the node, by which the agent knows it too (`g7`).
    pub id: String,
    /// The node.
    pub node: String,
    /// Where it stands.
    pub phase: Phase,
    /// Its Envoy.
    pub process: Process,
    /// Who started it.
    pub supervisor: Process,
    /// The program, as it was found.
    pub program: PathBuf,
    #[serde(skip)]
    run: PathBuf,
}

/// The generations that run, in the order in which they were begun.
///
/// # Errors
/// When the run directory or a record in it cannot be read. One that vanishes meanwhile is gone.
pub fn list(run: &Path) -> Result<Vec<Record>, GenerationError> {
    let mut all = every(run)?;
    all.retain(|record| record.process.lives());
    Ok(all)
}

/// The folder of all records, which is made if it is not there.
///
/// # Errors
/// When it cannot be made.
pub fn folder(run: &Path) -> Result<PathBuf, GenerationError> {
    let folder = run.join(FOLDER);
    let mut builder = fs::DirBuilder::new();
    // Envoy is another user, and must get to its own.
    let made = builder.recursive(true).mode(0o711).create(&folder);
    made.map_err(failed("make", &folder))?;
    Ok(folder)
}

/// Also those whose Envoy is gone.
pub(super) fn every(run: &Path) -> Result<Vec<Record>, GenerationError> {
    let folder = run.join(FOLDER);
    let files = match fs::read_dir(&folder) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(failed("list", &folder)(cause)),
    };
    let mut all = Vec::new();
    for file in files {
        let path = file.map_err(failed("list", &folder))?.path();
        if path.extension().is_some_and(|it| it == "json") {
            all.extend(Record::read(&path, run)?);
        }
    }
    all.sort_by_key(Record::number);
    Ok(all)
}

/// Says for the agent that no frontend leads to a generation any more.
///
/// # Errors
/// When the run directory cannot be written.
pub fn mark_unled(run: &Path, id: &str) -> Result<(), GenerationError> {
    let path = unled(run, id);
    if path.exists() {
        return Ok(());
    }
    fs::write(&path, "").map_err(failed("write", &path))
}

fn unled(run: &Path, id: &str) -> PathBuf {
    run.join(FOLDER).join(format!("{id}.unled"))
}

impl Record {
    fn read(path: &Path, run: &Path) -> Result<Option<Self>, GenerationError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(failed("read", path)(cause)),
        };
        let read: Result<Self, _> = serde_json::from_slice(&text);
        let record = read.map_err(|error| GenerationError::Bad {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Some(Self {
            run: run.to_owned(),
            ..record
        }))
    }

    /// A name and a folder that no other generation of this run directory ever had.
    pub(super) fn claim(run: &Path) -> Result<(String, PathBuf), GenerationError> {
        let folder = folder(run)?;
        let path = folder.join(LAST);
        let number = count_up(&path).map_err(failed("write", &path))?;
        let id = format!("g{number}");
        let own = folder.join(&id);
        Ok((id, own))
    }

    pub(super) fn new(
        run: &Path,
        id: String,
        node: &str,
        process: Process,
        program: &Path,
    ) -> Self {
        Self {
            id,
            node: node.to_owned(),
            phase: Phase::Running,
            process,
            supervisor: Process::own(),
            program: program.to_owned(),
            run: run.to_owned(),
        }
    }

    /// Writes it in the place of what is there.
    pub(super) fn write(&self) -> Result<(), GenerationError> {
        let path = self.file();
        let text = serde_json::to_vec(self).map_err(io::Error::from);
        let written = text.and_then(|text| whole_file::write(&path, &text));
        written.map_err(failed("write", &path))
    }

    /// Takes record, mark and folder away: its Envoy is gone.
    pub(super) fn remove(&self) -> Result<(), GenerationError> {
        let folder = self.folder();
        let gone = |done: io::Result<()>, path: &Path| match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("take away", path)(error))
            }
            _ => Ok(()),
        };
        gone(fs::remove_dir_all(&folder), &folder)?;
        let mark = unled(&self.run, &self.id);
        gone(fs::remove_file(&mark), &mark)?;
        gone(fs::remove_file(self.file()), &self.file())
    }

    /// Its Envoy's folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.run.join(FOLDER).join(&self.id)
    }

    /// Its Envoy's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder().join(envoy::LOG)
    }

    /// Its Envoy's admin.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::of(&self.folder())
    }

    pub(super) fn is_unled(&self) -> bool {
        unled(&self.run, &self.id).exists()
    }

    fn file(&self) -> PathBuf {
        self.run.join(FOLDER).join(format!("{}.json", self.id))
    }

    fn number(&self) -> u64 {
        let number = self.id.strip_prefix('g').and_then(|it| it.parse().ok());
        number.unwrap_or(u64::MAX)
    }
}

/// Two supervisors may begin a generation at the same time.
fn count_up(path: &Path) -> io::Result<u64> {
    let mut options = fs::OpenOptions::new();
    let options = options.read(true).write(true).create(true);
    let file = options.truncate(false).mode(0o600).open(path)?;
    file.lock()?;
    let text = io::read_to_string(&file)?;
    let next = text.trim().parse::<u64>().unwrap_or_default() + 1;
    fs::write(path, next.to_string())?;
    Ok(next)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GenerationError {
    let path = path.to_owned();
    move |cause| GenerationError::File {
        action,
        path,
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(run: &Path) -> Record {
        let (id, folder) = Record::claim(run).unwrap();
        fs::create_dir(folder).unwrap();
        let record = Record::new(run, id, "node-1", Process::own(), Path::new("/bin/envoy"));
        record.write().unwrap();
        record
    }

    #[test]
    fn records_are_found_in_the_order_of_their_beginning_and_go_whole() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(list(run.path()).unwrap(), []);
        let mut all: Vec<Record> = (0..11).map(|_| begun(run.path())).collect();
        assert_eq!(list(run.path()).unwrap(), all);
        let gone = all.remove(3);
        mark_unled(run.path(), &gone.id).unwrap();
        assert!(gone.is_unled());
        gone.remove().unwrap();
        assert_eq!(list(run.path()).unwrap(), all);
        assert!(!gone.is_unled());
        assert_ne!(begun(run.path()).id, gone.id, "a name is given once");
    }

    #[test]
    fn a_record_whose_envoy_is_gone_is_not_listed() {
        let run = tempfile::tempdir().unwrap();
        let mut record = begun(run.path());
        record.process = Process::gone();
        record.write().unwrap();
        assert_eq!(list(run.path()).unwrap(), []);
        assert_eq!(every(run.path()).unwrap(), [record]);
    }

    #[test]
    fn what_is_no_record_says_what_to_do() {
        let run = tempfile::tempdir().unwrap();
        begun(run.path());
        fs::write(run.path().join("envoy/g9.json"), "{").unwrap();
        let error = list(run.path()).unwrap_err().to_string();
        assert!(
            error.contains("g9.json") && error.contains("delete"),
            "{error}"
        );
    }
}
