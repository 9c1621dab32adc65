//! What can go wrong with an Envoy.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nodeway_core::envoy::bootstrap::BadEntry;

use super::options::EnvoyOptions;
use crate::netns::NetNsError;

/// What can go wrong with an Envoy.
#[derive(Debug, thiserror::Error)]
pub enum EnvoyError {
    /// Something about its folder.
    #[error("cannot {action} {path}: {cause}", path = path.display())]
    Folder {
        /// `make`, `write`, `read`
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The program does not even start.
    #[error("cannot start {program}: {cause}{hint}", program = program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        cause: io::Error,
        /// What to do about it; may be empty.
        hint: &'static str,
    },
    /// A pod's rules leave its Envoy alone by its user, and it cannot run as that one.
    #[error("Envoy for a pod must run as user {uid}, or its own packets come back to it: {why}")]
    User {
        /// The user.
        uid: u32,
        /// Why not.
        why: String,
    },
    /// It ended by itself.
    #[error("Envoy for {node} ended at once. It said:\n{words}")]
    Ended {
        /// The node.
        node: String,
        /// The last lines of its log.
        words: String,
    },
    /// Some sockets do not listen in time.
    #[error(
        "Envoy for {node} does not listen on {} within {within:?}. It said:\n{words}",
        list(missing)
    )]
    NotListening {
        /// The node.
        node: String,
        /// Those that do not.
        missing: BTreeSet<SocketAddr>,
        /// How long was waited.
        within: Duration,
        /// The last lines of its log.
        words: String,
    },
    /// The folder names no Envoy that runs.
    #[error("no Envoy runs for {}; start the lab again", .0.display())]
    Gone(PathBuf),
    /// The access log has a line of another kind.
    #[error("{path}: {cause}", path = path.display())]
    Entry {
        /// The log.
        path: PathBuf,
        /// Which line.
        cause: BadEntry,
    },
    /// The admin gave no answer.
    #[error("the admin of Envoy for {node} does not answer `{what}`: {cause}")]
    Admin {
        /// The node.
        node: String,
        /// What was asked.
        what: String,
        /// What went wrong.
        cause: io::Error,
    },
    /// The namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

fn list(addresses: &BTreeSet<SocketAddr>) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// The error of a program that does not even start.
pub(super) fn start_error(options: &EnvoyOptions) -> impl FnOnce(io::Error) -> EnvoyError {
    let program = options.program.clone();
    move |cause| EnvoyError::Start {
        program,
        hint: start_hint(&cause),
        cause,
    }
}

fn start_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "; it, or setpriv (Debian package util-linux) that lowers its rights, is missing"
        }
        io::ErrorKind::PermissionDenied => "; it must be executable",
        _ => "",
    }
}
