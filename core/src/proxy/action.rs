//! What comes of a request: where it goes, or what it is answered.

use std::sync::Arc;
use std::time::Duration;

use super::{Drawn, Lost, Request, ResolvedEdits, Why};

/// The router's whole decision on a request.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteChoice {
    /// The virtual host, when one has the request's host.
    pub virtual_host: Option<VirtualHostTaken>,
    /// The route, when one matches.
    pub route: Option<RouteTaken>,
    /// What happens.
    pub action: Action,
    /// What happens to the response's headers.
    pub response: ResolvedEdits,
    /// Fields that are set on what was taken and whose effects are not modelled; the decision
    /// itself does not hang on them.
    pub not_simulated: Vec<String>,
}

/// The virtual host that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualHostTaken {
    /// Its place in the table.
    pub index: usize,
    /// Its name.
    pub name: Arc<str>,
    /// The domain that matched, as written.
    pub domain: Arc<str>,
    /// How it matched (`longest suffix of the host`).
    pub why: &'static str,
    /// Domains that match too and lost.
    pub lost: Vec<Lost>,
}

/// The route that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTaken {
    /// Its place in the virtual host.
    pub index: usize,
    /// Its name, often empty.
    pub name: Arc<str>,
    /// What it matches (`path_separated_prefix /details`).
    pub description: Arc<str>,
    /// Why it was taken.
    pub why: &'static str,
    /// The routes before it, which do not match.
    pub lost: Vec<Lost>,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It goes to a cluster.
    Forward(Box<Forward>),
    /// It is answered with another place.
    Redirect {
        /// 301, 302, 303, 307 or 308
        status: u16,
        /// The `location` header.
        location: String,
    },
    /// It is answered by Envoy itself.
    Direct {
        /// The status.
        status: u16,
        /// The body.
        body: Arc<[u8]>,
    },
    /// Nothing matches: 404.
    NotFound {
        /// Where the search ended.
        why: Why,
        /// What was examined and lost there.
        lost: Vec<Lost>,
    },
    /// The decision hangs on fields that are not modelled.
    NotSimulated {
        /// Their paths.
        fields: Vec<String>,
    },
}

/// A request on its way to a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// The cluster's name; empty when a `cluster_header` is absent.
    pub cluster: String,
    /// The weighted draw, when there was one.
    pub drawn: Option<Drawn>,
    /// `:authority` after the route's rewrite.
    pub authority: String,
    /// Whether the host becomes the chosen endpoint's name.
    pub host_of_endpoint: bool,
    /// `:path` after the route's rewrite.
    pub path: String,
    /// `:path` as it came, when it was rewritten.
    pub original_path: Option<String>,
    /// The other headers as the cluster gets them from the router.
    pub headers: Vec<(String, String)>,
    /// How long the whole response may take; none for ever.
    pub timeout: Option<Duration>,
    /// The status when there is no such cluster.
    pub cluster_not_found: u16,
    /// What happens to the response's headers then: their values are made of the request as it came.
    pub cluster_not_found_edits: ResolvedEdits,
}

impl Forward {
    /// The request as it goes to the cluster.
    pub(super) fn left(&self, request: &Request) -> Request {
        Request {
            authority: self.authority.clone(),
            path: self.path.clone(),
            headers: self.headers.clone(),
            ..request.clone()
        }
    }
}
