//! One port of a Service as kube-proxy's rules need it, and what its chains are called.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort as Port};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nodeway_datapath::Family;
use sha2::{Digest, Sha256};

use crate::frontend::FrontendKind;
use crate::netfilter::ChainName;
use crate::service;

/// `service.spec.sessionAffinityConfig.clientIP.timeoutSeconds` where it is not said.
const AFFINITY: i32 = 10_800;

/// Why an address leads to a Service from outside of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExternalKind {
    /// `spec.externalIPs`
    ExternalIp,
    /// `status.loadBalancer.ingress`
    LoadBalancer,
}

/// What kube-proxy's comments call such an address.
impl fmt::Display for ExternalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExternalIp => "external IP",
            Self::LoadBalancer => "loadbalancer IP",
        })
    }
}

/// One port of a Service, as rules need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `namespace/name:port`, or `namespace/name` for a port without a name.
    pub name: String,
    /// The Service's own addresses.
    pub cluster: Vec<IpAddr>,
    /// Its LoadBalancer and external addresses.
    pub external: Vec<(IpAddr, ExternalKind)>,
    /// The port at those addresses, host byte order.
    pub port: u16,
    /// The port at every address of a node.
    pub node_port: Option<u16>,
    /// Ready endpoints, and whether each is on this node.
    pub endpoints: Vec<(SocketAddr, bool)>,
    /// `externalTrafficPolicy: Local`: from outside, to this node's endpoints only.
    pub external_local: bool,
    /// `internalTrafficPolicy: Local`
    pub internal_local: bool,
    /// `sessionAffinity: ClientIP`: how long a client stays.
    pub affinity: Option<Duration>,
    /// `loadBalancerSourceRanges`: who may come by a LoadBalancer address. A family of which none
    /// is said is open.
    pub source_ranges: Vec<IpNet>,
}

impl ServicePort {
    /// The TCP ports of a Service on a node.
    #[must_use]
    pub fn of(service: &Service, slices: &[&EndpointSlice], node: &str) -> Vec<Self> {
        let Some(spec) = &service.spec else {
            return Vec::new();
        };
        let reference = service::reference(service);
        let mut cluster = Vec::new();
        let mut external = Vec::new();
        for (key, kind, _) in service::frontends(service, []) {
            match kind {
                FrontendKind::ClusterIp => cluster.push(key.address),
                FrontendKind::LoadBalancer => {
                    external.push((key.address, ExternalKind::LoadBalancer));
                }
                FrontendKind::ExternalIp => external.push((key.address, ExternalKind::ExternalIp)),
                FrontendKind::NodePort => {}
            }
        }
        // Each address stands there once for every port.
        let once = |all: &mut Vec<IpAddr>| {
            all.sort_unstable();
            all.dedup();
        };
        once(&mut cluster);
        external.sort_unstable();
        external.dedup();
        if cluster.is_empty() && external.is_empty() {
            return Vec::new();
        }
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let client = spec.session_affinity_config.as_ref();
            let seconds = client
                .and_then(|it| it.client_ip.as_ref()?.timeout_seconds)
                .unwrap_or(AFFINITY);
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        });
        let said = service::said_ranges(service);
        let ranges: Vec<IpNet> = said.filter_map(|(_, _, range)| range).collect();
        let local = |policy: Option<&str>| policy == Some("Local");
        service::tcp_ports(service)
            .filter_map(|port| {
                Some(Self {
                    name: name(&reference.path(), port),
                    cluster: cluster.clone(),
                    external: external.clone(),
                    port: service::number(port.port)?,
                    node_port: port.node_port.and_then(service::number),
                    endpoints: endpoints(service, slices, port, node),
                    external_local: local(spec.external_traffic_policy.as_deref()),
                    internal_local: local(spec.internal_traffic_policy.as_deref()),
                    affinity,
                    source_ranges: ranges.clone(),
                })
            })
            .collect()
    }

    /// Those of a load balancer, which source ranges guard.
    pub(super) fn balancers(&self) -> impl Iterator<Item = IpAddr> {
        let all = self.external.iter();
        let balancers = all.filter(|(_, kind)| *kind == ExternalKind::LoadBalancer);
        balancers.map(|(address, _)| *address)
    }

    pub(super) fn chain(&self, kind: &str) -> ChainName {
        format!("{kind}-{}", hash(&[&self.name, "tcp"])).into()
    }

    pub(super) fn endpoint_chain(&self, endpoint: SocketAddr) -> ChainName {
        format!(
            "KUBE-SEP-{}",
            hash(&[&self.name, "tcp", &endpoint.to_string()])
        )
        .into()
    }
}

/// A port with what it has of a family.
pub(super) fn of_family(port: &ServicePort, family: Family) -> ServicePort {
    let own = |address: &IpAddr| address.is_ipv4() == (family == Family::V4);
    let (cluster, external) = (port.cluster.iter(), port.external.iter());
    let (endpoints, ranges) = (port.endpoints.iter(), port.source_ranges.iter());
    ServicePort {
        cluster: cluster.copied().filter(own).collect(),
        external: external.copied().filter(|(it, _)| own(it)).collect(),
        endpoints: endpoints.copied().filter(|(it, _)| own(&it.ip())).collect(),
        source_ranges: ranges.copied().filter(|it| own(&it.addr())).collect(),
        ..port.clone()
    }
}

fn name(path: &str, port: &Port) -> String {
    match port.name.as_deref() {
        None | Some("") => path.to_owned(),
        Some(name) => format!("{path}:{name}"),
    }
}

fn endpoints(
    service: &Service,
    slices: &[&EndpointSlice],
    port: &Port,
    node: &str,
) -> Vec<(SocketAddr, bool)> {
    let wanted = port.port.to_string();
    let found = service::endpoints(service, slices.iter().copied(), &wanted);
    found
        .endpoints
        .into_iter()
        .map(|it| (it.address, it.node.as_deref() == Some(node)))
        .collect()
}

/// The first 16 letters of the base32 form of a SHA-256, as kube-proxy names its chains.
fn hash(parts: &[&str]) -> String {
    letters(&Sha256::digest(parts.concat().as_bytes()), 16)
}

/// The first letters, 16 at most, of the base32 form of a digest.
pub(super) fn letters(digest: &[u8], count: usize) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bits = digest
        .iter()
        .take(10)
        .fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    (0..16)
        .rev()
        .take(count)
        .filter_map(|place| {
            let index = usize::try_from(bits >> (5 * place) & 31).ok()?;
            LETTERS.get(index).map(|letter| char::from(*letter))
        })
        .collect()
}
