//! The few look-ups that a decision needs.

use crate::flow::{Address, Family, Flow};

/// Where a frontend stands between being switched on and being gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrontendState {
    /// Just switched on: connections from before are left alone.
    Arming = 0,
    /// In force.
    Active = 1,
    /// Being switched off: known sockets are served, nothing new is taken.
    Draining = 2,
}

impl FrontendState {
    /// All of them, in the order of a frontend's life.
    pub const ALL: [Self; 3] = [Self::Arming, Self::Active, Self::Draining];

    /// Its name, as status and traces have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arming => "arming",
            Self::Active => "active",
            Self::Draining => "draining",
        }
    }
}

/// What the table says of an address: whose port its packets are led to.
///
/// In the kernel it is read in place: [`crate::layout::FrontendValue`] is the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Frontend {
    /// The listener's port on loopback, host byte order.
    pub listener_port: u16,
    /// Where the frontend stands.
    pub state: FrontendState,
    /// Whether it is open to some sources alone ([`Kernel::admits`]); without, nothing is asked.
    pub ranged: bool,
}

/// What a socket is, as far as a decision cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SocketState {
    /// The ListenSocket of the frontend's own listener.
    OurListener = 0,
    /// A ListenSocket of something else on this node.
    OtherListener = 1,
    /// A half-open connection.
    Request = 2,
    /// A connection, up to its last FIN.
    Established = 3,
    /// A connection that is over and whose ports are not free yet.
    TimeWait = 4,
}

/// A node's tables, as a decision asks them.
///
/// [`Kernel::Socket`] is a guard: what a look-up took is released when the guard is dropped. In
/// eBPF the verifier itself so proves at each load that no path keeps a socket.
pub trait Kernel {
    /// A socket that was looked up.
    type Socket;

    /// The frontend of an address and port (host byte order), if it is one. Only TCP has frontends.
    fn frontend(&self, family: Family, address: &Address, port: u16) -> Option<&Frontend>;

    /// Whether the source ranges of the flow's frontend have its source. Asked only of a frontend
    /// that is `ranged`: one that has no range admits nobody.
    fn admits(&self, flow: &Flow) -> bool;

    /// The flow's own socket: a connection, or whatever the node's TCP would give a new one to.
    fn socket(&self, flow: &Flow) -> Option<Self::Socket>;

    /// What that socket is.
    fn state(&self, socket: &Self::Socket, frontend: &Frontend) -> SocketState;

    /// The ListenSocket of the frontend's listener for this family.
    fn listener(&self, family: Family, frontend: &Frontend) -> Option<Self::Socket>;
}
