//! Objects become a cluster that can run: what controllers add, a plan for each node, machines.
//!
//! objects → [`Controllers::complete`] → one [`Planner`] per node → topology, kube-proxy's table.
//! Everything here is data; nothing runs yet.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use nodeway_core::address::{node_port_addresses, pod_addresses};
use nodeway_core::config_dump::ConfigDump;
use nodeway_core::controllers::Controllers;
use nodeway_core::netfilter::kube_proxy::ServicePort;
use nodeway_core::object::{Kind, ObjectRef, Objects};
use nodeway_core::plan::{FIRST_PORT, FrontendKind, LAST_PORT, Ledger, Planner};
use nodeway_core::problem::Problem;
use nodeway_core::service;
use nodeway_core::source::Known;

use crate::dumped;
use crate::names::Names;
use crate::net::{HostSpec, NodeSpec, PodSpec, ServiceEntry, ServiceTable, Topology};

/// How a cluster is put together from its objects.
#[derive(Clone, Debug)]
pub struct Options {
    /// How operator and controllers complete the objects.
    pub controllers: Controllers,
    /// Names of the hosts outside.
    pub outside: Vec<String>,
    /// More of them, whose addresses are known: who was seen to ask, and stands in no object.
    pub strangers: Vec<IpAddr>,
    /// The first and the last port that listeners get.
    pub ports: (u16, u16),
    /// Addresses that clients ask for and that stand nowhere else: of an Envoy's dump, where a
    /// listener takes connections to every address.
    pub reached: Vec<IpAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            controllers: Controllers::default(),
            outside: vec!["outside".to_owned()],
            strangers: Vec::new(),
            ports: (FIRST_PORT, LAST_PORT),
            reached: Vec::new(),
        }
    }
}

/// A cluster, ready to run.
pub(crate) struct Assembly {
    pub(crate) objects: Objects,
    /// The dump that it was made of: its only object is the node that serves it then.
    pub(crate) dump: Option<Arc<ConfigDump>>,
    pub(crate) planners: BTreeMap<String, Planner>,
    /// What is wrong with the Ingresses; the planners know the rest.
    pub(crate) ingress_problems: Vec<Problem>,
    pub(crate) topology: Topology,
    pub(crate) services: ServiceTable,
    pub(crate) names: Names,
}

impl Assembly {
    pub(crate) fn of(known: Known, options: &Options) -> Self {
        match known {
            Known::Objects(objects) => Self::of_objects(Arc::unwrap_or_clone(objects), options),
            Known::Dump(dump) => dumped::assemble(dump, options),
        }
    }

    fn of_objects(objects: Objects, options: &Options) -> Self {
        let (objects, ingress_problems) = options.controllers.complete(objects);
        let (first, last) = options.ports;
        let planners = objects
            .nodes()
            .filter_map(|node| node.metadata.name.clone())
            .map(|node| {
                let planner =
                    Planner::with_objects(&objects, &node, Ledger::with_range(first, last));
                (node, planner)
            })
            .collect();
        let mut outside = outside(&options.outside);
        let known: Vec<IpAddr> = outside.iter().flat_map(|it| it.addresses.clone()).collect();
        let strangers = options.strangers.iter().filter(|it| !known.contains(it));
        outside.extend(strangers.map(|address| HostSpec {
            name: address.to_string(),
            addresses: vec![*address],
        }));
        let mut names = Names::of(&objects);
        for host in &outside {
            names.add_outside(&host.name, &host.addresses);
        }
        let topology = topology(&objects, outside);
        let services = services(&objects);
        Self {
            objects,
            dump: None,
            planners,
            ingress_problems,
            topology,
            services,
            names,
        }
    }
}

/// Hosts outside get addresses of the documentation ranges (RFC 5737, RFC 3849) in order.
pub(crate) fn outside(names: &[String]) -> Vec<HostSpec> {
    names
        .iter()
        .zip(1u8..=250)
        .map(|(name, n)| HostSpec {
            name: name.clone(),
            addresses: vec![
                IpAddr::V4(Ipv4Addr::new(203, 0, 113, n)),
                IpAddr::V6(Ipv6Addr::new(
                    0x2001,
                    0xdb8,
                    0xffff,
                    0,
                    0,
                    0,
                    0,
                    u16::from(n),
                )),
            ],
        })
        .collect()
}

fn topology(objects: &Objects, outside: Vec<HostSpec>) -> Topology {
    let nodes: Vec<NodeSpec> = objects
        .nodes()
        .map(|node| {
            let name = node.metadata.name.clone().unwrap_or_default();
            let addresses = node_port_addresses(node).collect();
            NodeSpec {
                addresses,
                pods: pods_on(objects, &name),
                name,
            }
        })
        .collect();
    // One node answers for a LoadBalancer address, as with layer-2 announcements: the first by name.
    let announcer = nodes
        .first()
        .map(|node| node.name.clone())
        .unwrap_or_default();
    let announcements = objects
        .services()
        .flat_map(|one| service::frontends(one, []))
        .filter(|(_, kind, _)| {
            matches!(kind, FrontendKind::LoadBalancer | FrontendKind::ExternalIp)
        })
        .map(|(key, _, _)| (key.address, announcer.clone()))
        .collect();
    Topology {
        nodes,
        outside,
        announcements,
    }
}

fn pods_on(objects: &Objects, node: &str) -> Vec<PodSpec> {
    let here = objects
        .pods()
        .filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node));
    here.map(|pod| PodSpec {
        name: ObjectRef::of(Kind::Pod, &pod.metadata).path(),
        addresses: pod_addresses(pod).collect(),
        host_network: pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true),
    })
    .collect()
}

/// kube-proxy's table: every address and port of every Service, with the ready endpoints behind it.
pub(crate) fn services(objects: &Objects) -> ServiceTable {
    let mut table = ServiceTable::default();
    for one in objects.services() {
        let reference = service::reference(one);
        let slices: Vec<_> = objects
            .endpoint_slices()
            .filter(|slice| service::of_slice(slice).as_ref() == Some(&reference))
            .collect();
        let slices: Vec<&EndpointSlice> = slices.iter().map(|slice| slice.as_ref()).collect();
        // Which endpoints are a node's own is found by their addresses.
        table.ports.extend(ServicePort::of(one, &slices, ""));
        for (key, _, port) in service::frontends(one, objects.nodes().map(AsRef::as_ref)) {
            let planned = service::endpoints(one, slices.iter().copied(), &port.to_string());
            let same_family = |address: IpAddr| address.is_ipv6() == key.address.is_ipv6();
            let endpoints = planned
                .endpoints
                .into_iter()
                .filter(|endpoint| same_family(endpoint.address.ip()))
                .collect();
            let entry = ServiceEntry {
                service: reference.clone(),
                endpoints,
            };
            table.entries.insert((key.address, key.port), entry);
        }
    }
    table
}
