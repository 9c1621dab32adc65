//! What a network namespace does with a packet: a node's hooks, its rules, its routes; and the rules
//! of a pod that has some.
//!
//! In the kernel's order: tc ingress, PREROUTING, the route; then INPUT and a socket, or FORWARD and
//! POSTROUTING. What the node itself sends: OUTPUT, the route, POSTROUTING; over `lo` it comes in
//! again, and keeps its mark. ICMP errors pass the rules and are not translated.

use std::net::IpAddr;
use std::sync::Arc;

use nodeway_core::conntrack::{Direction, Tracked};
use nodeway_core::datapath::{Flow, Hook, PROXY_MASK, Packet as Kind, TO_PROXY, Verdict};
use nodeway_core::netfilter::{self, BuiltIn};
use nodeway_core::redirect::Redirect;
use nodeway_core::trace::{Step, TranslationStep};

use super::capture::Device;
use super::carriage::LinkEnd;
use super::hop::Happening;
use super::kernel::SimSocket;
use super::link::Port;
use super::network::Network;
use super::packet::{
    Carried, Packet, count_down, destination, goes_to, port_unreachable, readdress, source,
};
use super::stack::{Role, StackId};
use crate::process::WayId;

/// In which network namespace a packet is.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) stack: StackId,
    /// Whose namespace that is.
    pub(super) of: Of,
    /// Whether the namespace sends it, rather than got it.
    own: bool,
}

/// Whose network namespace it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// That of a node.
    Node(u32),
    /// That of a pod on a node, which has rules.
    Pod(u32),
}

impl At {
    /// The node, where it is the node's own namespace.
    fn node(self) -> Option<u32> {
        match self.of {
            Of::Node(index) => Some(index),
            Of::Pod(_) => None,
        }
    }
}

impl Network {
    /// A packet comes in through a pod's veth pair or the uplink.
    pub(crate) fn ingress(&mut self, index: u32, pod: Option<StackId>, packet: Packet) {
        let Some(host) = self.node(index).map(|node| node.host) else {
            return;
        };
        let flow = match self.datapath.parse(&packet.bytes) {
            Ok(flow) => Some(flow),
            Err(reason) => {
                self.count(index, Hook::TcIngress { sk_lookup: true }, reason);
                None
            }
        };
        let device = match pod.and_then(|pod| self.links.get(pod.index())) {
            Some(links) => Arc::clone(&links.device),
            None => Arc::clone(&self.uplink),
        };
        let (mut mark, mut assigned) = (0, None);
        if let (Redirect::Tc, Some(flow)) = (self.settings.redirect, flow) {
            let hook = Hook::TcIngress { sk_lookup: true };
            let way = packet.way.filter(|_| flow.opens());
            let verdict = self.ask(index, &flow, hook, Some(&device), way);
            if self.settings.trace_packets {
                let place = self.tcp.stack(host).map(|stack| Arc::clone(&stack.name));
                let place = place.unwrap_or_else(|| Arc::clone(&self.nowhere));
                let what = Happening::Verdict(hook, verdict.name());
                let reason = Some(verdict.reason());
                self.hop((&place, &device), (&packet, Some(flow)), what, reason);
            }
            match verdict {
                Verdict::Pass(_) => {}
                // A connect verdict means nothing to a packet: the kernel's adapter drops it too.
                Verdict::Drop(_) | Verdict::Connect { .. } => {
                    self.discard(host, Some(flow), packet, Happening::Dropped);
                    return;
                }
                Verdict::Deliver { mark: set, .. } => mark = set,
                Verdict::Assign {
                    mark: set, socket, ..
                } => {
                    mark = set;
                    assigned = Some(socket);
                }
            }
        }
        let at = At {
            stack: host,
            of: Of::Node(index),
            own: false,
        };
        match flow {
            Some(flow) => {
                let mut seen = netfilter::Packet::new(flow);
                seen.mark = mark;
                seen.input = Some(device);
                self.come_in(at, seen, packet, assigned);
            }
            None => self.route_unread(at, packet),
        }
    }

    /// The namespace of a node, or of a pod that has rules.
    fn ruled(&self, stack: StackId, own: bool) -> Option<At> {
        let of = match self.tcp.stack(stack)?.role {
            Role::Host { node } => Of::Node(node),
            Role::Pod { node } if self.guards.contains_key(&stack) => Of::Pod(node),
            Role::Pod { .. } | Role::Outside => return None,
        };
        Some(At { stack, of, own })
    }

