//! A whole cluster in one process, with a virtual clock: one seed gives one run, byte for byte.

mod asker;
mod assembly;
mod backend;
mod check;
mod client;
mod cluster;
mod envoy;
mod fixture;
pub mod http;
mod names;
mod net;
mod process;
mod redirect;
mod reply;
mod report;
mod row;
mod seed;
mod sim;
mod source;
mod target;
mod time;
mod world;

pub use assembly::Options;
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
pub use report::{HostLine, IngressLine, NodeLine, Report, RunError, RunOptions, run};
pub use row::Row;
pub use seed::{Random, Seed};
pub use sim::{Sim, SimBuilder};
pub use source::{LoadError, LoadErrors, Source};
pub use target::Target;
pub use time::Time;
pub use world::{NoSuchNode, ProcessId, World};
