//! An ipset of type `hash:ip,port`: addresses and TCP ports, found at once however many there are.

use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// The name of a set (`nodeway-v4`); at most 31 bytes in the kernel.
pub type SetName = Arc<str>;

/// A set. Its look-ups take the same time however many entries it has; nothing hangs on the order
/// of its table, whose hashes are the same in every run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpSet {
    /// Whether entries carry a mark (`skbinfo`).
    pub marks: bool,
    /// Its entries, TCP all of them.
    entries: HashMap<SocketAddr, SetEntry, FixedState>,
}

/// What an entry carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetEntry {
    /// `skbmark`: the mark that [`Target::MapMark`](super::Target::MapMark) gives.
    pub mark: Option<u32>,
}

impl IpSet {
    /// An empty set.
    #[must_use]
    pub fn new(marks: bool) -> Self {
        Self {
            marks,
            entries: HashMap::default(),
        }
    }

    /// What an address's entry carries; none without one.
    #[must_use]
    pub fn get(&self, at: &SocketAddr) -> Option<SetEntry> {
        self.entries.get(at).copied()
    }

    /// Puts an entry in.
    pub fn insert(&mut self, at: SocketAddr, entry: SetEntry) {
        self.entries.insert(at, entry);
    }

    /// Takes an entry out.
    pub fn remove(&mut self, at: &SocketAddr) {
        self.entries.remove(at);
    }

    /// Gives every entry that has a mark another.
    pub fn remark(&mut self, mark: impl Fn(u32) -> u32) {
        for entry in self.entries.values_mut() {
            entry.mark = entry.mark.map(&mark);
        }
    }

    /// All entries, sorted by address and port.
    #[must_use]
    pub fn entries(&self) -> Vec<(SocketAddr, SetEntry)> {
        let mut all: Vec<_> = self.entries.iter().map(|(at, it)| (*at, *it)).collect();
        all.sort_unstable_by_key(|(at, _)| *at);
        all
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
