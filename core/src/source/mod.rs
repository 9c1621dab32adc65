//! Text that a user has becomes objects: manifests, Helm output, `kubectl get -o yaml`, as they are.
//!
//! text → [documents](document) → lists unrolled → [what its kind means](kind) → [an object of its
//! type](typed). Every mistake of every file is told at once, with file, line, field and fix.
//! Kinds that cannot change an answer are counted, kinds that could are named: neither is an error.
//! Core does no I/O: whoever calls has read the files.

mod document;
#[cfg(test)]
mod dump_tests;
mod error;
mod fields;
mod helm;
mod kind;
mod known;
mod mistake;
mod names;
mod one;
mod path;
mod reader;
mod rules;
#[cfg(test)]
mod tests;
mod typed;

use std::sync::Arc;

pub use error::{Fault, Place, SourceError};
pub use known::Known;
pub use one::read_one;

use crate::config_dump::{self, ConfigDump};
use crate::object::Objects;
use document::Node;
use reader::{Document, Reader};

/// One text and the name under which a user knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The file as the user named it, `-` for standard input.
    pub name: Arc<str>,
    /// Its content.
    pub content: String,
}

impl Text {
    /// A text under a name.
    pub fn new(name: impl Into<Arc<str>>, content: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            content: content.into(),
        }
    }
}

/// Reads texts into what is known of a cluster: its objects, or of a dump alone what its Envoy has.
///
/// # Errors
///
/// Every mistake of every text, sorted by file and line.
pub fn read_any(texts: &[Text]) -> Result<Known, Vec<SourceError>> {
    match texts {
        [text] if ConfigDump::is_one(&text.content) => {
            let dump = config_dump::read(text).map_err(|error| vec![*error])?;
            Ok(Known::Dump(Arc::new(dump)))
        }
        _ => read(texts).map(Known::from),
    }
}

/// Reads texts into the state of a cluster.
///
/// # Errors
///
/// Every mistake of every text, sorted by file and line. An Envoy's dump is one: it has no objects.
pub fn read(texts: &[Text]) -> Result<Objects, Vec<SourceError>> {
    let mut reader = Reader::default();
    for text in texts {
        if let Some(error) = helm::words_around(text) {
            reader.errors.push(error);
            continue;
        }
        if ConfigDump::is_one(&text.content) {
            reader.errors.push(dump_among(text, texts.len()));
            continue;
        }
        let (documents, errors) = document::documents(text);
        reader.errors.extend(errors);
        for node in documents {
            Document {
                reader: &mut reader,
                file: &text.name,
                base: Vec::new(),
            }
            .read(node);
        }
    }
    reader.finish()
}

/// Reads texts as bare values, a document each, of whatever kind: for who rewrites them.
///
/// # Errors
///
/// Every mistake of syntax, sorted by file and line.
pub fn values(texts: &[Text]) -> Result<Vec<serde_json::Value>, Vec<SourceError>> {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for text in texts {
        if let Some(error) = helm::words_around(text) {
            errors.push(error);
            continue;
        }
        let (documents, mistakes) = document::documents(text);
        values.extend(documents.iter().map(Node::value));
        errors.extend(mistakes);
    }
    errors.sort();
    if errors.is_empty() {
        Ok(values)
    } else {
        Err(errors)
    }
}

/// A dump where objects are read.
fn dump_among(text: &Text, texts: usize) -> SourceError {
    let (reason, fix) = if texts > 1 {
        (
            "Envoy's config_dump stands beside other texts",
            "name the dump alone: it has all that is needed",
        )
    } else {
        (
            "this is Envoy's config_dump, and objects are needed here",
            "name manifests; a dump is for `nodeway explain`",
        )
    };
    SourceError::of_text(text, Place::line(1), reason, fix)
}
