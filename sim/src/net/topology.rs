//! The machines of a simulation: nodes with their pods, hosts outside, and who takes which address.
//!
//! Plain data. Everything is a [`Place`]: a network namespace in which processes can be started.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use nodeway_core::netfilter::kube_proxy;
use nodeway_core::redirect::Redirect;

use crate::seed::Seed;

/// Which machines there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// The nodes of the cluster.
    pub nodes: Vec<NodeSpec>,
    /// Hosts outside the cluster.
    pub outside: Vec<HostSpec>,
    /// The node that takes each LoadBalancer (or external) address from outside.
    pub announcements: BTreeMap<IpAddr, String>,
}

/// A node and its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSpec {
    /// `metadata.name`
    pub name: String,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// The pods that run on it.
    pub pods: Vec<PodSpec>,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSpec {
    /// `namespace/name`
    pub name: String,
    /// Its addresses; without meaning in the host's network.
    pub addresses: Vec<IpAddr>,
    /// Whether it runs in its node's own network namespace.
    pub host_network: bool,
}

/// A host outside the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSpec {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A network namespace by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A pod, as `namespace/name`. For a pod in the host's network that is the node.
    Pod(String),
    /// A node.
    Node(String),
    /// A host outside.
    Outside(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => f.write_str(name),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Outside(name) => write!(f, "outside/{name}"),
        }
    }
}

impl Topology {
    /// The node of that name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The pod of that name (`namespace/name`), and its node.
    #[must_use]
    pub fn pod(&self, name: &str) -> Option<(&NodeSpec, &PodSpec)> {
        self.nodes.iter().find_map(|node| {
            let pod = node.pods.iter().find(|pod| pod.name == name)?;
            Some((node, pod))
        })
    }

    /// The node that a place is on: a pod's, or the node itself; none for a host outside.
    #[must_use]
    pub fn node_of(&self, place: &Place) -> Option<&NodeSpec> {
        match place {
            Place::Node(name) => self.node(name),
            Place::Pod(name) => self.pod(name).map(|(node, _)| node),
            Place::Outside(_) => None,
        }
    }

    /// The addresses of a place: of a pod in the host's network the node's, of one that is not there none.
    #[must_use]
    pub fn addresses(&self, place: &Place) -> &[IpAddr] {
        let found = match place {
            Place::Node(name) => self.node(name).map(|it| &it.addresses),
            Place::Pod(name) => self.pod(name).map(|(node, pod)| match pod.host_network {
                true => &node.addresses,
                false => &pod.addresses,
            }),
            Place::Outside(name) => {
                let mut hosts = self.outside.iter();
                hosts.find(|it| it.name == *name).map(|it| &it.addresses)
            }
        };
        found.map_or(&[], Vec::as_slice)
    }

    /// Whose address it is.
    #[must_use]
    pub fn holder(&self, address: IpAddr) -> Option<Place> {
        for node in &self.nodes {
            if node.addresses.contains(&address) {
                return Some(Place::Node(node.name.clone()));
            }
            let mut pods = node.pods.iter();
            if let Some(pod) = pods.find(|pod| pod.addresses.contains(&address)) {
                return Some(Place::Pod(pod.name.clone()));
            }
        }
        let mut hosts = self.outside.iter();
        let host = hosts.find(|host| host.addresses.contains(&address))?;
        Some(Place::Outside(host.name.clone()))
    }

    /// The node at which a client's packets to an address are looked up first: its own, or for a
    /// client outside the one that announces the address or has it.
    #[must_use]
    pub fn entry(&self, client: &Place, to: IpAddr) -> Option<&NodeSpec> {
        let Place::Outside(_) = client else {
            return self.node_of(client);
        };
        match self.announcements.get(&to) {
            Some(name) => self.node(name),
            None => self.node_of(&self.holder(to)?),
        }
    }
}

/// How fast a link is. The latency of each link varies a little with the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    /// From one end to the other.
    pub latency: Duration,
    /// Its rate.
    pub bits_per_second: u64,
}

