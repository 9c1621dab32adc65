//! The tables and chains of one family in one network namespace.

use std::collections::BTreeMap;

use nodeway_datapath::Family;

use crate::netfilter::{ChainName, IpSet, Rule, SetName};

/// A table. Their order at one hook is the order here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Before connection tracking.
    Raw,
    /// Marks, TPROXY.
    Mangle,
    /// Translation; asked for the first packet of a connection only.
    Nat,
    /// Accept or not.
    Filter,
}

/// A hook of the kernel, with the chain that hangs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BuiltIn {
    /// A packet came in.
    Prerouting,
    /// It is for this namespace.
    Input,
    /// It is for another.
    Forward,
    /// A socket of this namespace sends it.
    Output,
    /// It leaves.
    Postrouting,
}

/// What becomes of a packet that no rule of a built-in chain decides on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// On it goes.
    #[default]
    Accept,
    /// Dropped.
    Drop,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chain {
    /// A built-in chain's policy; none for a chain of one's own.
    pub policy: Option<Policy>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// What one family of a network namespace has.
#[derive(Clone, Debug, PartialEq)]
pub struct Ruleset {
    /// `iptables` or `ip6tables`.
    pub family: Family,
    /// Chains by table and name. A built-in chain that is absent is empty, with policy accept.
    pub tables: BTreeMap<Table, BTreeMap<ChainName, Chain>>,
    /// The ipsets that rules name.
    pub sets: BTreeMap<SetName, IpSet>,
}

impl Ruleset {
    /// Without any rule.
    #[must_use]
    pub const fn new(family: Family) -> Self {
        Self {
            family,
            tables: BTreeMap::new(),
            sets: BTreeMap::new(),
        }
    }

    /// The chain of that name, made if it is missing.
    pub fn chain_mut(&mut self, table: Table, name: &str) -> &mut Chain {
        let chains = self.tables.entry(table).or_default();
        chains.entry(ChainName::from(name)).or_default()
    }
}

impl Table {
    /// Its name in text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }
}

impl BuiltIn {
    /// Its chain's name in text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
        }
    }
}
