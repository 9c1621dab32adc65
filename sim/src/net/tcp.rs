//! TCP of all stacks: the tables of sockets, and the one place where smoltcp is polled.
//!
//! Each call leaves behind what has to be done next: packets to carry, events to tell, timers to
//! arm. The network takes them from there.

mod end;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use smoltcp::iface::SocketSet;
use smoltcp::socket::tcp::State;
use smoltcp::time::Instant;

use super::connection::{Connection, Outcome, Patience};
use super::packet::{Packet, has_data};
use super::stack::{Stack, StackId, Tuple};
use super::topology::Settings;
use super::wire::Wire;
use crate::process::{CallError, ListenSocketId, SocketError, SocketEvent, SocketId, WayId};
use crate::time::Time;
use crate::world::ProcessId;

/// When a connection that smoltcp wants polled "now", after it was polled, is polled again.
const AGAIN: Duration = Duration::from_millis(1);

/// smoltcp's longest delay of an acknowledgement.
const DELAYED_ACK: Duration = Duration::from_millis(10);

/// A listening socket.
#[derive(Debug)]
pub(crate) struct ListenSocket {
    pub(crate) stack: StackId,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
    owner: ProcessId,
    uid: u32,
    half_open: usize,
}

/// Who calls: a process and its user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) process: ProcessId,
    pub(crate) uid: u32,
}

/// Where a connection goes to, and from where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    /// The address that its socket was bound to; the route's if none.
    pub(crate) from: Option<IpAddr>,
    pub(crate) to: SocketAddr,
    /// What the process asked for, if a hook changed it.
    pub(crate) asked: Option<SocketAddr>,
}

/// What became of a packet that was given to a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A connection or a ListenSocket has it.
    Delivered,
    /// Nobody listens: RST.
    Refused,
    /// The ListenSocket has as many half-open connections as it may.
    BacklogFull,
    /// It came for a connection that is over.
    TimeWait,
}

/// An event for a process.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) process: ProcessId,
    pub(crate) socket: SocketId,
    pub(crate) event: SocketEvent,
}

/// What packets keep of the socket that sent them.
#[derive(Clone, Copy, Default)]
struct Sent {
    way: Option<WayId>,
    uid: u32,
    began: bool,
}

impl Sent {
    fn of(connection: &Connection) -> Self {
        Self {
            way: connection.way,
            uid: connection.uid,
            began: connection.began,
        }
    }
}

/// All stacks and their sockets.
pub(crate) struct Tcp {
    pub(crate) stacks: Vec<Stack>,
    /// By `SocketId`; a place is never used again.
    connections: Vec<Option<Box<Connection>>>,
    pub(crate) listeners: BTreeMap<ListenSocketId, ListenSocket>,
    next_listener: u64,
    pub(crate) wire: Wire,
    buffer: usize,
    backlog: usize,
    time_wait: Duration,
    patience: Patience,
    pub(crate) output: VecDeque<(StackId, Packet)>,
    pub(crate) told: VecDeque<Told>,
    pub(crate) dirty: VecDeque<SocketId>,
    pub(crate) timers: Vec<(Time, SocketId)>,
}

/// smoltcp's clock counts microseconds.
fn instant(now: Time) -> Instant {
    Instant::from_micros(i64::try_from(now.nanos() / 1_000).unwrap_or(i64::MAX))
}

fn time(instant: Instant) -> Time {
    Time::from_nanos(
        u64::try_from(instant.total_micros())
            .unwrap_or(0)
            .saturating_mul(1_000),
    )
}

