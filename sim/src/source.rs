//! Where objects come from: files, folders, a fixture's folder, a sysdump, a recording, standard input.
//! The only I/O here.

mod archive;
mod recording;
mod sysdump;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use nodeway_core::object::Objects;
use nodeway_core::recording::Recording;
use nodeway_core::source::{self, Known, SourceError, Text};

use crate::fixture::{Fixture, What};

/// What a fixture's folder has.
const FIXTURE: &str = "fixture.yaml";

/// Deeper than any tree of manifests; a link that leads back to its own folder ends here.
const MAX_DEPTH: usize = 32;

/// Texts that a user named, and the fixture when it was one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// As the user named it: for messages, and for the command that replays a run.
    pub name: String,
    /// The fixture, when the one path is a fixture's folder or its `fixture.yaml`.
    pub fixture: Option<Fixture>,
    /// The texts with objects; of a fixture those of its manifests, of recordings those of the newest.
    pub texts: Vec<Text>,
    /// The recordings, when the paths are some: one of each node, the newest last.
    pub recordings: Vec<Recording>,
}

impl Source {
    /// Reads what the paths name: files as they are, folders and zips with everything in them that
    /// ends in `.yaml`, `.yml` or `.json` (of a `cilium sysdump`, what holds objects), `-` for
    /// standard input, whose content is given.
    ///
    /// # Errors
    ///
    /// Every path that cannot be read, and what is wrong with a `fixture.yaml`.
    pub fn load(paths: &[PathBuf], stdin: Option<String>) -> Result<Self, LoadErrors> {
        let names: Vec<String> = paths.iter().map(|path| shown(path)).collect();
        let name = names.join(" ");
        if let [path] = paths
            && let Some(folder) = fixture_folder(path)
        {
            let fixture = fixture(folder)?;
            return Ok(Self {
                name,
                texts: fixture.manifests.clone(),
                fixture: Some(fixture),
                recordings: Vec::new(),
            });
        }
        if paths.iter().any(|path| recording::is_one(path)) {
            return Self::recorded(name, paths);
        }
        let mut stdin = stdin;
        let mut texts = Vec::new();
        let mut errors = named_twice(paths);
        for path in paths {
            if !errors.is_empty() && errors.iter().any(|error| error.is_of(path)) {
                continue;
            }
            let read = if path.as_os_str() == "-" {
                match stdin.take() {
                    Some(content) => Ok(vec![Text::new("-", content)]),
                    None => Err(LoadError::io(
                        path,
                        "standard input was read already",
                        "name `-` once",
                    )),
                }
            } else {
                read(path)
            };
            match read {
                Ok(found) => texts.extend(found),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Ok(Self {
                name,
                fixture: None,
                texts,
                recordings: Vec::new(),
            })
        } else {
            Err(LoadErrors { errors, texts })
        }
    }

    fn recorded(name: String, paths: &[PathBuf]) -> Result<Self, LoadErrors> {
        let mut recordings = recording::read(paths)?;
        // Times in UTC, written alike.
        recordings.sort_by(|one, other| one.header.at.cmp(&other.header.at));
        let newest = recordings.last();
        Ok(Self {
            name,
            fixture: None,
            texts: newest.map(|it| it.manifests.clone()).unwrap_or_default(),
            recordings,
        })
    }

    /// What it says of a cluster: objects, or what an Envoy has.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn known(&self) -> Result<Known, LoadErrors> {
        source::read_any(&self.texts).map_err(|errors| LoadErrors::of(errors, self.texts.clone()))
    }

    /// The objects in it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them, and that it is an Envoy's dump.
    pub fn objects(&self) -> Result<Objects, LoadErrors> {
        objects(&self.texts)
    }
}

/// The objects of some texts.
pub(crate) fn objects(texts: &[Text]) -> Result<Objects, LoadErrors> {
    source::read(texts).map_err(|errors| LoadErrors::of(errors, texts.to_vec()))
}

/// A fixture's folder, also when its `fixture.yaml` is named.
fn fixture_folder(path: &Path) -> Option<&Path> {
    if path.join(FIXTURE).is_file() {
        return Some(path);
    }
    let named = path.file_name().is_some_and(|name| name == FIXTURE) && path.is_file();
    let parent = path.parent().filter(|_| named)?;
    Some(if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    })
}

/// Reads a fixture's folder.
pub(crate) fn fixture(folder: &Path) -> Result<Fixture, LoadErrors> {
    fs::metadata(folder).map_err(|error| LoadError::of_io(folder, &error))?;
    if !folder.join(FIXTURE).is_file() {
        return Err(LoadError::io(
            folder,
            "it is no fixture: it has no fixture.yaml",
            "name a folder with `fixture.yaml` and `manifests/`; for manifests alone use `nodeway explain`",
        )
        .into());
    }
    let text = file(&folder.join(FIXTURE))?;
    let mut fixture: Fixture =
        source::read_one(&text).map_err(|errors| LoadErrors::of(errors, vec![text.clone()]))?;
    fixture.manifests = read(&beside(folder, &fixture.manifests_folder))?;
    for spec in &mut fixture.faults {
        if let What::Apply {
            file: name,
            objects,
        } = &mut spec.what
        {
            let text = file(&folder.join(&name))?;
            let read = source::read(std::slice::from_ref(&text));
            let read = read.map_err(|errors| LoadErrors::of(errors, vec![text]))?;
            objects.extend(read.iter().map(|(_, entry)| entry.object.clone()));
        }
    }
    fixture.folder = folder.to_owned();
    Ok(fixture)
}

