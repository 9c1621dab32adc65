//! An ipset of type `hash:ip,port`: addresses and TCP ports, found at once however many there are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The name of a set (`nodeway-v4`); at most 31 bytes in the kernel.
pub type SetName = Arc<str>;

/// A set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpSet {
    /// Whether entries carry a mark (`skbinfo`).
    pub marks: bool,
    /// Its entries, TCP all of them.
    pub entries: BTreeMap<SocketAddr, SetEntry>,
}

/// What an entry carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetEntry {
    /// `skbmark`: the mark that [`Target::MapMark`](super::Target::MapMark) gives.
    pub mark: Option<u32>,
}
