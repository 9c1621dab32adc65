//! Text to rules: what `iptables-save` gives, and what `iptables-restore` takes.
//!
//! Only the closed set of matches and targets is read. A line with anything else is an error that
//! names the option; all such lines are told at once, and the rules of the others come with them.

mod rule;
mod sets;
mod target;
mod words;

use nodeway_datapath::Family;

pub use sets::parse_sets;

use crate::netfilter::{Chain, Policy, Ruleset, Table};
use rule::rule;
use words::Words;

/// What cannot be read, by line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: What,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum What {
    /// It is well-formed, and outside the closed set.
    #[error("not simulated: {0}")]
    NotSimulated(String),
    /// It is no line of iptables.
    #[error("{0}")]
    Malformed(String),
}

type Parsed<T> = Result<T, What>;

/// Reads all tables of a family, and every line that could not be read.
#[must_use]
pub fn parse(text: &str, family: Family) -> (Ruleset, Vec<ParseError>) {
    let mut rules = Ruleset::new(family);
    let mut errors = Vec::new();
    let mut table = None;
    for (index, line) in text.lines().enumerate() {
        if let Err(what) = read(line.trim(), &mut table, &mut rules) {
            let line = index + 1;
            errors.push(ParseError { line, what });
        }
    }
    (rules, errors)
}

fn read(line: &str, table: &mut Option<Table>, rules: &mut Ruleset) -> Parsed<()> {
    if line.is_empty() || line.starts_with('#') || line == "COMMIT" {
        return Ok(());
    }
    if let Some(name) = line.strip_prefix('*') {
        let found = Table::named(name);
        *table = found;
        return match found {
            Some(found) => {
                rules.tables.entry(found).or_default();
                Ok(())
            }
            None => Err(What::NotSimulated(format!("table `{name}`"))),
        };
    }
    let Some(table) = *table else {
        let what = "it stands before any table; begin with `*nat` or another";
        return Err(What::Malformed(what.to_owned()));
    };
    if let Some(declared) = line.strip_prefix(':') {
        let mut words = declared.split_whitespace();
        let name = words.next().unwrap_or_default();
        return declare(rules, table, name, words.next().unwrap_or("-"));
    }
    let words = shell_words::split(line)
        .map_err(|_| What::Malformed("a quotation mark is never closed".to_owned()))?;
    let mut words = Words::from(words);
    // Counters, as `iptables-save -c` prints them.
    if words.peek().is_some_and(|it| it.starts_with('[')) {
        words.next("counters")?;
    }
    let (command, chain) = (words.next("a command")?, words.next("a chain")?);
    match command.as_str() {
        "-N" | "--new-chain" => declare(rules, table, &chain, "-"),
        "-P" | "--policy" => declare(rules, table, &chain, &words.next("a policy")?),
        "-I" | "--insert" => {
            let place = words.peek().and_then(|it| it.parse::<usize>().ok());
            if place.is_some() {
                words.next("a place")?;
            }
            let rule = rule(words, rules.family)?;
            let rules = &mut rules.chain_mut(table, &chain).rules;
            let place = place.unwrap_or(1).saturating_sub(1);
            rules.insert(place.min(rules.len()), rule);
            Ok(())
        }
        "-A" | "--append" => {
            let rule = rule(words, rules.family)?;
            rules.append(table, &chain, [rule]);
            Ok(())
        }
        other => Err(What::NotSimulated(format!("command `{other}`"))),
    }
}

fn declare(rules: &mut Ruleset, table: Table, name: &str, policy: &str) -> Parsed<()> {
    let policy = match policy {
        "-" => None,
        "ACCEPT" => Some(Policy::Accept),
        "DROP" => Some(Policy::Drop),
        other => return Err(What::Malformed(format!("`{other}` is no policy"))),
    };
    let chain: &mut Chain = rules.chain_mut(table, name);
    chain.policy = policy;
    Ok(())
}
