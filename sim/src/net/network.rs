//! The network as a whole: stacks, nodes and the links between them, on one clock.
//!
//! A packet leaves a stack ([`Network::emit`]), comes to the end of a link
//! ([`Network::arrive`]), and is delivered ([`Network::deliver`]). What a node does with one that
//! is not its own stands in `forward`.

mod wiring;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nodeway_core::datapath::{self, Flow, Hook, Packet as Kind, Reason, Verdict, tcp_flags};
use nodeway_core::netfilter::{Firewall, Ruleset, RulesetError};
use nodeway_core::plan::{FrontendKey, PlanDelta};
use nodeway_core::redirect::Redirect;
use nodeway_core::trace::{Step, Way};
use smoltcp::socket::tcp::State;

use super::capture::{Device, Recorder};
use super::carriage::{LinkEnd, Links};
use super::event::{Event, Events, Next};
use super::external::External;
use super::hop::{Happening, Hop};
use super::kernel::{Datapath, SimSocket};
use super::link::Port;
use super::node::Node;
use super::packet::{Packet, destination, says_port_unreachable, source};
use super::stack::{Role, StackId, Tuple};
use super::tcp::{Taken, Tcp};
use super::topology::{Place, Settings};
use crate::process::{SocketError, SocketId, TimerId, WayId};
use crate::time::Time;
use crate::world::ProcessId;

pub use wiring::TopologyError;

/// How often a node looks whether frontends that arm or drain are done.
const REVIEW: Duration = Duration::from_secs(1);

/// Whether a stack has a connection that came by a frontend.
fn serves(tcp: &Tcp, host: StackId, key: FrontendKey) -> bool {
    let at = SocketAddr::new(key.address, key.port);
    let stack = tcp.stack(host).into_iter();
    let mut connections = stack.flat_map(|stack| stack.connections.keys());
    connections.any(|tuple| tuple.local() == at)
}

/// Everything but the processes.
pub(crate) struct Network {
    pub(crate) now: Time,
    pub(crate) settings: Settings,
    pub(crate) events: Events,
    pub(crate) tcp: Tcp,
    pub(crate) links: Vec<Links>,
    pub(crate) nodes: Vec<Node>,
    /// The packet filters of pods that have one.
    pub(crate) guards: BTreeMap<StackId, Firewall>,
    /// Where the fabric between nodes and hosts outside takes an address.
    pub(crate) fabric: BTreeMap<IpAddr, Port>,
    /// The host outside that is no simulated one, if there is one.
    pub(crate) external: Option<External>,
    pub(crate) datapath: Box<dyn Datapath>,
    pub(crate) places: BTreeMap<Place, StackId>,
    pub(crate) ways: BTreeMap<WayId, Way>,
    /// The links that each way has crossed, each with the connection that crossed it.
    crossed: BTreeMap<WayId, Vec<(Port, SocketAddr, SocketAddr)>>,
    pub(crate) hops: Vec<Hop>,
    /// Only where captures are asked for.
    pub(crate) recorder: Option<Box<Recorder>>,
    /// Pairs of machines on the fabric between which nothing gets through, the lower first.
    pub(crate) partitions: BTreeSet<(StackId, StackId)>,
    pub(crate) delivered: u64,
    pub(crate) timers: BTreeMap<TimerId, ProcessId>,
    next_timer: u64,
    next_way: u64,
    pub(crate) nowhere: Arc<str>,
    pub(crate) uplink: Arc<str>,
    pub(crate) lo: Arc<str>,
    pub(crate) eth0: Arc<str>,
}

