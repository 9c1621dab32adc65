//! The addresses of machines: those of a node, and those of a pod.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, Pod};

/// A node's addresses inside the cluster.
pub fn node_addresses(node: &Node) -> impl Iterator<Item = IpAddr> + '_ {
    addresses_of(node, "InternalIP")
}

/// The addresses at which a node answers for node ports: those of its `status`, internal ones
/// first.
///
/// kube-proxy answers at every local address of the node (`--nodeport-addresses` says nothing by
/// default), also at those that the kernel has and the Node object has not; here they are not known.
/// Loopback stays out: kube-proxy's iptables form answers there over IPv4 alone, and only by
/// `route_localnet`, which lets others on the link reach what listens on loopback (CVE-2020-8558);
/// its nftables form does not at all.
pub fn node_port_addresses(node: &Node) -> impl Iterator<Item = IpAddr> + '_ {
    let mut seen = BTreeSet::new();
    addresses_of(node, "InternalIP")
        .chain(addresses_of(node, "ExternalIP"))
        .filter(move |address| !address.is_loopback() && seen.insert(*address))
}

fn addresses_of<'a>(node: &'a Node, kind: &'static str) -> impl Iterator<Item = IpAddr> + 'a {
    let addresses = node
        .status
        .as_ref()
        .and_then(|status| status.addresses.as_deref())
        .unwrap_or_default();
    addresses
        .iter()
        .filter(move |address| address.type_ == kind)
        .filter_map(|address| address.address.parse().ok())
}

/// A pod's addresses of both families: `status.podIPs`, or `status.podIP` alone.
pub fn pod_addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> + '_ {
    let status = pod.status.as_ref();
    let all = status
        .and_then(|status| status.pod_ips.as_deref())
        .unwrap_or_default();
    let one = status
        .and_then(|status| status.pod_ip.as_ref())
        .filter(|_| all.is_empty());
    all.iter()
        .map(|ip| &ip.ip)
        .chain(one)
        .filter_map(|ip| ip.parse().ok())
}
