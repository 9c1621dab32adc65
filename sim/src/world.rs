//! A `World`: the network and the processes in it, and the loop that lets time go by.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use nodeway_core::datapath::{Family, FrontendState, Reason};
use nodeway_core::netfilter::{Routing, Ruleset, RulesetError};
use nodeway_core::plan::{FrontendKey, PlanDelta};
use nodeway_core::trace::Way;

use crate::net::{
    Calls, CapturedInterface, Datapath, Hop, Impairment, LinkEnd, Network, Place, ServiceTable,
    Settings, StackId, Topology, TopologyError, Toward,
};
use crate::process::{Os, Process, SocketEvent, TimerId, WayId};
use crate::seed::Random;
use crate::time::Time;

/// A process of a simulation. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(usize);

/// There is no node of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no node `{0}` in this simulation")]
pub struct NoSuchNode(pub String);

/// There is no such place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no `{0}` in this simulation")]
pub struct NoSuchPlace(pub Place);

struct Slot {
    stack: StackId,
    /// Taken out while it is called.
    process: Option<Box<dyn Process>>,
    random: Random,
    alive: bool,
}

/// A simulated cluster's machines, with what runs on them.
pub struct World {
    network: Network,
    processes: Vec<Slot>,
}

impl World {
    /// Builds the machines, with nothing on them.
    ///
    /// # Errors
    /// When the topology contradicts itself.
    pub fn new(
        topology: &Topology,
        settings: Settings,
        datapath: Box<dyn Datapath>,
    ) -> Result<Self, TopologyError> {
        Ok(Self {
            network: Network::new(topology, settings, datapath)?,
            processes: Vec::new(),
        })
    }

