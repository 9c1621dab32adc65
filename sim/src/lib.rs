//! A whole cluster in one process, with a virtual clock: one seed gives one run, byte for byte.

mod cluster;
mod fixture;
pub mod http;
mod process;
mod redirect;
mod reply;
mod seed;
mod time;

pub use cluster::{Ask, AskError, Cause, Cluster, Failed, Family, tell};
pub use fixture::{Expect, Fixture, Nodes, RequestSpec};
pub use process::{
    CallError, ListenSocketId, Os, Process, SocketError, SocketEvent, SocketId, TimerId, WayId,
};
pub use redirect::{Redirect, UnknownRedirect};
pub use reply::{Reply, Seen, Who};
pub use seed::{Random, Seed};
pub use time::Time;
