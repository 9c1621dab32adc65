//! What `iptables-save` tells, line by line: rules of others are kept as text, whatever they say.

use std::collections::{BTreeMap, BTreeSet};

use nodeway_core::datapath::Family;

use super::tool::{self, ToolError};
use crate::netns::NetNs;

/// All tables of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) tables: BTreeMap<String, SavedTable>,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SavedTable {
    /// Built-in chains with their policies.
    pub(super) policies: BTreeMap<String, String>,
    /// Other chains.
    pub(super) chains: BTreeSet<String>,
    /// Rules in order: the chain, and the rule as `-A` has it, beginning with a blank.
    pub(super) rules: Vec<(String, String)>,
}

/// Reads the tables of a family.
pub(super) fn read(netns: &NetNs, family: Family) -> Result<Saved, ToolError> {
    Ok(parse(&tool::iptables_save(netns, family)?))
}

pub(super) fn parse(text: &str) -> Saved {
    let mut saved = Saved::default();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(table) = line.strip_prefix('*') {
            table.clone_into(&mut name);
            saved.tables.entry(name.clone()).or_default();
            continue;
        }
        let Some(table) = saved.tables.get_mut(&name) else {
            continue;
        };
        if let Some((chain, policy)) = line.strip_prefix(':').and_then(|it| it.split_once(' ')) {
            match policy.split(' ').next() {
                None | Some("-") => {
                    table.chains.insert(chain.to_owned());
                }
                Some(policy) => {
                    table.policies.insert(chain.to_owned(), policy.to_owned());
                }
            }
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let (chain, rest) = rule.split_at(rule.find(' ').unwrap_or(rule.len()));
            table.rules.push((chain.to_owned(), rest.to_owned()));
        }
    }
    saved
}

impl SavedTable {
    /// Whether it says nothing at all.
    pub(super) fn is_bare(&self) -> bool {
        let accepts = self.policies.values().all(|policy| policy == "ACCEPT");
        accepts && self.chains.is_empty() && self.rules.is_empty()
    }
}

/// Where a rule leads: the word after `-j` or `-g` that is not in quotes.
pub(super) fn target(rule: &str) -> Option<&str> {
    let mut quoted = false;
    let mut words = rule.split(' ');
    while let Some(word) = words.next() {
        if !quoted && matches!(word, "-j" | "-g") {
            return words.next();
        }
        let quotes = word.matches('"').count() - word.matches("\\\"").count();
        quoted ^= quotes % 2 == 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain(" -p tcp -j DROP", Some("DROP"))]
    #[case::goto(" -g CHAIN", Some("CHAIN"))]
    #[case::in_a_comment(r#" -m comment --comment "a -j b" -j ACCEPT"#, Some("ACCEPT"))]
    #[case::after_an_escaped_quote(
        r#" -m comment --comment "a \" -j b" -j ACCEPT"#,
        Some("ACCEPT")
    )]
    #[case::with_options(" -j MARK --set-xmark 0x1/0x1", Some("MARK"))]
    #[case::none(" -m recent --set", None)]
    fn a_rules_target_is_not_looked_for_in_its_comment(
        #[case] rule: &str,
        #[case] to: Option<&str>,
    ) {
        assert_eq!(target(rule), to);
    }

    #[test]
    fn every_line_has_its_place() {
        let text = "# x\n*raw\n:PREROUTING DROP [1:2]\n:OWN - [0:0]\n-A PREROUTING -j OWN\nCOMMIT\n*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";
        let saved = parse(text);
        let raw = &saved.tables["raw"];
        assert_eq!(raw.policies["PREROUTING"], "DROP");
        assert!(raw.chains.contains("OWN"));
        assert_eq!(raw.rules, [("PREROUTING".to_owned(), " -j OWN".to_owned())]);
        assert!(!raw.is_bare());
        assert!(saved.tables["nat"].is_bare());
    }
}
