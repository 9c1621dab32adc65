//! How a packet gets from one end of a link to the other, and what is broken on the way: bad links,
//! partitions of the fabric, machines that are off.

use std::sync::Arc;

use nodeway_core::datapath;
use nodeway_core::trace::{FaultStep, Step};

use super::hop::Happening;
use super::impairment::Impairment;
use super::link::{Link, Port};
use super::network::Network;
use super::packet::Packet;
use super::stack::{Role, StackId};

/// The links of a stack.
pub(crate) struct Links {
    /// From the stack to its node or to the fabric.
    pub(crate) out: Link,
    /// From the node to the pod; from the fabric to a machine on it, where something is wrong there.
    pub(crate) back: Link,
    pub(crate) loopback: Link,
    /// The device's name on the node (`veth of default/client`), or `uplink`.
    pub(crate) device: Arc<str>,
    /// Whether its machine is off: nothing leaves it and nothing comes to it.
    pub(crate) down: bool,
}

/// One of a stack's links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// From the stack to its node or to the fabric.
    Out,
    /// From the node to the pod, or from the fabric.
    Back,
    /// Its `lo`.
    Loopback,
}

impl Links {
    fn link(&mut self, end: LinkEnd) -> &mut Link {
        match end {
            LinkEnd::Out => &mut self.out,
            LinkEnd::Back => &mut self.back,
            LinkEnd::Loopback => &mut self.loopback,
        }
    }
}

impl Network {
    /// Makes one direction of a place's link bad, or well again.
    pub(crate) fn impair(&mut self, id: StackId, end: LinkEnd, impairment: Option<Impairment>) {
        if let Some(links) = self.links_mut(id) {
            links.link(end).impair(impairment);
        }
    }

    /// Whether a stack is a node's own or one of its pods'.
    pub(crate) fn is_on(&self, index: u32, id: StackId) -> bool {
        let role = self.tcp.stack(id).map(|stack| stack.role);
        matches!(role, Some(Role::Host { node } | Role::Pod { node }) if node == index)
    }

    /// Turns a node's machine, and so its pods, off without a word to anybody, or on again. What
    /// its kernel knew is gone: connections, frontends, rules.
    pub(crate) fn power(&mut self, index: u32, on: bool) {
        let Some(node) = self.node_mut(index) else {
            return;
        };
        node.forget();
        let stacks: Vec<StackId> = node.pods.values().copied().chain([node.host]).collect();
        for id in stacks {
            self.tcp.forget(id);
            self.guards.remove(&id);
            if let Some(links) = self.links_mut(id) {
                links.down = !on;
            }
        }
    }

    /// Lets nothing through between two machines on the fabric, or everything again.
    pub(crate) fn part(&mut self, a: StackId, b: StackId, cut: bool) {
        let pair = (a.min(b), a.max(b));
        if cut {
            self.partitions.insert(pair);
        } else {
            self.partitions.remove(&pair);
        }
    }

    /// Over one of a stack's links, with whatever is wrong with it.
    pub(crate) fn carry(&mut self, id: StackId, end: LinkEnd, port: Port, packet: Packet) {
        let now = self.now;
        let Some(links) = self.links_mut(id) else {
            return;
        };
        let link = links.link(end);
        let carriage = link.send(now, packet.bytes.len());
        let impairment = link.impairment();
        if let Some(again) = carriage.again {
            let flow = datapath::parse(&*packet.bytes).ok();
            self.hop_at(id, (&packet, flow), Happening::Doubled);
            self.events.send(again, port, packet.clone());
        }
        match (carriage.arrival, impairment) {
            (Some(arrival), _) => self.events.send(arrival, port, packet),
            (None, impairment) => {
                let why = impairment.map(|it| it.to_string()).unwrap_or_default();
                self.lose(id, packet, why);
            }
        }
    }

    /// A packet is lost on a link of that stack.
    pub(super) fn lose(&mut self, id: StackId, packet: Packet, why: String) {
        let flow = datapath::parse(&*packet.bytes).ok();
        self.hop_at(id, (&packet, flow), Happening::Lost);
        if let (Some(way), Some(stack)) = (packet.way, self.tcp.stack(id)) {
            let link = Arc::clone(&stack.name);
            self.note_once(way, Step::Fault(FaultStep::Lost { link, why }));
        }
        self.tcp.wire.recycle(packet.bytes);
    }

    /// Why nothing gets from one end of the fabric to another, if a partition is between them.
    pub(super) fn cut_off(&self, from: StackId, to: Port) -> Option<String> {
        if self.partitions.is_empty() {
            return None;
        }
        let to = self.at_port(to)?;
        let pair = (from.min(to), from.max(to));
        self.partitions.contains(&pair).then(|| {
            let name = |id| self.tcp.stack(id).map_or("", |stack| &*stack.name);
            format!("partition between {} and {}", name(pair.0), name(pair.1))
        })
    }

    /// The stack at the end of a link; of a pod's veth pair, the pod.
    pub(super) fn at_port(&self, port: Port) -> Option<StackId> {
        match port {
            Port::Stack(id) | Port::Loopback(id) | Port::Veth(id) | Port::Fabric(id) => Some(id),
            Port::Uplink(node) => self.node(node).map(|node| node.host),
        }
    }

    /// A packet has crossed the fabric to a machine whose own link is bad.
    pub(super) fn off_the_fabric(&mut self, to: StackId, packet: Packet) {
        let port = match self.tcp.stack(to).map(|stack| stack.role) {
            Some(Role::Host { node }) => Port::Uplink(node),
            _ => Port::Stack(to),
        };
        self.carry(to, LinkEnd::Back, port, packet);
    }
}
