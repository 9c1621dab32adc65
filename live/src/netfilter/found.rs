//! What stands in a namespace, held against what should: for whoever only looks.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use nodeway_core::datapath::{Family, Frontend};
use nodeway_core::frontend::FrontendKey;
use nodeway_core::netfilter::{IpSet, SetName, Table, frontends};

use super::own::{Own, OwnTable};
use super::{FAMILIES, Netfilter, NetfilterError, Wanted};
use crate::netns::NetNs;

impl Netfilter {
    /// The frontends that the rules know, by their sets. The port of one that drains is in none: it
    /// is 0, and so is everyone's by a way whose sets have no marks.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn frontends(
        &self,
        netns: &NetNs,
    ) -> Result<BTreeMap<FrontendKey, Frontend>, NetfilterError> {
        let known = self.read(netns)?;
        let sets = [(Family::V4, &known.v4.sets), (Family::V6, &known.v6.sets)];
        let all = sets.into_iter();
        Ok(all
            .flat_map(|(family, sets)| frontends::read(family, sets))
            .collect())
    }

    /// Where the namespace's rules of this owner are others than these, one line each.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn differences(
        &self,
        netns: &NetNs,
        wanted: &Wanted,
    ) -> Result<Vec<String>, NetfilterError> {
        let known = self.read(netns)?;
        let mut all = Vec::new();
        for family in FAMILIES {
            let found = match family {
                Family::V4 => &known.v4,
                Family::V6 => &known.v6,
            };
            let wanted = Own::of(wanted.rules(family), self.owner);
            let program = match family {
                Family::V4 => "iptables",
                Family::V6 => "ip6tables",
            };
            let nothing = OwnTable::default();
            for table in [Table::Raw, Table::Mangle, Table::Nat, Table::Filter] {
                let found = found.tables.get(&table).unwrap_or(&nothing);
                let wanted = wanted.tables.get(&table).unwrap_or(&nothing);
                let place = format!("{program} -t {}", table.name());
                chains(&mut all, &place, &found.hooks, &wanted.hooks);
                chains(&mut all, &place, &found.chains, &wanted.chains);
            }
            sets(&mut all, &found.sets, &wanted.sets);
        }
        Ok(all)
    }
}

fn chains(
    all: &mut Vec<String>,
    place: &str,
    found: &BTreeMap<String, Vec<String>>,
    wanted: &BTreeMap<String, Vec<String>>,
) {
    let none = Vec::new();
    for (chain, rules) in wanted {
        let found = found.get(chain).unwrap_or(&none);
        let lacking = rules.iter().filter(|it| !found.contains(it));
        all.extend(lacking.map(|rule| format!("{place} lacks: -A {chain}{rule}")));
        if found != rules && rules.iter().all(|it| found.contains(it)) {
            let more = found.iter().filter(|it| !rules.contains(it));
            let before = all.len();
            all.extend(more.map(|rule| format!("{place} has too much: -A {chain}{rule}")));
            if all.len() == before {
                all.push(format!(
                    "{place}: the rules of {chain} are in another order"
                ));
            }
        }
    }
    for (chain, rules) in found.iter().filter(|(it, _)| !wanted.contains_key(*it)) {
        all.push(format!(
            "{place} has too much: the chain {chain} with {} rules",
            rules.len()
        ));
    }
}

fn sets(
    all: &mut Vec<String>,
    found: &BTreeMap<SetName, IpSet>,
    wanted: &BTreeMap<SetName, IpSet>,
) {
    let entries = |set: &IpSet| -> BTreeMap<SocketAddr, _> { set.entries().into_iter().collect() };
    for (name, set) in wanted {
        let Some(has) = found.get(name) else {
            all.push(format!("there is no ipset {name}"));
            continue;
        };
        let (has, wanted) = (entries(has), entries(set));
        for (at, entry) in &wanted {
            match has.get(at) {
                None => all.push(format!("ipset {name} lacks {at}")),
                Some(other) if other != entry => {
                    all.push(format!("ipset {name} has another mark for {at}"));
                }
                Some(_) => {}
            }
        }
        let more = has.keys().filter(|at| !wanted.contains_key(*at));
        all.extend(more.map(|at| format!("ipset {name} has {at} too much")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(chain: &str, rules: &[&str]) -> BTreeMap<String, Vec<String>> {
        let rules = rules.iter().map(|it| format!(" {it}")).collect();
        [(chain.to_owned(), rules)].into()
    }

    #[rstest::rstest]
    #[case::the_same(one("A", &["-j X"]), one("A", &["-j X"]), &[])]
    #[case::a_rule_less(one("A", &[]), one("A", &["-j X"]), &["raw lacks: -A A -j X"])]
    #[case::a_rule_more(one("A", &["-j Y", "-j X"]), one("A", &["-j X"]), &["raw has too much: -A A -j Y"])]
    #[case::another_order(one("A", &["-j Y", "-j X"]), one("A", &["-j X", "-j Y"]), &["raw: the rules of A are in another order"])]
    #[case::a_chain_more(one("A", &["-j X"]), BTreeMap::new(), &["raw has too much: the chain A with 1 rules"])]
    #[case::a_chain_less(BTreeMap::new(), one("A", &["-j X"]), &["raw lacks: -A A -j X"])]
    fn rules_are_told_by_what_they_lack_and_have_too_much(
        #[case] found: BTreeMap<String, Vec<String>>,
        #[case] wanted: BTreeMap<String, Vec<String>>,
        #[case] told: &[&str],
    ) {
        let mut all = Vec::new();
        chains(&mut all, "raw", &found, &wanted);
        assert_eq!(all, told);
    }
}
