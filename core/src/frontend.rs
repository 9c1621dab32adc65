//! A frontend: an address under which packets reach a Service, and where a Service has it from.
//!
//! Services have frontends, plans lead them to listeners: the noun belongs to neither.

mod life;
pub mod state_name;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

pub use life::Life;

/// The address of a service port, as packets carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// ClusterIP, LoadBalancer or external address, or a node's own for a NodePort.
    pub address: IpAddr,
    /// The port in packets: the service's port, or its NodePort.
    pub port: u16,
}

impl From<FrontendKey> for SocketAddr {
    fn from(key: FrontendKey) -> Self {
        Self::new(key.address, key.port)
    }
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

/// Who may come by a frontend: networks of its own family, sorted. Without one nobody may.
pub type Ranges = Arc<[IpNet]>;

/// The ranges of those frontends that have some; all others are open to everybody.
pub type SourceRanges = BTreeMap<FrontendKey, Ranges>;

/// Which of a service's addresses a frontend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// `spec.clusterIPs`
    ClusterIp,
    /// A node's address and `spec.ports[].nodePort`
    NodePort,
    /// `status.loadBalancer.ingress[].ip`
    LoadBalancer,
    /// `spec.externalIPs`
    ExternalIp,
}
