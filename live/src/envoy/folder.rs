//! All that an Envoy has, in one folder that only its user can read: its bootstrap, its logs, its admin's socket.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use nodeway_core::envoy::bootstrap::{AccessEntry, Bootstrap};

use super::error::EnvoyError;
use super::log;
use super::options::EnvoyOptions;
use super::user::{self, RunsAs};

pub(super) const BOOTSTRAP: &str = "bootstrap.json";
/// The access log's name in an Envoy's folder, from which it is written.
pub(crate) const ACCESS_LOG: &str = "access.log";
/// Its own log's.
pub(crate) const LOG: &str = "envoy.log";
/// Envoy's own words are looked for among that many last lines of its log.
const WORDS: usize = 12;

/// Makes the folder, with the bootstrap and empty logs in it.
pub(super) fn lay_out(
    made: &Bootstrap,
    options: &EnvoyOptions,
    runs_as: &RunsAs,
) -> Result<File, EnvoyError> {
    let folder = &options.folder;
    make_folder(folder)?;
    let text = made.json.to_string();
    write(&folder.join(BOOTSTRAP), text.as_bytes())?;
    write(&folder.join(ACCESS_LOG), b"")?;
    let log = write(&folder.join(LOG), b"")?;
    user::give(runs_as, folder, &[BOOTSTRAP, ACCESS_LOG, LOG])
        .map_err(folder_error("give away", folder))?;
    Ok(log)
}

/// Every line so far of the access log of the Envoy in a folder.
pub(crate) fn entries(folder: &Path) -> Result<Vec<AccessEntry>, EnvoyError> {
    let path = folder.join(ACCESS_LOG);
    let text = fs::read_to_string(&path).map_err(folder_error("read", &path))?;
    log::whole_lines(&text)
        .map(AccessEntry::parse)
        .collect::<Result<_, _>>()
        .map_err(|cause| EnvoyError::Entry { path, cause })
}

/// The last lines of a log.
pub(crate) fn last_words(log: &Path) -> String {
    log::last_words(log, WORDS)
}

fn make_folder(folder: &Path) -> Result<(), EnvoyError> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(folder_error("make", parent))?;
    }
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    builder.create(folder).map_err(folder_error("make", folder))
}

/// Writes a file that only its user can read, and gives it open for more.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<File, EnvoyError> {
    let mut options = File::options();
    options.append(true).create(true).mode(0o600);
    let open = || -> io::Result<File> {
        let mut file = options.open(path)?;
        file.write_all(bytes)?;
        Ok(file)
    };
    open().map_err(folder_error("write", path))
}

/// Takes the folder away, if it is there.
pub(super) fn remove(folder: &Path) -> Result<(), EnvoyError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(folder_error("take away", folder)(error))
        }
        _ => Ok(()),
    }
}

fn folder_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EnvoyError {
    let path = path.to_owned();
    move |cause| EnvoyError::Folder {
        action,
        path,
        cause,
    }
}
