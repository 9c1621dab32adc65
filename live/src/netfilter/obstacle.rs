//! What of others would stop redirected packets: filters that drop whatever they do not know.
//!
//! A redirected connection is untracked, so a filter that lets through what `ctstate` calls
//! established knows nothing of it. Our own accepting rules stand first in the table `filter` of
//! iptables, but no accept of one table helps in another, and the eBPF ways bring none.
//! Whoever set such a filter up must let these packets through: we do not open other people's doors.

use std::collections::BTreeMap;
use std::fmt;

use nodeway_core::datapath::Family;
use nodeway_core::netfilter::{BuiltIn, Table};
use serde_json::Value;

use super::Wanted;
use super::saved::{Saved, SavedTable, target};

/// A filter in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Which one, as its tool calls it.
    pub place: String,
    /// What it does.
    pub why: String,
    /// How to let redirected packets through.
    pub fix: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, why, fix } = self;
        write!(f, "{place} {why}; {fix}")
    }
}

const BY_STATE: &str = " and accepts by the state of connections, which redirected ones have none of: they are untracked";

/// In the tables of iptables.
pub(super) fn in_tables(family: Family, saved: &Saved, wanted: &Wanted) -> Vec<Obstacle> {
    let program = match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    let mut obstacles = Vec::new();
    for table in [Table::Raw, Table::Mangle, Table::Filter] {
        let Some(found) = saved.tables.get(table.name()) else {
            continue;
        };
        for hook in [BuiltIn::Prerouting, BuiltIn::Input, BuiltIn::Output] {
            let ours = accepts(wanted, family, table, hook);
            if ours || found.opens(hook.name()) || !found.closes(hook.name(), 0) {
                continue;
            }
            let by_state = found
                .rules
                .iter()
                .any(|(_, rule)| rule.contains("--ctstate") && target(rule) == Some("ACCEPT"));
            let (name, chain) = (table.name(), hook.name());
            obstacles.push(Obstacle {
                place: format!("`{program} -t {name}`, chain {chain},"),
                why: format!(
                    "drops what it does not know{}",
                    if by_state { BY_STATE } else { "" }
                ),
                fix: format!(
                    "let them through: {program} -t {name} -I {chain} -p tcp -m conntrack --ctstate UNTRACKED -j ACCEPT"
                ),
            });
        }
    }
    obstacles
}

/// Whether our own rules accept at that hook before anybody else is asked.
fn accepts(wanted: &Wanted, family: Family, table: Table, hook: BuiltIn) -> bool {
    let chains = wanted.rules(family).tables.get(&table);
    table == Table::Filter && chains.is_some_and(|chains| chains.contains_key(hook.name()))
}

impl SavedTable {
    /// Whether a packet that no rule knows ends here.
    fn closes(&self, chain: &str, depth: usize) -> bool {
        if self.policies.get(chain).is_some_and(|it| it == "DROP") {
            return true;
        }
        depth < 8
            && self.of(chain).any(|rule| {
                is_unconditional(rule)
                    && match target(rule) {
                        Some("DROP" | "REJECT") => true,
                        Some(to) if self.chains.contains(to) => self.closes(to, depth + 1),
                        _ => false,
                    }
            })
    }

    /// Whether it lets through what is untracked.
    fn opens(&self, chain: &str) -> bool {
        self.of(chain)
            .any(|rule| rule.contains("UNTRACKED") && target(rule) == Some("ACCEPT"))
    }

    fn of<'a>(&'a self, chain: &'a str) -> impl Iterator<Item = &'a str> {
        let rules = self.rules.iter().filter(move |(name, _)| name == chain);
        rules.map(|(_, rule)| rule.as_str())
    }
}

fn is_unconditional(rule: &str) -> bool {
    let Some(to) = target(rule) else {
        return false;
    };
    let before = [" -j ", " -g "].iter().find_map(|option| {
        let (before, _) = rule.rsplit_once(&format!("{option}{to}"))?;
        Some(before)
    });
    before.is_some_and(|it| it.is_empty() || it.starts_with(" -m comment --comment "))
}

/// A chain of nftables, as far as it matters here.
#[derive(Default)]
struct Chain {
    hook: String,
    closes: bool,
    opens: bool,
    by_state: bool,
}

