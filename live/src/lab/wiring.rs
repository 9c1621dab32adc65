//! The cables of a lab, as the commands that lay them: which namespace gets which devices,
//! addresses, routes and sysctls.
//!
//! ```text
//!  pod        eth0 ── veth1 ┐
//!  pod        eth0 ── veth2 ┤ node   uplink ── port1 ┐
//!                                                    ├ fabric: a route for each address, and
//!  host outside               uplink ───────── port2 ┘ silence for all others
//! ```
//!
//! Every link is one of two ends, `fe80::1` towards the fabric and `fe80::2` away from it, and
//! every route goes by these, those of IPv4 too (RFC 5549): nobody needs an address or a neighbour
//! that is not in the fixture. A node's routes carry the node's address as source.
//!
//! The fabric routes as the simulator's does: an announced address goes to the node that announces
//! it, and does not come back when that node leaves it alone.

use std::fmt::Write as _;
use std::net::IpAddr;

use nodeway_sim::{NodeSpec, Place, Topology};

use super::name::LabName;

/// The end of a link that is nearer to the fabric.
const UPPER: &str = "fe80::1";
/// The other end.
const LOWER: &str = "fe80::2";

/// One namespace and what is done in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// The namespace's name.
    pub namespace: String,
    /// Whose it is; none for the fabric's.
    pub place: Option<Place>,
    /// Files below `/proc/sys/net` and their values.
    pub sysctls: Vec<(&'static str, &'static str)>,
    /// Lines for `ip -batch`: devices and addresses.
    pub links: String,
    /// Then lines for `ip -4 -batch`: routes.
    pub v4: String,
    /// Then lines for `ip -6 -batch`.
    pub v6: String,
}

/// Every namespace of a lab, in the order in which they are wired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// The fabric first, then nodes, then pods and hosts outside.
    pub spaces: Vec<Space>,
}

/// What every namespace has: IPv6, with addresses that are usable at once.
const EVERYWHERE: [(&str, &str); 6] = [
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/autoconf", "0"),
];

/// What a machine that forwards has. Whether a source is plausible is not asked: another setting is
/// for whoever tries it.
const FORWARDING: [(&str, &str); 6] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
];

/// What a machine with clients has: a SYN that nobody answers is given up after three seconds.
const CLIENTS: [(&str, &str); 2] = [
    ("ipv4/tcp_syn_retries", "2"),
    ("ipv4/tcp_syn_linear_timeouts", "4"),
];

impl Wiring {
    /// How the machines of a topology are wired in that lab.
    #[must_use]
    pub fn of(topology: &Topology, lab: &LabName) -> Self {
        let mut spaces = vec![fabric(topology, lab)];
        spaces.extend(topology.nodes.iter().map(|node| of_node(node, lab)));
        for node in &topology.nodes {
            for pod in node.pods.iter().filter(|pod| !pod.host_network) {
                let place = Place::Pod(pod.name.clone());
                spaces.push(leaf(place, "eth0", &pod.addresses, lab));
            }
        }
        for host in &topology.outside {
            let place = Place::Outside(host.name.clone());
            spaces.push(leaf(place, "uplink", &host.addresses, lab));
        }
        Self { spaces }
    }

    /// The names of all namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.spaces.iter().map(|space| space.namespace.as_str())
    }
}

