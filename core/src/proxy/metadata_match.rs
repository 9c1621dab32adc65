//! `MetadataMatcher`: what a filter must have said about a request.

use std::sync::Arc;

use serde_json::Value;

use super::{Context, ReadError, StringMatcher, Why};
use crate::envoy::Fields;

/// One condition on dynamic metadata.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MetadataMatcher {
    filter: String,
    path: Vec<String>,
    value: Wanted,
    invert: bool,
    description: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Null,
    Text(StringMatcher),
    Flag(bool),
    Present(bool),
    /// A form that is not modelled: noted as unread.
    Other,
}

impl MetadataMatcher {
    /// Reads an `envoy.type.matcher.v3.MetadataMatcher`.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ReadError> {
        let filter = fields.text("filter");
        let path: Vec<String> = fields
            .messages("path")
            .iter()
            .map(|segment| segment.text("key"))
            .collect();
        let invert = fields.flag("invert");
        let value = match fields.message("value") {
            Some(value) => match value.which("match_pattern").as_deref() {
                Some("null_match") => {
                    value.skip("null_match");
                    Wanted::Null
                }
                Some("string_match") => match value.message("string_match") {
                    Some(text) => Wanted::Text(StringMatcher::read(&text)?),
                    None => Wanted::Other,
                },
                Some("bool_match") => Wanted::Flag(value.flag("bool_match")),
                Some("present_match") => Wanted::Present(value.flag("present_match")),
                _ => Wanted::Other,
            },
            None => Wanted::Other,
        };
        let not = if invert { "not " } else { "" };
        let description = format!("{not}metadata {filter} {}", path.join(".")).into();
        Ok(Self {
            filter,
            path,
            value,
            invert,
            description,
        })
    }

    pub(super) fn matches(&self, context: &Context) -> bool {
        let root = context.metadata.get(&self.filter);
        let found = self.path.iter().fold(root, |value, key| value?.get(key));
        let met = match &self.value {
            Wanted::Null => found.is_some_and(Value::is_null),
            Wanted::Text(matcher) => found
                .and_then(Value::as_str)
                .is_some_and(|text| matcher.matches(text)),
            Wanted::Flag(flag) => found.and_then(Value::as_bool) == Some(*flag),
            Wanted::Present(wanted) => found.is_some() && *wanted,
            Wanted::Other => return true,
        };
        met != self.invert
    }

    pub(super) fn why(&self) -> Why {
        Why::Part {
            wants: Arc::clone(&self.description),
        }
    }
}
