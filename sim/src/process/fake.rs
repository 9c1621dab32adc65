//! An [`Os`] without a network: a test puts bytes in and looks at what a process does with them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodeway_core::trace::Step;

use super::{CallError, ListenSocketId, Os, Process, SocketEvent, SocketId, TimerId, WayId};
use crate::time::Time;

/// The calls of one process, recorded.
#[derive(Debug, Default)]
pub(crate) struct FakeOs {
    /// Its connections.
    pub(crate) sockets: BTreeMap<SocketId, FakeSocket>,
    /// The ports it listens on.
    pub(crate) listening: BTreeMap<u16, ListenSocketId>,
    /// Timers that have not run out.
    pub(crate) timers: BTreeMap<TimerId, Duration>,
    /// Steps that it noted.
    pub(crate) steps: Vec<(WayId, Step)>,
    next: u64,
}

/// A connection as the other side of it sees it.
#[derive(Debug)]
pub(crate) struct FakeSocket {
    /// Whom it is connected to.
    pub(crate) peer: SocketAddr,
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
    arrived: Vec<u8>,
}

/// The local address of every socket.
const HERE: &str = "10.0.0.1:4000";

impl FakeOs {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn open(&mut self, peer: SocketAddr, way: Option<WayId>) -> SocketId {
        let socket = SocketId(self.number());
        let fake = FakeSocket {
            peer,
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

    /// Somebody connects to a port of the process.
    pub(crate) fn visit(&mut self, process: &mut impl Process, port: u16, peer: &str) -> SocketId {
        let listening = self.listening[&port];
        let socket = self.open(peer.parse().unwrap(), None);
        process.on_socket(socket, SocketEvent::Accepted(listening), self);
        socket
    }

    /// Bytes arrive.
    pub(crate) fn deliver(&mut self, process: &mut impl Process, socket: SocketId, bytes: &[u8]) {
        let fake = self.sockets.get_mut(&socket).unwrap();
        fake.arrived.extend_from_slice(bytes);
        process.on_socket(socket, SocketEvent::Readable, self);
    }

    /// There is room again.
    pub(crate) fn drain(&mut self, process: &mut impl Process, socket: SocketId, room: usize) {
        self.sockets.get_mut(&socket).unwrap().room = room;
        process.on_socket(socket, SocketEvent::Writable, self);
    }

    /// What was sent on a socket so far, as text.
    pub(crate) fn sent(&self, socket: SocketId) -> String {
        String::from_utf8(self.sockets[&socket].sent.clone()).unwrap()
    }
}

impl Os for FakeOs {
    fn now(&self) -> Time {
        Time::ZERO
    }

    fn listen(&mut self, _: Option<IpAddr>, port: u16) -> Result<ListenSocketId, CallError> {
        if self.listening.contains_key(&port) {
            return Err(CallError::AddressInUse);
        }
        let listening = ListenSocketId(self.number());
        self.listening.insert(port, listening);
        Ok(listening)
    }

    fn unlisten(&mut self, socket: ListenSocketId) {
        self.listening.retain(|_, own| *own != socket);
    }

    fn connect(&mut self, to: SocketAddr, way: Option<WayId>) -> Result<SocketId, CallError> {
        Ok(self.open(to, way))
    }

    fn local(&self, _: SocketId) -> Option<SocketAddr> {
        HERE.parse().ok()
    }

    fn peer(&self, socket: SocketId) -> Option<SocketAddr> {
        self.sockets.get(&socket).map(|fake| fake.peer)
    }

    fn send(&mut self, socket: SocketId, bytes: &[u8]) -> usize {
        let Some(fake) = self.sockets.get_mut(&socket) else {
            return 0;
        };
        assert!(!fake.shut && !fake.aborted, "sent after the end");
        let taken = bytes.len().min(fake.room);
        fake.sent.extend_from_slice(&bytes[..taken]);
        fake.room -= taken;
        taken
    }

    fn receive(&mut self, socket: SocketId, into: &mut Vec<u8>) -> usize {
        let Some(fake) = self.sockets.get_mut(&socket) else {
            return 0;
        };
        let length = fake.arrived.len();
        into.append(&mut fake.arrived);
        length
    }

    fn shutdown(&mut self, socket: SocketId) {
        if let Some(fake) = self.sockets.get_mut(&socket) {
            fake.shut = true;
        }
    }

    fn abort(&mut self, socket: SocketId) {
        if let Some(fake) = self.sockets.get_mut(&socket) {
            fake.aborted = true;
        }
    }

    fn way(&self, socket: SocketId) -> Option<WayId> {
        self.sockets.get(&socket).and_then(|fake| fake.way)
    }

    fn set_way(&mut self, socket: SocketId, way: Option<WayId>) {
        if let Some(fake) = self.sockets.get_mut(&socket) {
            fake.way = way;
        }
    }

    fn note(&mut self, way: WayId, step: Step) {
        self.steps.push((way, step));
    }

    fn timer(&mut self, after: Duration) -> TimerId {
        let timer = TimerId(self.number());
        self.timers.insert(timer, after);
        timer
    }

    fn cancel(&mut self, timer: TimerId) {
        self.timers.remove(&timer);
    }

    fn random(&mut self) -> u64 {
        self.number()
    }
}
