//! A text that is one document of a type of the caller's own: a fixture, not an object.

use serde::Deserialize;

use super::document::{self, Node, Tree};
use super::error::{Fault, Place, SourceError};
use super::mistake::{mistake, mistyped, unknown_field};
use super::reader::{Document, Reader};
use super::{Text, typed};

/// Reads a text of one document as a type of the caller's own, as strictly as an object.
///
/// # Errors
///
/// Every mistake, sorted by line: syntax, wrong types, fields that the type does not have.
pub fn read_one<T>(text: &Text) -> Result<T, Vec<SourceError>>
where
    T: for<'de> Deserialize<'de>,
{
    let (documents, errors) = document::documents(text);
    let mut reader = Reader::default();
    reader.errors.extend(errors);
    let mut documents = documents.into_iter();
    let mut document = Document {
        reader: &mut reader,
        file: &text.name,
        base: Vec::new(),
    };
    let read = documents
        .next()
        .and_then(|node| as_type(&node, &mut document));
    let second = documents.next().map(|node| node.place().clone());
    if let Some(place) = second {
        let fix = "take it out: this file has one";
        reader
            .errors
            .push(SourceError::of_text(text, place, "a second document", fix));
    } else if read.is_none() && reader.errors.is_empty() {
        let place = Place::line(1);
        reader.errors.push(SourceError::of_text(
            text,
            place,
            "the file is empty",
            "write its fields",
        ));
    }
    reader.errors.sort();
    match read {
        Some(read) if reader.errors.is_empty() => Ok(read),
        _ => Err(reader.errors),
    }
}

/// A document as that type; what is wrong with it is reported.
fn as_type<T>(node: &Node, document: &mut Document<'_>) -> Option<T>
where
    T: for<'de> Deserialize<'de>,
{
    if !matches!(node.tree, Tree::Map(_)) {
        let reason = "this is no mapping of fields";
        let fix = "write `field: value`, one a line";
        document.report_untitled(node, mistake(Fault::WrongType, &[], reason, fix));
        return None;
    }
    let (read, unknown) = match typed::read_as(node.value()) {
        Ok((read, unknown)) => (Ok(read), unknown),
        Err(mut wrong) => {
            let unknown = std::mem::take(&mut wrong.unknown);
            (Err(wrong), unknown)
        }
    };
    for unknown in unknown {
        document.report_untitled(node, unknown_field(unknown));
    }
    read.map_err(|wrong| document.report_untitled(node, mistyped(wrong)))
        .ok()
}