/// In tables of nftables that are not those of iptables, out of `nft -j list ruleset`. What cannot
/// be read is no obstacle.
pub(super) fn in_nftables(ruleset: &str, wanted: &Wanted) -> Vec<Obstacle> {
    let ruleset: Value = serde_json::from_str(ruleset).unwrap_or_default();
    let items = ruleset.get("nftables").and_then(Value::as_array);
    let mut chains: BTreeMap<[&str; 3], Chain> = BTreeMap::new();
    for item in items.into_iter().flatten() {
        if let Some(chain) = item.get("chain") {
            let hook = text(chain, "hook");
            let is_of_iptables = matches!(text(chain, "family"), "ip" | "ip6")
                && Table::named(text(chain, "table")).is_some();
            if matches!(hook, "prerouting" | "input" | "output") && !is_of_iptables {
                let found = Chain {
                    hook: hook.to_owned(),
                    closes: text(chain, "policy") == "drop",
                    ..Chain::default()
                };
                chains.insert(key(chain, "name"), found);
            }
        }
        if let Some(rule) = item.get("rule")
            && let Some(chain) = chains.get_mut(&key(rule, "chain"))
        {
            chain.read(rule, wanted);
        }
    }
    let closed = chains
        .iter()
        .filter(|(_, chain)| chain.closes && !chain.opens);
    closed
        .map(|([family, table, name], chain)| Obstacle {
            place: format!("nftables table {family} {table}, chain {name} at hook {},", chain.hook),
            why: format!(
                "drops what it does not know{}",
                if chain.by_state { BY_STATE } else { "" }
            ),
            fix: format!(
                "let them through: nft insert rule {family} {table} {name} ct state untracked accept"
            ),
        })
        .collect()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn key<'a>(value: &'a Value, chain: &str) -> [&'a str; 3] {
    [
        text(value, "family"),
        text(value, "table"),
        text(value, chain),
    ]
}

impl Chain {
    /// Takes a rule of it in.
    fn read(&mut self, rule: &Value, wanted: &Wanted) {
        let statements = rule.get("expr").and_then(Value::as_array);
        let statements: Vec<&Value> = statements.into_iter().flatten().collect();
        let has = |name: &str| statements.iter().any(|it| it.get(name).is_some());
        let matches: Vec<&Value> = statements.iter().filter_map(|it| it.get("match")).collect();
        if matches.is_empty() {
            // What comes after an accept of everything is never asked.
            self.opens |= has("accept");
            self.closes |= has("drop") || has("reject");
        } else if has("accept") {
            let by_state = matches.iter().any(|it| is_of_state(it));
            self.by_state |= by_state;
            if let [only] = matches.as_slice() {
                self.opens |= by_state && names(only, "untracked");
                self.opens |= self.hook != "output" && is_our_mark(only, wanted);
            }
        }
    }
}

fn is_of_state(statement: &Value) -> bool {
    let key = statement.pointer("/left/ct/key");
    key.and_then(Value::as_str) == Some("state")
}

/// Whether the right side is that word, or a list that has it.
fn names(statement: &Value, word: &str) -> bool {
    let right = statement.get("right");
    let list = right.and_then(|it| it.get("set").unwrap_or(it).as_array().cloned());
    right.and_then(Value::as_str) == Some(word)
        || list
            .into_iter()
            .flatten()
            .any(|it| it.as_str() == Some(word))
}

/// `meta mark & MASK == VALUE`
fn is_our_mark(statement: &Value, wanted: &Wanted) -> bool {
    let mask = statement.pointer("/left/&/1").and_then(Value::as_u64);
    let value = statement.get("right").and_then(Value::as_u64);
    let key = statement.pointer("/left/&/0/meta/key");
    let is = |rule: &nodeway_core::netfilter::PolicyRule| {
        (mask, value) == (Some(rule.mask.into()), Some(rule.mark.into()))
    };
    key.and_then(Value::as_str) == Some("mark") && wanted.routing.rules.iter().any(is)
}

#[cfg(test)]
mod tests {
    use nodeway_core::netfilter::Marking;
    use nodeway_core::redirect::Redirect;
    use rstest::rstest;

    use super::*;
    use crate::netfilter::saved;

    fn tproxy() -> Wanted {
        Wanted::tproxy(&[], &Marking::default())
    }

    fn filter(rules: &str, policy: &str) -> Saved {
        let rules = rules.replace("; ", "\n");
        saved::parse(&format!(
            "*filter\n:INPUT {policy} [0:0]\n:OWN - [0:0]\n{rules}\nCOMMIT\n"
        ))
    }

