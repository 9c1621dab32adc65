//! `RedirectAction`: the place that a request is sent to instead.

use super::request::{Context, Request, bare};
use super::rewrite::read_substitution;
use super::{Format, PathMatcher, Pattern, ReadError};
use crate::envoy::Fields;

/// A redirect.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    scheme: Option<String>,
    host: String,
    port: u32,
    path: Option<NewPath>,
    status: u16,
    strip_query: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum NewPath {
    /// The whole path; with a query of its own it also replaces the query.
    Whole(String),
    Prefix(String),
    Regex(Pattern, String),
    Format(Format),
}

impl Redirect {
    /// Reads an `envoy.config.route.v3.RedirectAction`.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ReadError> {
        let scheme = match fields.which("scheme_rewrite_specifier").as_deref() {
            Some("https_redirect") => fields.flag("https_redirect").then(|| "https".to_owned()),
            Some("scheme_redirect") => {
                Some(fields.text("scheme_redirect")).filter(|scheme| !scheme.is_empty())
            }
            _ => None,
        };
        let path = match fields.which("path_rewrite_specifier").as_deref() {
            Some("path_redirect") => Some(NewPath::Whole(fields.text("path_redirect"))),
            Some("prefix_rewrite") => Some(NewPath::Prefix(fields.text("prefix_rewrite"))),
            Some("regex_rewrite") => match fields.message("regex_rewrite") {
                Some(regex) => {
                    let (pattern, substitution) = read_substitution(&regex)?;
                    Some(NewPath::Regex(pattern, substitution))
                }
                None => None,
            },
            Some("path_rewrite") => {
                let field = fields.path_of("path_rewrite");
                let format = Format::parse(&fields.text("path_rewrite"));
                Some(NewPath::Format(
                    format.map_err(|reason| ReadError::new(field, reason))?,
                ))
            }
            _ => None,
        };
        let path = path.filter(
            |path| !matches!(path, NewPath::Whole(text) | NewPath::Prefix(text) if text.is_empty()),
        );
        let status = match fields.choice("response_code").as_str() {
            "FOUND" => 302,
            "SEE_OTHER" => 303,
            "TEMPORARY_REDIRECT" => 307,
            "PERMANENT_REDIRECT" => 308,
            _ => 301,
        };
        Ok(Self {
            scheme,
            host: fields.text("host_redirect"),
            port: fields.number("port_redirect"),
            path,
            status,
            strip_query: fields.flag("strip_query"),
        })
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The place for a request. None when it depends on what is not modelled.
    pub(super) fn location(
        &self,
        request: &Request,
        matcher: &PathMatcher,
        context: &Context,
    ) -> Option<String> {
        let scheme = self.scheme.as_deref().unwrap_or(&request.scheme);
        let port = if self.port == 0 {
            String::new()
        } else {
            format!(":{}", self.port)
        };
        let host = if self.host.is_empty() {
            self.request_host(request, scheme)
        } else {
            &self.host
        };
        let path = self.path(request, matcher, context)?;
        let path = match (&self.path, path.split_once('?')) {
            // A query that the new path brings is not the request's.
            (Some(NewPath::Whole(new)), _) if new.contains('?') => path.as_str(),
            (_, Some((bare, _))) if self.strip_query => bare,
            _ => path.as_str(),
        };
        Some(format!("{scheme}://{host}{port}{path}"))
    }

    /// Leaves a request as the values of the response's headers see it: a path whose prefix or match
    /// is rewritten for the redirect is rewritten there too (`RouteEntryImplBase::rewritePathHeader`).
    pub(super) fn leave(&self, request: &mut Request, matcher: &PathMatcher, context: &Context) {
        if !matches!(self.path, Some(NewPath::Prefix(_) | NewPath::Regex(..))) {
            return;
        }
        if let Some(new) = self.path(request, matcher, context) {
            let old = std::mem::replace(&mut request.path, new);
            request.set("x-envoy-original-path", &old);
        }
    }

    fn path(&self, request: &Request, matcher: &PathMatcher, context: &Context) -> Option<String> {
        let path = request.path.as_str();
        let just_path = bare(path);
        let rest = |start: usize| path.get(start..).unwrap_or_default();
        let new = match &self.path {
            Some(NewPath::Whole(new)) if new.contains('?') => return Some(new.clone()),
            Some(NewPath::Whole(new)) => {
                let query = path.find('?').map_or("", rest);
                format!("{new}{query}")
            }
            Some(NewPath::Prefix(new)) => format!("{new}{}", rest(matcher.replaced(path))),
            Some(NewPath::Regex(pattern, substitution)) => {
                // A rewrite that leaves nothing is no rewrite.
                match pattern.replace_all(just_path, substitution) {
                    new if new.is_empty() => path.to_owned(),
                    new => format!("{new}{}", rest(just_path.len())),
                }
            }
            Some(NewPath::Format(format)) => format!(
                "{}{}",
                format.text(request, context)?,
                rest(just_path.len())
            ),
            None => path.to_owned(),
        };
        Some(new)
    }

    /// The request's host, without a port that no longer fits.
    fn request_host<'a>(&self, request: &'a Request, scheme: &str) -> &'a str {
        let host = request.authority.as_str();
        let end = if host.starts_with('[') {
            host.rfind("]:").map(|at| at + 1)
        } else {
            host.rfind(':')
        };
        let Some((name, port)) = end.and_then(|end| host.split_at_checked(end)) else {
            return host;
        };
        let proto = request.forwarded_proto();
        let default =
            scheme != proto && matches!((proto, port), ("https", ":443") | ("http", ":80"));
        if self.port != 0 || default {
            name
        } else {
            host
        }
    }
}
