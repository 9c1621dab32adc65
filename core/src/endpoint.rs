//! An endpoint: a pod's address behind a Service's port, and the set of those behind one name.
//!
//! Services have endpoints, plans hand them to Envoy: the noun belongs to neither.

use std::net::SocketAddr;

use crate::object::ObjectRef;

/// The endpoints of one EDS service name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedEndpoints {
    /// The Service they come from; none for a ClusterLoadAssignment written in a config.
    pub service: Option<ObjectRef>,
    /// Ready endpoints, sorted by address.
    pub endpoints: Vec<PlannedEndpoint>,
    /// Endpoints left out, with the reason (`not ready`, `terminating`).
    pub left_out: Vec<(SocketAddr, &'static str)>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlannedEndpoint {
    /// The pod's address and the target port.
    pub address: SocketAddr,
    /// The pod, when the slice names it.
    pub pod: Option<ObjectRef>,
    /// The node it runs on, when the slice names it.
    pub node: Option<String>,
}
