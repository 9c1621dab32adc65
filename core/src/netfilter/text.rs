//! Rules as `iptables-save` and `ipset save` print them, and as their `restore`s take them.

mod render;

pub use render::{rule, ruleset, sets};
