//! The ways in which packets come to the listener.

use std::fmt;
use std::str::FromStr;

use nodeway_core::trace::Failure;
use serde::{Deserialize, Serialize};

/// How a node leads a frontend's packets to its listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Redirect {
    /// tc ingress programs, with an sk_lookup program beside them: Cilium's eBPF way without its
    /// TIME_WAIT trap. Calls of the node itself are led by a connect hook.
    #[default]
    Tc,
    /// An sk_lookup program alone; every frontend address is a local route of the node.
    SkLookup,
    /// Rules of iptables: frontends in an ipset are marked and led on by TPROXY.
    Iptables,
}

impl Redirect {
    /// Every way that is simulated, in the order of reports.
    pub const ALL: &'static [Self] = &[Self::Tc, Self::SkLookup, Self::Iptables];

    /// How a new connection to a frontend ends whose listener has no socket. Each way is
    /// fail-closed; they differ in how soon a client learns of it: a look-up that finds nothing is
    /// answered by RST, `TPROXY` without a socket drops the SYN, and each that is sent again.
    #[must_use]
    pub const fn without_listener(self) -> Failure {
        match self {
            Self::Tc | Self::SkLookup => Failure::ConnectionRefused,
            Self::Iptables => Failure::TimedOut,
        }
    }

    /// Its name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::SkLookup => "sk-lookup",
            Self::Iptables => "iptables",
        }
    }
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no redirect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no redirect; use `tc`, `sk-lookup` or `iptables`")]
pub struct UnknownRedirect(pub String);

impl FromStr for Redirect {
    type Err = UnknownRedirect;

    fn from_str(name: &str) -> Result<Self, UnknownRedirect> {
        Self::ALL
            .iter()
            .copied()
            .find(|redirect| redirect.name() == name)
            .ok_or_else(|| UnknownRedirect(name.to_owned()))
    }
}
