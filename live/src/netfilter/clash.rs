//! What somebody else has that ours would take: a place among rules, bits of a mark, a table.

use std::fmt;

use nodeway_core::datapath::Family;
use nodeway_core::netfilter::{PolicyRule, Routing};

use super::Owner;
use super::saved::{Saved, target};
use crate::routes::{ForeignRule, Found, ip_of};

/// What somebody else has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clash {
    /// A policy rule at our place.
    Preference {
        /// The rule as `ip` has it.
        rule: String,
    },
    /// A policy rule that our marked packets would match.
    Mark {
        /// The rule as `ip` has it.
        rule: String,
        /// Our own mark.
        ours: String,
    },
    /// Routes or a policy rule of our table.
    Table {
        /// The table, with the family's `ip`.
        table: String,
        /// Who has it.
        has: String,
    },
    /// A rule of the packet filter that marks packets as if they were ours.
    Rule {
        /// The rule as `iptables-save` has it.
        rule: String,
        /// Our own mark.
        ours: String,
    },
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preference { rule } => write!(
                f,
                "`{rule}` stands where our own would; choose another preference"
            ),
            Self::Mark { rule, ours } => write!(
                f,
                "`{rule}` takes packets with our mark {ours}; choose other bits"
            ),
            Self::Table { table, has } => {
                write!(f, "`{table}` is in use: {has}; choose another table")
            }
            Self::Rule { rule, ours } => write!(
                f,
                "`{rule}` gives packets our mark {ours}; choose other bits"
            ),
        }
    }
}

fn mark_text(rule: &PolicyRule) -> String {
    format!("{:#x}/{:#x}", rule.mark, rule.mask)
}

/// Whether packets with our mark look like those of `value/mask`, by bits that are ours.
fn same_bits(own: &PolicyRule, value: u32, mask: u32) -> bool {
    let shared = mask & own.mask;
    shared != 0 && value & shared == own.mark & shared
}

/// With policy rules and routes.
pub(super) fn with_routes(routing: &Routing, found: &Found) -> Vec<Clash> {
    let mut clashes = Vec::new();
    for own in &routing.rules {
        for rule in &found.foreign_rules {
            clashes.extend(with_rule(own, rule));
        }
        let tables = found.foreign_routes.iter();
        for ((family, table), routes) in tables.filter(|((_, table), _)| *table == own.table) {
            clashes.push(Clash::Table {
                table: format!("{} route show table {table}", ip_of(*family)),
                has: format!("it has {routes} routes"),
            });
        }
    }
    clashes
}

fn with_rule(own: &PolicyRule, rule: &ForeignRule) -> Option<Clash> {
    let mark = rule
        .mark
        .map(|(mark, mask)| format!(" fwmark {mark:#x}/{mask:#x}"));
    let text = format!(
        "{} rule pref {}{} lookup {}",
        ip_of(rule.family),
        rule.preference,
        mark.unwrap_or_default(),
        rule.table
    );
    if rule.preference == own.preference {
        return Some(Clash::Preference { rule: text });
    }
    if let Some((value, mask)) = rule.mark
        && same_bits(own, value, mask)
    {
        let ours = mark_text(own);
        return Some(Clash::Mark { rule: text, ours });
    }
    (rule.table == own.table).then(|| Clash::Table {
        table: format!("{} route show table {}", ip_of(rule.family), rule.table),
        has: format!("`{text}` leads there"),
    })
}

/// With rules of the packet filter.
pub(super) fn with_rules(routing: &Routing, family: Family, saved: &Saved) -> Vec<Clash> {
    let program = match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    let mut clashes = Vec::new();
    for own in &routing.rules {
        for (table, saved) in &saved.tables {
            let foreign = saved
                .rules
                .iter()
                .filter(|(chain, _)| !Owner::ALL.iter().any(|owner| owner.owns_chain(chain)));
            for (chain, rule) in foreign {
                if sets_mark(rule).is_some_and(|(value, mask)| same_bits(own, value, mask)) {
                    clashes.push(Clash::Rule {
                        rule: format!("{program} -t {table} -A {chain}{rule}"),
                        ours: mark_text(own),
                    });
                }
            }
        }
    }
    clashes
}

