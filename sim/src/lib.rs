//! A whole cluster in one process, with a virtual clock: one seed gives one run, byte for byte.

mod process;
mod redirect;
mod seed;
mod time;

pub use process::{
    CallError, ListenSocketId, Os, Process, SocketError, SocketEvent, SocketId, TimerId, WayId,
};
pub use redirect::{Redirect, UnknownRedirect};
pub use seed::{Random, Seed};
pub use time::Time;
