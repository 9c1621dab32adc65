//! What runs in a `Stack`: a process with sockets, and the calls it has.
//!
//! Clients, backends and the node proxy are processes. They are told of events and act through
//! [`Os`]; they never wait. A test can put its own beside them.

#[cfg(test)]
pub(crate) mod fake;

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodeway_core::trace::Step;

use crate::time::Time;

/// A connection of a process. Unique in a simulation, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// A listening socket of a process. Unique in a simulation, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenSocketId(pub u64);

/// A timer of a process. Unique in a simulation, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(pub u64);

/// The way of one request: packets carry it, so that hooks know whose way they are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WayId(pub u64);

/// What happened to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketEvent {
    /// Our connect succeeded.
    Connected,
    /// A listening socket of ours has a new connection; the event's socket is that connection.
    Accepted(ListenSocketId),
    /// Bytes have arrived.
    Readable,
    /// There is room to send again, after [`Os::send`] took less than it was given.
    Writable,
    /// The peer will send no more; what it sent can still be read.
    PeerClosed,
    /// Both sides are done. The socket is gone.
    Closed,
    /// The connection failed. The socket is gone.
    Failed(SocketError),
}

/// Why a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SocketError {
    /// RST in answer to our SYN.
    Refused,
    /// RST on a connection that stood.
    Reset,
    /// Nothing came back in time.
    TimedOut,
}

/// Why a socket call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The port has a listening socket already.
    #[error("address already in use")]
    AddressInUse,
    /// No address of the destination's family.
    #[error("no address of that family")]
    NoAddress,
    /// No port is left for the destination.
    #[error("no local port left")]
    NoPort,
}

/// The calls that a process has.
pub trait Os {
    /// The time.
    fn now(&self) -> Time;
    /// Listens on an address (all of both families if none) and port.
    ///
    /// # Errors
    /// When the port is taken.
    fn listen(&mut self, address: Option<IpAddr>, port: u16) -> Result<ListenSocketId, CallError>;
    /// Stops listening; connections stay.
    fn unlisten(&mut self, socket: ListenSocketId);
    /// Begins a connection on the way of a request.
    ///
    /// # Errors
    /// When there is no address or port for it. A refusal by the peer is an event.
    fn connect(&mut self, to: SocketAddr, way: Option<WayId>) -> Result<SocketId, CallError>;
    /// Begins a connection from an address of the namespace, as after `bind`.
    ///
    /// # Errors
    /// As [`Os::connect`], and when the namespace does not have that address.
    fn connect_from(
        &mut self,
        from: IpAddr,
        to: SocketAddr,
        way: Option<WayId>,
    ) -> Result<SocketId, CallError>;
    /// Where an accepted connection was meant to go, when a rule of this namespace led it here:
    /// `SO_ORIGINAL_DST`.
    fn original_destination(&self, socket: SocketId) -> Option<SocketAddr>;
    /// Our end, as getsockname gives it: for a redirected connection the original destination.
    fn local(&self, socket: SocketId) -> Option<SocketAddr>;
    /// The other end, as getpeername gives it.
    fn peer(&self, socket: SocketId) -> Option<SocketAddr>;
    /// Sends; takes as many bytes as there is room for and says how many.
    fn send(&mut self, socket: SocketId, bytes: &[u8]) -> usize;
    /// Appends all that has arrived and says how much that was.
    fn receive(&mut self, socket: SocketId, into: &mut Vec<u8>) -> usize;
    /// Sends no more: FIN after what was sent.
    fn shutdown(&mut self, socket: SocketId);
    /// Ends the connection at once: RST.
    fn abort(&mut self, socket: SocketId);
    /// The way that this connection's newest data is on.
    fn way(&self, socket: SocketId) -> Option<WayId>;
    /// From now on this connection's packets are on that way.
    fn set_way(&mut self, socket: SocketId, way: Option<WayId>);
    /// Adds a step to a way, now.
    fn note(&mut self, way: WayId, step: Step);
    /// Asks for [`Process::on_timer`] after a while.
    fn timer(&mut self, after: Duration) -> TimerId;
    /// Forgets a timer.
    fn cancel(&mut self, timer: TimerId);
    /// The next number of the process's own stream.
    fn random(&mut self) -> u64;
}

/// A program in a simulated network namespace.
pub trait Process: Any {
    /// Its name in traces (`details`, `envoy`).
    fn name(&self) -> &str;
    /// The user that it runs as; root unless it says.
    fn uid(&self) -> u32 {
        0
    }
    /// It was started, or woken from outside: the place to listen and to connect.
    fn on_wake(&mut self, os: &mut dyn Os);
    /// Something happened to a socket of its.
    fn on_socket(&mut self, socket: SocketId, event: SocketEvent, os: &mut dyn Os);
    /// A timer ran out.
    fn on_timer(&mut self, timer: TimerId, os: &mut dyn Os);
}
