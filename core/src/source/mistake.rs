//! A mistake in a document before it has its place: what is wrong, in which field, and what to do.

use super::document::{self, Node};
use super::error::Fault;
use super::path::FieldPath;
use super::typed::{Mistyped, Unknown};

/// A mistake before it has its place.
pub(super) struct Mistake {
    pub(super) fault: Fault,
    pub(super) path: FieldPath,
    pub(super) reason: String,
    pub(super) fix: String,
}

pub(super) fn mistake(fault: Fault, path: &[&str], reason: &str, fix: &str) -> Mistake {
    Mistake {
        fault,
        path: FieldPath::keys(path),
        reason: reason.to_owned(),
        fix: fix.to_owned(),
    }
}

/// The text of a field that every object has.
pub(super) fn required<'n>(node: &'n Node, field: &str, example: &str) -> Result<&'n str, Mistake> {
    node.text(field)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| {
            let fault = if field == "kind" {
                Fault::NotAnObject
            } else {
                Fault::ApiVersion
            };
            mistake(
                fault,
                &[field],
                &format!("the document has no `{field}`"),
                &format!("add `{field}`, for example `{field}: {example}`"),
            )
        })
}

pub(super) fn mistyped(mistyped: Mistyped) -> Mistake {
    let reason = document::one_line(&mistyped.reason);
    let (fault, fix) = match reason.strip_prefix("missing field ") {
        Some(field) => (Fault::MissingField, format!("add {field}")),
        None => (
            Fault::WrongType,
            "write a value of that type; quote what must be text".to_owned(),
        ),
    };
    Mistake {
        fault,
        path: mistyped.path,
        reason,
        fix,
    }
}

pub(super) fn unknown_field(unknown: Unknown) -> Mistake {
    let key = unknown.path.key().unwrap_or_default();
    Mistake {
        fault: Fault::UnknownField,
        reason: format!("there is no field `{key}` here"),
        fix: unknown.did_you_mean.map_or_else(
            || "take it out, or put it where it belongs".to_owned(),
            |meant| format!("did you mean `{meant}`? Field names are case-sensitive"),
        ),
        path: unknown.path,
    }
}