impl Tcp {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            stacks: Vec::new(),
            connections: Vec::new(),
            listeners: BTreeMap::new(),
            next_listener: 0,
            wire: Wire::new(settings.mtu),
            buffer: settings.buffer.max(1),
            backlog: settings.backlog,
            time_wait: settings.time_wait,
            patience: Patience {
                connect: settings.connect_timeout,
                acknowledgement: settings.retransmit_timeout,
                orphan: settings.time_wait,
            },
            output: VecDeque::new(),
            told: VecDeque::new(),
            dirty: VecDeque::new(),
            timers: Vec::new(),
        }
    }

    pub(crate) fn stack(&self, id: StackId) -> Option<&Stack> {
        self.stacks.get(id.index())
    }

    fn stack_mut(&mut self, id: StackId) -> Option<&mut Stack> {
        self.stacks.get_mut(id.index())
    }

    fn index(id: SocketId) -> usize {
        usize::try_from(id.0).unwrap_or(usize::MAX)
    }

    pub(crate) fn connection(&self, id: SocketId) -> Option<&Connection> {
        self.connections.get(Self::index(id))?.as_deref()
    }

    pub(crate) fn connection_mut(&mut self, id: SocketId) -> Option<&mut Connection> {
        self.connections.get_mut(Self::index(id))?.as_deref_mut()
    }

    /// The connection of a process, while it can use it.
    pub(crate) fn of(&mut self, process: ProcessId, id: SocketId) -> Option<&mut Connection> {
        self.connection_mut(id)
            .filter(|connection| connection.owner == Some(process))
    }

    fn add(&mut self, connection: Connection) -> SocketId {
        let id = SocketId(u64::try_from(self.connections.len()).unwrap_or(u64::MAX));
        if let Some(stack) = self.stack_mut(connection.stack) {
            stack.connections.insert(connection.tuple, id);
        }
        self.connections.push(Some(Box::new(connection)));
        id
    }

    /// Forgets a connection.
    pub(crate) fn remove(&mut self, id: SocketId) {
        let slot = self.connections.get_mut(Self::index(id));
        let Some(connection) = slot.and_then(Option::take) else {
            return;
        };
        if let Some(stack) = self.stack_mut(connection.stack)
            && stack.connections.get(&connection.tuple) == Some(&id)
        {
            stack.connections.remove(&connection.tuple);
        }
        self.no_longer_half_open(connection.through);
    }

    fn no_longer_half_open(&mut self, through: Option<ListenSocketId>) {
        if let Some(listener) = through.and_then(|id| self.listeners.get_mut(&id)) {
            listener.half_open = listener.half_open.saturating_sub(1);
        }
    }

    /// The flow's connection.
    pub(crate) fn find(&self, stack: StackId, tuple: &Tuple) -> Option<SocketId> {
        self.stack(stack)?.connections.get(tuple).copied()
    }

    /// Whether the flow is in TIME_WAIT.
    pub(crate) fn in_time_wait(&self, now: Time, stack: StackId, tuple: &Tuple) -> bool {
        self.stack(stack)
            .and_then(|stack| stack.time_wait.get(tuple))
            .is_some_and(|rest| rest.until > now)
    }

    pub(crate) fn listen(
        &mut self,
        stack_id: StackId,
        caller: Caller,
        address: Option<IpAddr>,
        port: u16,
    ) -> Result<ListenSocketId, CallError> {
        let id = ListenSocketId(self.next_listener);
        let Some(stack) = self.stack_mut(stack_id) else {
            return Err(CallError::NoAddress);
        };
        if address.is_some_and(|address| !stack.has(address)) {
            return Err(CallError::NoAddress);
        }
        if stack.taken(address, port) {
            return Err(CallError::AddressInUse);
        }
        stack.listening.insert((port, address), id);
        self.next_listener += 1;
        self.listeners.insert(
            id,
            ListenSocket {
                stack: stack_id,
                address,
                port,
                owner: caller.process,
                uid: caller.uid,
                half_open: 0,
            },
        );
        Ok(id)
    }

    pub(crate) fn unlisten(&mut self, owner: ProcessId, id: ListenSocketId) {
        if self.listeners.get(&id).is_none_or(|it| it.owner != owner) {
            return;
        }
        if let Some(listener) = self.listeners.remove(&id)
            && let Some(stack) = self.stack_mut(listener.stack)
        {
            stack.listening.remove(&(listener.port, listener.address));
        }
    }

    /// Begins a connection.
    pub(crate) fn connect(
        &mut self,
        stack_id: StackId,
        caller: Caller,
        course: Course,
        way: Option<WayId>,
    ) -> Result<SocketId, CallError> {
        let (buffer, to) = (self.buffer, course.to);
        let stack = self.stack_mut(stack_id).ok_or(CallError::NoAddress)?;
        let source = match course.from {
            Some(from) if stack.has(from) && from.is_ipv4() == to.is_ipv4() => from,
            Some(_) => return Err(CallError::NoAddress),
            None => stack.source(to.ip()).ok_or(CallError::NoAddress)?,
        };
        let local = stack.free_port(source, to)?;
        let mut connection = Connection::new(stack_id, Tuple::new(local, to), buffer);
        let context = stack.interface.context();
        connection
            .socket()
            .connect(context, (to.ip(), to.port()), (local.ip(), local.port()))
            .map_err(|_| CallError::NoAddress)?;
        connection.state = State::SynSent;
        connection.owner = Some(caller.process);
        connection.uid = caller.uid;
        connection.began = true;
        connection.asked = course.asked;
        connection.way = way;
        let id = self.add(connection);
        self.mark(id);
        Ok(id)
    }

    /// Lets a connection be polled before time goes on.
    pub(crate) fn mark(&mut self, id: SocketId) {
        if let Some(connection) = self.connection_mut(id)
            && !connection.queued
        {
            connection.queued = true;
            self.dirty.push_back(id);
        }
    }

    /// A packet for a connection.
    pub(crate) fn segment(&mut self, now: Time, id: SocketId, packet: Packet, reset: bool) {
        // An acknowledgement alone may be late, and is on the way before.
        if let Some(connection) = self.connection_mut(id)
            && packet.way.is_some()
            && has_data(&packet.bytes)
        {
            connection.way = packet.way;
        }
        self.wire.put(packet.bytes);
        self.poll(now, id, reset);
    }

    /// A packet for a ListenSocket, to be served at the packet's own destination.
    pub(crate) fn open(
        &mut self,
        now: Time,
        stack: StackId,
        through: ListenSocketId,
        tuple: Tuple,
        packet: Packet,
    ) -> Taken {
        let (backlog, buffer) = (self.backlog, self.buffer);
        let Some(listener) = self.listeners.get_mut(&through) else {
            return self.refuse(now, stack, packet);
        };
        if listener.half_open >= backlog {
            self.wire.recycle(packet.bytes);
            return Taken::BacklogFull;
        }
        listener.half_open += 1;
        let (owner, uid) = (listener.owner, listener.uid);
        let local = tuple.local();
        let mut connection = Connection::new(stack, tuple, buffer);
        connection.owner = Some(owner);
        connection.uid = uid;
        connection.through = Some(through);
        connection.way = packet.way;
        if connection
            .socket()
            .listen((local.ip(), local.port()))
            .is_err()
        {
            self.no_longer_half_open(Some(through));
            return Taken::Refused;
        }
        let id = self.add(connection);
        self.segment(now, id, packet, false);
        Taken::Delivered
    }

    /// A packet that nobody takes: smoltcp answers RST to what is no RST itself.
    pub(crate) fn refuse(&mut self, now: Time, stack_id: StackId, packet: Packet) -> Taken {
        self.wire.put(packet.bytes);
        if let Some(stack) = self.stacks.get_mut(stack_id.index()) {
            let sockets: &mut SocketSet<'static> = &mut stack.nobody;
            stack.interface.poll(instant(now), &mut self.wire, sockets);
        }
        let sent = Sent {
            way: packet.way,
            ..Sent::default()
        };
        self.carry(stack_id, sent);
        self.wire.settle();
        Taken::Refused
    }

    /// A packet for a connection in TIME_WAIT that opens nothing: its last answer once more.
    pub(crate) fn answer_again(&mut self, stack_id: StackId, tuple: &Tuple, packet: Packet) {
        let rest = self
            .stack(stack_id)
            .and_then(|stack| stack.time_wait.get(tuple));
        if let Some(rest) = rest.filter(|rest| !rest.answer.is_empty()) {
            let answer = Packet {
                bytes: rest.answer.clone(),
                way: packet.way,
                ..Packet::default()
            };
            self.output.push_back((stack_id, answer));
        }
        self.wire.recycle(packet.bytes);
    }

    /// A new connection takes over what is left of an old one.
    pub(crate) fn end_time_wait(&mut self, stack_id: StackId, tuple: &Tuple) {
        if let Some(stack) = self.stack_mut(stack_id) {
            stack.time_wait.remove(tuple);
        }
    }

    /// Hands on what smoltcp has sent for a socket.
    fn carry(&mut self, stack: StackId, sent: Sent) {
        while let Some(bytes) = self.wire.take() {
            let asks = sent.began && sent.way.is_some() && has_data(&bytes);
            let packet = Packet {
                bytes,
                way: sent.way,
                carried: None,
                uid: sent.uid,
                asks,
            };
            self.output.push_back((stack, packet));
        }
    }

    /// Runs a connection: what came in, what is to go out, what its process must know.
    pub(crate) fn poll(&mut self, now: Time, id: SocketId, reset: bool) {
        let slot = self.connections.get_mut(Self::index(id));
        let Some(mut connection) = slot.and_then(Option::take) else {
            self.wire.settle();
            return;
        };
        connection.queued = false;
        let stack_id = connection.stack;
        let Some(stack) = self.stacks.get_mut(stack_id.index()) else {
            return;
        };
        stack
            .interface
            .poll(instant(now), &mut self.wire, &mut connection.set);
        self.wire.settle();
        let before = self.output.len();
        self.carry(stack_id, Sent::of(&connection));
        let sent = self.output.len() > before;
        let through = connection.through;
        let accepting = through.is_some_and(|through| self.listeners.contains_key(&through));
        let (owner, told) = (connection.owner, &mut self.told);
        let mut accepted = false;
        let outcome = connection.look(reset, accepting, &mut |event| {
            accepted |= matches!(event, SocketEvent::Accepted(_));
            if let Some(process) = owner {
                told.push_back(Told {
                    process,
                    socket: id,
                    event,
                });
            }
        });
        if accepted {
            connection.through = None;
            self.no_longer_half_open(through);
        }
        let gave_up = outcome == Outcome::Alive && connection.gives_up(now);
        let owned = connection.owner.is_some();
        if sent
            && matches!(connection.state, State::Closing | State::TimeWait)
            && let Some((_, last)) = self.output.back()
        {
            connection.answer.clone_from(&last.bytes);
        }
        self.plan_next(now, id, &mut connection);
        // An acknowledgement of the peer's FIN may still be delayed.
        let delays = connection
            .next
            .is_some_and(|next| next <= now + DELAYED_ACK);
        if let Some(slot) = self.connections.get_mut(Self::index(id)) {
            *slot = Some(connection);
        }
        match outcome {
            _ if gave_up => self.fail(id, SocketError::TimedOut),
            Outcome::Alive => {}
            Outcome::TimeWait if delays => {}
            Outcome::TimeWait => self.enter_time_wait(now, id),
            Outcome::Gone => self.unlink(id, owned),
            Outcome::Unwanted => self.abort(now, id),
        }
    }

    /// Says when the connection wants to be polled next, and arms a timer if none is early enough.
    fn plan_next(&mut self, now: Time, id: SocketId, connection: &mut Connection) {
        let wait = connection.wait(now, self.patience);
        let Some(stack) = self.stacks.get_mut(connection.stack.index()) else {
            return;
        };
        let wanted = stack
            .interface
            .poll_at(instant(now), &connection.set)
            .map(time)
            .map(|at| if at <= now { now + AGAIN } else { at });
        connection.next = match (wanted, wait) {
            (Some(wanted), Some(wait)) => Some(wanted.min(wait)),
            (wanted, wait) => wanted.or(wait),
        };
        if let Some(next) = connection.next
            && connection.armed.is_none_or(|armed| next < armed)
        {
            connection.armed = Some(next);
            self.timers.push((next, id));
        }
    }

    /// A timer ran out. It may be stale, or have been put off since.
    pub(crate) fn on_timer(&mut self, now: Time, id: SocketId) {
        let Some(connection) = self.connection_mut(id) else {
            return;
        };
        if connection.armed != Some(now) {
            return;
        }
        connection.armed = None;
        match connection.next {
            Some(next) if next > now => {
                connection.armed = Some(next);
                self.timers.push((next, id));
            }
            Some(_) => self.poll(now, id, false),
            None => {}
        }
    }
}
