//! The way `iptables`: frontends are marked by an ipset, untracked, and led to a listener by TPROXY.
//!
//! ```text
//! raw     a frontend's packets, and those of its replies, are untracked: kube-proxy never translates them
//! mangle  who has a socket already is delivered to it; else the frontend's mark tells the listener's port
//! route   what is marked is delivered to this node, whatever its destination
//! ```
//!
//! The mark is Cilium's: `0x0200 | htons(port) << 16`. Marked in `mangle` alone would be too late
//! for `raw`, so `raw` asks the set itself. One set has the frontends in force; a second one has
//! those that are being switched off too: their connections go on, and must stay untracked.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nodeway_datapath::{Family, Frontend, FrontendState, protocol};

use super::{
    BuiltIn, IpSet, Marking, Match, Routing, Rule, Ruleset, SetEntry, SetName, Table, Target,
};
use crate::frontend::FrontendKey;

/// The bits of a mark that say that a packet is for the node's proxy, and their value there.
pub const PROXY_MASK: u32 = 0x0f00;
/// `MARK_MAGIC_TO_PROXY`
pub const TO_PROXY: u32 = 0x0200;

/// Cilium's own table and preference of the rule that delivers what is marked.
pub(super) const ROUTING_TABLE: u32 = 2004;
pub(super) const PREFERENCE: u32 = 9;

/// More listeners than these are found by a tree of chains.
const FLAT: usize = 16;

const PRE: &str = "NODEWAY_PRE";
const OUT: &str = "NODEWAY_OUT";
const IN: &str = "NODEWAY_IN";
const DIVERT: &str = "NODEWAY_DIVERT";
const TPROXY: &str = "NODEWAY_TPROXY";

/// The mark of a packet for the listener on that port, host byte order.
#[must_use]
pub const fn mark(port: u16) -> u32 {
    TO_PROXY | (port.swap_bytes() as u32) << 16
}

/// The set of frontends in force.
#[must_use]
pub fn active(family: Family) -> SetName {
    SetName::from(match family {
        Family::V4 => "nodeway-v4",
        Family::V6 => "nodeway-v6",
    })
}

/// The set of frontends in force or being switched off.
#[must_use]
pub fn known(family: Family) -> SetName {
    SetName::from(match family {
        Family::V4 => "nodeway-known-v4",
        Family::V6 => "nodeway-known-v6",
    })
}

/// What delivers marked packets to this node.
#[must_use]
pub fn routing() -> Routing {
    Marking::default().routing()
}

/// Adds the chains, without a frontend yet.
pub fn install(rules: &mut Ruleset) {
    let family = rules.family;
    let (active, known) = (active(family), known(family));
    rules.sets.insert(
        active.clone(),
        IpSet {
            marks: true,
            ..IpSet::default()
        },
    );
    rules.sets.insert(known.clone(), IpSet::default());
    untrack(rules, &known);

    rules.hook(Table::Mangle, BuiltIn::Prerouting, PRE);
    let socket = Match::Socket { transparent: true };
    let map = || Rule::new([tcp(), in_set(&active)], Target::MapMark(active.clone()));
    let to_proxy = || Match::Mark {
        not: false,
        value: TO_PROXY,
        mask: PROXY_MASK,
    };
    rules.append(
        Table::Mangle,
        PRE,
        [
            Rule::new([socket], Target::Jump(DIVERT.into()))
                .comment("nodeway: who has a socket keeps it"),
            map().comment("nodeway: the mark has the port of the listener"),
            Rule::new([tcp(), to_proxy()], Target::Jump(TPROXY.into())),
        ],
    );
    let value = TO_PROXY;
    rules.append(
        Table::Mangle,
        DIVERT,
        [
            Rule::new(
                [],
                Target::Mark {
                    value,
                    mask: u32::MAX,
                },
            ),
            Rule::new([], Target::Accept),
        ],
    );
    rules.chain_mut(Table::Mangle, TPROXY);
    rules.hook(Table::Mangle, BuiltIn::Output, OUT);
    rules.append(
        Table::Mangle,
        OUT,
        [map().comment("nodeway: clients of the node itself")],
    );
    rules.hook(Table::Filter, BuiltIn::Input, IN);
    rules.append(
        Table::Filter,
        IN,
        [Rule::new([to_proxy()], Target::Accept).comment("nodeway: to the proxy")],
    );
    rules.hook(Table::Filter, BuiltIn::Output, OUT);
    rules.append(
        Table::Filter,
        OUT,
        [Rule::new([tcp(), from_set(&known)], Target::Accept).comment("nodeway: from the proxy")],
    );
}

