//! The cluster of an Envoy's `config_dump`: one node that serves it, and hosts that answer.
//!
//! Every endpoint is a host of its own, whose program says which endpoint it is. What a name would
//! resolve to is in no dump: every name is the node's address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nodeway_core::backend::Identity;
use nodeway_core::config_dump::{ConfigDump, NODE};
use nodeway_core::object::{Object, Objects, Provenance};
use nodeway_core::plan::{NodePlan, Planner};

use crate::assembly::{Assembly, Options, outside};
use crate::backend::{Backend, Tls};
use crate::names::Names;
use crate::net::{HostSpec, NodeSpec, Place, ServiceTable, Topology};

/// Puts the node of a dump, its endpoints and the hosts outside together.
pub(crate) fn assemble(dump: Arc<ConfigDump>, options: &Options) -> Assembly {
    let clients = outside(&options.outside);
    let own = own_addresses(&dump, &clients);
    let plan = dump.serve(&own, &options.reached);
    let mut objects = Objects::default();
    objects.notes.clone_from(&dump.notes);
    objects.notes.sort();
    objects.insert(
        Object::Node(Arc::new(node(&own))),
        Provenance::Written {
            file: Arc::clone(&dump.file),
            line: 1,
        },
    );
    let topology = topology(&dump, &plan, &own, clients);
    let mut names = Names::of(&objects);
    for host in &topology.outside {
        names.add_outside(&host.name, &host.addresses);
    }
    names.lead_all_to(own);
    let planner = Planner::with_plan(NODE, plan);
    Assembly {
        objects,
        dump: Some(dump),
        planners: [(NODE.to_owned(), planner)].into(),
        ingress_problems: Vec::new(),
        topology,
        services: ServiceTable::default(),
        names,
    }
}

/// The programs behind the endpoints, each with its place.
pub(crate) fn backends(dump: &ConfigDump, topology: &Topology) -> Vec<(Place, Backend)> {
    let mut all = Vec::new();
    for (address, clusters) in dump.endpoints() {
        let host = topology
            .outside
            .iter()
            .find(|host| host.addresses.contains(&address.ip()));
        let place = match host {
            Some(host) => Place::Outside(host.name.clone()),
            None => Place::Node(NODE.to_owned()),
        };
        let looked_up = dump.looked_up.get(&address.ip());
        let identity = Identity {
            service: clusters.join(", "),
            pod: match looked_up {
                Some(name) => format!("endpoint {name}:{}", address.port()),
                None => format!("endpoint {address}"),
            },
            ..Identity::default()
        };
        all.push((
            place,
            Backend::new(identity, vec![address.port()]).with_tls(Some(Tls::default())),
        ));
    }
    all
}

/// An address of each family that nobody in the dump has (RFC 5737, RFC 3849).
fn own_addresses(dump: &ConfigDump, clients: &[HostSpec]) -> Vec<IpAddr> {
    let listens = dump.listens.values().flatten().map(|at| at.ip());
    let endpoints = dump.endpoints().into_keys().map(|at| at.ip());
    let clients = clients
        .iter()
        .flat_map(|host| host.addresses.iter().copied());
    let taken: BTreeSet<IpAddr> = listens.chain(endpoints).chain(clients).collect();
    let v4 = (1..=254).map(|n| IpAddr::V4(Ipv4Addr::new(192, 0, 2, n)));
    let v6 = (1..=254).map(|n| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)));
    let free = |address: &IpAddr| !taken.contains(address);
    let (v4, v6) = (v4.into_iter().find(free), v6.into_iter().find(free));
    v4.into_iter().chain(v6).collect()
}

fn node(own: &[IpAddr]) -> Node {
    let addresses = own.iter().map(|address| NodeAddress {
        address: address.to_string(),
        type_: "InternalIP".to_owned(),
    });
    Node {
        metadata: ObjectMeta {
            name: Some(NODE.to_owned()),
            // As of a recorded one: nothing is derived.
            uid: Some(NODE.to_owned()),
            ..ObjectMeta::default()
        },
        status: Some(NodeStatus {
            addresses: Some(addresses.collect()),
            ..NodeStatus::default()
        }),
        ..Node::default()
    }
}

/// Endpoints on loopback and on the node's or a client's address are where that address is; every
/// other has a host. Addresses at which listeners listen are the node's to take.
fn topology(
    dump: &ConfigDump,
    plan: &NodePlan,
    own: &[IpAddr],
    clients: Vec<HostSpec>,
) -> Topology {
    let here: BTreeSet<IpAddr> = clients
        .iter()
        .flat_map(|host| host.addresses.iter().copied())
        .chain(own.iter().copied())
        .collect();
    let served = |address: &IpAddr| plan.frontends.keys().any(|key| key.address == *address);
    let hosts: BTreeSet<IpAddr> = dump
        .endpoints()
        .into_keys()
        .map(|at| at.ip())
        .filter(|address| !address.is_loopback() && !address.is_unspecified())
        .filter(|address| !here.contains(address) && !served(address))
        .collect();
    let announcements: BTreeMap<IpAddr, String> = plan
        .frontends
        .keys()
        .map(|key| key.address)
        .filter(|address| !address.is_loopback() && !here.contains(address))
        .map(|address| (address, NODE.to_owned()))
        .collect();
    let hosts = hosts.into_iter().map(|address| HostSpec {
        name: address.to_string(),
        addresses: vec![address],
    });
    Topology {
        nodes: vec![NodeSpec {
            name: NODE.to_owned(),
            addresses: own.to_vec(),
            pods: Vec::new(),
        }],
        outside: clients.into_iter().chain(hosts).collect(),
        announcements,
    }
}
