//! Recordings as sources: the folder that `nodeway record` writes, one a node.

use std::path::{Path, PathBuf};

use nodeway_core::recording::{HEADER, Recording};
use nodeway_core::source::Text;

use super::{LoadError, LoadErrors, MAX_DEPTH, file, shown};

/// Whether a path is the folder of a recording.
pub(super) fn is_one(path: &Path) -> bool {
    path.join(HEADER).is_file()
}

/// Reads recordings: of one node each, of as many nodes as there are paths.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Recording>, LoadErrors> {
    let mut all: Vec<Recording> = Vec::new();
    for path in paths {
        if !is_one(path) {
            let reason = format!("it is no recording: it has no {HEADER}");
            let fix = "name recordings alone, one of each node";
            return Err(LoadError::io(path, &reason, fix).into());
        }
        let texts = texts(path)?;
        let recording = Recording::read(&shown(path), &texts)
            .map_err(|errors| LoadErrors::of(errors, texts.clone()))?;
        let node = &recording.header.node;
        if let Some(other) = all.iter().find(|it| it.header.node == *node) {
            let reason = format!("it is of node {node}, and so is {}", other.name);
            return Err(LoadError::io(path, &reason, "name one recording of each node").into());
        }
        let redirect = recording.header.redirect;
        if let Some(other) = all.iter().find(|it| it.header.redirect != redirect) {
            let (its, name) = (other.header.redirect, &other.name);
            let reason = format!("it is led by {redirect}, and {name} by {its}");
            let fix = "replay recordings of one cluster together, which is led in one way";
            return Err(LoadError::io(path, &reason, fix).into());
        }
        all.push(recording);
    }
    Ok(all)
}

/// All texts of a recording's folder.
fn texts(folder: &Path) -> Result<Vec<Text>, LoadError> {
    let mut files = Vec::new();
    walk(folder, 0, &mut files)?;
    files.iter().map(|path| file(path)).collect()
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    if depth > MAX_DEPTH {
        let reason = format!("folders are nested more than {MAX_DEPTH} deep");
        let fix = "look for a link that leads back";
        return Err(LoadError::io(folder, &reason, fix));
    }
    for path in super::entries(folder)? {
        let is_read = path
            .extension()
            .is_some_and(|end| ["yaml", "json", "jsonl"].iter().any(|known| end == *known));
        if path.is_dir() {
            walk(&path, depth + 1, files)?;
        } else if is_read {
            files.push(path);
        }
    }
    Ok(())
}
