//! The tables and chains of one family in one network namespace.

use std::collections::{BTreeMap, BTreeSet};

use nodeway_datapath::Family;

use super::evaluate::{BUILT_IN, DEPTH};
use crate::netfilter::{ChainName, IpSet, Match, Rule, SetName, Target};

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

    /// Appends rules to a chain, which is made if it is missing.
    pub fn append(&mut self, table: Table, chain: &str, rules: impl IntoIterator<Item = Rule>) {
        self.chain_mut(table, chain).rules.extend(rules);
    }

    /// Appends rules to a built-in chain.
    pub fn built_in(&mut self, table: Table, hook: BuiltIn, rules: impl IntoIterator<Item = Rule>) {
        let chain = self.chain_mut(table, hook.name());
        chain.policy.get_or_insert_default();
        chain.rules.extend(rules);
    }

    /// Lets a built-in chain jump to a chain, which is made if it is missing.
    pub fn hook(&mut self, table: Table, hook: BuiltIn, chain: &str) {
        self.chain_mut(table, chain);
        self.built_in(table, hook, [Rule::new([], Target::Jump(chain.into()))]);
    }

    /// The chain of that name, made if it is missing.
    pub fn chain_mut(&mut self, table: Table, name: &str) -> &mut Chain {
        let chains = self.tables.entry(table).or_default();
        chains.entry(ChainName::from(name)).or_default()
    }

    /// Without tables that have no rule, built-in chains that say nothing, and the order of states:
    /// what two rulesets must share to be the same.
    #[must_use]
    pub fn normal(mut self) -> Self {
        for chains in self.tables.values_mut() {
            chains.retain(|name, chain| {
                let says = chain.policy == Some(Policy::Drop) || !chain.rules.is_empty();
                says || BuiltIn::named(name).is_none()
            });
            for chain in chains.values_mut() {
                if chain.policy == Some(Policy::Accept) {
                    chain.policy = None;
                }
                for one in chain.rules.iter_mut().flat_map(|rule| &mut rule.matches) {
                    if let Match::ConnectionState { states, .. } = one {
                        states.sort_unstable();
                        states.dedup();
                    }
                }
            }
        }
        self.tables.retain(|_, chains| !chains.is_empty());
        self
    }
}

/// What makes rules impossible to follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesetError {
    /// A rule leads to a chain that is not there.
    #[error("table {table}, chain {chain}, rule {rule}: there is no chain `{to}`; add it, or mend its name", table = table.name())]
    NoChain {
        /// The table.
        table: Table,
        /// The chain of the rule.
        chain: ChainName,
        /// Its number, from 1, as iptables counts.
        rule: usize,
        /// The chain that is missing.
        to: ChainName,
    },
    /// A rule names a set that is not there.
    #[error("table {table}, chain {chain}, rule {rule}: there is no ipset `{set}`; create it, or mend its name", table = table.name())]
    NoSet {
        /// The table.
        table: Table,
        /// The chain of the rule.
        chain: ChainName,
        /// Its number, from 1.
        rule: usize,
        /// The set that is missing.
        set: SetName,
    },
    /// Chains lead to each other in circles, or too deep.
    #[error("table {table}: chain {chain} is reached in a circle, or by more than {DEPTH} jumps; untangle the jumps", table = table.name())]
    TooDeep {
        /// The table.
        table: Table,
        /// The chain.
        chain: ChainName,
    },
}

impl Ruleset {
    /// Whether every chain and set that rules name is there, and no walk is endless.
    ///
    /// # Errors
    /// The first thing that is not so.
    pub fn validate(&self) -> Result<(), RulesetError> {
        for (table, chains) in &self.tables {
            for (name, chain) in chains {
                for (index, rule) in chain.rules.iter().enumerate() {
                    self.check(*table, chains, name, index + 1, rule)?;
                }
            }
            for hook in BUILT_IN {
                descend(
                    *table,
                    chains,
                    hook.name(),
                    &mut Vec::new(),
                    &mut BTreeSet::new(),
                )?;
            }
        }
        Ok(())
    }

    fn check(
        &self,
        table: Table,
        chains: &BTreeMap<ChainName, Chain>,
        chain: &ChainName,
        number: usize,
        rule: &Rule,
    ) -> Result<(), RulesetError> {
        if let Some(to) = rule.leads_to()
            && !chains.contains_key(to)
        {
            return Err(RulesetError::NoChain {
                table,
                chain: chain.clone(),
                rule: number,
                to: to.clone(),
            });
        }
        let named = rule.matches.iter().filter_map(|it| match it {
            Match::Set { set, .. } => Some(set),
            _ => None,
        });
        let mapped = match &rule.target {
            Some(Target::MapMark(set)) => Some(set),
            _ => None,
        };
        match named.chain(mapped).find(|it| !self.sets.contains_key(*it)) {
            None => Ok(()),
            Some(set) => Err(RulesetError::NoSet {
                table,
                chain: chain.clone(),
                rule: number,
                set: set.clone(),
            }),
        }
    }
}

/// Walks every jump once, and remembers the chains that were found well.
fn descend<'a>(
    table: Table,
    chains: &'a BTreeMap<ChainName, Chain>,
    name: &str,
    path: &mut Vec<&'a ChainName>,
    well: &mut BTreeSet<&'a ChainName>,
) -> Result<(), RulesetError> {
    let Some((name, chain)) = chains.get_key_value(name) else {
        return Ok(());
    };
    if path.contains(&name) || path.len() > DEPTH {
        return Err(RulesetError::TooDeep {
            table,
            chain: name.clone(),
        });
    }
    path.push(name);
    for to in chain.rules.iter().filter_map(Rule::leads_to) {
        if !well.contains(to) {
            descend(table, chains, to, path, well)?;
        }
    }
    path.pop();
    well.insert(name);
    Ok(())
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

    /// The table of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Raw, Self::Mangle, Self::Nat, Self::Filter]
            .into_iter()
            .find(|table| table.name() == name)
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

    /// The built-in chains of a table, in the order of `iptables-save`.
    #[must_use]
    pub const fn of(table: Table) -> &'static [Self] {
        match table {
            Table::Raw => &[Self::Prerouting, Self::Output],
            Table::Mangle => &[
                Self::Prerouting,
                Self::Input,
                Self::Forward,
                Self::Output,
                Self::Postrouting,
            ],
            Table::Nat => &[
                Self::Prerouting,
                Self::Input,
                Self::Output,
                Self::Postrouting,
            ],
            Table::Filter => &[Self::Input, Self::Forward, Self::Output],
        }
    }

    /// The hook of a built-in chain.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::of(Table::Mangle)
            .iter()
            .copied()
            .find(|hook| hook.name() == name)
    }
}
