//! What a node does with a packet: its hooks, its rules, its routes.
//!
//! In the kernel's order: tc ingress, PREROUTING, the route; then INPUT and a socket, or FORWARD and
//! POSTROUTING. What the node itself sends: OUTPUT, the route, POSTROUTING; over `lo` it comes in
//! again, and keeps its mark. ICMP errors pass the rules and are not translated.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use nodeway_core::conntrack::{Direction, Tracked};
use nodeway_core::datapath::{Flow, Hook, Packet as Kind, Reason, Verdict};
use nodeway_core::netfilter::{self, BuiltIn, tproxy};
use nodeway_core::plan::FrontendKey;
use nodeway_core::trace::{FrontendStep, Step, TranslationStep, VerdictStep};

use super::capture::Device;
use super::hop::{Happening, hook_name};
use super::kernel::{NodeKernel, SimSocket};
use super::link::Port;
use super::network::{LinkEnd, Network};
use super::packet::{
    Carried, Packet, count_down, destination, goes_to, port_unreachable, readdress, source,
};
use super::stack::StackId;
use crate::process::WayId;
use crate::redirect::Redirect;

/// Where a node has a packet from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// A pod of its own.
    Pod(StackId),
    /// Its uplink.
    Uplink,
    /// Its own stack.
    Itself,
}

/// At which node a packet is, and where that has it from.
#[derive(Clone, Copy, Debug)]
struct At {
    index: u32,
    host: StackId,
    from: From,
}

impl Network {
    /// Asks a hook of a node, counts its reason and notes it on the way.
    pub(crate) fn ask(
        &mut self,
        index: u32,
        flow: &Flow,
        hook: Hook,
        device: Option<&Arc<str>>,
        way: Option<WayId>,
    ) -> Verdict<SimSocket> {
        let Some(node) = self.node(index) else {
            return Verdict::Pass(Reason::NotAFrontend);
        };
        let kernel = NodeKernel {
            now: self.now,
            frontends: &node.frontends,
            tcp: &self.tcp,
            host: node.host,
        };
        let verdict = self.datapath.decide(flow, hook, &kernel);
        self.count(index, hook, verdict.reason());
        if let Some(recorder) = &mut self.recorder {
            recorder.verdict(hook, &verdict);
        }
        if let Some(way) = way {
            self.note_verdict(index, flow, hook, device, way, &verdict);
        }
        verdict
    }

    fn count(&mut self, index: u32, hook: Hook, reason: Reason) {
        if let Some(node) = self.node_mut(index) {
            *node.reasons.entry((hook_name(hook), reason)).or_default() += 1;
        }
    }

    fn note_verdict(
        &mut self,
        index: u32,
        flow: &Flow,
        hook: Hook,
        device: Option<&Arc<str>>,
        way: WayId,
        verdict: &Verdict<SimSocket>,
    ) {
        let Some(name) = self.node(index).map(|node| Arc::clone(&node.name)) else {
            return;
        };
        self.note_frontend(index, destination(flow), way);
        let mark = match verdict {
            Verdict::Deliver { mark, .. } | Verdict::Assign { mark, .. } => *mark,
            _ => 0,
        };
        let device = Arc::clone(device.unwrap_or(&self.nowhere));
        self.note_once(
            way,
            Step::Verdict(VerdictStep {
                node: name,
                hook,
                device,
                flow: *flow,
                verdict: verdict.name(),
                reason: verdict.reason(),
                mark,
            }),
        );
    }

    /// What the node's table has for a destination: a hook's look-up, or that of its routes.
    fn note_frontend(&mut self, index: u32, to: SocketAddr, way: WayId) {
        let Some(node) = self.node(index) else {
            return;
        };
        let address = FrontendKey {
            address: to.ip(),
            port: to.port(),
        };
        let step = FrontendStep {
            node: Arc::clone(&node.name),
            address,
            frontend: node.frontends.get(&address).map(|it| it.planned.clone()),
        };
        self.note_once(way, Step::Frontend(step));
    }

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
        let from = pod.map_or(From::Uplink, From::Pod);
        let at = At { index, host, from };
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

    /// A packet that the node's own stack sends.
    pub(crate) fn host_sends(&mut self, index: u32, flow: Flow, mut packet: Packet) {
        let Some(host) = self.node(index).map(|node| node.host) else {
            return;
        };
        let at = At {
            index,
            host,
            from: From::Itself,
        };
        self.note_asked(index, &flow, &packet);
        let mut seen = netfilter::Packet::new(flow);
        let filtered = !self.is_unfiltered(index, flow.family);
        if filtered && !self.passes(at, BuiltIn::Output, &mut seen, &mut packet, &flow) {
            return;
        }
        let to = destination(&seen.flow).ip();
        let local = self.is_local(at, seen.mark, to);
        seen.output = Some(self.device_to(at, local, to));
        if filtered && !self.passes(at, BuiltIn::Postrouting, &mut seen, &mut packet, &flow) {
            return;
        }
        if local {
            packet.carried = Some(Box::new(Carried {
                mark: seen.mark,
                tracked: seen.tracked,
            }));
            self.loop_back(host, packet);
        } else {
            self.send_on(at, &seen.flow, packet);
        }
    }

