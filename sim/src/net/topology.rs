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
