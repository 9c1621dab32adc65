//! The simulated network: stacks, nodes, hooks, kube-proxy's rules and the links between them.
//!
//! A process sends; its [`Stack`](stack) makes packets of it (smoltcp, one connection at a time);
//! a [`Link`](link) carries them to the node, if nothing is broken on the way ([`carriage`]); the
//! node's hooks decide on them ([`hook`]) with the very functions that run in the kernel ([`kernel`]), or
//! kube-proxy's rules translate them ([`firewall`]), or they are routed on ([`forward`]). Nothing
//! outside this folder knows smoltcp.

mod capture;
mod carriage;
mod checksum;
mod connection;
mod event;
mod external;
mod firewall;
mod forward;
mod hook;
mod hop;
mod impairment;
mod kernel;
mod link;
mod network;
mod node;
mod os;
mod packet;
mod service;
mod stack;
mod tcp;
#[cfg(test)]
mod tests;
mod topology;
mod wire;

pub use capture::{CapturedInterface, CapturedPacket};
pub use hop::{Happening, Hop, hook_name};
pub use impairment::{Impairment, NotAShare, Share, Toward};
pub use kernel::{Datapath, NodeKernel, NodewayDatapath, SimSocket};
pub use network::TopologyError;
pub use service::{ServiceEntry, ServiceTable};
pub use stack::StackId;
pub use topology::{HostSpec, LinkSpec, NodeSpec, Place, PodSpec, Settings, Topology};

pub(crate) use carriage::LinkEnd;
pub(crate) use network::Network;
pub(crate) use os::Calls;
pub(crate) use packet::{destination, payload, source};