    #[rstest]
    #[case::policy("", "DROP", true)]
    #[case::last_rule("-A INPUT -i lo -j ACCEPT; -A INPUT -j DROP", "ACCEPT", true)]
    #[case::with_a_comment(
        "-A INPUT -m comment --comment no -j REJECT --reject-with tcp-reset",
        "ACCEPT",
        true
    )]
    #[case::in_a_chain_of_its_own("-A INPUT -j OWN; -A OWN -j DROP", "ACCEPT", true)]
    #[case::nothing("", "ACCEPT", false)]
    #[case::some_only("-A INPUT -p udp -j DROP", "ACCEPT", false)]
    #[case::untracked_is_let_through(
        "-A INPUT -m conntrack --ctstate ESTABLISHED,UNTRACKED -j ACCEPT",
        "DROP",
        false
    )]
    fn a_filter_that_drops_by_default_is_found(
        #[case] rules: &str,
        #[case] policy: &str,
        #[case] stops: bool,
    ) {
        let saved = filter(rules, policy);
        let found = in_tables(Family::V4, &saved, &Wanted::node(Redirect::Tc, &[], &[]));
        assert_eq!(!found.is_empty(), stops, "{found:?}");
        // The rules of TPROXY accept for themselves, and stand first.
        assert_eq!(in_tables(Family::V4, &saved, &tproxy()), []);
    }

    #[test]
    fn an_accept_by_state_is_named() {
        let saved = filter(
            "-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT",
            "DROP",
        );
        let found = in_tables(Family::V6, &saved, &Wanted::node(Redirect::Tc, &[], &[]));
        assert_eq!(
            found[0].to_string(),
            "`ip6tables -t filter`, chain INPUT, drops what it does not know and accepts by the state of connections, which redirected ones have none of: they are untracked; let them through: ip6tables -t filter -I INPUT -p tcp -m conntrack --ctstate UNTRACKED -j ACCEPT"
        );
    }

    const STATE: &str = r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}"#;
    const UNTRACKED: &str = r#"{"match": {"op": "==", "left": {"ct": {"key": "state"}}, "right": {"set": ["established", "untracked"]}}}, {"accept": null}"#;
    const MARK: &str = r#"{"match": {"op": "==", "left": {"&": [{"meta": {"key": "mark"}}, 3840]}, "right": 512}}, {"counter": {"packets": 0, "bytes": 0}}, {"accept": null}"#;
    const OTHER_MARK: &str = r#"{"match": {"op": "==", "left": {"&": [{"meta": {"key": "mark"}}, 3840]}, "right": 1024}}, {"accept": null}"#;
    const DROP: &str = r#"{"counter": {"packets": 0, "bytes": 0}}, {"drop": null}"#;
    const ACCEPT: &str = r#"{"accept": null}"#;

    fn nft(table: &str, hook: &str, policy: &str, rules: &[&str]) -> String {
        let rules: String = rules
            .iter()
            .map(|expr| format!(r#", {{"rule": {{"family": "ip", "table": "{table}", "chain": "c", "expr": [{expr}]}}}}"#))
            .collect();
        format!(
            r#"{{"nftables": [{{"metainfo": {{}}}}, {{"chain": {{"family": "ip", "table": "{table}", "name": "c", "hook": "{hook}", "policy": "{policy}"}}}}{rules}]}}"#
        )
    }

    #[rstest]
    #[case::policy("wall", "input", "drop", &[STATE], true)]
    #[case::last_rule("wall", "prerouting", "accept", &[STATE, DROP], true)]
    #[case::open("wall", "input", "accept", &[STATE], false)]
    #[case::another_hook("wall", "forward", "drop", &[], false)]
    #[case::a_table_of_iptables("filter", "input", "drop", &[], false)]
    #[case::untracked("wall", "output", "drop", &[UNTRACKED], false)]
    #[case::our_mark("wall", "input", "drop", &[MARK], false)]
    #[case::our_mark_is_not_on_replies("wall", "output", "drop", &[MARK], true)]
    #[case::another_mark("wall", "input", "drop", &[OTHER_MARK], true)]
    #[case::everything_before("wall", "input", "accept", &[ACCEPT, DROP], false)]
    fn a_table_of_nftables_that_drops_by_default_is_found(
        #[case] table: &str,
        #[case] hook: &str,
        #[case] policy: &str,
        #[case] rules: &[&str],
        #[case] stops: bool,
    ) {
        let found = in_nftables(&nft(table, hook, policy, rules), &tproxy());
        assert_eq!(!found.is_empty(), stops, "{found:?}");
        for obstacle in found {
            let text = obstacle.to_string();
            assert!(text.contains("table ip wall, chain c"), "{text}");
        }
    }

    #[test]
    fn what_is_no_ruleset_is_no_obstacle() {
        assert_eq!(in_nftables("it rains", &tproxy()), []);
    }
}