/// What a simulation runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where luck comes from.
    pub seed: Seed,
    /// How frontends' packets come to their listeners.
    pub redirect: Redirect,
    /// How kube-proxy runs beside the way.
    pub kube_proxy: kube_proxy::Mode,
    /// Whether every hop of every packet is kept.
    pub trace_packets: bool,
    /// Whether the bytes of every packet are kept for each interface.
    pub capture_packets: bool,
    /// Between a pod and its node.
    pub veth: LinkSpec,
    /// Between two nodes, or a node and a host outside.
    pub uplink: LinkSpec,
    /// Within one network namespace.
    pub loopback: LinkSpec,
    /// The longest packet that fits on every link, in bytes from the IP header on.
    pub mtu: usize,
    /// Bytes of each of a connection's two buffers.
    pub buffer: usize,
    /// Half-open connections that a ListenSocket holds; more SYNs are dropped.
    pub backlog: usize,
    /// How long a connect waits.
    pub connect_timeout: Duration,
    /// How long a connection waits for an acknowledgement.
    pub retransmit_timeout: Duration,
    /// How long a frontend that is switched on leaves older connections alone at the longest.
    pub arming: Duration,
    /// How long one that is switched off serves known connections at the longest: Envoy's own
    /// `--drain-time-s`.
    pub draining: Duration,
    /// How long a closed connection's ports stay taken; also how long an orphan waits for its FIN.
    pub time_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        const GIGABIT: u64 = 1_000_000_000;
        Self {
            seed: Seed::default(),
            redirect: Redirect::default(),
            kube_proxy: kube_proxy::Mode::default(),
            trace_packets: false,
            capture_packets: false,
            veth: LinkSpec {
                latency: Duration::from_micros(20),
                bits_per_second: 40 * GIGABIT,
            },
            uplink: LinkSpec {
                latency: Duration::from_micros(150),
                bits_per_second: 10 * GIGABIT,
            },
            loopback: LinkSpec {
                latency: Duration::from_micros(10),
                bits_per_second: 40 * GIGABIT,
            },
            mtu: 1500,
            buffer: 32 * 1024,
            backlog: 4096,
            connect_timeout: Duration::from_secs(127),
            retransmit_timeout: Duration::from_secs(120),
            arming: Duration::from_secs(300),
            draining: Duration::from_secs(600),
            time_wait: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn topology() -> Topology {
        let pod = |name: &str, addresses: &[&str], host_network| PodSpec {
            name: name.to_owned(),
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            host_network,
        };
        let node = |name: &str, address: &str, pods| NodeSpec {
            name: name.to_owned(),
            addresses: vec![address.parse().unwrap()],
            pods,
        };
        Topology {
            nodes: vec![
                node("a", "10.0.0.1", vec![pod("d/web", &["10.1.0.1"], false)]),
                node("b", "10.0.0.2", vec![pod("d/agent", &[], true)]),
            ],
            outside: vec![HostSpec {
                name: "client".to_owned(),
                addresses: vec!["203.0.113.1".parse().unwrap()],
            }],
            announcements: BTreeMap::from([("192.0.2.1".parse().unwrap(), "b".to_owned())]),
        }
    }

    fn outside() -> Place {
        Place::Outside("client".to_owned())
    }

    #[rstest]
    #[case::a_pods_own_node(Place::Pod("d/web".to_owned()), "10.0.0.2", Some("a"))]
    #[case::the_node_itself(Place::Node("b".to_owned()), "10.1.0.1", Some("b"))]
    #[case::from_outside_who_announces_it(outside(), "192.0.2.1", Some("b"))]
    #[case::from_outside_the_nodes_own(outside(), "10.0.0.1", Some("a"))]
    #[case::from_outside_that_of_the_pod(outside(), "10.1.0.1", Some("a"))]
    #[case::from_outside_nobodys(outside(), "192.0.2.2", None)]
    #[case::from_outside_to_outside(outside(), "203.0.113.1", None)]
    fn packets_are_looked_up_first_where_they_come_in(
        #[case] client: Place,
        #[case] to: &str,
        #[case] node: Option<&str>,
    ) {
        let topology = topology();
        let entry = topology.entry(&client, to.parse().unwrap());
        assert_eq!(entry.map(|it| it.name.as_str()), node);
    }

    #[rstest]
    #[case::a_pod(Place::Pod("d/web".to_owned()), "10.1.0.1")]
    #[case::a_pod_in_its_nodes_network(Place::Pod("d/agent".to_owned()), "10.0.0.2")]
    #[case::a_node(Place::Node("a".to_owned()), "10.0.0.1")]
    #[case::a_host_outside(outside(), "203.0.113.1")]
    #[case::nobody(Place::Pod("d/nobody".to_owned()), "")]
    fn a_place_has_the_addresses_of_its_network(#[case] place: Place, #[case] addresses: &str) {
        let topology = topology();
        let found: Vec<String> = topology
            .addresses(&place)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.join(" "), addresses);
    }

    #[rstest]
    #[case("10.0.0.2", Some("node/b"))]
    #[case("10.1.0.1", Some("d/web"))]
    #[case("203.0.113.1", Some("outside/client"))]
    #[case("192.0.2.1", None)]
    fn an_address_has_one_holder(#[case] address: &str, #[case] holder: Option<&str>) {
        let found = topology().holder(address.parse().unwrap());
        assert_eq!(found.map(|it| it.to_string()).as_deref(), holder);
    }
}
