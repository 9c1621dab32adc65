//! Why an agent does not start.

use std::net::IpAddr;

use super::{From, MemoryError, NotWatched, ProxiesError, RunDirError, ServedError, SourceError};
use crate::generation::GenerationError;
use crate::netns::NetNsError;
use crate::redirect::RedirectError;
use crate::routes::RoutesError;

/// Why an agent does not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The objects, at the start.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The Envoys' folder cannot be watched.
    #[error(transparent)]
    Watch(#[from] NotWatched),
    /// There is no such node.
    #[error("{from} has no node `{node}`; it has {}: name one with --node", .has.join(", "))]
    NoSuchNode {
        /// Where the objects come from.
        from: From,
        /// The node.
        node: String,
        /// Those that it has.
        has: Vec<String>,
    },
    /// This machine is another.
    #[error(
        "this machine has none of the addresses of node `{node}` ({}): name the node that it is with --node, or start the agent in that node's network namespace",
        list(addresses)
    )]
    AnotherMachine {
        /// The node.
        node: String,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
    /// The run directory.
    #[error(transparent)]
    Run(#[from] RunDirError),
    /// What an earlier agent left.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// xDS, or the Envoys' folders.
    #[error(transparent)]
    Proxies(#[from] ProxiesError),
    /// The records of Envoys.
    #[error(transparent)]
    Generations(#[from] GenerationError),
    /// The kernel, at the start.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    /// The node's devices.
    #[error(transparent)]
    Routes(#[from] RoutesError),
    /// The node's namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// Metrics, health and status.
    #[error(transparent)]
    Served(#[from] ServedError),
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
