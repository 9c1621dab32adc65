//! Which listener has which port of the node.
//!
//! A listener's port is the hash of its name in the range, or the next one that was never used:
//! so the same listeners get the same ports in whatever order they come, unless two hashes
//! collide; then the one that came first has the better right. A listener that comes back gets
//! its old port back. Another gets a released port only when no unused one is left, the one that
//! was released longest ago first: old connections and rules must not meet a stranger.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sha2::{Digest, Sha256};

/// The first port of the range, as Cilium's `proxy-portrange-min`.
pub const FIRST_PORT: u16 = 10_000;
/// The last port of the range, as Cilium's `proxy-portrange-max`.
pub const LAST_PORT: u16 = 20_000;

/// The ports of a node's listeners, by qualified listener name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    first: u16,
    last: u16,
    held: BTreeMap<String, u16>,
    released: BTreeMap<String, u16>,
    /// In the order of release. An entry is stale when `released` does not say the same.
    queue: VecDeque<(String, u16)>,
    used: BTreeSet<u16>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::with_range(FIRST_PORT, LAST_PORT)
    }
}

impl Ledger {
    /// A ledger over another range of ports, both ends included.
    #[must_use]
    pub fn with_range(first: u16, last: u16) -> Self {
        let (held, released) = (BTreeMap::new(), BTreeMap::new());
        Self {
            first,
            last,
            held,
            released,
            queue: VecDeque::new(),
            used: BTreeSet::new(),
        }
    }

    /// A ledger that remembers the ports of an earlier life: a listener of that name gets its port
    /// again, and no other does while there is an unused one.
    #[must_use]
    pub fn restore(ports: BTreeMap<String, u16>) -> Self {
        let mut ledger = Self::default();
        for (name, port) in ports {
            if (ledger.first..=ledger.last).contains(&port) && ledger.used.insert(port) {
                ledger.queue.push_back((name.clone(), port));
                ledger.released.insert(name, port);
            }
        }
        ledger
    }

    /// Gives nobody these ports while there are others: somebody else has them open. One that a
    /// listener had in an earlier life is still its own.
    pub fn avoid(&mut self, ports: impl IntoIterator<Item = u16>) {
        self.used.extend(ports);
    }

    /// The port of a listener, now and until it is released; none when all are taken.
    pub fn port(&mut self, name: &str) -> Option<u16> {
        if let Some(port) = self.held.get(name) {
            return Some(*port);
        }
        let port = self
            .released
            .remove(name)
            .or_else(|| self.unused(name))
            .or_else(|| self.oldest_released())?;
        self.used.insert(port);
        self.held.insert(name.to_owned(), port);
        Some(port)
    }

    /// Gives a listener's port back.
    pub fn release(&mut self, name: &str) {
        if let Some(port) = self.held.remove(name) {
            self.queue.push_back((name.to_owned(), port));
            self.released.insert(name.to_owned(), port);
        }
    }

    /// The ports in use, by listener: what [`Ledger::restore`] takes.
    #[must_use]
    pub fn ports(&self) -> &BTreeMap<String, u16> {
        &self.held
    }

    fn unused(&self, name: &str) -> Option<u16> {
        let size = u64::from(self.last.checked_sub(self.first)?) + 1;
        let hash = Sha256::digest(name.as_bytes())
            .iter()
            .take(8)
            .fold(0, |hash, byte| (hash << 8) | u64::from(*byte));
        let start = self.first.checked_add(u16::try_from(hash % size).ok()?)?;
        let free =
            |mut ports: std::ops::RangeInclusive<u16>| ports.find(|port| !self.used.contains(port));
        free(start..=self.last).or_else(|| free(self.first..=start))
    }

    fn oldest_released(&mut self) -> Option<u16> {
        while let Some((name, port)) = self.queue.pop_front() {
            if self.released.get(&name) == Some(&port) {
                self.released.remove(&name);
                return Some(port);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_listener_keeps_its_port_and_gets_it_back() {
        let mut ledger = Ledger::default();
        let port = ledger.port("a/b/listener").unwrap();
        assert!((FIRST_PORT..=LAST_PORT).contains(&port));
        assert_eq!(ledger.port("a/b/listener"), Some(port));
        ledger.release("a/b/listener");
        assert_eq!(ledger.port("a/b/listener"), Some(port));
        let mut later = Ledger::restore(ledger.ports().clone());
        assert_eq!(later.port("a/b/listener"), Some(port));
    }

    #[test]
    fn a_port_of_an_earlier_life_is_only_its_own_listeners() {
        let wanted = Ledger::default().port("late").unwrap();
        let before: BTreeMap<String, u16> = [
            ("early".to_owned(), wanted),
            ("twin".to_owned(), wanted),
            ("far".to_owned(), 1),
        ]
        .into();
        let mut ledger = Ledger::restore(before);
        assert!(ledger.ports().is_empty());
        // Without an earlier life it would be this one's.
        assert_ne!(ledger.port("late"), Some(wanted));
        assert_eq!(ledger.port("early"), Some(wanted));
        assert_ne!(ledger.port("twin"), Some(wanted));
        assert_ne!(ledger.port("far"), Some(1));
        assert_eq!(ledger.ports().get("early"), Some(&wanted));
        assert_eq!(ledger.ports().len(), 4);
    }

    #[test]
    fn a_port_that_somebody_else_has_open_is_given_to_nobody_new() {
        let wanted = Ledger::default().port("late").unwrap();
        let mut ledger = Ledger::default();
        ledger.avoid([wanted]);
        assert_ne!(ledger.port("late"), Some(wanted));
        let mut ledger = Ledger::restore([("late".to_owned(), wanted)].into());
        ledger.avoid([wanted]);
        assert_eq!(ledger.port("late"), Some(wanted));
    }

    #[test]
    fn a_released_port_is_anothers_only_when_no_unused_one_is_left() {
        let mut ledger = Ledger::with_range(100, 104);
        let ports: Vec<u16> = ["a", "b", "c"]
            .map(|name| ledger.port(name).unwrap())
            .into();
        for name in ["b", "a"] {
            ledger.release(name);
        }
        let unused = [ledger.port("d").unwrap(), ledger.port("e").unwrap()];
        assert!(unused.iter().all(|port| !ports.contains(port)));
        assert_eq!(
            ledger.port("f"),
            Some(ports[1]),
            "b's port was released first"
        );
        assert_eq!(ledger.port("g"), Some(ports[0]));
        assert_eq!(ledger.port("h"), None, "all five are held");
    }

    proptest! {
        #[test]
        fn no_two_listeners_have_one_port(moves in proptest::collection::vec((0_u8..12, any::<bool>()), 0..80)) {
            let mut ledger = Ledger::with_range(1, 8);
            for (name, take) in moves {
                let name = name.to_string();
                if take { ledger.port(&name); } else { ledger.release(&name); }
                let ports: BTreeSet<u16> = ledger.ports().values().copied().collect();
                prop_assert_eq!(ports.len(), ledger.ports().len());
                prop_assert!(ports.iter().all(|port| (1..=8).contains(port)));
            }
        }
    }
}