impl Network {
    /// Puts the frontends of a change into a node's table.
    pub(crate) fn apply(&mut self, index: u32, delta: &PlanDelta) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(index as usize) else {
            return;
        };
        let (tcp, host) = (&self.tcp, node.host);
        let before = node.is_switching();
        let switching = node.apply(delta, now, |key| serves(tcp, host, key));
        if switching && !before {
            self.events.add(now + REVIEW, Event::Review(index));
        }
    }

    fn review(&mut self, index: u32) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(index as usize) else {
            return;
        };
        let (tcp, host) = (&self.tcp, node.host);
        if node.review(now, |key| serves(tcp, host, key)) {
            self.events.add(now + REVIEW, Event::Review(index));
        }
    }

    /// Gives a pod's own namespace a packet filter, or other rules.
    pub(crate) fn guard(
        &mut self,
        pod: StackId,
        v4: Ruleset,
        v6: Ruleset,
    ) -> Result<(), RulesetError> {
        match self.tcp.stack(pod).map(|stack| stack.role) {
            Some(Role::Pod { .. }) => self.guards.entry(pod).or_default().replace(v4, v6),
            _ => Ok(()),
        }
    }

    /// Gives a namespace's `lo` another address.
    pub(crate) fn add_address(&mut self, id: StackId, address: IpAddr) {
        if let Some(stack) = self.tcp.stacks.get_mut(id.index())
            && !stack.addresses.contains(&address)
        {
            stack.addresses.push(address);
        }
    }

    pub(crate) fn node_index(&self, name: &str) -> Option<u32> {
        let index = self.nodes.iter().position(|node| &*node.name == name)?;
        u32::try_from(index).ok()
    }

    pub(crate) fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(index as usize)
    }

    pub(crate) fn node_mut(&mut self, index: u32) -> Option<&mut Node> {
        self.nodes.get_mut(index as usize)
    }

    pub(crate) fn links_mut(&mut self, id: StackId) -> Option<&mut Links> {
        self.links.get_mut(id.index())
    }

    /// When the next event is.
    pub(crate) fn next_at(&self) -> Option<Time> {
        self.events.next_at()
    }

    /// Lets the next event happen; a timer of a process is for the caller to tell.
    pub(crate) fn next(&mut self) -> Option<Option<TimerId>> {
        let (at, event) = self.events.pop()?;
        self.now = self.now.max(at);
        let timer = match event {
            Next::Arrival(port, packet) => {
                self.arrive(port, packet);
                None
            }
            Next::Event(Event::Socket(id)) => {
                self.tcp.on_timer(self.now, id);
                None
            }
            Next::Event(Event::Timer(id)) => Some(id),
            Next::Event(Event::Review(node)) => {
                self.review(node);
                None
            }
        };
        self.flush();
        Some(timer)
    }

    /// Polls a connection that its process has touched; says whether there was one.
    pub(crate) fn poll_touched(&mut self) -> bool {
        match self.tcp.dirty.pop_front() {
            Some(id) => {
                self.tcp.poll(self.now, id, false);
                self.flush();
                true
            }
            None => false,
        }
    }

    /// Puts what TCP has left behind onto links and into the event heap.
    pub(crate) fn flush(&mut self) {
        while let Some((stack, packet)) = self.tcp.output.pop_front() {
            self.emit(stack, packet);
        }
        for (at, id) in self.tcp.timers.drain(..) {
            self.events.add(at, Event::Socket(id));
        }
    }

    pub(crate) fn timer(&mut self, process: ProcessId, at: Time) -> TimerId {
        let id = TimerId(self.next_timer);
        self.next_timer += 1;
        self.timers.insert(id, process);
        self.events.add(at, Event::Timer(id));
        id
    }

    pub(crate) fn open_way(&mut self) -> WayId {
        let id = WayId(self.next_way);
        self.next_way += 1;
        self.ways.insert(id, Way::default());
        id
    }

    /// Takes a way; what is noted on it from now on is lost.
    pub(crate) fn take_way(&mut self, id: WayId) -> Way {
        self.crossed.remove(&id);
        self.ways.remove(&id).unwrap_or_default()
    }

    /// Adds a step to a way.
    pub(crate) fn note(&mut self, way: WayId, step: Step) {
        let at = self.now.since_start();
        if let Some(way) = self.ways.get_mut(&way) {
            way.steps.push((at, step));
        }
    }

    /// Adds a step to a way unless it is there: a SYN that is sent again tells nothing new.
    pub(crate) fn note_once(&mut self, way: WayId, step: Step) {
        let known = |way: &Way| way.steps.iter().any(|(_, other)| *other == step);
        if !self.ways.get(&way).is_some_and(known) {
            self.note(way, step);
        }
    }

    /// Keeps a hop, if hops are kept, and tells the recorder.
    #[inline]
    pub(crate) fn hop(
        &mut self,
        at: (&Arc<str>, &Arc<str>),
        packet: (&Packet, Option<Flow>),
        what: Happening,
        reason: Option<Reason>,
    ) {
        if let Some(recorder) = &mut self.recorder {
            recorder.happens(packet.1.as_ref(), what);
        }
        if self.settings.trace_packets {
            self.hops.push(Hop {
                time: self.now,
                place: Arc::clone(at.0),
                device: Arc::clone(at.1),
                flow: packet.1,
                length: packet.0.bytes.len(),
                way: packet.0.way,
                what,
                reason,
            });
        }
    }

    /// Keeps a hop within a stack.
    pub(crate) fn hop_at(
        &mut self,
        stack: StackId,
        packet: (&Packet, Option<Flow>),
        what: Happening,
    ) {
        if self.watched() {
            let name = self.tcp.stack(stack).map(|stack| Arc::clone(&stack.name));
            let nowhere = Arc::clone(&self.nowhere);
            let name = name.unwrap_or_else(|| Arc::clone(&nowhere));
            self.hop((&name, &nowhere), packet, what, None);
        }
    }

    /// A stack sends a packet.
    fn emit(&mut self, id: StackId, packet: Packet) {
        let Ok(flow) = datapath::parse(&*packet.bytes) else {
            return;
        };
        if let Some(recorder) = &mut self.recorder {
            recorder.made();
        }
        self.hop_at(id, (&packet, Some(flow)), Happening::Sent);
        let Some(stack) = self.tcp.stack(id) else {
            return;
        };
        let role = stack.role;
        let Some(packet) = self.sends(id, flow, packet) else {
            return;
        };
        let to = destination(&flow).ip();
        let own = self.tcp.stack(id).is_some_and(|stack| stack.has(to));
        match role {
            _ if own => self.loop_back(id, packet),
            Role::Pod { .. } => self.up(id, packet),
            Role::Host { .. } | Role::Outside => self.leave(id, to, Some(flow), packet),
        }
    }

    /// From a pod to its node.
    pub(crate) fn up(&mut self, pod: StackId, packet: Packet) {
        self.went(Device::Own(pod), &packet.bytes);
        self.carry(pod, LinkEnd::Out, Port::Veth(pod), packet);
    }

    /// Over a stack's own `lo`.
    pub(crate) fn loop_back(&mut self, id: StackId, packet: Packet) {
        self.carry(id, LinkEnd::Loopback, Port::Loopback(id), packet);
    }

    /// Over an uplink to whoever has the address.
    pub(crate) fn leave(&mut self, from: StackId, to: IpAddr, flow: Option<Flow>, packet: Packet) {
        let role = self.tcp.stack(from).map(|stack| stack.role);
        let port = self.fabric.get(&to).copied().filter(|port| {
            // An address that is announced here and that nobody here takes would come back.
            !matches!((role, port), (Some(Role::Host { node }), Port::Uplink(other)) if node == *other)
        });
        let port = self.by_gateway(from, port);
        let Some(port) = port else {
            self.hop_at(from, (&packet, flow), Happening::NoRoute);
            self.tcp.wire.recycle(packet.bytes);
            return;
        };
        self.went(Device::Own(from), &packet.bytes);
        if let Some(why) = self.cut_off(from, port) {
            self.lose(from, packet, why);
            return;
        }
        let to = self.at_port(port);
        let links = to.and_then(|to| Some((to, self.links.get(to.index())?)));
        let port = match links {
            Some((to, links)) if links.back.impairment().is_some() => Port::Fabric(to),
            _ => port,
        };
        self.carry(from, LinkEnd::Out, port, packet);
    }

    /// A packet comes to the end of a link.
    fn arrive(&mut self, port: Port, packet: Packet) {
        let end = self.at_port(port);
        let links = end.and_then(|end| self.links.get(end.index()));
        if let (Some(end), Some(true)) = (end, links.map(|links| links.down)) {
            self.lose(end, packet, "its machine is off".to_owned());
            return;
        }
        if self.recorder.is_some() {
            self.came(port, &packet);
        }
        if packet.asks {
            self.crosses(port, &packet);
        }
        match port {
            Port::Stack(stack) if self.is_external(stack) => self.hand_out(packet),
            Port::Stack(stack) => self.over_eth0(stack, packet),
            Port::Loopback(stack) => self.over_lo(stack, packet),
            Port::Veth(pod) => {
                if let Some(Role::Pod { node }) = self.tcp.stack(pod).map(|stack| stack.role) {
                    self.ingress(node, Some(pod), packet);
                }
            }
            Port::Uplink(node) => self.ingress(node, None, packet),
            Port::Fabric(to) => self.off_the_fabric(to, packet),
        }
    }

    /// Counts a link that bytes of a request have crossed, once a connection. The fabric is the
    /// middle of one.
    fn crosses(&mut self, port: Port, packet: &Packet) {
        let (Some(id), Ok(flow)) = (packet.way, datapath::parse(&*packet.bytes)) else {
            return;
        };
        if matches!(port, Port::Fabric(_)) {
            return;
        }
        let Some(way) = self.ways.get_mut(&id) else {
            return;
        };
        let crossing = (port, source(&flow), destination(&flow));
        let crossed = self.crossed.entry(id).or_default();
        if !crossed.contains(&crossing) {
            crossed.push(crossing);
            way.hops = crossed.len();
        }
    }

    /// Gives a packet to a stack, and to the socket that a hook has assigned.
    pub(crate) fn deliver(
        &mut self,
        id: StackId,
        flow: Option<Flow>,
        packet: Packet,
        assigned: Option<SimSocket>,
    ) {
        let Some(flow) = flow.or_else(|| datapath::parse(&*packet.bytes).ok()) else {
            self.hop_at(id, (&packet, None), Happening::NotTcp);
            self.tcp.wire.recycle(packet.bytes);
            return;
        };
        self.delivered += 1;
        let tuple = Tuple::new(destination(&flow), source(&flow));
        if flow.packet == Kind::IcmpError {
            self.hop_at(id, (&packet, Some(flow)), Happening::Delivered);
            self.icmp_error(id, &tuple, packet);
            return;
        }
        let copy = self.watched().then(|| packet.clone());
        let taken = self.take(id, tuple, &flow, packet, assigned);
        if let Some(copy) = copy {
            let what = match taken {
                Taken::Delivered => Happening::Delivered,
                Taken::Refused => Happening::Refused,
                Taken::BacklogFull => Happening::BacklogFull,
                Taken::TimeWait => Happening::TimeWait,
            };
            self.hop_at(id, (&copy, Some(flow)), what);
        }
    }

    /// The kernel's order: the flow's own socket, TIME_WAIT, sk_lookup, who listens.
    fn take(
        &mut self,
        id: StackId,
        tuple: Tuple,
        flow: &Flow,
        packet: Packet,
        assigned: Option<SimSocket>,
    ) -> Taken {
        let now = self.now;
        let own = match assigned {
            Some(SimSocket::Connection(socket)) => Some(socket),
            _ => self.tcp.find(id, &tuple),
        };
        if let Some(socket) = own {
            let waiting = |socket: SocketId| {
                let connection = self.tcp.connection(socket);
                connection.is_some_and(|it| it.state == State::TimeWait)
            };
            if !(flow.opens() && waiting(socket)) {
                let reset = flow.tcp_flags & tcp_flags::RST != 0;
                self.tcp.segment(now, socket, packet, reset);
                return Taken::Delivered;
            }
            self.tcp.enter_time_wait(now, socket);
        }
        if self.tcp.in_time_wait(now, id, &tuple) && !flow.opens() {
            if flow.tcp_flags & tcp_flags::RST == 0 {
                self.tcp.answer_again(id, &tuple, packet);
            }
            return Taken::TimeWait;
        }
        let listener = match assigned {
            Some(SimSocket::Listen(listener)) => Some(listener),
            _ => self.look_up(id, flow, packet.way),
        };
        match listener {
            // Linux takes a SYN whose number lies beyond the old connection's. Its numbers grow
            // with the clock, smoltcp's are drawn: here every SYN counts as beyond.
            Some(listener) if flow.opens() => {
                self.tcp.end_time_wait(id, &tuple);
                self.tcp.open(now, id, listener, tuple, packet)
            }
            _ => self.tcp.refuse(now, id, packet),
        }
    }

    /// Who listens: on a node the sk_lookup program is asked first.
    fn look_up(
        &mut self,
        id: StackId,
        flow: &Flow,
        way: Option<WayId>,
    ) -> Option<crate::process::ListenSocketId> {
        if let Some(Role::Host { node }) = self.tcp.stack(id).map(|stack| stack.role) {
            let (from, to) = ((flow.src, flow.sport), (flow.dst, flow.dport));
            let call = Flow::call(flow.family, flow.protocol, Some(from), to);
            let way = way.filter(|_| flow.opens());
            match self.ask(node, &call, Hook::SkLookup, None, way) {
                Verdict::Assign {
                    socket: SimSocket::Listen(listener),
                    ..
                } => return Some(listener),
                Verdict::Drop(_) => return None,
                _ => {}
            }
        }
        self.tcp.stack(id)?.listener(destination(flow))
    }

    /// Linux fails a connect on "port unreachable"; a connection that stands shrugs it off.
    fn icmp_error(&mut self, id: StackId, tuple: &Tuple, packet: Packet) {
        if let Some(socket) = self.tcp.find(id, tuple) {
            let connecting = self
                .tcp
                .connection(socket)
                .is_some_and(|it| it.state == State::SynSent);
            if connecting && says_port_unreachable(&packet.bytes) {
                self.tcp.fail(socket, SocketError::Refused);
            }
        }
        self.tcp.wire.recycle(packet.bytes);
    }

    /// A connect call: on a node with tc programs the connect hook is asked. Says where the call
    /// really goes, or that it is refused.
    pub(crate) fn connect_hook(
        &mut self,
        id: StackId,
        to: SocketAddr,
        way: Option<WayId>,
    ) -> Option<SocketAddr> {
        let Some(Role::Host { node }) = self.tcp.stack(id).map(|stack| stack.role) else {
            return Some(to);
        };
        if self.settings.redirect != Redirect::Tc {
            return Some(to);
        }
        let (family, dst) = super::packet::widen(to.ip());
        let call = Flow::call(family, datapath::protocol::TCP, None, (dst, to.port()));
        match self.ask(node, &call, Hook::Connect, None, way) {
            Verdict::Connect { port, .. } => Some(SocketAddr::new(
                match to.ip() {
                    IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                },
                port,
            )),
            Verdict::Drop(_) => None,
            _ => Some(to),
        }
    }
}
