//! Rules as `iptables-save` and `ipset save` print them, and as their `restore`s take them.

mod parse;
mod render;
#[cfg(test)]
mod tests;

pub use parse::{ParseError, What, parse, parse_sets};
pub use render::{rule, ruleset, sets};
