//! What a proxy counts.

use std::collections::BTreeMap;

/// What a proxy did so far, and what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections accepted.
    pub connections: u64,
    /// Connections closed because no filter chain takes them.
    pub no_filter_chain: u64,
    /// Connections closed because the TLS handshake failed.
    pub handshakes_failed: u64,
    /// Requests begun.
    pub requests: u64,
    /// Responses begun, by status; the proxy's own among them.
    pub responses: BTreeMap<u16, u64>,
    /// Responses that the proxy gave by itself.
    pub own_responses: u64,
    /// Upstream connections begun.
    pub upstream_connects: u64,
    /// Requests sent on a connection that had been kept.
    pub upstream_reuses: u64,
    /// Requests sent again because a kept connection turned out closed.
    pub retries: u64,
    /// Downstream connections that stand.
    pub downstream_active: u64,
    /// Upstream connections that stand or begin.
    pub upstream_active: u64,
}
