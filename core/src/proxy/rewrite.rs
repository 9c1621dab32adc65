//! What a route makes of the path and the host before it forwards a request.

use super::path_template::rewrite_parts;
use super::request::{Context, Request, bare};
use super::{Format, PathMatcher, Pattern, ReadError};
use crate::envoy::Fields;

/// How the path changes. The query always stays.
#[derive(Clone, Debug, PartialEq)]
pub enum PathRewrite {
    /// What matched is replaced.
    Prefix(String),
    /// Every match in the path is replaced.
    Regex(Pattern, String),
    /// The path is made from the names of the route's own template.
    Template(String),
    /// The path is made by a format.
    Format(Format),
}

impl PathRewrite {
    /// Reads the rewrites of a `RouteAction` and holds them against the route's matcher.
    pub(super) fn read(
        fields: &Fields<'_>,
        matcher: &PathMatcher,
    ) -> Result<Option<Self>, ReadError> {
        let mut found = Vec::new();
        let prefix = fields.text("prefix_rewrite");
        if !prefix.is_empty() {
            if let PathMatcher::Template(_) | PathMatcher::Other = matcher {
                let reason = "has no effect on a path_match_policy, and Envoy refuses it there";
                return Err(ReadError::new(fields.path_of("prefix_rewrite"), reason));
            }
            found.push(Self::Prefix(prefix));
        }
        if let Some(regex) = fields.message("regex_rewrite") {
            let (pattern, substitution) = read_substitution(&regex)?;
            found.push(Self::Regex(pattern, substitution));
        }
        if fields.has("path_rewrite_policy") {
            found.extend(read_policy(fields, matcher)?);
        }
        if let Some(format) = fields
            .opt_text("path_rewrite")
            .filter(|format| !format.is_empty())
        {
            let field = fields.path_of("path_rewrite");
            found.push(Self::Format(
                Format::parse(&format).map_err(|reason| ReadError::new(field, reason))?,
            ));
        }
        if found.len() > 1 {
            let reason = "more than one of prefix_rewrite, regex_rewrite, path_rewrite_policy and path_rewrite is given; keep one";
            return Err(ReadError::new(fields.path(), reason));
        }
        Ok(found.pop())
    }

    /// The new path of a request. None when it depends on what is not modelled.
    pub(super) fn apply(
        &self,
        request: &Request,
        matcher: &PathMatcher,
        context: &Context,
    ) -> Option<String> {
        let path = request.path.as_str();
        let query = |start: usize| path.get(start..).unwrap_or_default();
        let just_path = bare(path);
        Some(match self {
            Self::Prefix(new) => format!("{new}{}", query(matcher.replaced(path))),
            Self::Regex(pattern, substitution) => {
                format!(
                    "{}{}",
                    pattern.replace_all(just_path, substitution),
                    query(just_path.len())
                )
            }
            Self::Template(rewrite) => match matcher {
                // A rewrite that does not come out leaves the path as it is.
                PathMatcher::Template(template) => {
                    template.rewrite(just_path, rewrite).map_or_else(
                        || path.to_owned(),
                        |new| format!("{new}{}", query(just_path.len())),
                    )
                }
                _ => path.to_owned(),
            },
            Self::Format(format) => format!(
                "{}{}",
                format.text(request, context)?,
                query(just_path.len())
            ),
        })
    }
}

fn read_policy(
    fields: &Fields<'_>,
    matcher: &PathMatcher,
) -> Result<Option<PathRewrite>, ReadError> {
    let Some(policy) = fields.message("path_rewrite_policy") else {
        return Ok(None);
    };
    policy.skip("name");
    let Some(config) = policy.any("typed_config") else {
        return Ok(None);
    };
    if !config.message_name().ends_with(".UriTemplateRewriteConfig") {
        return Ok(None);
    }
    let rewrite = config.text("path_template_rewrite");
    let field = config.path_of("path_template_rewrite");
    let checked = match matcher {
        PathMatcher::Template(template) => template.check_rewrite(&rewrite),
        _ => rewrite_parts(&rewrite).and_then(|_| {
            Err("needs a path_match_policy with a path template in the route's match".to_owned())
        }),
    };
    checked.map_err(|reason| ReadError::new(field, reason))?;
    Ok(Some(PathRewrite::Template(rewrite)))
}

/// Reads a `RegexMatchAndSubstitute`.
pub(super) fn read_substitution(fields: &Fields<'_>) -> Result<(Pattern, String), ReadError> {
    let pattern = match fields.message("pattern") {
        Some(pattern) => Pattern::read(&pattern)?,
        None => return Err(ReadError::new(fields.path_of("pattern"), "is required")),
    };
    Ok((pattern, fields.text("substitution")))
}

/// How the host changes.
#[derive(Clone, Debug, PartialEq)]
pub enum HostRewrite {
    /// To this one.
    Literal(String),
    /// To the value of this header, when it is there.
    Header(String),
    /// To what a regular expression makes of the path.
    PathRegex(Pattern, String),
    /// To what a format gives.
    Format(Format),
    /// To the name of the endpoint that is chosen later.
    Endpoint,
}

impl HostRewrite {
    /// Reads the `host_rewrite_specifier` of a `RouteAction`.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Option<Self>, ReadError> {
        Ok(match fields.which("host_rewrite_specifier").as_deref() {
            Some("host_rewrite_literal") => {
                Some(Self::Literal(fields.text("host_rewrite_literal")))
                    .filter(|it| *it != Self::Literal(String::new()))
            }
            Some("host_rewrite_header") => Some(Self::Header(
                fields.text("host_rewrite_header").to_ascii_lowercase(),
            )),
            Some("host_rewrite_path_regex") => match fields.message("host_rewrite_path_regex") {
                Some(regex) => {
                    let (pattern, substitution) = read_substitution(&regex)?;
                    Some(Self::PathRegex(pattern, substitution))
                }
                None => None,
            },
            Some("host_rewrite") => {
                let field = fields.path_of("host_rewrite");
                let format = Format::parse(&fields.text("host_rewrite"));
                Some(Self::Format(
                    format.map_err(|reason| ReadError::new(field, reason))?,
                ))
            }
            Some("auto_host_rewrite") => fields.flag("auto_host_rewrite").then_some(Self::Endpoint),
            _ => None,
        })
    }

    /// The new host; empty when it stays. None when it depends on what is not modelled.
    pub(super) fn apply(&self, request: &Request, context: &Context) -> Option<String> {
        Some(match self {
            Self::Literal(host) => host.clone(),
            Self::Header(name) => request
                .header(name)
                .first()
                .copied()
                .unwrap_or_default()
                .to_owned(),
            Self::PathRegex(pattern, substitution) => {
                pattern.replace_all(request.bare_path(), substitution)
            }
            // Here alone a value that is absent is written.
            Self::Format(format) => format.text_or(request, context, "-")?,
            Self::Endpoint => String::new(),
        })
    }
}
