//! `QueryParameterMatcher` and `CookieMatcher`: what a parameter or a cookie must be.

use std::sync::Arc;

use super::request::Request;
use super::{ReadError, StringMatcher, Why};
use crate::envoy::Fields;

/// One condition on one query parameter or cookie.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryMatcher {
    place: Place,
    name: String,
    /// None: to be there is enough.
    text: Option<StringMatcher>,
    invert: bool,
    description: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Query,
    Cookie,
}

impl QueryMatcher {
    /// Reads an `envoy.config.route.v3.QueryParameterMatcher`.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ReadError> {
        // To be absent is to be there, inverted.
        let absent = fields.opt_flag("present_match") == Some(false);
        Self::read_at(fields, Place::Query, absent)
    }

    /// Reads an `envoy.config.route.v3.CookieMatcher`.
    pub(super) fn read_cookie(fields: &Fields<'_>) -> Result<Self, ReadError> {
        Self::read_at(fields, Place::Cookie, fields.flag("invert_match"))
    }

    fn read_at(fields: &Fields<'_>, place: Place, invert: bool) -> Result<Self, ReadError> {
        let name = fields.text("name");
        let text = fields
            .message("string_match")
            .map(|matcher| StringMatcher::read(&matcher))
            .transpose()?;
        let what = if place == Place::Query {
            "query parameter"
        } else {
            "cookie"
        };
        let how = text
            .as_ref()
            .map_or_else(|| "to be there".to_owned(), ToString::to_string);
        let not = if invert { " not" } else { "" };
        let description = format!("{what} {name}{not} {how}").into();
        Ok(Self {
            place,
            name,
            text,
            invert,
            description,
        })
    }

    /// Whether a request meets the condition. Of a repeated parameter, the first counts.
    #[must_use]
    pub fn matches(&self, request: &Request) -> bool {
        let found = match self.place {
            Place::Query => request
                .parameters()
                .find(|(key, _)| *key == self.name)
                .map(|(_, value)| value),
            Place::Cookie => request.cookie(&self.name),
        };
        let met =
            found.is_some_and(|value| self.text.as_ref().is_none_or(|text| text.matches(value)));
        // An absent cookie meets an inverted condition: Envoy inverts the whole.
        met != self.invert || matches!(self.text, Some(StringMatcher::Other))
    }

    /// Why a request does not meet it.
    pub(super) fn why(&self) -> Why {
        Why::Part {
            wants: Arc::clone(&self.description),
        }
    }
}
