//! The ways in which packets come to the listener.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::trace::Failure;

mod fate;
#[cfg(test)]
mod tests;

pub use fate::{Fate, Fates, Missing};

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
    /// The baseline to compare with: each pod has an Envoy of its own, to which rules in the pod's
    /// namespace lead all TCP, out and in. A client without one (a node, a host outside) has no such
    /// way: there a request is not applicable.
    Sidecar,
}

impl Redirect {
    /// Every way that is simulated, in the order of reports.
    pub const ALL: &'static [Self] = &[Self::Tc, Self::SkLookup, Self::Iptables, Self::Sidecar];

    /// How a new connection to a frontend ends whose listener has no socket. Each way is
    /// fail-closed; they differ in how soon a client learns of it: a look-up that finds nothing is
    /// answered by RST, `TPROXY` without a socket drops the SYN, and each that is sent again.
    /// `REDIRECT` leads to a port where nobody listens: RST.
    ///
    /// They differ too in what else ends. Without a node's Envoy, connections to frontends do, and
    /// nothing else; without a pod's own, every connection of that pod, in and out, since its rules
    /// go on to redirect all TCP.
    #[must_use]
    pub const fn without_listener(self) -> Failure {
        match self {
            Self::Tc | Self::SkLookup | Self::Sidecar => Failure::ConnectionRefused,
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
            Self::Sidecar => "sidecar",
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
#[error("`{0}` is no redirect; use `tc`, `sk-lookup`, `iptables` or `sidecar`")]
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