/// A path as seen from a folder, without the steps up that cancel steps down: it is printed.
fn beside(folder: &Path, path: &Path) -> PathBuf {
    let mut at = folder.to_owned();
    for step in path.components() {
        let up = step == Component::ParentDir;
        let named = matches!(at.components().next_back(), Some(Component::Normal(_)));
        if !(up && named && at.pop()) {
            at.push(step);
        }
    }
    at
}

/// A file, or every manifest in a folder.
fn read(path: &Path) -> Result<Vec<Text>, LoadError> {
    if !path.is_dir() {
        return if archive::is_zip(path) {
            archive::read(path)
        } else {
            Ok(vec![file(path)?])
        };
    }
    let mut files = Vec::new();
    walk(path, 0, &mut files)?;
    let files = sysdump::only_objects(files);
    if files.is_empty() {
        return Err(LoadError::io(
            path,
            "no file in this folder ends in .yaml, .yml or .json",
            "name a folder with manifests",
        ));
    }
    files.iter().map(|path| file(path)).collect()
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    if depth > MAX_DEPTH {
        let reason = format!("folders are nested more than {MAX_DEPTH} deep");
        return Err(LoadError::io(
            folder,
            &reason,
            "look for a link that leads back",
        ));
    }
    for path in entries(folder)? {
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            walk(&path, depth + 1, files)?;
        } else if is_manifest(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// What is in a folder, sorted: its own order is the file system's, and a run must not depend on it.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |error| LoadError::of_io(folder, &error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Whether a file's name ends as a manifest's does.
fn is_manifest(path: &Path) -> bool {
    path.extension()
        .is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known))
}

/// Paths that name what another names too: read twice, each object in them would clash with itself.
fn named_twice(paths: &[PathBuf]) -> Vec<LoadError> {
    let mut seen: BTreeMap<PathBuf, &Path> = BTreeMap::new();
    let mut errors = Vec::new();
    // What cannot be found is told when it is read.
    let real = paths
        .iter()
        .filter(|path| path.as_os_str() != "-")
        .filter_map(|path| Some((path.as_path(), path.canonicalize().ok()?)));
    let mut real: Vec<(&Path, PathBuf)> = real.collect();
    real.sort_by_key(|(_, at)| at.components().count());
    for (path, at) in real {
        let holder = at
            .ancestors()
            .find_map(|above| Some((above, *seen.get(above)?)));
        if let Some((above, first)) = holder {
            let reason = if above == at {
                "it is named twice".to_owned()
            } else {
                format!("it is in {}, which is named too", shown(first))
            };
            errors.push(LoadError::io(path, &reason, "name it once"));
        } else {
            seen.insert(at, path);
        }
    }
    errors
}

fn file(path: &Path) -> Result<Text, LoadError> {
    let content = fs::read_to_string(path).map_err(|error| LoadError::of_io(path, &error))?;
    Ok(Text::new(shown(path), content))
}

/// A path as it is printed, the same on every system.
fn shown(path: &Path) -> String {
    path.display().to_string().replace('\\', "/")
}

/// Why a source cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// A path cannot be read.
    Path {
        /// The path.
        path: String,
        /// What is wrong, without a full stop.
        reason: String,
        /// What to do, without a full stop.
        fix: String,
    },
    /// A text is wrong.
    Text(Box<SourceError>),
}

impl LoadError {
    fn io(path: &Path, reason: &str, fix: &str) -> Self {
        Self::Path {
            path: shown(path),
            reason: reason.to_owned(),
            fix: fix.to_owned(),
        }
    }

    /// Whether it is about that very path.
    fn is_of(&self, of: &Path) -> bool {
        matches!(self, Self::Path { path, .. } if *path == shown(of))
    }

    fn of_io(path: &Path, error: &io::Error) -> Self {
        let (reason, fix) = match error.kind() {
            io::ErrorKind::NotFound => ("there is no such file or folder", "check the path"),
            io::ErrorKind::PermissionDenied => (
                "reading it is not allowed",
                "give yourself the right to read it",
            ),
            io::ErrorKind::InvalidData => ("it is no UTF-8 text", "name a text file"),
            _ => {
                let reason = error.to_string();
                return Self::io(path, &reason, "check the path");
            }
        };
        Self::io(path, reason, fix)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { path, reason, fix } => write!(f, "{path}: {reason}; {fix}"),
            Self::Text(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

/// Everything that is wrong with a source, a line each, and the texts that the errors point into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadErrors {
    /// What is wrong.
    pub errors: Vec<LoadError>,
    /// The texts, for who shows the lines themselves.
    pub texts: Vec<Text>,
}

impl LoadErrors {
    fn of(errors: Vec<SourceError>, texts: Vec<Text>) -> Self {
        Self {
            errors: errors
                .into_iter()
                .map(|error| LoadError::Text(Box::new(error)))
                .collect(),
            texts,
        }
    }
}

impl From<LoadError> for LoadErrors {
    fn from(error: LoadError) -> Self {
        Self {
            errors: vec![error],
            texts: Vec::new(),
        }
    }
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadErrors {}

#[cfg(test)]
mod tests;
