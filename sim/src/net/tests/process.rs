//! The processes of these tests.

use std::net::{IpAddr, SocketAddr};

use crate::process::{ListenSocketId, Os, Process, SocketEvent, SocketId, TimerId, WayId};
use std::collections::BTreeMap;

/// Sends back what it gets, and closes when its peer has.
pub(super) struct Echo {
    address: Option<IpAddr>,
    port: u16,
    listener: Option<ListenSocketId>,
    waiting: BTreeMap<SocketId, (Vec<u8>, bool)>,
    /// Local address, peer and way of each connection.
    pub(super) saw: Vec<(SocketAddr, SocketAddr, Option<WayId>)>,
    pub(super) events: Vec<SocketEvent>,
    /// Whether it takes what it is sent.
    pub(super) reads: bool,
}

impl Echo {
    pub(super) fn new(address: Option<IpAddr>, port: u16) -> Self {
        Self {
            address,
            port,
            listener: None,
            waiting: BTreeMap::new(),
            saw: Vec::new(),
            events: Vec::new(),
            reads: true,
        }
    }

    fn pump(&mut self, socket: SocketId, os: &mut dyn Os) {
        let (bytes, closing) = self.waiting.entry(socket).or_default();
        os.receive(socket, bytes);
        let sent = os.send(socket, bytes);
        bytes.drain(..sent);
        if bytes.is_empty() && *closing {
            os.shutdown(socket);
        }
    }
}

impl Process for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    fn on_wake(&mut self, os: &mut dyn Os) {
        if self.listener.is_none() {
            self.listener = Some(os.listen(self.address, self.port).unwrap());
        }
    }

    fn on_socket(&mut self, socket: SocketId, event: SocketEvent, os: &mut dyn Os) {
        self.events.push(event);
        match event {
            SocketEvent::Accepted(listener) => {
                assert_eq!(Some(listener), self.listener);
                let (local, peer) = (os.local(socket).unwrap(), os.peer(socket).unwrap());
                self.saw.push((local, peer, os.way(socket)));
            }
            SocketEvent::Readable | SocketEvent::Writable if self.reads => self.pump(socket, os),
            SocketEvent::PeerClosed if self.reads => {
                self.waiting.entry(socket).or_default().1 = true;
                self.pump(socket, os);
            }
            SocketEvent::Closed | SocketEvent::Failed(_) => {
                self.waiting.remove(&socket);
            }
            _ => {}
        }
    }

    fn on_timer(&mut self, _: TimerId, _: &mut dyn Os) {}
}

/// Bytes that tell where they stand.
pub(super) fn pattern(size: usize) -> Vec<u8> {
    (0..=250).cycle().take(size).collect()
}

/// Connects, sends, closes its half, and reads until the end.
pub(super) struct Asker {
    to: SocketAddr,
    way: Option<WayId>,
    unsent: Vec<u8>,
    pub(super) closes: bool,
    pub(super) got: Vec<u8>,
    pub(super) local: Option<SocketAddr>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) events: Vec<SocketEvent>,
    /// The last event: `Closed` or why it failed.
    pub(super) end: Option<SocketEvent>,
    started: bool,
}

impl Asker {
    pub(super) fn new(to: SocketAddr, size: usize, way: Option<WayId>) -> Self {
        Self {
            to,
            way,
            unsent: pattern(size),
            closes: true,
            got: Vec::new(),
            local: None,
            peer: None,
            events: Vec::new(),
            end: None,
            started: false,
        }
    }

    pub(super) fn holding(self) -> Self {
        Self {
            closes: false,
            ..self
        }
    }

    fn push(&mut self, socket: SocketId, os: &mut dyn Os) {
        let sent = os.send(socket, &self.unsent);
        self.unsent.drain(..sent);
        if self.unsent.is_empty() && self.closes {
            os.shutdown(socket);
        }
    }
}

impl Process for Asker {
    fn name(&self) -> &str {
        "asker"
    }

    fn on_wake(&mut self, os: &mut dyn Os) {
        if !self.started {
            self.started = true;
            os.connect(self.to, self.way).unwrap();
        }
    }

    fn on_socket(&mut self, socket: SocketId, event: SocketEvent, os: &mut dyn Os) {
        self.events.push(event);
        match event {
            SocketEvent::Connected => {
                self.local = os.local(socket);
                self.peer = os.peer(socket);
                self.push(socket, os);
            }
            SocketEvent::Writable => self.push(socket, os),
            SocketEvent::Readable => {
                os.receive(socket, &mut self.got);
            }
            SocketEvent::Closed | SocketEvent::Failed(_) => self.end = Some(event),
            _ => {}
        }
    }

    fn on_timer(&mut self, _: TimerId, _: &mut dyn Os) {}
}
