//! What is wrong with a text, and where: enough for a renderer to show the line itself.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::Text;

/// The kind of a mistake in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The text is no YAML and no JSON.
    Syntax,
    /// The text is nested too deeply, or grows out of proportion when its aliases are expanded.
    Budget,
    /// A document is no mapping with a `kind`, or an object has no name.
    NotAnObject,
    /// `apiVersion` is missing, or is one that no cluster serves any more.
    ApiVersion,
    /// A name that Kubernetes would refuse.
    BadName,
    /// A value of the wrong type.
    WrongType,
    /// A field that does not exist.
    UnknownField,
    /// A field that must be there is not.
    MissingField,
    /// A port outside of 1 to 65535.
    BadPort,
    /// Two documents of one kind, namespace and name.
    Duplicate,
}

/// A place in a text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// 1-based line.
    pub line: u32,
    /// 1-based column; 0 when only the line is known.
    pub column: u32,
    /// Byte range in the text, when known: what a renderer underlines.
    pub span: Option<(usize, usize)>,
}

impl Place {
    /// A whole line.
    pub(crate) fn line(line: u32) -> Self {
        Self {
            line,
            ..Self::default()
        }
    }

    /// The byte range as a range.
    #[must_use]
    pub fn range(&self) -> Option<Range<usize>> {
        self.span.map(|(start, end)| start..end)
    }
}

/// One mistake in one text. Sorted by file and line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct SourceError {
    /// The file as the user named it, `-` for standard input.
    pub file: Arc<str>,
    /// Where in it.
    pub place: Place,
    /// The kind of mistake.
    pub fault: Fault,
    /// The object (`Ingress default/basic-ingress`), as far as it is known.
    pub object: Option<String>,
    /// The field's path in the object (`spec.rules[0].host`); empty for the object as a whole.
    pub field: String,
    /// What is wrong, in one sentence without a full stop.
    pub reason: String,
    /// What to do, as an imperative sentence without a full stop.
    pub fix: String,
    /// The other place that matters (the first of two duplicates): file and line.
    pub other: Option<(Arc<str>, u32)>,
}

impl SourceError {
    /// What is wrong with a text that has no object there.
    pub(super) fn of_text(text: &Text, place: Place, reason: &str, fix: &str) -> Self {
        Self {
            file: Arc::clone(&text.name),
            place,
            fault: Fault::NotAnObject,
            object: None,
            field: String::new(),
            reason: reason.to_owned(),
            fix: fix.to_owned(),
            other: None,
        }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.place.line)?;
        if self.place.column > 0 {
            write!(f, ":{}", self.place.column)?;
        }
        f.write_str(": ")?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.reason, self.fix)
    }
}
