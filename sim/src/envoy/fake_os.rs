//! An [`Os`] whose other ends are the test: what comes and how much room there is, it says.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodeway_core::trace::Step;

use crate::process::{CallError, ListenSocketId, Os, SocketId, TimerId, WayId};
use crate::seed::{Random, Seed};
use crate::time::Time;

/// A socket, seen from outside.
pub(super) struct FakeSocket {
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    /// What the process has yet to receive.
    pub(super) inbox: Vec<u8>,
    /// What it sent.
    pub(super) outbox: Vec<u8>,
    /// How much it may still send.
    pub(super) room: usize,
    pub(super) shut: bool,
    pub(super) aborted: bool,
    pub(super) way: Option<WayId>,
}

/// The other ends of everything.
pub(super) struct FakeOs {
    next: u64,
    random: Random,
    pub(super) now: Time,
    pub(super) sockets: BTreeMap<SocketId, FakeSocket>,
    pub(super) listens: BTreeMap<ListenSocketId, (IpAddr, u16)>,
    pub(super) connects: Vec<SocketId>,
    pub(super) timers: BTreeMap<TimerId, Time>,
    pub(super) steps: Vec<(WayId, Step)>,
    pub(super) taken: Vec<u16>,
}

impl FakeOs {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            random: Seed(1).stream("envoy"),
            now: Time::ZERO,
            sockets: BTreeMap::new(),
            listens: BTreeMap::new(),
            connects: Vec::new(),
            timers: BTreeMap::new(),
            steps: Vec::new(),
            taken: Vec::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn socket(&mut self, local: SocketAddr, peer: SocketAddr) -> SocketId {
        let id = SocketId(self.number());
        let socket = FakeSocket {
            local,
            peer,
            inbox: Vec::new(),
            outbox: Vec::new(),
            room: usize::MAX,
            shut: false,
            aborted: false,
            way: None,
        };
        self.sockets.insert(id, socket);
        id
    }

    pub(super) fn of(&mut self, socket: SocketId) -> &mut FakeSocket {
        self.sockets.get_mut(&socket).unwrap()
    }
}

impl Os for FakeOs {
    fn now(&self) -> Time {
        self.now
    }

    fn listen(&mut self, address: Option<IpAddr>, port: u16) -> Result<ListenSocketId, CallError> {
        if self.taken.contains(&port) {
            return Err(CallError::AddressInUse);
        }
        let id = ListenSocketId(self.number());
        self.listens.insert(id, (address.unwrap(), port));
        Ok(id)
    }

    fn unlisten(&mut self, socket: ListenSocketId) {
        self.listens.remove(&socket);
    }

    fn connect(&mut self, to: SocketAddr, way: Option<WayId>) -> Result<SocketId, CallError> {
        let id = self.socket("10.244.1.1:40000".parse().unwrap(), to);
        self.of(id).way = way;
        self.connects.push(id);
        Ok(id)
    }

    fn local(&self, socket: SocketId) -> Option<SocketAddr> {
        self.sockets.get(&socket).map(|it| it.local)
    }

    fn peer(&self, socket: SocketId) -> Option<SocketAddr> {
        self.sockets.get(&socket).map(|it| it.peer)
    }

    fn send(&mut self, socket: SocketId, bytes: &[u8]) -> usize {
        let socket = self.of(socket);
        assert!(!socket.shut && !socket.aborted, "sent after the end");
        let length = bytes.len().min(socket.room);
        socket.room -= length;
        socket.outbox.extend_from_slice(&bytes[..length]);
        length
    }

    fn receive(&mut self, socket: SocketId, into: &mut Vec<u8>) -> usize {
        let inbox = std::mem::take(&mut self.of(socket).inbox);
        into.extend_from_slice(&inbox);
        inbox.len()
    }

    fn shutdown(&mut self, socket: SocketId) {
        self.of(socket).shut = true;
    }

    fn abort(&mut self, socket: SocketId) {
        self.of(socket).aborted = true;
    }

    fn way(&self, socket: SocketId) -> Option<WayId> {
        self.sockets.get(&socket)?.way
    }

    fn set_way(&mut self, socket: SocketId, way: Option<WayId>) {
        self.of(socket).way = way;
    }

    fn note(&mut self, way: WayId, step: Step) {
        self.steps.push((way, step));
    }

    fn timer(&mut self, after: Duration) -> TimerId {
        let id = TimerId(self.number());
        self.timers.insert(id, self.now + after);
        id
    }

    fn cancel(&mut self, timer: TimerId) {
        self.timers.remove(&timer);
    }

    fn random(&mut self) -> u64 {
        self.random.draw()
    }
}