/// The mark that a rule gives.
fn sets_mark(rule: &str) -> Option<(u32, u32)> {
    let option = match target(rule)? {
        "MARK" => "--set-xmark",
        "TPROXY" => "--tproxy-mark",
        _ => return None,
    };
    let mut words = rule.split(' ').skip_while(|word| *word != option).skip(1);
    let mark = words.next()?;
    let (value, mask) = mark.split_once('/').unwrap_or((mark, "0xffffffff"));
    Some((number(value)?, number(mask)?))
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use nodeway_core::netfilter::tproxy;
    use rstest::rstest;

    use super::*;
    use crate::netfilter::saved;

    #[rstest]
    #[case::our_very_mark(" -j MARK --set-xmark 0x200/0xf00", true)]
    #[case::all_bits(" -j MARK --set-xmark 0x200/0xffffffff", true)]
    #[case::a_tproxy(
        " -p tcp -j TPROXY --on-port 1 --on-ip 127.0.0.1 --tproxy-mark 0x200/0x200",
        true
    )]
    #[case::other_value_of_our_bits(" -j MARK --set-xmark 0x400/0xf00", false)]
    #[case::another_programs_one(" -j MARK --set-xmark 0x1/0xffffffff", false)]
    #[case::kube_proxys(" -j MARK --set-xmark 0x4000/0x4000", false)]
    #[case::the_ports_bits(" -j MARK --set-xmark 0x10000/0x10000", false)]
    #[case::no_mark(" -j ACCEPT", false)]
    fn a_rule_that_gives_our_mark_is_named(#[case] rule: &str, #[case] clashes: bool) {
        let text = format!("*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING{rule}\nCOMMIT\n");
        let found = with_rules(&tproxy::routing(), Family::V4, &saved::parse(&text));
        assert_eq!(!found.is_empty(), clashes, "{found:?}");
        for clash in found {
            let line = format!("iptables -t mangle -A PREROUTING{rule}");
            assert!(clash.to_string().contains(&line), "{clash}");
        }
    }

    #[test]
    fn our_own_rules_and_kube_proxys_are_no_clash() {
        let text = "*mangle\n:NODEWAY_DIVERT - [0:0]\n:KUBE-X - [0:0]\n-A NODEWAY_DIVERT -j MARK --set-xmark 0x200/0xffffffff\n-A KUBE-X -j MARK --set-xmark 0x200/0xffffffff\nCOMMIT\n";
        let found = with_rules(&tproxy::routing(), Family::V4, &saved::parse(text));
        assert_eq!(found, []);
    }

    #[rstest]
    #[case::our_place(9, None, 100, Some("stands where our own would"))]
    #[case::our_mark(50, Some((0x200, 0xf00)), 100, Some("takes packets with our mark"))]
    #[case::a_bit_of_our_mark(50, Some((0x200, 0x200)), 100, Some("takes packets with our mark"))]
    #[case::our_table(50, None, 2004, Some("is in use"))]
    #[case::another_mark(50, Some((0x400, 0xf00)), 100, None)]
    #[case::other_bits(50, Some((0x10000, 0x10000)), 100, None)]
    #[case::another_rule(50, None, 100, None)]
    fn a_policy_rule_that_would_meet_ours_is_named(
        #[case] preference: u32,
        #[case] mark: Option<(u32, u32)>,
        #[case] table: u32,
        #[case] says: Option<&str>,
    ) {
        let rule = ForeignRule {
            family: Family::V4,
            preference,
            mark,
            table,
        };
        let mut found = Found::default();
        found.foreign_rules.push(rule);
        let clashes = with_routes(&tproxy::routing(), &found);
        assert_eq!(clashes.is_empty(), says.is_none(), "{clashes:?}");
        if let (Some(clash), Some(says)) = (clashes.first(), says) {
            assert!(clash.to_string().contains(says), "{clash}");
        }
    }
}
