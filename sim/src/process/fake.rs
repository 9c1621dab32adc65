//! An [`Os`] without a network: a test puts bytes in and looks at what a process does with them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodeway_core::trace::Step;

use super::{CallError, ListenSocketId, Os, Process, SocketEvent, SocketId, TimerId, WayId};
use crate::seed::{Random, Seed};
use crate::time::Time;

/// The calls of one process, recorded.
#[derive(Debug)]
pub(crate) struct FakeOs {
    /// What time it is.
    pub(crate) now: Time,
    /// Its connections.
    pub(crate) sockets: BTreeMap<SocketId, FakeSocket>,
    /// The connections that it opened itself, oldest first.
    pub(crate) connects: Vec<SocketId>,
    /// Where it listens.
    pub(crate) listening: BTreeMap<ListenSocketId, (Option<IpAddr>, u16)>,
    /// Ports that somebody else listens on.
    pub(crate) taken: Vec<u16>,
    /// When the timers that have not run out will.
    pub(crate) timers: BTreeMap<TimerId, Time>,
    /// Steps that it noted.
    pub(crate) steps: Vec<(WayId, Step)>,
    random: Random,
    next: u64,
}

/// A connection as the other side of it sees it.
#[derive(Debug)]
pub(crate) struct FakeSocket {
    /// The process's own end of it.
    pub(crate) local: SocketAddr,
    /// Whom it is connected to.
    pub(crate) peer: SocketAddr,
    /// Where it was meant to go, when rules led it here.
    pub(crate) meant: Option<SocketAddr>,
    /// Its way.
    pub(crate) way: Option<WayId>,
    /// What was sent on it.
    pub(crate) sent: Vec<u8>,
    /// How many bytes it still takes.
    pub(crate) room: usize,
    /// Whether its sending side is ended.
    pub(crate) shut: bool,
    /// Whether it was reset.
    pub(crate) aborted: bool,
    /// What the process has yet to receive.
    pub(crate) arrived: Vec<u8>,
}

/// The local address of a socket for which a test chose none.
const HERE: &str = "10.0.0.1:4000";

impl Default for FakeOs {
    fn default() -> Self {
        Self {
            now: Time::ZERO,
            sockets: BTreeMap::new(),
            connects: Vec::new(),
            listening: BTreeMap::new(),
            taken: Vec::new(),
            timers: BTreeMap::new(),
            steps: Vec::new(),
            random: Seed(1).stream("envoy"),
            next: 0,
        }
    }
}

impl FakeOs {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A connection between two addresses, of which the process knows nothing yet.
    pub(crate) fn open(
        &mut self,
        local: SocketAddr,
        peer: SocketAddr,
        way: Option<WayId>,
    ) -> SocketId {
        let socket = SocketId(self.number());
        let fake = FakeSocket {
            local,
            peer,
            meant: None,
            way,
            sent: Vec::new(),
            room: usize::MAX,
            shut: false,
            aborted: false,
            arrived: Vec::new(),
        };
        self.sockets.insert(socket, fake);
        socket
    }

    /// A connection that there is.
    pub(crate) fn of(&mut self, socket: SocketId) -> &mut FakeSocket {
        self.sockets.get_mut(&socket).unwrap()
    }

    /// Somebody connects to a port of the process.
    pub(crate) fn visit(&mut self, process: &mut impl Process, port: u16, peer: &str) -> SocketId {
        let mut listening = self.listening.iter();
        let by = *listening.find(|(_, at)| at.1 == port).unwrap().0;
        let socket = self.open(HERE.parse().unwrap(), peer.parse().unwrap(), None);
        process.on_socket(socket, SocketEvent::Accepted(by), self);
        socket
    }

    /// Bytes arrive.
    pub(crate) fn deliver(&mut self, process: &mut impl Process, socket: SocketId, bytes: &[u8]) {
        self.of(socket).arrived.extend_from_slice(bytes);
        process.on_socket(socket, SocketEvent::Readable, self);
    }

    /// There is room again.
    pub(crate) fn drain(&mut self, process: &mut impl Process, socket: SocketId, room: usize) {
        self.of(socket).room = room;
        process.on_socket(socket, SocketEvent::Writable, self);
    }

    /// What was sent on a socket so far, as text.
    pub(crate) fn sent(&self, socket: SocketId) -> String {
        String::from_utf8(self.sockets[&socket].sent.clone()).unwrap()
    }
}

impl Os for FakeOs {
    fn now(&self) -> Time {
        self.now
    }

    fn listen(&mut self, address: Option<IpAddr>, port: u16) -> Result<ListenSocketId, CallError> {
        let own = self
            .listening
            .values()
            .any(|(at, own)| *own == port && (at.is_none() || address.is_none() || *at == address));
        if own || self.taken.contains(&port) {
            return Err(CallError::AddressInUse);
        }
        let listening = ListenSocketId(self.number());
        self.listening.insert(listening, (address, port));
        Ok(listening)
    }

    fn unlisten(&mut self, socket: ListenSocketId) {
        self.listening.remove(&socket);
    }

    fn connect(&mut self, to: SocketAddr, way: Option<WayId>) -> Result<SocketId, CallError> {
        let socket = self.open(HERE.parse().unwrap(), to, way);
        self.connects.push(socket);
        Ok(socket)
    }

    fn connect_from(
        &mut self,
        from: IpAddr,
        to: SocketAddr,
        way: Option<WayId>,
    ) -> Result<SocketId, CallError> {
        let socket = self.connect(to, way)?;
        self.of(socket).local.set_ip(from);
        Ok(socket)
    }

    fn original_destination(&self, socket: SocketId) -> Option<SocketAddr> {
        self.sockets.get(&socket)?.meant
    }

    fn local(&self, socket: SocketId) -> Option<SocketAddr> {
        self.sockets.get(&socket).map(|fake| fake.local)
    }

    fn peer(&self, socket: SocketId) -> Option<SocketAddr> {
        self.sockets.get(&socket).map(|fake| fake.peer)
    }

    fn send(&mut self, socket: SocketId, bytes: &[u8]) -> usize {
        let fake = self.of(socket);
        assert!(!fake.shut && !fake.aborted, "sent after the end");
        let taken = bytes.len().min(fake.room);
        fake.sent.extend_from_slice(&bytes[..taken]);
        fake.room -= taken;
        taken
    }

    fn receive(&mut self, socket: SocketId, into: &mut Vec<u8>) -> usize {
        let arrived = std::mem::take(&mut self.of(socket).arrived);
        into.extend_from_slice(&arrived);
        arrived.len()
    }

    fn shutdown(&mut self, socket: SocketId) {
        self.of(socket).shut = true;
    }

    fn abort(&mut self, socket: SocketId) {
        self.of(socket).aborted = true;
    }

    fn way(&self, socket: SocketId) -> Option<WayId> {
        self.sockets.get(&socket).and_then(|fake| fake.way)
    }

    fn set_way(&mut self, socket: SocketId, way: Option<WayId>) {
        self.of(socket).way = way;
    }

    fn note(&mut self, way: WayId, step: Step) {
        self.steps.push((way, step));
    }

    fn timer(&mut self, after: Duration) -> TimerId {
        let timer = TimerId(self.number());
        self.timers.insert(timer, self.now + after);
        timer
    }

    fn cancel(&mut self, timer: TimerId) {
        self.timers.remove(&timer);
    }

    fn random(&mut self) -> u64 {
        self.random.draw()
    }
}
