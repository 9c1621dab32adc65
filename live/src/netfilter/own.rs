//! The part of a packet filter that is ours.

use std::collections::{BTreeMap, BTreeSet};

use nodeway_core::datapath::Family;
use nodeway_core::netfilter::{BuiltIn, IpSet, Ruleset, SetName, Table, text};

use super::saved::{self, Saved, target};
use super::{NetfilterError, Owner, tool};
use crate::netns::NetNs;

/// An empty chain in each table that was not there before us: the table goes when we do.
pub(super) const MADE: &str = "NODEWAY_MADE";

/// What one owner has in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) tables: BTreeMap<Table, OwnTable>,
    pub(super) sets: BTreeMap<SetName, IpSet>,
    /// Tables that are not there at all.
    pub(super) absent: BTreeSet<Table>,
}

/// What one owner has in one table, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OwnTable {
    /// Rules by chain.
    pub(super) chains: BTreeMap<String, Vec<String>>,
    /// Rules in built-in chains that lead to them.
    pub(super) hooks: BTreeMap<String, Vec<String>>,
}

const TABLES: [Table; 4] = [Table::Raw, Table::Mangle, Table::Nat, Table::Filter];

impl Own {
    /// What rules would have.
    pub(super) fn of(rules: &Ruleset, owner: Owner) -> Self {
        let mut own = Self {
            sets: rules.sets.clone(),
            ..Self::default()
        };
        for (table, chains) in &rules.tables {
            let mut written = OwnTable::default();
            for (name, chain) in chains {
                let lines = chain.rules.iter().map(|it| text::rule(it, rules.family));
                let lines: Vec<String> = lines.collect();
                if BuiltIn::named(name).is_none() {
                    debug_assert!(owner.owns_chain(name), "{name} is nobody's");
                    written.chains.insert(name.to_string(), lines);
                } else if !lines.is_empty() {
                    written.hooks.insert(name.to_string(), lines);
                }
            }
            if !written.chains.is_empty() {
                own.tables.insert(*table, written);
            }
        }
        own
    }

    /// What a namespace has.
    pub(super) fn found(saved: &Saved, sets: &str, family: Family, owner: Owner) -> Self {
        let mut own = Self::default();
        for table in TABLES {
            let Some(saved) = saved.tables.get(table.name()) else {
                own.absent.insert(table);
                continue;
            };
            let mut found = OwnTable::default();
            let chains = saved.chains.iter().filter(|name| owner.owns_chain(name));
            found.chains = chains.map(|name| (name.clone(), Vec::new())).collect();
            for (chain, rule) in &saved.rules {
                if let Some(rules) = found.chains.get_mut(chain) {
                    rules.push(rule.clone());
                } else if target(rule).is_some_and(|to| owner.owns_chain(to)) {
                    let hook = found.hooks.entry(chain.clone());
                    hook.or_default().push(rule.clone());
                }
            }
            if found != OwnTable::default() {
                own.tables.insert(table, found);
            }
        }
        own.sets = sets_of(sets, family, owner);
        own
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.sets.is_empty()
    }
}

/// The owner's sets of a family, out of what `ipset save` tells.
fn sets_of(sets: &str, family: Family, owner: Owner) -> BTreeMap<SetName, IpSet> {
    let word = match family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    };
    let mut names = BTreeSet::new();
    let mut lines = String::new();
    for line in sets.lines() {
        let mut words = line.split(' ');
        let (verb, name) = (words.next(), words.next().unwrap_or_default());
        let is_of_family = || line.split(' ').any(|it| it == word);
        if verb == Some("create") && name.starts_with(owner.set_prefix()) && is_of_family() {
            names.insert(name);
        }
        if names.contains(name) {
            lines.push_str(line);
            lines.push('\n');
        }
    }
    let mut rules = Ruleset::new(family);
    // An entry that cannot be read is no entry of ours: it is taken away with its set.
    let _ = text::parse_sets(&lines, &mut rules);
    rules.sets
}

/// Takes away the tables that came with us, where nobody has anything in them now.
pub(super) fn take_tables_away(netns: &NetNs, family: Family) -> Result<(), NetfilterError> {
    let saved = saved::read(netns, family)?;
    for (name, table) in &saved.tables {
        let someones = |chain: &String| Owner::ALL.iter().any(|owner| owner.owns_chain(chain));
        if !table.chains.contains(MADE) || table.chains.iter().any(someones) {
            continue;
        }
        let script = format!("*{name}\n-F {MADE}\n-X {MADE}\nCOMMIT\n");
        tool::iptables_restore(netns, family, &script)?;
        let mut rest = table.clone();
        rest.chains.remove(MADE);
        if rest.is_bare() {
            tool::nft_delete_table(netns, family, name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::Wanted;
    use nodeway_core::datapath::{Frontend, FrontendState};
    use nodeway_core::frontend::FrontendKey;
    use nodeway_core::netfilter::Marking;

    #[test]
    fn what_is_found_is_what_was_written_and_nothing_of_others() {
        let key = FrontendKey {
            address: [10, 96, 0, 10].into(),
            port: 80,
        };
        let frontend = Frontend {
            listener_port: 15_000,
            state: FrontendState::Active,
            ranged: false,
        };
        let wanted = Wanted::tproxy(&[(key, frontend)], &Marking::default());
        let mut saved = text::ruleset(&wanted.v4);
        saved = saved.replace(
            "*raw\n",
            "*raw\n:KUBE-X - [0:0]\n:NODEWAY_MADE - [0:0]\n-A PREROUTING -j KUBE-X\n",
        );
        saved.push_str("*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n");
        let sets = format!(
            "{}{}create other hash:ip family inet\nadd other 1.1.1.1\n",
            text::sets(&wanted.v4),
            text::sets(&wanted.v6)
        );
        let found = Own::found(&saved::parse(&saved), &sets, Family::V4, Owner::Nodeway);
        assert_eq!(found, Own::of(&wanted.v4, Owner::Nodeway));
        assert_eq!(found.sets.len(), wanted.v4.sets.len());
    }
}
