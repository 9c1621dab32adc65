//! The calls of a process: [`Os`] over the network.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodeway_core::trace::Step;

use super::network::Network;
use super::stack::StackId;
use super::tcp::{Caller, Course};
use crate::process::{CallError, ListenSocketId, Os, SocketError, SocketId, TimerId, WayId};
use crate::seed::Random;
use crate::time::Time;
use crate::world::ProcessId;

/// The calls that one process has, while it is called.
pub(crate) struct Calls<'a> {
    pub(crate) network: &'a mut Network,
    pub(crate) process: ProcessId,
    /// The user that the process runs as.
    pub(crate) uid: u32,
    pub(crate) stack: StackId,
    pub(crate) random: &'a mut Random,
}

impl Calls<'_> {
    fn caller(&self) -> Caller {
        Caller {
            process: self.process,
            uid: self.uid,
        }
    }

    fn begin(
        &mut self,
        from: Option<IpAddr>,
        to: SocketAddr,
        way: Option<WayId>,
    ) -> Result<SocketId, CallError> {
        let caller = self.caller();
        let really = self.network.connect_hook(self.stack, to, way);
        let course = Course {
            from,
            to: really.unwrap_or(to),
            asked: really.filter(|really| *really != to).map(|_| to),
        };
        let tcp = &mut self.network.tcp;
        let id = tcp.connect(self.stack, caller, course, way)?;
        if really.is_none() {
            tcp.fail(id, SocketError::Refused);
        }
        Ok(id)
    }
}

impl Os for Calls<'_> {
    fn now(&self) -> Time {
        self.network.now
    }

    fn listen(&mut self, address: Option<IpAddr>, port: u16) -> Result<ListenSocketId, CallError> {
        let caller = self.caller();
        self.network.tcp.listen(self.stack, caller, address, port)
    }

    fn unlisten(&mut self, socket: ListenSocketId) {
        self.network.tcp.unlisten(self.process, socket);
    }

    fn connect(&mut self, to: SocketAddr, way: Option<WayId>) -> Result<SocketId, CallError> {
        self.begin(None, to, way)
    }

    fn connect_from(
        &mut self,
        from: IpAddr,
        to: SocketAddr,
        way: Option<WayId>,
    ) -> Result<SocketId, CallError> {
        self.begin(Some(from), to, way)
    }

    fn original_destination(&self, socket: SocketId) -> Option<SocketAddr> {
        let connection = self.network.tcp.connection(socket)?;
        let (peer, local) = (connection.tuple.remote(), connection.tuple.local());
        self.network
            .original_destination(connection.stack, peer, local)
    }

    fn local(&self, socket: SocketId) -> Option<SocketAddr> {
        let connection = self.network.tcp.connection(socket)?;
        Some(connection.tuple.local())
    }

    fn peer(&self, socket: SocketId) -> Option<SocketAddr> {
        let connection = self.network.tcp.connection(socket)?;
        Some(connection.asked.unwrap_or(connection.tuple.remote()))
    }

    fn send(&mut self, socket: SocketId, bytes: &[u8]) -> usize {
        let tcp = &mut self.network.tcp;
        let Some(connection) = tcp.of(self.process, socket) else {
            return 0;
        };
        let taken = connection.send(bytes);
        if taken > 0 {
            tcp.mark(socket);
        }
        taken
    }

    fn receive(&mut self, socket: SocketId, into: &mut Vec<u8>) -> usize {
        let tcp = &mut self.network.tcp;
        let Some(connection) = tcp.of(self.process, socket) else {
            return 0;
        };
        let taken = connection.receive(into);
        if taken > 0 && connection.usable() {
            // There may be a window to open again.
            tcp.mark(socket);
        }
        taken
    }

    fn shutdown(&mut self, socket: SocketId) {
        let tcp = &mut self.network.tcp;
        if tcp.of(self.process, socket).is_some_and(|it| it.usable()) {
            tcp.shutdown(socket);
        }
    }

    fn abort(&mut self, socket: SocketId) {
        let now = self.network.now;
        let tcp = &mut self.network.tcp;
        if tcp.of(self.process, socket).is_some() {
            tcp.told.retain(|told| told.socket != socket);
            tcp.abort(now, socket);
        }
    }

    fn way(&self, socket: SocketId) -> Option<WayId> {
        self.network.tcp.connection(socket)?.way
    }

    fn set_way(&mut self, socket: SocketId, way: Option<WayId>) {
        if let Some(connection) = self.network.tcp.of(self.process, socket) {
            connection.way = way;
        }
    }

    fn note(&mut self, way: WayId, step: Step) {
        self.network.note(way, step);
    }

    fn timer(&mut self, after: Duration) -> TimerId {
        let at = self.network.now + after;
        self.network.timer(self.process, at)
    }

    fn cancel(&mut self, timer: TimerId) {
        if self.network.timers.get(&timer) == Some(&self.process) {
            self.network.timers.remove(&timer);
        }
    }

    fn random(&mut self) -> u64 {
        self.random.draw()
    }
}
