//! A route: what it matches and what it does.

use std::sync::Arc;

use super::{HeaderEdits, ReadError, RouteAction, RouteMatch};
use crate::envoy::{Fields, Unread};

/// A route of a virtual host.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name, often empty.
    pub name: Arc<str>,
    /// What a request must be.
    pub matches: RouteMatch,
    /// What is done with it.
    pub action: RouteAction,
    pub(super) request: HeaderEdits,
    pub(super) response: HeaderEdits,
    /// Fields on which the route's action hangs and that are not modelled.
    pub undecided: Vec<String>,
    /// Fields that are set and whose effects, beside the choice, are not modelled.
    pub not_simulated: Vec<String>,
}

impl Route {
    /// Reads an `envoy.config.route.v3.Route`.
    pub(super) fn read(fields: Fields<'_>, max_body: u32) -> Result<Self, ReadError> {
        let undecided = Unread::default();
        let beside = Unread::default();
        let mut route = Self::read_fields(&fields.scoped(&undecided), max_body, &beside)?;
        route.undecided = undecided.paths();
        route.not_simulated = beside.paths();
        Ok(route)
    }

    fn read_fields(fields: &Fields<'_>, max_body: u32, beside: &Unread) -> Result<Self, ReadError> {
        fields.skip("stat_prefix");
        let elsewhere = [
            "metadata",
            "decorator",
            "typed_per_filter_config",
            "tracing",
            "per_request_buffer_limit_bytes",
            "request_body_buffer_limit",
        ];
        fields.leave_to(&elsewhere, beside);
        let matches = RouteMatch::read(fields)?;
        let action = RouteAction::read(fields, &matches.path, max_body, beside)?;
        Ok(Self {
            name: fields.text("name").into(),
            matches,
            action,
            request: HeaderEdits::read(fields, "request")?,
            response: HeaderEdits::read(fields, "response")?,
            undecided: Vec::new(),
            not_simulated: Vec::new(),
        })
    }
}