    /// A packet that a node's own stack sends, or that of a pod. Gives it back where no rule can
    /// say anything: in a pod that has none.
    pub(crate) fn sends(
        &mut self,
        stack: StackId,
        flow: Flow,
        mut packet: Packet,
    ) -> Option<Packet> {
        let Some(at) = self.ruled(stack, true) else {
            return Some(packet);
        };
        if let Some(index) = at.node() {
            self.note_asked(index, &flow, &packet);
        }
        let mut seen = netfilter::Packet::new(flow);
        seen.owner = Some(packet.owner());
        let filtered = !self.is_unfiltered(at, flow.family);
        if filtered {
            // The route is looked up before the rules, and again after: they may lead elsewhere.
            let meant = destination(&flow).ip();
            let local = self.is_local(at, seen.mark, meant);
            seen.output = Some(self.device_to(at, local, meant));
            if !self.passes(at, BuiltIn::Output, &mut seen, &mut packet, &flow) {
                return None;
            }
        }
        let to = destination(&seen.flow).ip();
        let local = self.is_local(at, seen.mark, to);
        seen.output = Some(self.device_to(at, local, to));
        if filtered && !self.passes(at, BuiltIn::Postrouting, &mut seen, &mut packet, &flow) {
            return None;
        }
        if local {
            packet.carried = Some(Box::new(Carried {
                mark: seen.mark,
                tracked: seen.tracked,
                told: match &mut self.recorder {
                    Some(recorder) => recorder.take_told(),
                    None => Vec::new(),
                },
            }));
            self.loop_back(stack, packet);
        } else {
            self.send_on(at, &seen.flow, packet);
        }
        None
    }

    /// A packet that a namespace has sent to itself.
    pub(crate) fn over_lo(&mut self, stack: StackId, mut packet: Packet) {
        let carried = packet.carried.take();
        let at = self.ruled(stack, true);
        let flow = at.and_then(|_| self.datapath.parse(&packet.bytes).ok());
        let Some((at, flow)) = at.zip(flow) else {
            self.deliver(stack, None, packet, None);
            return;
        };
        let mut seen = netfilter::Packet::new(flow);
        seen.input = Some(Arc::clone(&self.lo));
        if let Some(carried) = carried {
            seen.mark = carried.mark;
            seen.tracked = carried.tracked;
        }
        self.come_in(at, seen, packet, None);
    }

    /// A packet that comes in by the own device of a pod or of a host outside.
    pub(crate) fn over_eth0(&mut self, stack: StackId, packet: Packet) {
        let at = self.ruled(stack, false);
        let flow = at.and_then(|_| self.datapath.parse(&packet.bytes).ok());
        let Some((at, flow)) = at.zip(flow) else {
            self.deliver(stack, None, packet, None);
            return;
        };
        let mut seen = netfilter::Packet::new(flow);
        seen.input = Some(Arc::clone(&self.eth0));
        self.come_in(at, seen, packet, None);
    }

    fn discard(&mut self, host: StackId, flow: Option<Flow>, packet: Packet, what: Happening) {
        self.hop_at(host, (&packet, flow), what);
        self.tcp.wire.recycle(packet.bytes);
    }

    /// Without a program at the door, it is a route or a set that knows a frontend.
    fn note_asked(&mut self, index: u32, flow: &Flow, packet: &Packet) {
        let by_address = matches!(
            self.settings.redirect,
            Redirect::SkLookup | Redirect::Iptables
        );
        if let (true, true, Some(way)) = (by_address, flow.opens(), packet.way) {
            self.note_frontend(index, flow, way);
        }
    }

