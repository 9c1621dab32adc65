//! kube-proxy's table: what a service address is translated to when no hook redirects it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use nodeway_core::netfilter::kube_proxy::ServicePort;
use nodeway_core::object::ObjectRef;
use nodeway_core::plan::PlannedEndpoint;

/// Service addresses and ports, with what stands behind each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceTable {
    /// What kube-proxy's rules are made of. Which endpoints are a node's own, `entries` say.
    pub ports: Vec<ServicePort>,
    /// What stands behind an address, by name: by address and port as packets carry them: ClusterIP and port, LoadBalancer address and
    /// port, a node's own address and NodePort.
    pub entries: BTreeMap<(IpAddr, u16), ServiceEntry>,
}

impl ServiceTable {
    /// The ports as a node's kube-proxy has them.
    #[must_use]
    pub fn on(&self, node: &str) -> Vec<ServicePort> {
        let all = self.entries.values().flat_map(|entry| &entry.endpoints);
        let here: BTreeSet<SocketAddr> = all
            .filter(|endpoint| endpoint.node.as_deref() == Some(node))
            .map(|endpoint| endpoint.address)
            .collect();
        let mut ports = self.ports.clone();
        for (address, own) in ports.iter_mut().flat_map(|port| &mut port.endpoints) {
            *own = here.contains(address);
        }
        ports
    }
}

/// What stands behind an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// The Service.
    pub service: ObjectRef,
    /// Ready endpoints; when there is none, connections are refused.
    pub endpoints: Vec<PlannedEndpoint>,
}
