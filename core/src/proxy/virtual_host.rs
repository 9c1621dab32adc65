//! A virtual host: domains and routes.

use std::sync::Arc;

use super::request::{Context, Request};
use super::route_action::{check_retry, read_mirrors};
use super::{HeaderEdits, HeaderMatcher, ReadError, Route};
use crate::envoy::{Fields, Unread};

/// A virtual host of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualHost {
    /// Its name.
    pub name: Arc<str>,
    /// Its domains as written.
    pub domains: Vec<Arc<str>>,
    /// Its routes in order.
    pub routes: Vec<Route>,
    /// Which requests must come over TLS.
    pub require_tls: RequireTls,
    virtual_clusters: Vec<VirtualCluster>,
    pub(super) request: HeaderEdits,
    pub(super) response: HeaderEdits,
    /// Fields on which the choice of a route hangs and that are not modelled.
    pub undecided: Vec<String>,
    /// Fields that are set and whose effects, beside the choice, are not modelled.
    pub not_simulated: Vec<String>,
}

/// Which requests must come over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequireTls {
    /// None.
    Never,
    /// Those that are not of the mesh itself.
    External,
    /// All.
    Always,
}

/// A name in statistics for some of a virtual host's requests.
#[derive(Clone, Debug, PartialEq)]
struct VirtualCluster {
    name: Arc<str>,
    headers: Vec<HeaderMatcher>,
}

impl VirtualHost {
    /// Reads an `envoy.config.route.v3.VirtualHost`.
    pub(super) fn read(fields: Fields<'_>, max_body: u32) -> Result<Self, ReadError> {
        let undecided = Unread::default();
        let beside = Unread::default();
        let mut host =
            Self::read_fields(&fields.scoped(&undecided), max_body, &undecided, &beside)?;
        host.undecided = undecided.paths();
        host.not_simulated = beside.paths();
        Ok(host)
    }

    fn read_fields(
        fields: &Fields<'_>,
        max_body: u32,
        undecided: &Unread,
        beside: &Unread,
    ) -> Result<Self, ReadError> {
        check_matcher(fields, undecided)?;
        read_mirrors(fields)?;
        if let Some(retry) = fields.message_into("retry_policy", &Unread::default()) {
            check_retry(&retry)?;
        }
        let elsewhere = [
            "rate_limits",
            "cors",
            "typed_per_filter_config",
            "include_request_attempt_count",
            "include_attempt_count_in_response",
            "retry_policy",
            "retry_policy_typed_config",
            "hedge_policy",
            "include_is_timeout_retry_header",
            "per_request_buffer_limit_bytes",
            "request_body_buffer_limit",
            "request_mirror_policies",
            "metadata",
        ];
        fields.leave_to(&elsewhere, beside);
        let routes = fields.messages("routes").into_iter();
        let virtual_clusters = fields.messages("virtual_clusters");
        Ok(Self {
            name: fields.text("name").into(),
            domains: fields.texts("domains").into_iter().map(Arc::from).collect(),
            routes: routes
                .map(|route| Route::read(route, max_body))
                .collect::<Result<_, _>>()?,
            require_tls: match fields.choice("require_tls").as_str() {
                "ALL" => RequireTls::Always,
                "EXTERNAL_ONLY" => RequireTls::External,
                _ => RequireTls::Never,
            },
            virtual_clusters: virtual_clusters
                .iter()
                .map(VirtualCluster::read)
                .collect::<Result<_, _>>()?,
            request: HeaderEdits::read(fields, "request")?,
            response: HeaderEdits::read(fields, "response")?,
            undecided: Vec::new(),
            not_simulated: Vec::new(),
        })
    }

    /// The name that statistics count a request under: `other` when no virtual cluster has it,
    /// nothing when there are none.
    #[must_use]
    pub fn virtual_cluster(&self, request: &Request, context: &Context) -> Option<&str> {
        let all = |it: &&VirtualCluster| {
            it.headers
                .iter()
                .all(|h| h.matches(request, context.repeated_headers))
        };
        let named = self.virtual_clusters.iter().find(all).map(|it| &*it.name);
        named.or((!self.virtual_clusters.is_empty()).then_some("other"))
    }

    /// Whether a request must come over TLS and does not.
    pub(super) fn needs_tls(&self, request: &Request) -> bool {
        let required = match self.require_tls {
            RequireTls::Never => false,
            RequireTls::External => !request.is_internal(),
            RequireTls::Always => true,
        };
        required && request.forwarded_proto() != "https"
    }
}

impl VirtualCluster {
    fn read(fields: &Fields<'_>) -> Result<Self, ReadError> {
        let headers = fields
            .messages("headers")
            .iter()
            .map(HeaderMatcher::read)
            .collect::<Result<Vec<_>, _>>()?;
        if headers.is_empty() {
            return Err(ReadError::new(
                fields.path_of("headers"),
                "a virtual cluster needs at least one",
            ));
        }
        Ok(Self {
            name: fields.text("name").into(),
            headers,
        })
    }
}

/// A matcher tree is not modelled, but what Envoy refuses about it is.
fn check_matcher(fields: &Fields<'_>, undecided: &Unread) -> Result<(), ReadError> {
    let aside = Unread::default();
    let Some(matcher) = fields.message_into("matcher", &aside) else {
        return Ok(());
    };
    undecided.note(fields.path_of("matcher"));
    if !fields.messages("routes").is_empty() {
        let reason = "stands beside `routes`; a virtual host takes only one of them";
        return Err(ReadError::new(fields.path_of("matcher"), reason));
    }
    if let Some(tree) = matcher.message("matcher_tree") {
        check_input(&tree)?;
    }
    if let Some(list) = matcher.message("matcher_list") {
        for matcher in list.messages("matchers") {
            if let Some(predicate) = matcher.message("predicate")
                && let Some(single) = predicate.message("single_predicate")
            {
                check_input(&single)?;
            }
        }
    }
    Ok(())
}

/// Routes are found by request headers only.
fn check_input(fields: &Fields<'_>) -> Result<(), ReadError> {
    let Some(input) = fields.message("input") else {
        return Ok(());
    };
    input.skip("name");
    let Some(config) = input.any("typed_config") else {
        return Ok(());
    };
    let name = config.message_name();
    if name == "envoy.type.matcher.v3.HttpRequestHeaderMatchInput" {
        config.skip("header_name");
        return Ok(());
    }
    let reason = format!("{name} is no input for routes; they are matched by request headers only");
    Err(ReadError::new(config.path(), reason))
}
