//! A folder that is written as a whole or not at all, or as an archive for whoever takes it out of a pod.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Files by their places in the folder.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Why it cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// Something is there already.
    #[error("{} is there already: name another folder, or take this one away", .0.display())]
    Exists(PathBuf),
    /// The system refused.
    #[error("cannot write {}: {said}; name a place where you may write", path.display())]
    Refused {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        said: String,
    },
}

fn refused(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |error| FolderError::Refused {
        path,
        said: error.to_string(),
    }
}

/// Writes a folder, which must not be there yet: beside its place first, for its owner alone, and then
/// in one step.
pub(crate) fn write(folder: &Path, files: &Files) -> Result<(), FolderError> {
    if folder.symlink_metadata().is_ok() {
        return Err(FolderError::Exists(folder.to_owned()));
    }
    let parent = match folder.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut beside = tempfile::Builder::new();
    beside.prefix(".nodeway-");
    #[cfg(unix)]
    beside.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    let beside = beside.tempdir_in(parent);
    // It goes when this ends early.
    let beside = beside.map_err(refused(folder))?;
    for (name, content) in files {
        let path = beside.path().join(name);
        let place = path.parent().unwrap_or(beside.path());
        fs::create_dir_all(place).map_err(refused(place))?;
        fs::write(&path, content).map_err(refused(&path))?;
    }
    fs::rename(beside.path(), folder).map_err(refused(folder))?;
    // It is not there any more to be taken away.
    let _ = beside.keep();
    Ok(())
}

/// Writes the same as a tar archive.
pub(crate) fn write_archive(to: impl Write, files: &Files) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).unwrap_or(u64::MAX));
        header.set_mode(0o600);
        header.set_cksum();
        archive.append_data(&mut header, name, content.as_slice())?;
    }
    archive.into_inner()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        [
            (PathBuf::from("a/b.yaml"), b"x: 1\n".to_vec()),
            (PathBuf::from("c.json"), b"{}".to_vec()),
        ]
        .into()
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;

        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("incident");
        write(&folder, &files()).unwrap();
        assert_eq!(fs::read(folder.join("a/b.yaml")).unwrap(), b"x: 1\n");
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_there_stays() {
        let place = tempfile::tempdir().unwrap();
        let error = write(place.path(), &files()).unwrap_err();
        assert!(matches!(error, FolderError::Exists(_)), "{error}");
    }

    #[test]
    fn nothing_is_left_of_what_cannot_be_written_whole() {
        let place = tempfile::tempdir().unwrap();
        let mut files = files();
        // A file cannot be a folder too.
        files.insert(PathBuf::from("c.json/d"), Vec::new());
        let folder = place.path().join("incident");
        assert!(write(&folder, &files).is_err());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_archive_has_the_same_files() {
        let mut bytes = Vec::new();
        write_archive(&mut bytes, &files()).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names = archive.entries().unwrap();
        let names: Vec<PathBuf> = names
            .map(|it| it.unwrap().path().unwrap().into_owned())
            .collect();
        assert_eq!(names, files().into_keys().collect::<Vec<_>>());
    }
}