    /// PREROUTING, the route, and on.
    fn come_in(
        &mut self,
        at: At,
        mut seen: netfilter::Packet,
        mut packet: Packet,
        mut assigned: Option<SimSocket>,
    ) {
        let (flow, host) = (seen.flow, at.stack);
        if let (false, Some(index)) = (at.own, at.node()) {
            self.note_asked(index, &flow, &packet);
        }
        let filtered = !self.is_unfiltered(at, flow.family);
        if filtered {
            let verdict = self.station(at, BuiltIn::Prerouting, &mut seen, packet.way);
            if let netfilter::Verdict::Assign(to) = verdict {
                let listener = self.tcp.stack(host).and_then(|stack| stack.listener(to));
                assigned = listener.map(SimSocket::Listen);
                if let Some(recorder) = &mut self.recorder {
                    recorder.assigned(to, seen.mark);
                }
            } else if !self.obeys(at, verdict, &flow, &mut packet) {
                return;
            }
            self.rewrite(host, &flow, &seen, &mut packet);
        }
        let to = destination(&seen.flow).ip();
        let local = self.is_local(at, seen.mark, to);
        if !at.own && self.is_martian(&seen.flow) {
            self.discard(host, Some(seen.flow), packet, Happening::Martian);
            return;
        }
        if local {
            if filtered && !self.passes(at, BuiltIn::Input, &mut seen, &mut packet, &flow) {
                return;
            }
            self.deliver(host, Some(seen.flow), packet, assigned);
            return;
        }
        if at.node().is_none() {
            // A pod is no router.
            self.discard(host, Some(seen.flow), packet, Happening::NoRoute);
            return;
        }
        if !count_down(&mut packet.bytes) {
            self.discard(host, Some(seen.flow), packet, Happening::TimeToLive);
            return;
        }
        seen.output = Some(self.device_to(at, false, to));
        if filtered {
            for hook in [BuiltIn::Forward, BuiltIn::Postrouting] {
                if !self.passes(at, hook, &mut seen, &mut packet, &flow) {
                    return;
                }
            }
        }
        self.send_on(at, &seen.flow, packet);
    }

    /// Takes a packet through a station that may change its source; false when it goes no further.
    /// `came` is its flow as it came.
    fn passes(
        &mut self,
        at: At,
        hook: BuiltIn,
        seen: &mut netfilter::Packet,
        packet: &mut Packet,
        came: &Flow,
    ) -> bool {
        let before = seen.flow;
        let verdict = self.station(at, hook, seen, packet.way);
        if !self.obeys(at, verdict, came, packet) {
            return false;
        }
        self.rewrite(at.stack, &before, seen, packet);
        let decided = matches!(
            &seen.tracked,
            Tracked::Of {
                direction: Direction::Original,
                ..
            }
        );
        if let (true, true, Some(way), Some(index)) = (decided, came.opens(), packet.way, at.node())
        {
            self.note_translation(index, came, &seen.flow, way);
        }
        true
    }

    /// Does what rules say to a packet that shall not go on; true for one that shall.
    fn obeys(
        &mut self,
        at: At,
        verdict: netfilter::Verdict,
        came: &Flow,
        packet: &mut Packet,
    ) -> bool {
        match verdict {
            netfilter::Verdict::Accept | netfilter::Verdict::Assign(_) => true,
            netfilter::Verdict::Drop => {
                let packet = std::mem::take(packet);
                self.discard(at.stack, Some(*came), packet, Happening::Filtered);
                false
            }
            netfilter::Verdict::Reject(_) => {
                let packet = std::mem::take(packet);
                self.reject(at, *came, packet);
                false
            }
        }
    }

    /// Gives a packet the addresses that rules have given to its flow.
    fn rewrite(
        &mut self,
        host: StackId,
        before: &Flow,
        seen: &netfilter::Packet,
        packet: &mut Packet,
    ) {
        if seen.flow == *before || before.packet != Kind::Segment {
            return;
        }
        let (source, destination) = (source(&seen.flow), destination(&seen.flow));
        let what = Happening::Translated {
            source,
            destination,
        };
        self.hop_at(host, (packet, Some(*before)), what);
        readdress(&mut packet.bytes, source, destination);
    }

    /// Notes what became of a service's address, in the words of services.
    fn note_translation(&mut self, index: u32, came: &Flow, now: &Flow, way: WayId) {
        let (meant, to) = (destination(came), destination(now));
        let Some(node) = self.node(index).filter(|_| meant != to) else {
            return;
        };
        let Some(entry) = node.services.entries.get(&(meant.ip(), meant.port())) else {
            return;
        };
        let step = TranslationStep {
            node: Arc::clone(&node.name),
            from: meant,
            service: entry.service.clone(),
            to: entry.endpoints.iter().find(|it| it.address == to).cloned(),
            candidates: entry.endpoints.len(),
            masqueraded: source(came).ip() != source(now).ip(),
        };
        self.note_once(way, Step::Translation(step));
    }

