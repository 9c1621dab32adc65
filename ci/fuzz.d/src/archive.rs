//! Zips that somebody else packed.

use std::fs;

use nodeway_sim::{LoadError, Source};

/// A zip is read as a source, or refused with the place in it, the reason and a fix; what is read names the zip.
pub(crate) fn archive(bytes: &[u8]) {
    let Ok(folder) = tempfile::tempdir() else {
        return;
    };
    let path = folder.path().join("dump.zip");
    if fs::write(&path, bytes).is_err() {
        return;
    }
    let Err(refused) = Source::load(&[path], None) else {
        return;
    };
    assert!(
        !refused.errors.is_empty(),
        "what is refused is refused for a reason"
    );
    for error in refused.errors {
        let (place, reason, fix) = match error {
            LoadError::Path { path, reason, fix } => (path, reason, fix),
            LoadError::Text(error) => (error.file.to_string(), error.reason, error.fix),
        };
        assert!(place.contains("dump.zip"), "{place} is not in the zip");
        assert!(
            !reason.is_empty() && !fix.is_empty(),
            "{place}: {reason}: {fix}"
        );
    }
}
