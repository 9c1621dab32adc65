//! What a node does with a packet: its hooks, kube-proxy's rules, its routes.
//!
//! In the kernel's order: tc ingress; then connection tracking and kube-proxy's translation (which
//! never touch what was redirected); then the route.

use std::net::SocketAddr;
use std::sync::Arc;

use nodeway_core::datapath::{Flow, Hook, Reason, Verdict};
use nodeway_core::plan::FrontendKey;
use nodeway_core::trace::{FrontendStep, Step, TranslationStep, VerdictStep};

use super::hop::{Happening, hook_name};
use super::kernel::{NodeKernel, SimSocket};
use super::link::Port;
use super::network::Network;
use super::packet::{
    Packet, count_down, destination, goes_to, port_unreachable, readdress, source, widen,
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
        if let (Redirect::Tc, Some(flow)) = (self.settings.redirect, flow) {
            let hook = Hook::TcIngress { sk_lookup: true };
            let device = match pod.and_then(|pod| self.links.get(pod.index())) {
                Some(links) => Arc::clone(&links.device),
                None => Arc::clone(&self.uplink),
            };
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
                Verdict::Deliver { .. } => {
                    self.deliver(host, Some(flow), packet, None);
                    return;
                }
                Verdict::Assign { socket, .. } => {
                    self.deliver(host, Some(flow), packet, Some(socket));
                    return;
                }
            }
        }
        let from = pod.map_or(From::Uplink, From::Pod);
        self.translate(index, host, from, flow, packet);
    }

    /// A packet that the node's own stack sends.
    pub(crate) fn host_sends(&mut self, index: u32, flow: Flow, packet: Packet) {
        if let Some(host) = self.node(index).map(|node| node.host) {
            self.translate(index, host, From::Itself, Some(flow), packet);
        }
    }

    fn discard(&mut self, host: StackId, flow: Option<Flow>, packet: Packet, what: Happening) {
        self.hop_at(host, (&packet, flow), what);
        self.tcp.wire.recycle(packet.bytes);
    }

    /// Connection tracking and kube-proxy's rules.
    fn translate(
        &mut self,
        index: u32,
        host: StackId,
        from: From,
        flow: Option<Flow>,
        mut packet: Packet,
    ) {
        let now = self.now;
        let Some(segment) = flow.filter(|it| it.packet == nodeway_core::datapath::Packet::Segment)
        else {
            self.route(index, host, from, flow, packet);
            return;
        };
        let (source, to) = (source(&segment), destination(&segment));
        let redirect = self.settings.redirect;
        // Without a program at the door, it is the local route of a frontend that a packet misses.
        if let (Redirect::SkLookup, true, Some(way)) = (redirect, segment.opens(), packet.way) {
            self.note_frontend(index, to, way);
        }
        let Some(node) = self.node_mut(index) else {
            return;
        };
        // NOTRACK in `raw`: a frontend's packets and their replies are none of kube-proxy's.
        let untracked =
            redirect == Redirect::SkLookup && (node.is_frontend(to) || node.is_frontend(source));
        let mut becomes = None;
        if !untracked {
            becomes = node.conntrack.pass(now, (source, to), segment.tcp_flags);
            if becomes.is_none() && segment.opens() {
                let services = Arc::clone(&node.services);
                if let Some(entry) = services.entries.get(&(to.ip(), to.port())) {
                    let way = packet.way;
                    let chosen = self.new_translation(index, host, from, (source, to), way, entry);
                    if chosen.is_none() {
                        self.reject(index, host, from, segment, packet);
                        return;
                    }
                    becomes = chosen;
                }
            }
        }
        let Some((source, to)) = becomes else {
            self.route(index, host, from, flow, packet);
            return;
        };
        let what = Happening::Translated {
            source,
            destination: to,
        };
        self.hop_at(host, (&packet, flow), what);
        readdress(&mut packet.bytes, source, to);
        let (_, src) = widen(source.ip());
        let (_, dst) = widen(to.ip());
        let flow = Flow {
            sport: source.port(),
            dport: to.port(),
            src,
            dst,
            ..segment
        };
        self.route(index, host, from, Some(flow), packet);
    }

    /// Chooses an endpoint and tracks the connection; nothing if there is no endpoint.
    fn new_translation(
        &mut self,
        index: u32,
        host: StackId,
        from: From,
        packet: (SocketAddr, SocketAddr),
        way: Option<WayId>,
        entry: &super::service::ServiceEntry,
    ) -> Option<(SocketAddr, SocketAddr)> {
        let now = self.now;
        let (source, at) = packet;
        let chosen = self.node_mut(index)?.choose(now, entry, source, at);
        let hairpin = chosen
            .as_ref()
            .is_some_and(|it| it.address.ip() == source.ip());
        let foreign = entry.external && !matches!(from, From::Pod(_));
        let masquerade = (hairpin || foreign)
            .then(|| self.tcp.stack(host)?.source(at.ip()))
            .flatten()
            .filter(|_| chosen.is_some())
            // A NodePort's own address is no source towards another family's endpoint.
            .filter(|own| !own.is_loopback());
        let masquerade = masquerade.filter(|own| *own != source.ip());
        let node = self.node_mut(index)?;
        let becomes = chosen.as_ref().map(|endpoint| {
            node.conntrack
                .track(now, packet, endpoint.address, masquerade)
        });
        let step = TranslationStep {
            node: Arc::clone(&node.name),
            from: at,
            service: entry.service.clone(),
            to: chosen,
            candidates: entry.endpoints.len(),
            masqueraded: masquerade.is_some(),
        };
        if let Some(way) = way {
            self.note_once(way, Step::Translation(step));
        }
        becomes
    }

    /// REJECT: an ICMP error from the node to whoever asked.
    fn reject(&mut self, index: u32, host: StackId, from: From, flow: Flow, packet: Packet) {
        self.hop_at(host, (&packet, Some(flow)), Happening::Rejected);
        let client = source(&flow).ip();
        let own = self.tcp.stack(host).and_then(|stack| stack.source(client));
        let error = own.and_then(|own| port_unreachable(&packet.bytes, own));
        let way = packet.way;
        self.tcp.wire.recycle(packet.bytes);
        if let Some(bytes) = error {
            let error = Packet { bytes, way };
            if from == From::Itself {
                self.loop_back(host, error);
            } else {
                self.route(index, host, From::Itself, None, error);
            }
        }
    }

    /// To the node itself, to a pod of its own, or to the uplink.
    fn route(
        &mut self,
        index: u32,
        host: StackId,
        from: From,
        flow: Option<Flow>,
        mut packet: Packet,
    ) {
        // An ICMP error's flow is turned round, but its packet goes to the same address.
        let to = match flow {
            Some(flow) => Some(destination(&flow).ip()),
            None => goes_to(&packet.bytes),
        };
        let Some(to) = to else {
            self.discard(host, flow, packet, Happening::NotTcp);
            return;
        };
        let (Some(node), Some(stack)) = (self.node(index), self.tcp.stack(host)) else {
            return;
        };
        let local = stack.has(to)
            || self.settings.redirect == Redirect::SkLookup && node.has_frontend_address(to);
        let pod = node.pods.get(&to).copied();
        if from == From::Itself {
            if local {
                self.loop_back(host, packet);
                return;
            }
        } else {
            let foreign = flow.is_some_and(|flow| source(&flow).ip().is_loopback());
            if to.is_loopback() || to.is_unspecified() || to.is_multicast() || foreign {
                self.discard(host, flow, packet, Happening::Martian);
                return;
            }
            if local {
                self.deliver(host, flow, packet, None);
                return;
            }
            if !count_down(&mut packet.bytes) {
                self.discard(host, flow, packet, Happening::TimeToLive);
                return;
            }
        }
        self.hop_at(host, (&packet, flow), Happening::Forwarded);
        let now = self.now;
        match pod {
            Some(pod) => {
                if let Some(links) = self.links_mut(pod) {
                    let arrival = links.back.send(now, packet.bytes.len());
                    self.events.send(arrival, Port::Stack(pod), packet);
                }
            }
            None => self.leave(host, to, flow, packet),
        }
    }
}