    /// REJECT: an ICMP error from the namespace to whoever asked.
    fn reject(&mut self, at: At, flow: Flow, packet: Packet) {
        self.hop_at(at.stack, (&packet, Some(flow)), Happening::Rejected);
        let node = at.node().and_then(|index| self.node(index));
        if let (Some(way), Some(node)) = (packet.way, node) {
            let meant = destination(&flow);
            let entry = node.services.entries.get(&(meant.ip(), meant.port()));
            let step = entry.map(|entry| TranslationStep {
                node: Arc::clone(&node.name),
                from: meant,
                service: entry.service.clone(),
                to: None,
                candidates: entry.endpoints.len(),
                masqueraded: false,
            });
            if let Some(step) = step {
                self.note_once(way, Step::Translation(step));
            }
        }
        let client = source(&flow).ip();
        let own = self
            .tcp
            .stack(at.stack)
            .and_then(|stack| stack.source(client));
        let error = own.and_then(|own| port_unreachable(&packet.bytes, own));
        let way = packet.way;
        self.tcp.wire.recycle(packet.bytes);
        if let Some(bytes) = error {
            let error = Packet {
                bytes,
                way,
                ..Packet::default()
            };
            if at.own {
                self.loop_back(at.stack, error);
            } else {
                self.route_unread(At { own: true, ..at }, error);
            }
        }
    }

    /// Whether a packet is for the namespace: by its mark, as its own address, or by a local route.
    fn is_local(&self, at: At, mark: u32, to: IpAddr) -> bool {
        if self.tcp.stack(at.stack).is_some_and(|stack| stack.has(to)) {
            return true;
        }
        let Some(index) = at.node() else {
            return false;
        };
        let by_address = matches!(self.settings.redirect, Redirect::Tc | Redirect::SkLookup);
        mark & PROXY_MASK == TO_PROXY
            || by_address
                && self
                    .node(index)
                    .is_some_and(|node| node.has_frontend_address(to))
    }

    /// Addresses that must not be on a wire.
    fn is_martian(&self, flow: &Flow) -> bool {
        let to = destination(flow).ip();
        to.is_loopback()
            || to.is_unspecified()
            || to.is_multicast()
            || source(flow).ip().is_loopback()
    }

    fn device_to(&self, at: At, local: bool, to: IpAddr) -> Arc<str> {
        if local {
            return Arc::clone(&self.lo);
        }
        let Some(index) = at.node() else {
            return Arc::clone(&self.eth0);
        };
        let pod = self.node(index).and_then(|node| node.pods.get(&to));
        let links = pod.and_then(|pod| self.links.get(pod.index()));
        links.map_or_else(|| Arc::clone(&self.uplink), |it| Arc::clone(&it.device))
    }

    /// A packet that no flow can be read from has nothing that rules or hooks look at.
    fn route_unread(&mut self, at: At, mut packet: Packet) {
        let Some(to) = goes_to(&packet.bytes) else {
            self.discard(at.stack, None, packet, Happening::NotTcp);
            return;
        };
        let local = self.is_local(at, 0, to);
        if !at.own {
            if to.is_loopback() || to.is_unspecified() || to.is_multicast() {
                self.discard(at.stack, None, packet, Happening::Martian);
                return;
            }
            if local {
                self.deliver(at.stack, None, packet, None);
                return;
            }
            if !count_down(&mut packet.bytes) {
                self.discard(at.stack, None, packet, Happening::TimeToLive);
                return;
            }
        } else if local {
            self.loop_back(at.stack, packet);
            return;
        }
        self.send_to(at, to, None, packet);
    }

    fn send_on(&mut self, at: At, flow: &Flow, packet: Packet) {
        self.send_to(at, destination(flow).ip(), Some(*flow), packet);
    }

    /// From a pod to its node; from a node to a pod of its own, or to the uplink.
    fn send_to(&mut self, at: At, to: IpAddr, flow: Option<Flow>, packet: Packet) {
        let Some(index) = at.node() else {
            self.up(at.stack, packet);
            return;
        };
        self.hop_at(at.stack, (&packet, flow), Happening::Forwarded);
        let pod = self
            .node(index)
            .and_then(|node| node.pods.get(&to))
            .copied();
        match pod {
            Some(pod) => {
                self.went(Device::Veth(pod), &packet.bytes);
                self.carry(pod, LinkEnd::Back, Port::Stack(pod), packet);
            }
            None => self.leave(at.stack, to, flow, packet),
        }
    }
}
