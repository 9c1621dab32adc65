//! From what stands to what shall stand, as input of `ipset restore` and `iptables-restore --noflush`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use nodeway_core::datapath::Family;
use nodeway_core::netfilter::{IpSet, SetName, Table};

use super::Owner;
use super::own::{MADE, Own, OwnTable};

/// What is to be run, in this order; an empty one need not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    /// New sets and all changes of entries: rules name only sets that are there.
    pub(super) sets_before: String,
    /// Rules.
    pub(super) rules: String,
    /// Sets that no rule names any more.
    pub(super) sets_after: String,
}

/// Packets are accepted before the first is marked, and marked no longer before they are not.
const UP: [Table; 4] = [Table::Filter, Table::Nat, Table::Raw, Table::Mangle];
const DOWN: [Table; 4] = [Table::Mangle, Table::Raw, Table::Nat, Table::Filter];

/// How one becomes the other.
pub(super) fn script(from: &Own, to: &Own, family: Family, owner: Owner) -> Script {
    let mut script = Script::default();
    let mut gone: BTreeSet<&SetName> = from.sets.keys().collect();
    for (name, set) in &to.sets {
        gone.remove(name);
        let out = &mut script.sets_before;
        match from.sets.get(name) {
            Some(before) if before.marks == set.marks => entries(out, name, before, set),
            Some(_) => {
                let aside = aside(name);
                // A process that was killed in the middle of this may have left it.
                if gone.remove(&aside) {
                    let _ = writeln!(out, "destroy {aside}");
                }
                exchange(out, name, &aside, set, family);
            }
            None => fill(out, name, set, family),
        }
    }
    for name in gone {
        let _ = writeln!(script.sets_after, "destroy {name}");
    }
    let order = if to.tables.is_empty() { DOWN } else { UP };
    for table in order {
        let nothing = OwnTable::default();
        let before = from.tables.get(&table).unwrap_or(&nothing);
        let after = to.tables.get(&table).unwrap_or(&nothing);
        if before != after {
            let made = from.absent.contains(&table);
            self::table(&mut script.rules, table, before, after, made, owner);
        }
    }
    script
}

/// The set that one of another kind is filled as; at most 31 bytes, as all names of sets.
fn aside(name: &SetName) -> SetName {
    format!("{name}-new").into()
}

/// Whether entries carry marks is said when a set is made, and rules hold on to the one that is
/// there: a second one is filled, and takes its place at once.
fn exchange(out: &mut String, name: &str, aside: &str, set: &IpSet, family: Family) {
    fill(out, aside, set, family);
    let _ = writeln!(out, "swap {aside} {name}\ndestroy {aside}");
}

fn fill(out: &mut String, name: &str, set: &IpSet, family: Family) {
    create(out, name, set, family);
    entries(out, name, &IpSet::default(), set);
}

fn create(out: &mut String, name: &str, set: &IpSet, family: Family) {
    let family = match family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    };
    let marks = if set.marks { " skbinfo" } else { "" };
    let _ = writeln!(out, "create {name} hash:ip,port family {family}{marks}");
}

fn entries(out: &mut String, name: &str, from: &IpSet, to: &IpSet) {
    for (at, entry) in to.entries() {
        if from.get(&at) != Some(entry) {
            let _ = write!(out, "add {name} {},tcp:{}", at.ip(), at.port());
            if let Some(mark) = entry.mark {
                let _ = write!(out, " skbmark {mark:#x}");
            }
            out.push('\n');
        }
    }
    let gone = from.entries().into_iter();
    for (at, _) in gone.filter(|(at, _)| to.get(at).is_none()) {
        let _ = writeln!(out, "del {name} {},tcp:{}", at.ip(), at.port());
    }
}

/// One table, which is changed as a whole. A chain that is declared is emptied, or made.
fn table(out: &mut String, table: Table, from: &OwnTable, to: &OwnTable, made: bool, owner: Owner) {
    let _ = writeln!(out, "*{}", table.name());
    if made {
        let _ = writeln!(out, ":{MADE} - [0:0]");
    }
    let changed = to
        .chains
        .iter()
        .filter(|(name, rules)| from.chains.get(*name) != Some(*rules));
    for (name, _) in changed.clone() {
        let _ = writeln!(out, ":{name} - [0:0]");
    }
    let hooks = |hooks: &BTreeMap<String, Vec<String>>| hooks.keys().cloned().collect::<Vec<_>>();
    for hook in hooks(&from.hooks) {
        if from.hooks.get(&hook) != to.hooks.get(&hook) {
            for rule in from.hooks.get(&hook).into_iter().flatten() {
                let _ = writeln!(out, "-D {hook}{rule}");
            }
        }
    }
    for (name, rules) in changed {
        for rule in rules {
            let _ = writeln!(out, "-A {name}{rule}");
        }
    }
    for hook in hooks(&to.hooks) {
        if from.hooks.get(&hook) != to.hooks.get(&hook) {
            for (index, rule) in to.hooks.get(&hook).into_iter().flatten().enumerate() {
                let _ = match owner {
                    Owner::Nodeway => writeln!(out, "-I {hook} {}{rule}", index + 1),
                    Owner::KubeProxy => writeln!(out, "-A {hook}{rule}"),
                };
            }
        }
    }
    let gone = from.chains.keys().filter(|it| !to.chains.contains_key(*it));
    for name in gone.clone() {
        let _ = writeln!(out, "-F {name}");
    }
    for name in gone {
        let _ = writeln!(out, "-X {name}");
    }
    out.push_str("COMMIT\n");
}

