//! Policy routing that belongs to rules: which marks are delivered locally.

use std::net::IpAddr;

/// What `ip rule` and `ip route` must have beside the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// `ip rule`, in both families.
    pub rules: Vec<PolicyRule>,
    /// Addresses that are delivered to this node although no device has them.
    pub local: Vec<LocalRoute>,
}

/// `ip rule add fwmark MARK/MASK lookup TABLE pref PREFERENCE`, with `local default dev lo` in
/// that table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// What the masked mark must be.
    pub mark: u32,
    /// Which bits are compared.
    pub mask: u32,
    /// The routing table; its one route delivers everything locally.
    pub table: u32,
    /// The rule's place: before the table `local`'s own.
    pub preference: u32,
}

/// `ip route add local ADDRESS dev lo src SOURCE`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalRoute {
    /// The frontend's address.
    pub address: IpAddr,
    /// What the node's own clients have as their source.
    pub source: IpAddr,
}
