//! Nodes, their addresses and the ranges of their pods, as kubeadm and kind would set them up.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeAddress};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::address::node_addresses;
use crate::object::{Kind, Object, ObjectRef, Objects, Provenance};

use super::pool::{address, first_of};
use super::{DeriveOptions, change_each, is_recorded};

/// The nodes' network, as kind's Docker bridge has it; `.1` is the bridge.
const NODES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(172, 18, 0, 0)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x172, 0x18, 0, 0, 0, 0, 0)),
];

pub(super) fn derive(objects: &mut Objects, options: &DeriveOptions) {
    if objects.nodes().next().is_none() {
        for name in &options.nodes {
            let metadata = ObjectMeta {
                name: Some(name.clone()),
                labels: Some([("kubernetes.io/hostname".to_owned(), name.clone())].into()),
                ..ObjectMeta::default()
            };
            let node = Node {
                metadata,
                ..Node::default()
            };
            let from = ObjectRef::cluster(Kind::Node, name);
            objects.insert(
                Object::Node(Arc::new(node)),
                Provenance::Derived {
                    from,
                    by: "cluster's set-up",
                },
            );
        }
    }
    let mut taken: BTreeSet<IpAddr> = objects
        .nodes()
        .flat_map(|node| node_addresses(node))
        .collect();
    let mut ranges: BTreeSet<String> = objects
        .nodes()
        .flat_map(|node| pod_cidrs(node))
        .map(str::to_owned)
        .collect();
    change_each(
        objects,
        |object| match object {
            Object::Node(node) => Some(node),
            _ => None,
        },
        |node| {
            let mut fields = Vec::new();
            if is_recorded(&node.metadata) {
                return fields;
            }
            if node_addresses(node).next().is_none() {
                let status = node.status.get_or_insert_default();
                let addresses = status.addresses.get_or_insert_default();
                addresses.extend(free_addresses(&mut taken, options.ipv6).map(|address| {
                    NodeAddress {
                        type_: "InternalIP".to_owned(),
                        address: address.to_string(),
                    }
                }));
                fields.push("status.addresses");
            }
            if pod_cidrs(node).next().is_none()
                && let Some(cidrs) = free_ranges(&mut ranges, options.ipv6)
            {
                let spec = node.spec.get_or_insert_default();
                spec.pod_cidr = cidrs.first().cloned();
                spec.pod_cidrs = Some(cidrs);
                fields.extend(["spec.podCIDR", "spec.podCIDRs"]);
            }
            fields
        },
    );
}

/// A node's ranges of pod addresses.
pub(super) fn pod_cidrs(node: &Node) -> impl Iterator<Item = &str> {
    let spec = node.spec.as_ref();
    let all = spec
        .and_then(|spec| spec.pod_cidrs.as_deref())
        .unwrap_or_default();
    let one = spec
        .and_then(|spec| spec.pod_cidr.as_ref())
        .filter(|_| all.is_empty());
    all.iter()
        .chain(one)
        .map(String::as_str)
        .filter(|cidr| first_of(cidr).is_some())
}

/// The next addresses that no node has, with the same host number in both families.
fn free_addresses(
    taken: &mut BTreeSet<IpAddr>,
    ipv6: bool,
) -> impl Iterator<Item = IpAddr> + use<> {
    let families = if ipv6 { 2 } else { 1 };
    let both = |host: u32| {
        NODES
            .into_iter()
            .take(families)
            .map(move |network| address(network, host))
    };
    let host =
        (2..u32::from(u16::MAX)).find(|host| both(*host).all(|address| !taken.contains(&address)));
    let found: Vec<IpAddr> = host.into_iter().flat_map(both).collect();
    taken.extend(&found);
    found.into_iter()
}

/// The next ranges that no node has: `10.244.<i>.0/24` and `fd00:10:244:<i>::/64`. There are as
/// many as fit below 10.255, which is 3,072 nodes.
fn free_ranges(taken: &mut BTreeSet<String>, ipv6: bool) -> Option<Vec<String>> {
    let ranges = |index: u16| {
        let v4 = format!("10.{}.{}.0/24", 244 + index / 256, index % 256);
        let v6 = ipv6.then(|| format!("fd00:10:244:{index:x}::/64"));
        [Some(v4), v6].into_iter().flatten().collect::<Vec<_>>()
    };
    let free = (0..12 * 256)
        .map(ranges)
        .find(|ranges| ranges.iter().all(|range| !taken.contains(range)))?;
    taken.extend(free.iter().cloned());
    Some(free)
}