    /// A packet that the node has sent to itself.
    pub(crate) fn over_lo(&mut self, index: u32, mut packet: Packet) {
        let Some(host) = self.node(index).map(|node| node.host) else {
            return;
        };
        let carried = packet.carried.take();
        let Ok(flow) = self.datapath.parse(&packet.bytes) else {
            self.deliver(host, None, packet, None);
            return;
        };
        let mut seen = netfilter::Packet::new(flow);
        seen.input = Some(Arc::from("lo"));
        if let Some(carried) = carried {
            seen.mark = carried.mark;
            seen.tracked = carried.tracked;
        }
        let at = At {
            index,
            host,
            from: From::Itself,
        };
        self.come_in(at, seen, packet, None);
    }

    fn discard(&mut self, host: StackId, flow: Option<Flow>, packet: Packet, what: Happening) {
        self.hop_at(host, (&packet, flow), what);
        self.tcp.wire.recycle(packet.bytes);
    }

    /// Without a program at the door, it is a route or a set that knows a frontend.
    fn note_asked(&mut self, index: u32, flow: &Flow, packet: &Packet) {
        let by_address = self.settings.redirect != Redirect::Tc;
        if let (true, true, Some(way)) = (by_address, flow.opens(), packet.way) {
            self.note_frontend(index, destination(flow), way);
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
        let (flow, At { index, host, from }) = (seen.flow, at);
        if from != From::Itself {
            self.note_asked(index, &flow, &packet);
        }
        let filtered = !self.is_unfiltered(index, flow.family);
        if filtered {
            let verdict = self.station(index, BuiltIn::Prerouting, &mut seen, packet.way);
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
        if from != From::Itself && self.is_martian(&seen.flow) {
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
        let verdict = self.station(at.index, hook, seen, packet.way);
        if !self.obeys(at, verdict, came, packet) {
            return false;
        }
        self.rewrite(at.host, &before, seen, packet);
        let decided = matches!(
            &seen.tracked,
            Tracked::Of {
                direction: Direction::Original,
                ..
            }
        );
        if let (true, true, Some(way)) = (decided, came.opens(), packet.way) {
            self.note_translation(at.index, came, &seen.flow, way);
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
                self.discard(at.host, Some(*came), packet, Happening::Filtered);
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

    /// REJECT: an ICMP error from the node to whoever asked.
    fn reject(&mut self, at: At, flow: Flow, packet: Packet) {
        self.hop_at(at.host, (&packet, Some(flow)), Happening::Rejected);
        if let (Some(way), Some(node)) = (packet.way, self.node(at.index)) {
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
            .stack(at.host)
            .and_then(|stack| stack.source(client));
        let error = own.and_then(|own| port_unreachable(&packet.bytes, own));
        let way = packet.way;
        self.tcp.wire.recycle(packet.bytes);
        if let Some(bytes) = error {
            let error = Packet {
                bytes,
                way,
                carried: None,
            };
            if at.from == From::Itself {
                self.loop_back(at.host, error);
            } else {
                let from = From::Itself;
                self.route_unread(At { from, ..at }, error);
            }
        }
    }

    /// Whether a packet is for the node: by its mark, as its own address, or by a local route.
    fn is_local(&self, at: At, mark: u32, to: IpAddr) -> bool {
        let marked = mark & tproxy::PROXY_MASK == tproxy::TO_PROXY;
        let by_address = self.settings.redirect == Redirect::SkLookup;
        let stack = self.tcp.stack(at.host);
        marked
            || stack.is_some_and(|stack| stack.has(to))
            || by_address
                && self
                    .node(at.index)
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
            return Arc::from("lo");
        }
        let pod = self.node(at.index).and_then(|node| node.pods.get(&to));
        let links = pod.and_then(|pod| self.links.get(pod.index()));
        links.map_or_else(|| Arc::clone(&self.uplink), |it| Arc::clone(&it.device))
    }

    /// A packet that no flow can be read from has nothing that rules or hooks look at.
    fn route_unread(&mut self, at: At, mut packet: Packet) {
        let Some(to) = goes_to(&packet.bytes) else {
            self.discard(at.host, None, packet, Happening::NotTcp);
            return;
        };
        let local = self.is_local(at, 0, to);
        if at.from != From::Itself {
            if to.is_loopback() || to.is_unspecified() || to.is_multicast() {
                self.discard(at.host, None, packet, Happening::Martian);
                return;
            }
            if local {
                self.deliver(at.host, None, packet, None);
                return;
            }
            if !count_down(&mut packet.bytes) {
                self.discard(at.host, None, packet, Happening::TimeToLive);
                return;
            }
        } else if local {
            self.loop_back(at.host, packet);
            return;
        }
        self.send_to(at, to, None, packet);
    }

    fn send_on(&mut self, at: At, flow: &Flow, packet: Packet) {
        self.send_to(at, destination(flow).ip(), Some(*flow), packet);
    }

    /// To a pod of the node's own, or to the uplink.
    fn send_to(&mut self, at: At, to: IpAddr, flow: Option<Flow>, packet: Packet) {
        self.hop_at(at.host, (&packet, flow), Happening::Forwarded);
        let pod = self
            .node(at.index)
            .and_then(|node| node.pods.get(&to))
            .copied();
        match pod {
            Some(pod) => {
                self.went(Device::Veth(pod), &packet.bytes);
                self.carry(pod, LinkEnd::Back, Port::Stack(pod), packet);
            }
            None => self.leave(at.host, to, flow, packet),
        }
    }
}