/// The fabric: a port for each node and each host outside, a route for each address behind it.
fn fabric(topology: &Topology, lab: &LabName) -> Space {
    let mut commands = Commands::begin();
    let nodes = topology.nodes.iter().map(|node| {
        let pods = node.pods.iter().filter(|pod| !pod.host_network);
        let pods = pods.flat_map(|pod| pod.addresses.iter().copied());
        let announced = topology.announcements.iter();
        let announced: Vec<IpAddr> = announced
            .filter(|(_, by)| **by == node.name)
            .map(|(address, _)| *address)
            .collect();
        let own = node.addresses.iter().copied().chain(pods);
        (Place::Node(node.name.clone()), own.collect(), announced)
    });
    let hosts = topology.outside.iter().map(|host| {
        let place = Place::Outside(host.name.clone());
        (place, host.addresses.clone(), Vec::new())
    });
    for (number, (place, own, announced)) in (1..).zip(nodes.chain(hosts)) {
        let port = format!("port{number}");
        let there = lab.namespace(&place);
        commands.link(&port, UPPER, "uplink", &there);
        commands.alias(&port, &place.to_string());
        let own: Vec<IpAddr> = own;
        for address in own.iter().chain(&announced) {
            commands.route(&whole(*address), LOWER, &port, None);
        }
        for address in &announced {
            let to = whole(*address);
            commands.line_of(*address, &format!("rule add iif {port} to {to} blackhole"));
        }
    }
    // Silence, as on a network where nobody has the address.
    for lines in [&mut commands.v4, &mut commands.v6] {
        put(lines, "route add blackhole default");
    }
    let sysctls = EVERYWHERE.into_iter().chain(FORWARDING);
    commands.of(lab.fabric(), None, sysctls.collect())
}

/// A node: the way to each of its pods, and the fabric for everything else.
fn of_node(node: &NodeSpec, lab: &LabName) -> Space {
    let place = Place::Node(node.name.clone());
    let namespace = lab.namespace(&place);
    let mut commands = Commands::begin();
    commands.end("uplink", &node.addresses, &node.addresses);
    for (number, pod) in (1..).zip(node.pods.iter().filter(|pod| !pod.host_network)) {
        let veth = veth(number);
        let there = lab.namespace(&Place::Pod(pod.name.clone()));
        commands.link(&veth, UPPER, "eth0", &there);
        commands.alias(&veth, &pod.name);
        for address in &pod.addresses {
            let source = first_of_family(&node.addresses, *address);
            commands.route(&whole(*address), LOWER, &veth, source);
        }
    }
    let sysctls = EVERYWHERE.into_iter().chain(FORWARDING).chain(CLIENTS);
    commands.of(namespace, Some(place), sysctls.collect())
}

/// The devices of a node at which packets of pods and from outside come in.
#[must_use]
pub fn devices(node: &NodeSpec) -> Vec<String> {
    let pods = node.pods.iter().filter(|pod| !pod.host_network);
    let veths = (1..).zip(pods).map(|(number, _)| veth(number));
    std::iter::once("uplink".to_owned()).chain(veths).collect()
}

fn veth(number: usize) -> String {
    format!("veth{number}")
}

/// A pod or a host outside: one device, and everything goes through it.
fn leaf(place: Place, device: &str, addresses: &[IpAddr], lab: &LabName) -> Space {
    let mut commands = Commands::begin();
    commands.end(device, addresses, addresses);
    let sysctls = EVERYWHERE.into_iter().chain(CLIENTS);
    commands.of(lab.namespace(&place), Some(place), sysctls.collect())
}

/// Lines for `ip -batch`, by family where it cannot tell that itself.
#[derive(Default)]
struct Commands {
    links: String,
    v4: String,
    v6: String,
}

fn put(lines: &mut String, line: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(lines, "{line}");
}

impl Commands {
    fn begin() -> Self {
        let mut commands = Self::default();
        commands.line("link set lo up");
        commands
    }

    fn of(
        self,
        namespace: String,
        place: Option<Place>,
        sysctls: Vec<(&'static str, &'static str)>,
    ) -> Space {
        Space {
            namespace,
            place,
            sysctls,
            links: self.links,
            v4: self.v4,
            v6: self.v6,
        }
    }

    fn line(&mut self, line: &str) {
        put(&mut self.links, line);
    }

    /// A line about an address.
    fn line_of(&mut self, address: IpAddr, line: &str) {
        let lines = match address {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => &mut self.v6,
        };
        put(lines, line);
    }

    /// A link from here to a device in another namespace.
    fn link(&mut self, device: &str, address: &str, peer: &str, there: &str) {
        self.line(&format!(
            "link add {device} type veth peer name {peer} netns {there}"
        ));
        self.up(device, address);
    }

