//! A whole cluster in one process, with a virtual clock: one seed gives one run, byte for byte.

mod backend;
mod check;
mod client;
mod cluster;
mod envoy;
mod fixture;
pub mod http;
mod net;
mod process;
mod redirect;
mod reply;
mod seed;
mod source;
mod target;
mod time;
mod world;

pub use backend::{Backend, Identity};
pub use check::{Checked, check};
pub use client::{Answer, Client, Outcome};
pub use cluster::{Ask, AskError, Cause, Cluster, Failed, Family, tell};
pub use envoy::{Counters, NodeProxy};
pub use fixture::{Expect, Fixture, IngressSpec, Nodes, RequestSpec};
pub use net::{
    Datapath, Happening, Hop, HostSpec, LinkSpec, NodeKernel, NodeSpec, NodewayDatapath, Place,
    PodSpec, ServiceEntry, ServiceTable, Settings, SimSocket, StackId, Topology, TopologyError,
    hook_name,
};
pub use process::{
    CallError, ListenSocketId, Os, Process, SocketError, SocketEvent, SocketId, TimerId, WayId,
};
pub use redirect::{Redirect, UnknownRedirect};
pub use reply::{Reply, Seen, Who};
pub use seed::{Random, Seed};
pub use source::{LoadError, LoadErrors, Source};
pub use target::Target;
pub use time::Time;
pub use world::{NoSuchNode, ProcessId, World};
