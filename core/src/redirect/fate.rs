//! What becomes of connections when something is missing: declared for every redirect.
//!
//! *Fail-open* is [`Fate::PassedBy`] alone: the connection goes on past the listener, as if there were
//! no redirect. Everything else is served or fail-closed. A test breaks each thing under a running
//! cluster and holds the declaration (`sim/tests/fates.rs`); the book prints it.

use std::fmt;

use super::Redirect;
use crate::trace::Failure;

/// What is missing under a running cluster, as a pod sees it that asks for a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// The Envoy that has the client's connections has crashed.
    Proxy,
    /// It was started again while no agent is there to give it resources.
    Resources,
    /// The agent of the client's node is down.
    Agent,
    /// The Service has no endpoint any more.
    Endpoints,
    /// Packets do not get from the proxy's node to that of the endpoints.
    Path,
    /// The config that made the frontend is gone: the redirect is switched off.
    Config,
    /// The redirect was just switched on: what is missing is that it was there before.
    Past,
}

impl Missing {
    /// Everything that can be missing, in the order of reports.
    pub const ALL: &'static [Self] = &[
        Self::Proxy,
        Self::Resources,
        Self::Agent,
        Self::Endpoints,
        Self::Path,
        Self::Config,
        Self::Past,
    ];

    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Proxy => "the proxy has crashed",
            Self::Resources => "a new proxy, and no agent to configure it",
            Self::Agent => "the agent is down",
            Self::Endpoints => "the last endpoint has left",
            Self::Path => "no packet reaches the endpoints",
            Self::Config => "the redirect is switched off",
            Self::Past => "the redirect is switched on",
        }
    }
}

/// What becomes of the next request of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes through the listener to an endpoint.
    Served,
    /// It goes to an endpoint past the listener: fail-open.
    PassedBy,
    /// The proxy answers it by itself, with that status.
    Answered(u16),
    /// The proxy answers it by itself when its own patience is over: 503 where it waits for a new
    /// connection to an endpoint, 504 where for an answer on one that stands.
    GivenUp,
    /// It ends.
    Ends(Failure),
}

impl Fate {
    /// Whether this is fail-open.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::PassedBy)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Served => f.write_str("served"),
            Self::PassedBy => f.write_str("past the listener"),
            Self::Answered(status) => write!(f, "{status} by the proxy"),
            Self::GivenUp => f.write_str("503 or 504 by the proxy"),
            Self::Ends(failure) => f.write_str(failure.name()),
        }
    }
}

/// What becomes of a connection that stood, and of one that comes anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fates {
    /// Of one that stood before.
    pub established: Fate,
    /// Of one that comes meanwhile.
    pub new: Fate,
}

impl Redirect {
    /// What becomes of connections to a frontend while something is missing.
    #[must_use]
    pub const fn fates(self, missing: Missing) -> Fates {
        let (established, new) = match missing {
            Missing::Proxy | Missing::Resources => (
                Fate::Ends(Failure::ConnectionClosed),
                Fate::Ends(self.without_listener()),
            ),
            Missing::Agent => (Fate::Served, Fate::Served),
            Missing::Endpoints => (Fate::Answered(503), Fate::Answered(503)),
            Missing::Path => (Fate::GivenUp, Fate::GivenUp),
            Missing::Config => (Fate::Served, Fate::PassedBy),
            Missing::Past => (Fate::PassedBy, Fate::Served),
        };
        Fates { established, new }
    }
}
