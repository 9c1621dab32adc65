//! A topology wired: a stack and links for each machine, and whither the fabric leads each address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Network;
use crate::net::carriage::Links;
use crate::net::event::Events;
use crate::net::kernel::Datapath;
use crate::net::link::{Link, Port};
use crate::net::node::Node;
use crate::net::stack::{Role, Stack, StackId};
use crate::net::tcp::Tcp;
use crate::net::topology::{LinkSpec, NodeSpec, Place, Settings, Topology};
use crate::time::Time;

/// A mistake in a topology.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// Two places have one address.
    #[error("{second} has the address {address}, which is {first}'s; give it another")]
    AddressTwice {
        /// The address.
        address: IpAddr,
        /// Who had it first.
        first: Place,
        /// Who has it too.
        second: Place,
    },
    /// Two places have one name.
    #[error("there are two of {0}; give one another name")]
    PlaceTwice(Place),
    /// An address is announced by a node that is not there.
    #[error("{address} is announced by node `{node}`, but there is no such node")]
    NoSuchNode {
        /// The address.
        address: IpAddr,
        /// The node's name.
        node: String,
    },
}

impl Network {
    /// The network of a topology, in which nothing has happened yet.
    pub(crate) fn new(
        topology: &Topology,
        settings: Settings,
        datapath: Box<dyn Datapath>,
    ) -> Result<Self, TopologyError> {
        let mut network = Self {
            now: Time::ZERO,
            events: Events::default(),
            tcp: Tcp::new(&settings),
            recorder: settings.capture_packets.then(Box::default),
            settings,
            links: Vec::new(),
            nodes: Vec::new(),
            guards: BTreeMap::new(),
            fabric: BTreeMap::new(),
            external: None,
            datapath,
            places: BTreeMap::new(),
            ways: BTreeMap::new(),
            next_way: 0,
            crossed: BTreeMap::new(),
            hops: Vec::new(),
            partitions: BTreeSet::new(),
            delivered: 0,
            timers: BTreeMap::new(),
            next_timer: 0,
            nowhere: Arc::from(""),
            uplink: Arc::from("uplink"),
            lo: Arc::from("lo"),
            eth0: Arc::from("eth0"),
        };
        for spec in &topology.nodes {
            network.add_node(spec)?;
        }
        for spec in &topology.outside {
            let place = Place::Outside(spec.name.clone());
            let id = network.add_stack(&place, Role::Outside, &spec.addresses)?;
            for address in &spec.addresses {
                network.fabric.insert(*address, Port::Stack(id));
            }
        }
        for (address, name) in &topology.announcements {
            let index = network.node_index(name);
            let Some(index) = index else {
                return Err(TopologyError::NoSuchNode {
                    address: *address,
                    node: name.clone(),
                });
            };
            network.fabric.insert(*address, Port::Uplink(index));
        }
        Ok(network)
    }

    fn add_node(&mut self, spec: &NodeSpec) -> Result<(), TopologyError> {
        let index = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let place = Place::Node(spec.name.clone());
        let host = self.add_stack(&place, Role::Host { node: index }, &spec.addresses)?;
        let mut node = Node::new(&spec.name, host, &spec.addresses, &self.settings);
        for address in &spec.addresses {
            self.fabric.insert(*address, Port::Uplink(index));
        }
        for pod in &spec.pods {
            let place = Place::Pod(pod.name.clone());
            if pod.host_network {
                if self.places.insert(place.clone(), host).is_some() {
                    return Err(TopologyError::PlaceTwice(place));
                }
                continue;
            }
            let id = self.add_stack(&place, Role::Pod { node: index }, &pod.addresses)?;
            for address in &pod.addresses {
                node.pods.insert(*address, id);
                self.fabric.insert(*address, Port::Uplink(index));
            }
        }
        self.nodes.push(node);
        Ok(())
    }

    fn add_stack(
        &mut self,
        place: &Place,
        role: Role,
        addresses: &[IpAddr],
    ) -> Result<StackId, TopologyError> {
        for stack in &self.tcp.stacks {
            if let Some(address) = addresses.iter().find(|it| stack.addresses.contains(it)) {
                let first = self
                    .places
                    .iter()
                    .find(|(_, id)| self.tcp.stack(**id).is_some_and(|it| it.name == stack.name));
                return Err(TopologyError::AddressTwice {
                    address: *address,
                    first: first.map_or_else(|| place.clone(), |(first, _)| first.clone()),
                    second: place.clone(),
                });
            }
        }
        let id = StackId(u32::try_from(self.tcp.stacks.len()).unwrap_or(u32::MAX));
        if self.places.insert(place.clone(), id).is_some() {
            return Err(TopologyError::PlaceTwice(place.clone()));
        }
        let (seed, settings) = (self.settings.seed, &self.settings);
        let (spec, kind) = match role {
            Role::Pod { .. } => (settings.veth, "veth of"),
            Role::Host { .. } | Role::Outside => (settings.uplink, "uplink of"),
        };
        // What comes to a machine on the fabric has used its sender's link: only what is wrong
        // with its own is added.
        let back = match role {
            Role::Pod { .. } => spec,
            Role::Host { .. } | Role::Outside => LinkSpec {
                latency: Duration::ZERO,
                bits_per_second: u64::MAX,
            },
        };
        self.links.push(Links {
            out: Link::new(spec, seed, &format!("{kind} {place}"), self.events.lane()),
            back: Link::new(
                back,
                seed,
                &format!("{kind} {place}, back"),
                self.events.lane(),
            ),
            loopback: Link::new(
                settings.loopback,
                seed,
                &format!("loopback of {place}"),
                self.events.lane(),
            ),
            device: match role {
                Role::Pod { .. } => Arc::from(format!("veth of {place}")),
                Role::Host { .. } | Role::Outside => Arc::from("uplink"),
            },
            down: false,
        });
        if let Some(recorder) = &mut self.recorder {
            recorder.add(place, role);
        }
        let name = Arc::from(place.to_string());
        let addresses = addresses.to_vec();
        let stack = Stack::new(name, role, addresses, seed, &mut self.tcp.wire);
        self.tcp.stacks.push(stack);
        Ok(id)
    }
}
