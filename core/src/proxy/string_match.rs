//! `StringMatcher`: exact, prefix, suffix, contains or a regular expression.

use std::fmt;

use super::{Pattern, ReadError};
use crate::envoy::Fields;

/// What a text must be.
#[derive(Clone, Debug, PartialEq)]
pub enum StringMatcher {
    /// The whole text.
    Exact(String, IgnoreCase),
    /// Its beginning.
    Prefix(String, IgnoreCase),
    /// Its end.
    Suffix(String, IgnoreCase),
    /// Any part of it.
    Contains(String, IgnoreCase),
    /// The whole text, by a regular expression.
    Regex(Pattern),
    /// A matcher of an extension: not modelled, and noted as unread.
    Other,
}

/// Whether letters differ by case.
type IgnoreCase = bool;

impl StringMatcher {
    /// Reads an `envoy.type.matcher.v3.StringMatcher`.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ReadError> {
        let ignore_case = fields.flag("ignore_case");
        Ok(match fields.which("match_pattern").as_deref() {
            Some("exact") => Self::Exact(fields.text("exact"), ignore_case),
            Some("prefix") => Self::Prefix(fields.text("prefix"), ignore_case),
            Some("suffix") => Self::Suffix(fields.text("suffix"), ignore_case),
            Some("contains") => Self::Contains(fields.text("contains"), ignore_case),
            Some("safe_regex") => match fields.message("safe_regex") {
                Some(_) if ignore_case => {
                    let reason =
                        "has no effect on a regular expression, and Envoy refuses it there";
                    return Err(ReadError::new(fields.path_of("ignore_case"), reason));
                }
                Some(regex) => Self::Regex(Pattern::read(&regex)?),
                None => Self::Other,
            },
            _ => Self::Other,
        })
    }

    /// Whether a text is what it must be.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(want, false) => text == want,
            Self::Exact(want, true) => text.eq_ignore_ascii_case(want),
            Self::Prefix(want, ignore) => starts_with(text, want, *ignore),
            Self::Suffix(want, false) => text.ends_with(want.as_str()),
            Self::Suffix(want, true) => text
                .to_ascii_lowercase()
                .ends_with(&want.to_ascii_lowercase()),
            Self::Contains(want, false) => text.contains(want.as_str()),
            Self::Contains(want, true) => text
                .to_ascii_lowercase()
                .contains(&want.to_ascii_lowercase()),
            Self::Regex(pattern) => pattern.matches(text),
            Self::Other => true,
        }
    }
}

/// Whether a text begins with `want`.
pub(super) fn starts_with(text: &str, want: &str, ignore_case: bool) -> bool {
    let head = text.as_bytes().get(..want.len());
    head.is_some_and(|head| {
        if ignore_case {
            head.eq_ignore_ascii_case(want.as_bytes())
        } else {
            head == want.as_bytes()
        }
    })
}

impl fmt::Display for StringMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (how, want, ignore) = match self {
            Self::Exact(want, ignore) => ("exact", want.as_str(), *ignore),
            Self::Prefix(want, ignore) => ("prefix", want.as_str(), *ignore),
            Self::Suffix(want, ignore) => ("suffix", want.as_str(), *ignore),
            Self::Contains(want, ignore) => ("contains", want.as_str(), *ignore),
            Self::Regex(pattern) => ("regex", pattern.source(), false),
            Self::Other => return f.write_str("a matcher of an extension"),
        };
        write!(
            f,
            "{how} `{want}`{}",
            if ignore { " (any case)" } else { "" }
        )
    }
}