#[cfg(test)]
mod tests {
    use nodeway_core::datapath::{Frontend, FrontendState};
    use nodeway_core::frontend::FrontendKey;
    use nodeway_core::netfilter::{Marking, SetEntry};
    use rstest::rstest;

    use super::*;
    use crate::netfilter::Wanted;

    fn own(ports: &[(u16, u16)]) -> Own {
        let frontends: Vec<_> = ports
            .iter()
            .map(|(port, listener_port)| {
                let key = FrontendKey {
                    address: [10, 96, 0, 10].into(),
                    port: *port,
                };
                let frontend = Frontend {
                    listener_port: *listener_port,
                    state: FrontendState::Active,
                    ranged: false,
                };
                (key, frontend)
            })
            .collect();
        let wanted = Wanted::tproxy(&frontends, &Marking::default());
        Own::of(&wanted.v4, Owner::Nodeway)
    }

    fn change(from: &Own, to: &Own) -> Script {
        script(from, to, Family::V4, Owner::Nodeway)
    }

    #[test]
    fn the_same_is_nothing_to_do() {
        let own = own(&[(80, 15_000)]);
        assert_eq!(change(&own, &own), Script::default());
    }

    #[test]
    fn one_frontend_more_is_one_entry_in_each_set() {
        let script = change(&own(&[(80, 15_000)]), &own(&[(80, 15_000), (81, 15_000)]));
        assert_eq!(
            script.sets_before,
            "add nodeway-known-v4 10.96.0.10,tcp:81\nadd nodeway-v4 10.96.0.10,tcp:81 skbmark 0x983a0200\n"
        );
        assert_eq!(
            (script.rules.as_str(), script.sets_after.as_str()),
            ("", "")
        );
    }

    #[test]
    fn one_frontend_less_is_one_entry_less() {
        let script = change(&own(&[(80, 15_000), (81, 15_000)]), &own(&[(80, 15_000)]));
        assert_eq!(
            script.sets_before,
            "del nodeway-known-v4 10.96.0.10,tcp:81\ndel nodeway-v4 10.96.0.10,tcp:81\n"
        );
        assert_eq!(script.rules, "");
    }

    /// As another redirect leaves it: the same frontends, without marks.
    fn unmarked(own: &Own) -> Own {
        let mut unmarked = own.clone();
        let set = unmarked.sets.get_mut("nodeway-v4").unwrap();
        let entries = set.entries();
        *set = IpSet::new(false);
        for (at, _) in entries {
            set.insert(at, SetEntry::default());
        }
        unmarked
    }

    #[test]
    fn a_set_of_another_kind_is_filled_aside_and_takes_the_place() {
        let own = own(&[(80, 15_000)]);
        let script = change(&unmarked(&own), &own);
        assert_eq!(
            script.sets_before,
            "create nodeway-v4-new hash:ip,port family inet skbinfo\n\
             add nodeway-v4-new 10.96.0.10,tcp:80 skbmark 0x983a0200\n\
             swap nodeway-v4-new nodeway-v4\ndestroy nodeway-v4-new\n"
        );
        assert_eq!(script.sets_after, "");
    }

    #[test]
    fn what_a_killed_change_left_aside_goes_first() {
        let own = own(&[(80, 15_000)]);
        let mut left = unmarked(&own);
        let aside = left.sets["nodeway-v4"].clone();
        left.sets.insert("nodeway-v4-new".into(), aside);
        let script = change(&left, &own);
        let first = script.sets_before.lines().next();
        assert_eq!(first, Some("destroy nodeway-v4-new"));
        assert_eq!(script.sets_after, "");
    }

    #[test]
    fn another_listener_is_another_rule_of_one_chain() {
        let script = change(&own(&[(80, 15_000)]), &own(&[(80, 15_000), (81, 15_001)]));
        let lines: Vec<&str> = script.rules.lines().collect();
        assert_eq!(lines[..2], ["*mangle", ":NODEWAY_TPROXY - [0:0]"]);
        assert_eq!(lines.len(), 5, "{lines:#?}");
    }

    #[rstest]
    #[case::up(Own::default(), own(&[(80, 15_000)]), ["*filter", "*nat", "*raw", "*mangle"])]
    #[case::down(own(&[(80, 15_000)]), Own::default(), ["*mangle", "*raw", "*nat", "*filter"])]
    fn marking_comes_last_and_goes_first(
        #[case] from: Own,
        #[case] to: Own,
        #[case] order: [&str; 4],
    ) {
        let script = change(&from, &to);
        let tables = script.rules.lines().filter(|line| line.starts_with('*'));
        assert_eq!(tables.collect::<Vec<_>>(), order);
    }

    #[test]
    fn a_table_that_was_not_there_is_marked_as_made() {
        let from = Own {
            absent: [Table::Raw].into(),
            ..Own::default()
        };
        let script = change(&from, &own(&[(80, 15_000)]));
        assert!(script.rules.contains("*raw\n:NODEWAY_MADE - [0:0]\n"));
        assert_eq!(script.rules.matches(MADE).count(), 1);
    }
}
