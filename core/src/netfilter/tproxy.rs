//! The way `iptables`: frontends are marked by an ipset, untracked, and led to a listener by TPROXY.
//!
//! ```text
//! raw     a frontend's packets, and those of its replies, are untracked: kube-proxy never translates them
//! mangle  who has a socket already is delivered to it; else the frontend's mark tells the listener's port
//! route   what is marked is delivered to this node, whatever its destination
//! ```
//!
//! The mark is Cilium's: `0x0200 | htons(port) << 16`. Marked in `mangle` alone would be too late
//! for `raw`, so `raw` asks the sets themselves ([`super::frontends`]).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nodeway_datapath::{Family, Frontend, PROXY_MASK, TO_PROXY, mark};

use super::frontends::{self, active, from_set, in_set, known, tcp};
use super::{BuiltIn, ConnectionState, Marking, Match, Routing, Rule, Ruleset, Table, Target};
use crate::frontend::FrontendKey;

/// Cilium's own table and preference of the rule that delivers what is marked.
pub(super) const ROUTING_TABLE: u32 = 2004;
pub(super) const PREFERENCE: u32 = 9;

/// More listeners than these are found by a tree of chains.
const FLAT: usize = 16;

const PRE: &str = "NODEWAY_PRE";
const OUT: &str = "NODEWAY_OUT";
const IN: &str = "NODEWAY_IN";
const DIVERT: &str = "NODEWAY_DIVERT";
const MARK: &str = "NODEWAY_MARK";
const TPROXY: &str = "NODEWAY_TPROXY";

/// What delivers marked packets to this node.
#[must_use]
pub fn routing() -> Routing {
    Marking::default().routing()
}

/// Adds the chains, without a frontend yet.
pub fn install(rules: &mut Ruleset) {
    let family = rules.family;
    frontends::install(rules, true);
    let (active, known) = (active(family), known(family));

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
            Rule::new([tcp(), in_set(&active)], Target::Jump(MARK.into())),
            Rule::new([tcp(), to_proxy()], Target::Jump(TPROXY.into())),
        ],
    );
    rules.append(
        Table::Mangle,
        MARK,
        [
            tracked(frontends::older(family)).comment("nodeway: connections from before"),
            map().comment("nodeway: the mark has the port of the listener"),
        ],
    );
    // What ends a handshake that a SYN cookie began is marked above, and nobody may translate it.
    rules.hook(Table::Nat, BuiltIn::Prerouting, PRE);
    rules.append(
        Table::Nat,
        PRE,
        [Rule::new([tcp(), to_proxy()], Target::Accept).comment("nodeway: to the proxy")],
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
        [
            frontends::not_yet(family),
            map().comment("nodeway: clients of the node itself"),
        ],
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

/// The same for connections that are known. A listener that answers with a SYN cookie has no socket
/// for the handshake's last packet, which no connection tracking has seen begin: it is no older one.
fn tracked(rule: Rule) -> Rule {
    let known = Match::ConnectionState {
        not: true,
        states: vec![ConnectionState::Invalid, ConnectionState::New],
    };
    Rule::new(
        rule.matches.into_iter().chain([known]),
        rule.target.unwrap_or(Target::Return),
    )
}

/// Puts a frontend in, or changes it.
pub fn put(rules: &mut Ruleset, key: FrontendKey, frontend: &Frontend) {
    let mark = mark(frontend.listener_port);
    frontends::put(rules, key, frontend, Some(mark));
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
