//! What `ipset save` gives, one command a line.

use std::net::SocketAddr;

use super::words::{Words, no_value, number};
use super::{ParseError, Parsed, What};
use crate::netfilter::{IpSet, Ruleset, SetEntry};

/// Reads what `ipset save` gives.
#[must_use]
pub fn parse_sets(text: &str, rules: &mut Ruleset) -> Vec<ParseError> {
    let mut errors = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Err(what) = read_set(line.trim(), rules) {
            let line = index + 1;
            errors.push(ParseError { line, what });
        }
    }
    errors
}

fn read_set(line: &str, rules: &mut Ruleset) -> Parsed<()> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let mut words = Words::from(words);
    let (command, name) = (words.next("a command")?, words.next("a set")?);
    match command.as_str() {
        "create" => {
            let kind = words.next("a type")?;
            if kind != "hash:ip,port" {
                return Err(What::NotSimulated(format!("a set of type {kind}")));
            }
            let marks = words.contains("skbinfo");
            rules.sets.insert(name.into(), IpSet::new(marks));
            Ok(())
        }
        "add" => {
            let text = words.next("an entry")?;
            let at = entry(&text)?;
            let mark = match words.take("skbmark") {
                false => None,
                true => {
                    let text = words.next("a mark")?;
                    let (value, _) = text.split_once('/').unwrap_or((&text, ""));
                    Some(number(value).ok_or_else(|| no_value(&text, "skbmark"))?)
                }
            };
            let Some(set) = rules.sets.get_mut(name.as_str()) else {
                return Err(What::Malformed(format!(
                    "the set `{name}` is not created before"
                )));
            };
            set.insert(at, SetEntry { mark });
            Ok(())
        }
        other => Err(What::NotSimulated(format!("command `{other}`"))),
    }
}

/// `ADDRESS,tcp:PORT`
fn entry(text: &str) -> Parsed<SocketAddr> {
    let malformed = || What::Malformed(format!("`{text}` is no address and port"));
    let (address, port) = text.split_once(',').ok_or_else(malformed)?;
    let port = match port.split_once(':') {
        Some(("tcp", port)) => port,
        Some((other, _)) => return Err(What::NotSimulated(format!("an entry of {other}"))),
        None => port,
    };
    match (address.parse(), port.parse()) {
        (Ok(address), Ok(port)) => Ok(SocketAddr::new(address, port)),
        _ => Err(malformed()),
    }
}
