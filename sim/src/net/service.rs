//! kube-proxy's table: what a service address is translated to when no hook redirects it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use nodeway_core::object::ObjectRef;
use nodeway_core::plan::PlannedEndpoint;

/// Service addresses and ports, with what stands behind each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceTable {
    /// By address and port as packets carry them: ClusterIP and port, LoadBalancer address and
    /// port, a node's own address and NodePort.
    pub entries: BTreeMap<(IpAddr, u16), ServiceEntry>,
}

/// What stands behind an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// The Service.
    pub service: ObjectRef,
    /// Ready endpoints; when there is none, connections are refused.
    pub endpoints: Vec<PlannedEndpoint>,
    /// Whether this is an address for the outside (NodePort, LoadBalancer, external): what does
    /// not come from a pod gets the node's address as its source, so that replies come back here.
    pub external: bool,
    /// `sessionAffinity: ClientIP`: how long a client stays with its endpoint.
    pub affinity: Option<Duration>,
}
