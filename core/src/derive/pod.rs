//! A pod's node, addresses and readiness, as the scheduler, the CNI and the kubelet would set them.
//!
//! Pods go to nodes in turn, in the order of names. A pod's address is a number within its node's
//! range, the same in both families.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, PodIP, PodSpec, PodStatus, Taint};

use crate::address::{node_addresses, pod_addresses};
use crate::object::{Object, Objects, namespace_of};
use crate::selector::has_all;

use super::node::pod_cidrs;
use super::pool::{Pool, address, first_of, offset};
use super::{DeriveOptions, change_each, is_recorded, name_of};

/// Hosts of a `/24` without its network, its gateway and its broadcast address.
const HOSTS: (u32, u32) = (2, 253);

pub(super) fn derive(objects: &mut Objects, options: &DeriveOptions) {
    let nodes: Vec<Arc<Node>> = objects.nodes().map(Arc::clone).collect();
    let mut cni = Cni::new(objects, options);
    let mut turn = 0;
    change_each(
        objects,
        |object| match object {
            Object::Pod(pod) => Some(pod),
            _ => None,
        },
        |pod| {
            let mut fields = Vec::new();
            // A pod with a phase has met a kubelet: if it is Pending, it stays so.
            let settled = pod
                .status
                .as_ref()
                .is_some_and(|status| status.phase.is_some());
            if is_recorded(&pod.metadata) || settled {
                return fields;
            }
            if schedule(pod, &nodes, &mut turn) {
                fields.push("spec.nodeName");
            }
            fields.extend(start(pod, &nodes, &mut cni));
            fields
        },
    );
}

/// Gives a pod a node, unless it has one or none takes it. True if it got one.
fn schedule(pod: &mut Pod, nodes: &[Arc<Node>], turn: &mut usize) -> bool {
    let spec = pod.spec.get_or_insert_default();
    if spec
        .node_name
        .as_deref()
        .is_some_and(|name| !name.is_empty())
    {
        return false;
    }
    let fitting: Vec<&Arc<Node>> = nodes.iter().filter(|node| fits(spec, node)).collect();
    let Some(node) = turn
        .checked_rem(fitting.len())
        .and_then(|index| fitting.get(index))
    else {
        return false;
    };
    *turn += 1;
    spec.node_name.clone_from(&node.metadata.name);
    true
}

fn fits(spec: &PodSpec, node: &Node) -> bool {
    let of_node = node.spec.as_ref();
    let closed = of_node.and_then(|spec| spec.unschedulable).unwrap_or(false);
    let mut taints = of_node.iter().flat_map(|spec| spec.taints.iter().flatten());
    let repelled =
        taints.any(|taint| taint.effect != "PreferNoSchedule" && !tolerates(spec, taint));
    let selected = spec
        .node_selector
        .as_ref()
        .is_none_or(|wanted| has_all(wanted, node.metadata.labels.as_ref()));
    !closed && !repelled && selected
}

/// A toleration without a key tolerates every taint, one without an effect every effect
/// (Kubernetes, "Taints and Tolerations").
fn tolerates(spec: &PodSpec, taint: &Taint) -> bool {
    spec.tolerations.iter().flatten().any(|toleration| {
        let effect = toleration
            .effect
            .as_deref()
            .is_none_or(|effect| effect.is_empty() || effect == taint.effect);
        let key = toleration.key.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        let value = exists
            || toleration.value.as_deref().unwrap_or_default()
                == taint.value.as_deref().unwrap_or_default();
        effect && value && (key == taint.key || (key.is_empty() && exists))
    })
}

/// Gives a pod that has a node its addresses, and says that it runs and is ready.
fn start(pod: &mut Pod, nodes: &[Arc<Node>], cni: &mut Cni) -> Vec<&'static str> {
    let mut fields = vec!["status.phase"];
    let spec = pod.spec.as_ref();
    let name = spec.and_then(|spec| spec.node_name.clone());
    let node = nodes
        .iter()
        .find(|node| node.metadata.name == name && name.is_some());
    let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let key = format!("{}/{}", namespace_of(&pod.metadata), name_of(&pod.metadata));
    let status = pod.status.get_or_insert_default();
    let host_ips: Vec<IpAddr> = node
        .into_iter()
        .flat_map(|node| node_addresses(node))
        .collect();

    if status.pod_ip.is_none() && status.pod_ips.is_none() {
        let ips = match (node, host_network) {
            (Some(_), true) => host_ips.clone(),
            (Some(node), false) => cni.addresses(name_of(&node.metadata), &key),
            (None, _) => Vec::new(),
        };
        if ips.is_empty() {
            pend(status, node.is_some());
            return fields;
        }
        status.pod_ip = ips.first().map(IpAddr::to_string);
        status.pod_ips = Some(ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect());
        fields.extend(["status.podIP", "status.podIPs"]);
    }
    if status.host_ip.is_none()
        && let Some(ip) = host_ips.first()
    {
        status.host_ip = Some(ip.to_string());
        fields.push("status.hostIP");
    }
    status.phase = Some("Running".to_owned());
    if status.conditions.is_none() {
        status.conditions = Some(vec![condition("Ready", "True", None)]);
        fields.push("status.conditions");
    }
    fields
}

fn pend(status: &mut PodStatus, has_node: bool) {
    status.phase = Some("Pending".to_owned());
    let (type_, reason) = if has_node {
        (
            "PodReadyToStartContainers",
            "no address is left in the node's range",
        )
    } else {
        ("PodScheduled", "no node takes the pod")
    };
    status
        .conditions
        .get_or_insert_default()
        .push(condition(type_, "False", Some(reason)));
}

fn condition(type_: &str, status: &str, message: Option<&str>) -> PodCondition {
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        message: message.map(str::to_owned),
        ..PodCondition::default()
    }
}

/// What hands out pod addresses: a pool of host numbers for each node.
struct Cni {
    nodes: BTreeMap<String, (Vec<IpAddr>, Pool)>,
}

impl Cni {
    fn new(objects: &Objects, options: &DeriveOptions) -> Self {
        let mut nodes: BTreeMap<String, (Vec<IpAddr>, Pool)> = objects
            .nodes()
            .map(|node| {
                let networks = pod_cidrs(node).filter_map(first_of);
                let networks = networks
                    .filter(|network| options.ipv6 || network.is_ipv4())
                    .collect();
                (
                    name_of(&node.metadata).to_owned(),
                    (networks, Pool::new(HOSTS.0, HOSTS.1)),
                )
            })
            .collect();
        for pod in objects.pods() {
            for ip in pod_addresses(pod) {
                for (networks, pool) in nodes.values_mut() {
                    let hosts = networks.iter().filter_map(|network| offset(*network, ip));
                    hosts.for_each(|host| pool.take(host));
                }
            }
        }
        Self { nodes }
    }

    fn addresses(&mut self, node: &str, pod: &str) -> Vec<IpAddr> {
        let Some((networks, pool)) = self.nodes.get_mut(node) else {
            return Vec::new();
        };
        let Some(host) = pool.draw(pod) else {
            return Vec::new();
        };
        networks
            .iter()
            .map(|network| address(*network, host))
            .collect()
    }
}
