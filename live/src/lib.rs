//! What `core` decides, done for real on Linux: needs root, and none of it is part of the simulator.
//!
//! A plan comes in; here it becomes kernel state and a running Envoy, and goes away again without a
//! trace. Every piece acts in a network namespace that it is given ([`netns::NetNs`]): a node is the
//! machine's own in production, one of many in the lab.

pub mod agent;
pub mod backend;
pub mod bpf;
mod cause;
pub mod client;
mod clock;
pub mod envoy;
pub mod generation;
mod http;
pub mod in_force;
pub mod kube;
pub mod lab;
mod metrics;
pub mod netfilter;
pub mod netns;
pub mod operator;
pub mod process;
pub mod record;
pub mod redirect;
pub mod routes;
pub mod sidecar;
pub mod signal;
pub mod stop;
mod tcp_table;
pub mod tun;
pub mod uninstall;
mod whole_file;
pub mod xds;
