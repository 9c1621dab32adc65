//! The packet decision of Nodeway: bytes become a [`Flow`], a flow becomes a [`Verdict`].
//!
//! ```text
//! parse(&bytes) -> Result<Flow, Reason>
//! decide(&Flow, Hook, &impl Kernel) -> Verdict<Socket>
//! ```
//!
//! The simulator calls these functions, and the eBPF programs are adapters around the same source.
//! So everything here is written for the kernel's verifier: no allocation, no panic path (no
//! indexing, no arithmetic that can overflow), loops with constant bounds, flat structs, and
//! absent values that carry no payload. Sockets are guards: dropping one releases it. Functions are
//! `inline(always)`, because BPF cannot return an aggregate: at `opt-level=s` LLVM would refuse.
//!
//! What a decision needs to know about its node is the [`Kernel`] trait: in eBPF it is maps and
//! helpers, in the simulator a socket table, in a test a literal.

#![no_std]

mod decide;
mod flow;
mod kernel;
pub mod layout;
mod parse;
mod reason;
#[cfg(test)]
mod tests;

pub use decide::{Hook, PROXY_MASK, TO_PROXY, Verdict, decide, mark};
pub use flow::{Address, Family, Flow, Packet, protocol, tcp_flags};
pub use kernel::{Frontend, FrontendState, Kernel, SocketState};
pub use parse::{Bytes, ethertype, parse, parse_frame};
pub use reason::Reason;

/// What the package says of itself holds.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
