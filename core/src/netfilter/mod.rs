//! The packet filter's rules as data: what live mode installs and what the simulator evaluates.
//!
//! It is no iptables emulator: [`Match`] and [`Target`] are the closed set that Nodeway itself,
//! kube-proxy and a sidecar's set-up emit. Anything else is answered "not simulated" when text is
//! read, never skipped.
//!
//! A [`Ruleset`] is what one family of one network namespace has. A firewall holds
//! both families and the tracked connections, and takes packets through the kernel's hooks.

pub mod ebpf;
mod evaluate;
mod firewall;
pub mod frontends;
pub mod kube_proxy;
mod marking;
mod packet;
mod routing;
mod rule;
mod ruleset;
mod set;
pub mod sidecar;
#[cfg(test)]
mod tests;
pub mod text;
pub mod tproxy;
pub mod way;

pub use firewall::Firewall;
pub use marking::{BadMarking, Marking};
pub use packet::{FoundSocket, Host, Matched, Owner, Packet, Verdict};
pub use routing::{LocalRoute, PolicyRule, Routing};
pub use rule::{
    ChainName, ConnectionState, InterfaceName, Match, RecentList, RejectWith, Rule, Target,
};
pub use ruleset::{BuiltIn, Chain, Policy, Ruleset, RulesetError, Table};
pub use set::{IpSet, SetEntry, SetName};