/// Leaves a set's packets and their replies out of connection tracking.
pub(super) fn untrack(rules: &mut Ruleset, set: &SetName) {
    for (hook, chain) in [(BuiltIn::Prerouting, PRE), (BuiltIn::Output, OUT)] {
        rules.hook(Table::Raw, hook, chain);
        rules.append(
            Table::Raw,
            chain,
            [
                Rule::new([tcp(), in_set(set)], Target::NoTrack).comment("nodeway: to a frontend"),
                Rule::new([tcp(), from_set(set)], Target::NoTrack).comment("nodeway: its replies"),
            ],
        );
    }
}

/// Puts a frontend in, or changes it.
pub fn put(rules: &mut Ruleset, key: FrontendKey, frontend: &Frontend) {
    let at = SocketAddr::new(key.address, key.port);
    let entry = SetEntry {
        mark: Some(mark(frontend.listener_port)),
    };
    let draining = frontend.state == FrontendState::Draining;
    if let Some(set) = rules.sets.get_mut(&active(rules.family)) {
        if draining {
            set.entries.remove(&at);
        } else {
            set.entries.insert(at, entry);
        }
    }
    know(rules, key, true);
}

/// Takes a frontend out.
pub fn remove(rules: &mut Ruleset, key: FrontendKey) {
    let at = SocketAddr::new(key.address, key.port);
    if let Some(set) = rules.sets.get_mut(&active(rules.family)) {
        set.entries.remove(&at);
    }
    know(rules, key, false);
}

/// Keeps a frontend untracked, or no longer.
pub(super) fn know(rules: &mut Ruleset, key: FrontendKey, is_known: bool) {
    let at = SocketAddr::new(key.address, key.port);
    if let Some(set) = rules.sets.get_mut(&known(rules.family)) {
        if is_known {
            set.entries.insert(at, SetEntry::default());
        } else {
            set.entries.remove(&at);
        }
    }
}

/// Leads marks to the listeners on those ports, and to no other.
pub fn lead(rules: &mut Ruleset, ports: &BTreeSet<u16>) {
    if let Some(chains) = rules.tables.get_mut(&Table::Mangle) {
        chains.retain(|name, _| !name.starts_with(TPROXY));
    }
    let loopback = match rules.family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    rules.chain_mut(Table::Mangle, TPROXY);
    let mut jumps = BTreeSet::new();
    for port in ports {
        let chain = if ports.len() > FLAT {
            let (high, middle) = (port >> 8, port >> 4);
            let (outer, inner) = (
                format!("{TPROXY}_{high:02x}"),
                format!("{TPROXY}_{middle:03x}"),
            );
            jump(rules, &mut jumps, TPROXY, &outer, high << 8, 0xff00);
            jump(rules, &mut jumps, &outer, &inner, middle << 4, 0xfff0);
            inner
        } else {
            TPROXY.to_owned()
        };
        let rule = Rule::new(
            [tcp(), port_mark(*port, u16::MAX)],
            Target::Tproxy {
                to: SocketAddr::new(loopback, *port),
                value: TO_PROXY,
                mask: u32::MAX,
            },
        );
        rules.append(Table::Mangle, &chain, [rule]);
    }
}

/// A jump on some bits of the port, once.
fn jump(
    rules: &mut Ruleset,
    made: &mut BTreeSet<String>,
    from: &str,
    to: &str,
    port: u16,
    bits: u16,
) {
    if made.insert(to.to_owned()) {
        let rule = Rule::new([port_mark(port, bits)], Target::Jump(to.into()));
        rules.append(Table::Mangle, from, [rule]);
    }
}

/// Whether the port in a mark has those bits.
fn port_mark(port: u16, bits: u16) -> Match {
    let mask = match bits {
        u16::MAX => u32::MAX,
        bits => u32::from(bits.swap_bytes()) << 16,
    };
    Match::Mark {
        not: false,
        value: mark(port) & mask,
        mask,
    }
}

pub(super) fn tcp() -> Match {
    Match::Protocol {
        not: false,
        protocol: protocol::TCP,
    }
}

fn in_set(set: &SetName) -> Match {
    Match::Set {
        not: false,
        set: set.clone(),
        source: false,
    }
}

fn from_set(set: &SetName) -> Match {
    Match::Set {
        not: false,
        set: set.clone(),
        source: true,
    }
}
