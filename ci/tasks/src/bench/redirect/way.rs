//! The ways that are compared, and the order in which they take turns.

use serde::Serialize;

/// How a client's packets come to Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The client connects to an address and port of the node on which Envoy listens: what all
    /// others are compared with.
    Straight,
    /// A tc program alone.
    Tc,
    /// A tc program for what is known, an sk_lookup program for what is new: the redirect `tc`.
    TcSkLookup,
    /// An sk_lookup program alone.
    SkLookup,
    /// Rules of the packet filter.
    Iptables,
    /// Rules in the client's pod, to an Envoy of its own.
    Sidecar,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Straight,
        Self::Tc,
        Self::TcSkLookup,
        Self::SkLookup,
        Self::Iptables,
        Self::Sidecar,
    ];

    /// What it is called in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Straight => "straight to Envoy",
            Self::Tc => "tc",
            Self::TcSkLookup => "tc + sk-lookup",
            Self::SkLookup => "sk-lookup",
            Self::Iptables => "iptables",
            Self::Sidecar => "sidecar",
        }
    }
}

/// All of some things, beginning with another one each round: nobody is always first, when the
/// machine is cold, or last.
#[must_use]
pub fn turns<T: Copy>(all: &[T], round: usize) -> Vec<T> {
    let mut order = all.to_vec();
    if let Some(first) = round.checked_rem(all.len()) {
        order.rotate_left(first);
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_way_is_first_once_in_as_many_rounds_as_there_are_ways() {
        let firsts: BTreeSet<Way> = (0..6).map(|round| turns(&Way::ALL, round)[0]).collect();
        assert_eq!(firsts.len(), 6);
        for round in 0..7 {
            let all: BTreeSet<Way> = turns(&Way::ALL, round).into_iter().collect();
            assert_eq!(all.len(), 6);
        }
    }

    #[test]
    fn nothing_takes_no_turns() {
        assert_eq!(turns::<Way>(&[], 3), []);
    }
}