    /// What it runs with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.network.settings
    }

    /// The stack of a place. A pod in the host's network has its node's.
    #[must_use]
    pub fn stack(&self, place: &Place) -> Option<StackId> {
        self.network.places.get(place).copied()
    }

    /// The addresses of a stack.
    #[must_use]
    pub fn addresses(&self, stack: StackId) -> &[IpAddr] {
        self.network
            .tcp
            .stack(stack)
            .map_or(&[], |stack| &stack.addresses)
    }

    /// Starts a process and wakes it.
    pub fn spawn(&mut self, stack: StackId, process: Box<dyn Process>) -> ProcessId {
        let id = ProcessId(self.processes.len());
        let place = self.network.tcp.stack(stack);
        let place = place.map_or_else(|| Arc::from(""), |stack| Arc::clone(&stack.name));
        let stream = format!("{} in {place}", process.name());
        self.processes.push(Slot {
            stack,
            process: Some(process),
            random: self.network.settings.seed.stream(&stream),
            alive: true,
        });
        self.wake(id);
        id
    }

    /// Ends a process as the kernel does when one dies: nobody listens any more, its connections
    /// are closed, and reset where it has not read everything. It can still be looked at.
    pub fn kill(&mut self, id: ProcessId) {
        let Some(slot) = self.processes.get_mut(id.0).filter(|slot| slot.alive) else {
            return;
        };
        slot.alive = false;
        let stack = slot.stack;
        self.network.timers.retain(|_, owner| *owner != id);
        self.network.tcp.bury(self.network.now, stack, id);
        self.settle();
    }

    /// Whether a process runs.
    #[must_use]
    pub fn alive(&self, id: ProcessId) -> bool {
        self.processes.get(id.0).is_some_and(|slot| slot.alive)
    }

    /// Wakes a process from outside.
    pub fn wake(&mut self, id: ProcessId) {
        self.call(id, |process, os| process.on_wake(os));
        self.settle();
    }

    /// Looks at a process.
    #[must_use]
    pub fn process<T: Process>(&self, id: ProcessId) -> Option<&T> {
        let process: &dyn Any = self.processes.get(id.0)?.process.as_deref()?;
        process.downcast_ref()
    }

    /// Changes a process. It notices when it is woken.
    pub fn process_mut<T: Process>(&mut self, id: ProcessId) -> Option<&mut T> {
        let process: &mut dyn Any = self.processes.get_mut(id.0)?.process.as_deref_mut()?;
        process.downcast_mut()
    }

    /// Puts the frontends of a change into a node's table.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn apply(&mut self, node: &str, delta: &PlanDelta) -> Result<(), NoSuchNode> {
        let index = self.network.node_index(node);
        let index = index.ok_or_else(|| NoSuchNode(node.to_owned()))?;
        self.network.apply(index, delta);
        Ok(())
    }

    /// Leaves frontends of a node where they are between being switched on and being gone.
    pub(crate) fn halt(&mut self, node: &str, at: &BTreeMap<FrontendKey, FrontendState>) {
        let index = self.network.node_index(node);
        let node = index.and_then(|index| self.network.nodes.get_mut(index as usize));
        if let Some(node) = node {
            node.halt(at);
        }
    }

    /// Gives a node, or all, kube-proxy's table in the place of the one it had.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn translate_services(
        &mut self,
        node: Option<&str>,
        table: ServiceTable,
    ) -> Result<(), NoSuchNode> {
        let table = Arc::new(table);
        let mut found = node.is_none();
        for other in &mut self.network.nodes {
            if node.is_none_or(|node| node == &*other.name) {
                other.translate(Arc::clone(&table));
                found = true;
            }
        }
        match node {
            Some(node) if !found => Err(NoSuchNode(node.to_owned())),
            _ => Ok(()),
        }
    }

    /// Makes the link of a place bad, or well again: what it sends, what comes to it, or both.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn impair(
        &mut self,
        place: &Place,
        toward: Toward,
        impairment: Option<Impairment>,
    ) -> Result<(), NoSuchPlace> {
        let id = self.place(place)?;
        if toward != Toward::In {
            self.network.impair(id, LinkEnd::Out, impairment);
        }
        if toward != Toward::Out {
            self.network.impair(id, LinkEnd::Back, impairment);
        }
        Ok(())
    }

    /// Lets nothing through between two nodes, or a node and a host outside, or all again.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn partition(&mut self, a: &Place, b: &Place, cut: bool) -> Result<(), NoSuchPlace> {
        let (a, b) = (self.place(a)?, self.place(b)?);
        self.network.part(a, b, cut);
        Ok(())
    }

    /// Turns a node off without a word to anybody: its processes and those of its pods are gone, and
    /// all that its kernel knew.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn power_off(&mut self, node: &str) -> Result<(), NoSuchPlace> {
        let index = self.network.node_index(node);
        let index = index.ok_or_else(|| NoSuchPlace(Place::Node(node.to_owned())))?;
        self.network.power(index, false);
        let on = |stack: StackId| self.network.is_on(index, stack);
        let gone: Vec<ProcessId> = (0..self.processes.len())
            .map(ProcessId)
            .filter(|id| self.processes.get(id.0).is_some_and(|it| on(it.stack)))
            .collect();
        for id in gone {
            if let Some(slot) = self.processes.get_mut(id.0) {
                slot.alive = false;
            }
            self.network.timers.retain(|_, owner| *owner != id);
        }
        Ok(())
    }

    /// Turns a node on again: nothing runs there yet, and its kernel knows nothing.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn power_on(&mut self, node: &str) -> Result<(), NoSuchPlace> {
        let index = self.network.node_index(node);
        let index = index.ok_or_else(|| NoSuchPlace(Place::Node(node.to_owned())))?;
        self.network.power(index, true);
        Ok(())
    }

    /// Whether a stack is a node's own or one of its pods'.
    pub(crate) fn is_on(&self, node: &str, stack: StackId) -> bool {
        let index = self.network.node_index(node);
        index.is_some_and(|index| self.network.is_on(index, stack))
    }

    fn place(&self, place: &Place) -> Result<StackId, NoSuchPlace> {
        self.stack(place).ok_or_else(|| NoSuchPlace(place.clone()))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.network.now
    }

    /// Lets the next event happen; says whether there was one.
    pub fn step(&mut self) -> bool {
        match self.network.next() {
            Some(timer) => {
                if let Some(timer) = timer {
                    self.ring(timer);
                }
                self.settle();
                true
            }
            None => false,
        }
    }

    /// Lets events happen until `stop` says so, which is looked at after each; says whether it
    /// did. Without it, until nothing is left to happen up to `limit`; it is `limit` then.
    pub fn run_until(&mut self, limit: Time, mut stop: impl FnMut(&Self) -> bool) -> bool {
        if stop(self) {
            return true;
        }
        while self.network.next_at().is_some_and(|at| at <= limit) {
            self.step();
            if stop(self) {
                return true;
            }
        }
        self.network.now = self.network.now.max(limit);
        false
    }

    /// Makes a host outside external: whoever runs this world is its network stack from now on, and
    /// the node is its gateway. False if there is no such host or node.
    pub fn make_external(&mut self, host: &Place, gateway: &str) -> bool {
        let outside = matches!(host, Place::Outside(_));
        let (Some(stack), Some(gateway)) = (
            self.stack(host).filter(|_| outside),
            self.network.node_index(gateway),
        ) else {
            return false;
        };
        self.network.make_external(stack, gateway);
        true
    }

    /// The external host sends an IP packet, now. Its checksums are not looked at.
    pub fn take_in(&mut self, packet: &[u8], way: Option<WayId>) {
        self.network.take_in(packet, way);
    }

    /// Takes the next IP packet that has arrived at the external host, with right checksums.
    pub fn take_out(&mut self) -> Option<Vec<u8>> {
        self.network.take_out()
    }

    /// Gives a packet's buffer back for another one.
    pub fn recycle(&mut self, packet: Vec<u8>) {
        self.network.tcp.wire.recycle(packet);
    }

    /// When the next event is.
    #[must_use]
    pub fn next_at(&self) -> Option<Time> {
        self.network.next_at()
    }

    /// The ports at which somebody listens in a stack, in order.
    #[must_use]
    pub fn listening(&self, stack: StackId) -> Vec<u16> {
        let stack = self.network.tcp.stack(stack);
        let mut ports: Vec<u16> = stack
            .map(|stack| stack.listening.keys().map(|(port, _)| *port).collect())
            .unwrap_or_default();
        ports.dedup();
        ports
    }

    /// Opens the way of a request.
    pub fn open_way(&mut self) -> WayId {
        self.network.open_way()
    }

    /// A way, as far as it has been gone.
    #[must_use]
    pub fn way(&self, id: WayId) -> Option<&Way> {
        self.network.ways.get(&id)
    }

    /// Takes a way; what is noted on it from now on is lost.
    pub fn take_way(&mut self, id: WayId) -> Way {
        self.network.take_way(id)
    }

    /// Puts another way in the place of one.
    pub(crate) fn replace_way(&mut self, id: WayId, way: Way) {
        self.network.ways.insert(id, way);
    }

    /// Adds a step to a way, now: for what is known before a process acts.
    pub fn note(&mut self, way: WayId, step: nodeway_core::trace::Step) {
        self.network.note(way, step);
    }

    /// Every hop of every packet so far, if [`Settings::trace_packets`] is set.
    #[must_use]
    pub fn hops(&self) -> &[Hop] {
        &self.network.hops
    }

    /// Takes what every interface has seen so far, if [`Settings::capture_packets`] is set.
    pub fn take_captures(&mut self) -> Vec<CapturedInterface> {
        let recorder = self.network.recorder.as_mut();
        recorder.map(|it| it.take()).unwrap_or_default()
    }

    /// Takes the hops so far.
    pub fn take_hops(&mut self) -> Vec<Hop> {
        std::mem::take(&mut self.network.hops)
    }

    /// The rules of a node, of one family.
    #[must_use]
    pub fn rules(&self, node: &str, family: Family) -> Option<&Ruleset> {
        let index = self.network.node_index(node)?;
        let node = self.network.nodes.get(index as usize)?;
        Some(node.firewall.rules(family))
    }

    /// What a node's routes must have beside its rules.
    #[must_use]
    pub fn routing(&self, node: &str) -> Option<Routing> {
        let index = self.network.node_index(node)?;
        let node = self.network.nodes.get(index as usize)?;
        let own = self.network.tcp.stack(node.host)?;
        Some(node.routing(&own.addresses))
    }

    /// Puts rules into a pod's own network namespace; none for a pod in its node's.
    ///
    /// # Errors
    /// When the rules cannot be followed; nothing is put then.
    pub fn guard(&mut self, pod: StackId, v4: Ruleset, v6: Ruleset) -> Result<(), RulesetError> {
        self.network.guard(pod, v4, v6)
    }

    /// Gives the `lo` of a namespace another address.
    pub fn add_address(&mut self, stack: StackId, address: IpAddr) {
        self.network.add_address(stack, address);
    }

    /// The rules of a pod's own network namespace, of one family; none where it has none.
    #[must_use]
    pub fn rules_of_pod(&self, pod: &str, family: Family) -> Option<&Ruleset> {
        let stack = self.stack(&Place::Pod(pod.to_owned()))?;
        Some(self.network.guards.get(&stack)?.rules(family))
    }

    /// How often each hook of a node gave each reason.
    #[must_use]
    pub fn reasons(&self, node: &str) -> Option<&BTreeMap<(&'static str, Reason), u64>> {
        let index = self.network.node_index(node)?;
        let node = self.network.nodes.get(index as usize)?;
        Some(&node.reasons)
    }

    /// How many packets were delivered to stacks.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.network.delivered
    }

    /// The network, for tests that look inside.
    #[cfg(test)]
    pub(crate) fn network_mut(&mut self) -> &mut Network {
        &mut self.network
    }

    fn ring(&mut self, timer: TimerId) {
        if let Some(id) = self.network.timers.remove(&timer) {
            self.call(id, |process, os| process.on_timer(timer, os));
        }
    }

    /// Does what can be done at this moment: polls touched connections, tells processes.
    fn settle(&mut self) {
        self.network.flush();
        loop {
            if self.network.poll_touched() {
                continue;
            }
            let Some(told) = self.network.tcp.told.pop_front() else {
                return;
            };
            self.call(told.process, |process, os| {
                process.on_socket(told.socket, told.event, os);
            });
            if matches!(told.event, SocketEvent::Closed | SocketEvent::Failed(_)) {
                self.network.tcp.remove(told.socket);
            }
            self.network.flush();
        }
    }

    fn call(&mut self, id: ProcessId, what: impl FnOnce(&mut dyn Process, &mut dyn Os)) {
        let Some(slot) = self.processes.get_mut(id.0).filter(|slot| slot.alive) else {
            return;
        };
        let Some(mut process) = slot.process.take() else {
            return;
        };
        let uid = process.uid();
        what(
            &mut *process,
            &mut Calls {
                network: &mut self.network,
                process: id,
                uid,
                stack: slot.stack,
                random: &mut slot.random,
            },
        );
        slot.process = Some(process);
    }
}
