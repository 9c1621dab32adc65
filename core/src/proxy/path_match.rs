//! What a route wants of the path.

use std::borrow::Cow;
use std::fmt;

use super::request::{Request, bare};
use super::string_match::starts_with;
use super::{PathTemplate, Pattern, ReadError};
use crate::envoy::Fields;

/// A path whose segments have lost what follows a `;` in them.
fn without_parameters(path: &str) -> Cow<'_, str> {
    if !path.contains(';') {
        return Cow::Borrowed(path);
    }
    let segments = path.split('/').map(|it| it.split(';').next().unwrap_or(it));
    Cow::Owned(segments.collect::<Vec<_>>().join("/"))
}

/// A route's condition on the path. Query and fragment never take part.
#[derive(Clone, Debug, PartialEq)]
pub enum PathMatcher {
    /// `prefix`, any text
    Prefix(String),
    /// `path`, the whole
    Exact(String),
    /// `path_separated_prefix`, whole segments
    SeparatedPrefix(String),
    /// `safe_regex`, the whole
    Regex(Pattern),
    /// `connect_matcher`: a CONNECT, whatever its path
    Connect,
    /// `path_match_policy` with a URI template
    Template(PathTemplate),
    /// A policy of another extension: not modelled, and noted as unread.
    Other,
}

impl PathMatcher {
    /// Reads the `path_specifier` of an `envoy.config.route.v3.RouteMatch`.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ReadError> {
        Ok(match fields.which("path_specifier").as_deref() {
            Some("prefix") => Self::Prefix(fields.text("prefix")),
            Some("path") => Self::Exact(fields.text("path")),
            Some("path_separated_prefix") => {
                Self::SeparatedPrefix(fields.text("path_separated_prefix"))
            }
            Some("safe_regex") => match fields.message("safe_regex") {
                Some(regex) => Self::Regex(Pattern::read(&regex)?),
                None => Self::Other,
            },
            Some("connect_matcher") => {
                fields.skip("connect_matcher");
                Self::Connect
            }
            Some("path_match_policy") => match fields.message("path_match_policy") {
                Some(policy) => Self::read_policy(&policy)?,
                None => Self::Other,
            },
            _ => {
                let field = fields.path_of("path_specifier");
                return Err(ReadError::new(
                    field,
                    "a route needs a path, a prefix or a regular expression",
                ));
            }
        })
    }

    fn read_policy(policy: &Fields<'_>) -> Result<Self, ReadError> {
        policy.skip("name");
        let Some(config) = policy.any("typed_config") else {
            return Ok(Self::Other);
        };
        if !config.message_name().ends_with(".UriTemplateMatchConfig") {
            return Ok(Self::Other);
        }
        let template = PathTemplate::new(&config.text("path_template"));
        template
            .map(Self::Template)
            .map_err(|reason| ReadError::new(config.path_of("path_template"), reason))
    }

    /// Whether a request's path matches; with `ignore_parameters`, without the
    /// parameters of its segments.
    #[must_use]
    pub fn matches(
        &self,
        request: &Request,
        case_sensitive: bool,
        ignore_parameters: bool,
    ) -> bool {
        let Some(path) = request.opt_path() else {
            return *self == Self::Connect;
        };
        let path = if ignore_parameters {
            without_parameters(bare(path))
        } else {
            Cow::Borrowed(bare(path))
        };
        let path = path.as_ref();
        match self {
            Self::Prefix(prefix) => starts_with(path, prefix, !case_sensitive),
            Self::Exact(want) if case_sensitive => path == want,
            Self::Exact(want) => path.eq_ignore_ascii_case(want),
            Self::SeparatedPrefix(prefix) => {
                starts_with(path, prefix, !case_sensitive)
                    && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
            }
            Self::Regex(pattern) => pattern.matches(path),
            Self::Connect => request.method == "CONNECT",
            Self::Template(template) => template.matches(request.bare_path()),
            Self::Other => true,
        }
    }

    /// How many bytes of the path a prefix rewrite replaces.
    pub(super) fn replaced(&self, path: &str) -> usize {
        match self {
            Self::Prefix(prefix) | Self::SeparatedPrefix(prefix) => prefix.len(),
            Self::Exact(want) => want.len(),
            Self::Regex(_) | Self::Connect | Self::Template(_) | Self::Other => bare(path).len(),
        }
    }
}

impl fmt::Display for PathMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => write!(f, "prefix {prefix}"),
            Self::Exact(path) => write!(f, "path {path}"),
            Self::SeparatedPrefix(prefix) => write!(f, "path_separated_prefix {prefix}"),
            Self::Regex(pattern) => write!(f, "safe_regex {}", pattern.source()),
            Self::Connect => f.write_str("connect_matcher"),
            Self::Template(template) => write!(f, "path template {}", template.source()),
            Self::Other => f.write_str("path_match_policy"),
        }
    }
}