    fn up(&mut self, device: &str, address: &str) {
        // The kernel shall not make addresses of its own.
        self.line(&format!("link set {device} addrgenmode none"));
        self.line(&format!("addr add {address}/64 dev {device} nodad"));
        self.line(&format!("link set {device} up"));
    }

    fn alias(&mut self, device: &str, what: &str) {
        self.line(&format!("link set {device} alias {what}"));
    }

    /// The far end of a link that was laid from elsewhere: its addresses, and the way out.
    fn end(&mut self, device: &str, addresses: &[IpAddr], sources: &[IpAddr]) {
        self.up(device, LOWER);
        for address in addresses {
            self.line(&format!(
                "addr add {}{} dev {device}",
                whole(*address),
                nodad(*address)
            ));
        }
        for is_v6 in [false, true] {
            let source = sources.iter().find(|it| it.is_ipv6() == is_v6);
            if let Some(source) = source {
                self.route_of_family(*source, "default", UPPER, device, Some(*source));
            }
        }
    }

    fn route(&mut self, to: &str, via: &str, device: &str, source: Option<IpAddr>) {
        let family = to.split('/').next().and_then(|it| it.parse().ok());
        if let Some(family) = family {
            self.route_of_family(family, to, via, device, source);
        }
    }

    fn route_of_family(
        &mut self,
        family: IpAddr,
        to: &str,
        via: &str,
        device: &str,
        source: Option<IpAddr>,
    ) {
        let source = source.map(|it| format!(" src {it}")).unwrap_or_default();
        let inet6 = if family.is_ipv4() { "inet6 " } else { "" };
        let line = format!("route add {to} via {inet6}{via} dev {device}{source}");
        self.line_of(family, &line);
    }
}

/// The address with the length of a whole one: `10.0.0.1/32`.
fn whole(address: IpAddr) -> String {
    match address {
        IpAddr::V4(_) => format!("{address}/32"),
        IpAddr::V6(_) => format!("{address}/128"),
    }
}

fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

fn first_of_family(addresses: &[IpAddr], like: IpAddr) -> Option<IpAddr> {
    let mut all = addresses.iter().copied();
    all.find(|address| address.is_ipv6() == like.is_ipv6())
}

#[cfg(test)]
mod tests {
    use nodeway_sim::{HostSpec, PodSpec};

    use super::*;

    fn topology() -> Topology {
        let pod = |name: &str, address: &str, host_network| PodSpec {
            name: name.to_owned(),
            addresses: vec![address.parse().unwrap()],
            host_network,
        };
        Topology {
            nodes: vec![NodeSpec {
                name: "node-1".to_owned(),
                addresses: vec!["172.18.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
                pods: vec![
                    pod("default/a", "10.244.0.1", false),
                    pod("kube-system/host", "172.18.0.2", true),
                ],
            }],
            outside: vec![HostSpec {
                name: "client".to_owned(),
                addresses: vec!["203.0.113.1".parse().unwrap()],
            }],
            announcements: [("192.0.2.1".parse().unwrap(), "node-1".to_owned())].into(),
        }
    }

    #[test]
    fn every_machine_gets_its_cables() {
        let wiring = Wiring::of(&topology(), &LabName::new("x").unwrap());
        let text: String = wiring
            .spaces
            .iter()
            .map(|space| {
                let Space {
                    namespace,
                    links,
                    v4,
                    v6,
                    ..
                } = space;
                format!("# {namespace}\n{links}# -4\n{v4}# -6\n{v6}")
            })
            .collect();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_pod_in_its_nodes_network_has_no_namespace_of_its_own() {
        let wiring = Wiring::of(&topology(), &LabName::new("x").unwrap());
        let all: Vec<&str> = wiring.namespaces().collect();
        assert_eq!(
            all,
            [
                "nodeway.x.fabric",
                "nodeway.x.node.node-1",
                "nodeway.x.pod.default.a",
                "nodeway.x.outside.client",
            ]
        );
    }
}
