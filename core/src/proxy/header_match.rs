//! `HeaderMatcher`: what a header must be, in all its forms.

use std::sync::Arc;

use super::request::Request;
use super::{ReadError, StringMatcher, Why};
use crate::envoy::Fields;

/// How a header that is there more than once is matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RepeatedHeaders {
    /// Each value by itself, as Envoy 1.37 and newer do; one that matches is enough.
    #[default]
    Individually,
    /// All values joined with `,`, as older ones do.
    Concatenated,
}

/// One condition on one header.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatcher {
    name: String,
    form: Form,
    invert: bool,
    missing_is_empty: bool,
    /// The condition as text.
    pub description: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    /// There, or not.
    Present(bool),
    Text(StringMatcher),
    /// A number from the first to before the second.
    Range(i64, i64),
}

impl HeaderMatcher {
    /// Reads an `envoy.config.route.v3.HeaderMatcher`.
    ///
    /// # Errors
    ///
    /// A regular expression that is none.
    pub fn read(fields: &Fields<'_>) -> Result<Self, ReadError> {
        let name = fields.text("name").to_ascii_lowercase();
        let invert = fields.flag("invert_match");
        let missing_is_empty = fields.flag("treat_missing_header_as_empty");
        let form = Self::form(fields)?;
        let how = match &form {
            Form::Present(true) => "to be there".to_owned(),
            Form::Present(false) => "not to be there".to_owned(),
            Form::Text(text) => text.to_string(),
            Form::Range(start, end) => format!("from {start} to below {end}"),
        };
        let description = format!("header {name}{} {how}", if invert { " not" } else { "" }).into();
        Ok(Self {
            name,
            form,
            invert,
            missing_is_empty,
            description,
        })
    }

    fn form(fields: &Fields<'_>) -> Result<Form, ReadError> {
        let text = |of: fn(String, bool) -> StringMatcher, name: &str| {
            Form::Text(of(fields.text(name), false))
        };
        Ok(match fields.which("header_match_specifier").as_deref() {
            Some("exact_match") => match fields.text("exact_match") {
                // Empty means any value.
                empty if empty.is_empty() => Form::Text(StringMatcher::Prefix(empty, false)),
                value => Form::Text(StringMatcher::Exact(value, false)),
            },
            Some("prefix_match") => text(StringMatcher::Prefix, "prefix_match"),
            Some("suffix_match") => text(StringMatcher::Suffix, "suffix_match"),
            Some("contains_match") => text(StringMatcher::Contains, "contains_match"),
            Some("safe_regex_match") => match fields.message("safe_regex_match") {
                Some(regex) => Form::Text(StringMatcher::Regex(super::Pattern::read(&regex)?)),
                None => Form::Text(StringMatcher::Other),
            },
            Some("string_match") => match fields.message("string_match") {
                Some(matcher) => Form::Text(StringMatcher::read(&matcher)?),
                None => Form::Text(StringMatcher::Other),
            },
            Some("range_match") => {
                let range = fields.message("range_match");
                let bound = |name| range.as_ref().map_or(0, |range| range.signed(name));
                Form::Range(bound("start"), bound("end"))
            }
            Some("present_match") => Form::Present(fields.flag("present_match")),
            _ => Form::Present(true),
        })
    }

    /// Whether a request meets the condition.
    #[must_use]
    pub fn matches(&self, request: &Request, repeated: RepeatedHeaders) -> bool {
        self.matches_values(&request.header(&self.name), repeated)
    }

    /// Whether a header with these values meets the condition.
    #[must_use]
    pub fn matches_values(&self, values: &[&str], repeated: RepeatedHeaders) -> bool {
        let there = !values.is_empty() || self.missing_is_empty;
        let one = |value: &str| match &self.form {
            Form::Present(_) => true,
            Form::Text(matcher) => matcher.matches(value),
            Form::Range(start, end) => value
                .trim()
                .parse::<i64>()
                .is_ok_and(|number| (*start..*end).contains(&number)),
        };
        match &self.form {
            Form::Present(wanted) => (there == *wanted) != self.invert,
            // An absent header has no value to compare, inverted or not.
            _ if !there => false,
            // What the extension would say is not known; the field is noted as unread.
            Form::Text(StringMatcher::Other) => true,
            _ if values.is_empty() => one("") != self.invert,
            _ => {
                let met = match repeated {
                    RepeatedHeaders::Individually => values.iter().any(|value| one(value)),
                    RepeatedHeaders::Concatenated => one(&values.join(",")),
                };
                met != self.invert
            }
        }
    }

    /// Why a request does not meet it.
    pub(super) fn why(&self, request: &Request) -> Why {
        let values = request.header(&self.name);
        let found = (!values.is_empty()).then(|| values.join(",").into());
        Why::Header {
            wants: Arc::clone(&self.description),
            found,
        }
    }
}
