//! A folder of manifests as a cluster: read, completed as controllers would, and read again when
//! something in it changes.
//!
//! A folder is taken as a whole or not at all: while some file cannot be read, the cluster stays as
//! it was, and what is wrong is told. A fixture's folder is one too, with the fixture's nodes.

use std::path::{Path, PathBuf};

use nodeway_core::controllers::Controllers;
use nodeway_core::object::{Change, Objects};
use nodeway_core::problem::Problem;
use nodeway_sim::{LoadErrors, Source};

/// A folder, as it was last read without an error.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    objects: Objects,
    /// What is wrong with its Ingresses.
    pub(super) problems: Vec<Problem>,
}

impl Folder {
    pub(super) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            objects: Objects::default(),
            problems: Vec::new(),
        }
    }

    /// Reads it again. What has changed since it was last read without an error.
    pub(super) fn read(&mut self) -> Result<Vec<Change>, LoadErrors> {
        let source = Source::load(std::slice::from_ref(&self.path), None)?;
        let objects = source.objects()?;
        let controllers = match &source.fixture {
            Some(fixture) => fixture.controllers(),
            None => Controllers::default(),
        };
        let (objects, problems) = controllers.complete(objects);
        let changes = self.objects.changes_to(&objects);
        (self.objects, self.problems) = (objects, problems);
        Ok(changes)
    }

    pub(super) const fn objects(&self) -> &Objects {
        &self.objects
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SERVICE: &str =
        "{apiVersion: v1, kind: Service, metadata: {name: shop}, spec: {ports: [{port: 80}]}}";

    #[test]
    fn an_envoys_dump_that_is_put_there_takes_nothing_away() {
        let place = tempfile::tempdir().unwrap();
        let manifest = place.path().join("shop.yaml");
        fs::write(&manifest, SERVICE).unwrap();
        let mut folder = Folder::at(place.path());
        assert!(!folder.read().unwrap().is_empty());
        fs::remove_file(manifest).unwrap();
        let dump = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../fixtures/dumps/config_dump.json"
        );
        fs::copy(dump, place.path().join("dump.json")).unwrap();
        let errors = folder.read().unwrap_err();
        assert!(
            errors.to_string().contains("objects are needed here"),
            "{errors}"
        );
        assert!(folder.objects().service("default", "shop").is_some());
    }
}
