//! `RouteMatch`: everything that must hold for a route to be taken.

use std::sync::Arc;

use super::metadata_match::MetadataMatcher;
use super::request::{Context, Request};
use super::{HeaderMatcher, PathMatcher, QueryMatcher, ReadError, Why};
use crate::envoy::{Fields, Unread};

/// A route's conditions. All must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteMatch {
    /// The condition on the path.
    pub path: PathMatcher,
    pub(super) case_sensitive: bool,
    pub(super) headers: Vec<HeaderMatcher>,
    /// Query parameters and cookies.
    pub(super) parts: Vec<QueryMatcher>,
    pub(super) grpc: bool,
    pub(super) draw: Option<Draw>,
    pub(super) metadata: Vec<MetadataMatcher>,
    pub(super) filter_state: bool,
    /// The path's condition as text.
    pub description: Arc<str>,
    /// Conditions that are not modelled.
    pub not_simulated: Vec<String>,
}

/// `runtime_fraction`: the share of requests that a route takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Draw {
    numerator: u32,
    denominator: u32,
}

impl RouteMatch {
    /// Reads the `match` of a route.
    pub(super) fn read(route: &Fields<'_>) -> Result<Self, ReadError> {
        let unread = Unread::default();
        let mut read = match route.message_into("match", &unread) {
            Some(fields) => Self::read_fields(&fields)?,
            None => return Err(ReadError::new(route.path_of("match"), "is required")),
        };
        read.not_simulated = unread.paths();
        Ok(read)
    }

    fn read_fields(fields: &Fields<'_>) -> Result<Self, ReadError> {
        let path = PathMatcher::read(fields)?;
        let all = |name: &str, read: fn(&Fields<'_>) -> Result<QueryMatcher, ReadError>| {
            fields
                .messages(name)
                .iter()
                .map(read)
                .collect::<Result<Vec<_>, _>>()
        };
        let mut parts = all("query_parameters", QueryMatcher::read)?;
        parts.extend(all("cookies", QueryMatcher::read_cookie)?);
        let headers = fields
            .messages("headers")
            .iter()
            .map(HeaderMatcher::read)
            .collect::<Result<Vec<_>, _>>()?;
        let metadata = fields.messages("dynamic_metadata");
        let metadata = metadata
            .iter()
            .map(MetadataMatcher::read)
            .collect::<Result<_, _>>()?;
        let case_sensitive = fields.opt_flag("case_sensitive").unwrap_or(true);
        let description = describe(&path, case_sensitive, &headers);
        Ok(Self {
            path,
            case_sensitive,
            headers,
            parts,
            grpc: fields.has("grpc"),
            draw: fields
                .message("runtime_fraction")
                .map(|fraction| Draw::read(&fraction)),
            metadata,
            filter_state: fields.has("filter_state"),
            description,
            not_simulated: Vec::new(),
        })
    }

    /// Whether a request meets every condition that is modelled. `path` is its path without query,
    /// shared by all reasons.
    ///
    /// # Errors
    ///
    /// The first condition that it does not meet.
    pub(super) fn check(
        &self,
        request: &Request,
        path: &Arc<str>,
        context: &Context,
        ignore_parameters: bool,
    ) -> Result<(), Why> {
        if !self
            .path
            .matches(request, self.case_sensitive, ignore_parameters)
        {
            return Err(match request.opt_path() {
                Some(_) => Why::Path {
                    path: Arc::clone(path),
                    wants: Arc::clone(&self.description),
                },
                None => Why::Stated("a CONNECT without a path only goes to a connect_matcher"),
            });
        }
        if let Some(draw) = &self.draw {
            draw.check(request)?;
        }
        if self.grpc && !is_grpc(request) {
            return Err(Why::Stated(
                "takes only gRPC, and the content type is another one",
            ));
        }
        if let Some(header) = self
            .headers
            .iter()
            .find(|it| !it.matches(request, context.repeated_headers))
        {
            return Err(header.why(request));
        }
        if let Some(part) = self.parts.iter().find(|it| !it.matches(request)) {
            return Err(part.why());
        }
        if let Some(metadata) = self.metadata.iter().find(|it| !it.matches(context)) {
            return Err(metadata.why());
        }
        if self.filter_state {
            // Absent state matches nothing, and none of the modelled filters sets any.
            return Err(Why::Stated("wants filter state, and no filter sets any"));
        }
        Ok(())
    }
}

fn describe(path: &PathMatcher, case_sensitive: bool, headers: &[HeaderMatcher]) -> Arc<str> {
    let mut text = path.to_string();
    if !case_sensitive {
        text.push_str(" (any case)");
    }
    for header in headers {
        text.push_str(" and ");
        text.push_str(&header.description);
    }
    text.into()
}

/// `application/grpc`, alone or with `+proto` and the like.
fn is_grpc(request: &Request) -> bool {
    let values = request.header("content-type");
    let rest = values
        .first()
        .and_then(|value| value.strip_prefix("application/grpc"));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
}

impl Draw {
    fn read(fields: &Fields<'_>) -> Self {
        // No runtime layer of a node's Envoy sets any key: the route's own share counts.
        fields.skip("runtime_key");
        let Some(value) = fields.message("default_value") else {
            return Self {
                numerator: 0,
                denominator: 100,
            };
        };
        let denominator = match value.choice("denominator").as_str() {
            "TEN_THOUSAND" => 10_000,
            "MILLION" => 1_000_000,
            _ => 100,
        };
        Self {
            numerator: value.number("numerator"),
            denominator,
        }
    }

    fn check(&self, request: &Request) -> Result<(), Why> {
        let share = self.numerator;
        let drawn = request.random;
        if drawn % u64::from(self.denominator) < u64::from(share) {
            return Ok(());
        }
        Err(Why::Draw {
            share,
            of: self.denominator,
            drawn,
        })
    }
}
