//! How kube-proxy runs on a node: by which rules, if any, and how that is seen.

use std::fmt;
use std::str::FromStr;

/// The chain that its iptables mode always has, as `iptables-save` writes it.
const SERVICES_SAVED: &str = ":KUBE-SERVICES ";

/// The table that its nftables mode always has ([`nftables::TABLE`](super::nftables::TABLE)), as `nft -j` writes it.
const TABLE_LISTED: &str = "\"kube-proxy\"";

/// How kube-proxy runs on a node. By IPVS it takes packets on their way to the node's own sockets,
/// whatever connection tracking says: no redirect holds beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    None,
    /// By rules of iptables.
    #[default]
    Iptables,
    /// By a table of nftables. It leads to the same endpoints; the differences that a client can
    /// see are three: node ports are at the node's primary addresses only, a port of a ClusterIP
    /// that no Service has is refused, and what is INVALID is not dropped.
    Nftables,
}

/// A mode that there is not, or that nothing holds beside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMode {
    /// IPVS.
    #[error(
        "IPVS takes packets on their way to the node's own sockets whatever connection tracking says, so no redirect holds beside it; use `iptables`, `nftables` or `none`"
    )]
    Ipvs,
    /// A word.
    #[error("`{0}` is no mode of kube-proxy; use `iptables`, `nftables` or `none`")]
    Unknown(String),
}

impl Mode {
    /// Its name, as kube-proxy's `--proxy-mode` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }

    /// How it stands on a node whose packet filter `iptables-save` and `nft -j list ruleset` write
    /// so: it is known by a chain or a table that it always has. `nft` is none where there is no
    /// such tool.
    #[must_use]
    pub fn found(iptables: &[&str], nft: Option<&str>) -> Self {
        if iptables.iter().any(|it| it.contains(SERVICES_SAVED)) {
            Self::Iptables
        } else if nft.is_some_and(|it| it.contains(TABLE_LISTED)) {
            Self::Nftables
        } else {
            Self::None
        }
    }

    /// Whether it translates services at all.
    #[must_use]
    pub fn translates(self) -> bool {
        self != Self::None
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mode {
    type Err = BadMode;

    fn from_str(name: &str) -> Result<Self, BadMode> {
        match name {
            "none" => Ok(Self::None),
            "iptables" => Ok(Self::Iptables),
            "nftables" => Ok(Self::Nftables),
            "ipvs" => Err(BadMode::Ipvs),
            other => Err(BadMode::Unknown(other.to_owned())),
        }
    }
}
