//! The frontends as every way's rules know them: sets by state, and what is left out of connection
//! tracking, so that kube-proxy never translates what is redirected.
//!
//! | set | announced | arming | active | draining |
//! |---|---|---|---|---|
//! | `nodeway-v4`: new connections are led on | | yes | yes | |
//! | `nodeway-arming-v4`: connections from before are left alone | yes | yes | | |
//! | `nodeway-known-v4`: connections with a socket go on | yes | yes | yes | yes |
//!
//! What has a socket of the node is untracked in every state, but where an sk_lookup program would
//! find one for older connections too: there nothing of an arming frontend is untracked but a SYN.
//! An older connection keeps its translation. What is none and is no SYN either belongs to a
//! connection that came since, or ends a handshake that a SYN cookie began: nobody may translate it
//! (`ebpf`), and by rules it is led on (`tproxy`). Of a draining frontend nothing without a socket is
//! untracked: a new connection is kube-proxy's. A node's own packets come by no socket match (it is a match of
//! PREROUTING and INPUT), so while a frontend arms, its calls stay kube-proxy's, and while it drains
//! all of them stay untracked: a call that comes anew then finds nobody.
//!
//! First of all comes who may come: what is sent to a frontend with source ranges from outside of
//! them is dropped, in every state, before anything else has it. tc has decided that of what it has
//! marked; all else, the node's own calls among it, comes by the rule that stands there as soon as a
//! frontend has ranges ([`guard`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;
use nodeway_datapath::{Family, Frontend, FrontendState, protocol, tcp_flags};

use super::{BuiltIn, IpSet, Match, Rule, Ruleset, SetEntry, SetName, Table, Target};
use crate::frontend::{FrontendKey, SourceRanges};

const PRE: &str = "NODEWAY_PRE";
const OUT: &str = "NODEWAY_OUT";
const FRONTEND: &str = "NODEWAY_FRONTEND";
const UNTRACK: &str = "NODEWAY_UNTRACK";
const RANGES: &str = "NODEWAY_RANGES";

/// The set of frontends whose new connections are led on.
#[must_use]
pub fn active(family: Family) -> SetName {
    name(family, "nodeway-v4", "nodeway-v6")
}

/// The set of frontends that were just switched on.
#[must_use]
pub fn arming(family: Family) -> SetName {
    name(family, "nodeway-arming-v4", "nodeway-arming-v6")
}

/// The set of all frontends, those that are being switched off among them.
#[must_use]
pub fn known(family: Family) -> SetName {
    name(family, "nodeway-known-v4", "nodeway-known-v6")
}

/// The set of frontends that are open to some sources alone; it stands where there is one.
#[must_use]
pub fn ranged(family: Family) -> SetName {
    name(family, "nodeway-ranged-v4", "nodeway-ranged-v6")
}

fn name(family: Family, v4: &str, v6: &str) -> SetName {
    SetName::from(match family {
        Family::V4 => v4,
        Family::V6 => v6,
    })
}

/// Adds the sets, empty, and the chains of `raw`. With `marks` each entry of the active set has the
/// mark of its listener.
pub(super) fn install(rules: &mut Ruleset, marks: bool) {
    let family = rules.family;
    rules.sets.insert(active(family), IpSet::new(marks));
    rules.sets.insert(arming(family), IpSet::new(false));
    rules.sets.insert(known(family), IpSet::new(false));
    let replies =
        || Rule::new([tcp(), from_set(&known(family))], untrack()).comment("nodeway: its replies");
    let own = Rule::new([], Target::NoTrack).comment("nodeway: to or from the proxy");
    rules.append(Table::Raw, UNTRACK, [own]);
    rules.hook(Table::Raw, BuiltIn::Prerouting, PRE);
    rules.append(
        Table::Raw,
        PRE,
        [
            Rule::new(
                [tcp(), in_set(&known(family))],
                Target::Goto(FRONTEND.into()),
            )
            .comment("nodeway: to a frontend"),
            replies(),
        ],
    );
    let socket = Match::Socket { transparent: false };
    let socket = Rule::new([socket], untrack()).comment("nodeway: who has a socket keeps it");
    let older = older(family).comment("nodeway: connections from before");
    // An sk_lookup program finds a socket for the packets of older connections too.
    let first = if marks {
        [socket, older]
    } else {
        [older, socket]
    };
    let last = Rule::new([tcp(), in_set(&active(family))], Target::NoTrack);
    rules.append(Table::Raw, FRONTEND, first.into_iter().chain([last]));
    rules.hook(Table::Raw, BuiltIn::Output, OUT);
    rules.append(
        Table::Raw,
        OUT,
        [
            replies(),
            not_yet(family),
            Rule::new([tcp(), in_set(&known(family))], Target::NoTrack)
                .comment("nodeway: to a frontend"),
        ],
    );
}

/// Untracked, and out of our chains: `NOTRACK` alone lets a packet go on to the next rule, and every
/// rule that asks a set costs as much as a program at tc.
pub(super) fn untrack() -> Target {
    Target::Goto(UNTRACK.into())
}

/// Lets what an older connection sends to an arming frontend go on as before.
pub(super) fn older(family: Family) -> Rule {
    Rule::new([tcp(), in_set(&arming(family)), no_syn()], Target::Return)
}

/// What begins no connection.
pub(super) fn no_syn() -> Match {
    const ALL: u8 = tcp_flags::FIN | tcp_flags::SYN | tcp_flags::RST | tcp_flags::ACK;
    Match::TcpFlags {
        not: true,
        mask: ALL,
        set: tcp_flags::SYN,
    }
}

/// Leaves the node's own calls to an arming frontend alone.
pub(super) fn not_yet(family: Family) -> Rule {
    Rule::new([tcp(), in_set(&arming(family))], Target::Return)
        .comment("nodeway: own calls, not yet")
}

/// Puts a frontend in, or changes it; the entry of the active set has that mark.
pub(super) fn put(rules: &mut Ruleset, key: FrontendKey, frontend: &Frontend, mark: Option<u32>) {
    let (family, state) = (rules.family, frontend.state);
    let plain = SetEntry::default();
    let led_on = (state != FrontendState::Draining).then_some(SetEntry { mark });
    set(rules, &active(family), key, led_on);
    let arms = (state == FrontendState::Arming).then_some(plain);
    set(rules, &arming(family), key, arms);
    set(rules, &known(family), key, Some(plain));
}

/// Makes a frontend known that a program is about to lead: its replies are untracked from now on,
/// nothing that is sent to it yet.
///
/// A reply that is tracked is none of a connection that anybody knows. Where one of before had the
/// same ports, the kernel gives it another source port, and the client resets it.
pub(super) fn announce(rules: &mut Ruleset, key: FrontendKey) {
    for name in [arming(rules.family), known(rules.family)] {
        set(rules, &name, key, Some(SetEntry::default()));
    }
}

/// Drops what comes to a frontend with ranges from outside of them, in place of what was dropped
/// before. Without ranges nothing is asked.
pub(super) fn guard(rules: &mut Ruleset, ranges: &SourceRanges) {
    let (family, jump) = (rules.family, Target::Jump(RANGES.into()));
    rules.sets.remove(&ranged(family));
    if let Some(chains) = rules.tables.get_mut(&Table::Raw) {
        chains.remove(RANGES);
        if let Some(chain) = chains.get_mut(FRONTEND) {
            chain.rules.retain(|it| it.target.as_ref() != Some(&jump));
        }
    }
    let of_family = |key: &FrontendKey| key.address.is_ipv4() == (family == Family::V4);
    let mut own = ranges.iter().filter(|(key, _)| of_family(key)).peekable();
    if own.peek().is_none() {
        return;
    }
    let mut set = IpSet::new(false);
    for (key, ranges) in own {
        set.insert((*key).into(), SetEntry::default());
        let admitted = ranges.iter().map(|range| admit(*key, *range));
        rules.append(Table::Raw, RANGES, admitted);
    }
    rules.sets.insert(ranged(family), set);
    let none = Rule::new([], Target::Drop).comment("nodeway: outside of loadBalancerSourceRanges");
    rules.append(Table::Raw, RANGES, [none]);
    let to_ranged = Rule::new([tcp(), in_set(&ranged(family))], jump);
    let chain = rules.chain_mut(Table::Raw, FRONTEND);
    chain.rules.insert(
        0,
        to_ranged.comment("nodeway: to a frontend with source ranges"),
    );
}

/// Lets sources of a range come by a frontend.
fn admit(key: FrontendKey, network: IpNet) -> Rule {
    let not = false;
    // `iptables-save` does not say what every source is in.
    let from = (network.prefix_len() > 0).then_some(Match::Source { not, network });
    let to = Match::Destination {
        not,
        network: key.address.into(),
    };
    let ports = key.port..=key.port;
    let to = [to, tcp(), Match::DestinationPort { not, ports }];
    Rule::new(from.into_iter().chain(to), Target::Return)
}

/// The frontends that sets of a family have. A port stands in the active set alone, and there only
/// where a rule leads: elsewhere it is 0.
#[must_use]
pub fn read(family: Family, sets: &BTreeMap<SetName, IpSet>) -> Vec<(FrontendKey, Frontend)> {
    let entry = |name: SetName, at: &SocketAddr| sets.get(&name).and_then(|set| set.get(at));
    let ranged_set = ranged(family);
    let known = sets.get(&known(family)).map(IpSet::entries);
    let known = known.unwrap_or_default().into_iter();
    known
        .map(|(at, _)| {
            let led_on = entry(active(family), &at);
            let state = match (led_on, entry(arming(family), &at)) {
                (Some(_), Some(_)) => FrontendState::Arming,
                (Some(_), None) => FrontendState::Active,
                // Announced, or on its way out: nothing new is led on.
                (None, _) => FrontendState::Draining,
            };
            let (address, port) = (at.ip(), at.port());
            let frontend = Frontend {
                listener_port: led_on.and_then(|it| it.mark).map_or(0, marked_port),
                state,
                ranged: entry(ranged_set.clone(), &at).is_some(),
            };
            (FrontendKey { address, port }, frontend)
        })
        .collect()
}

/// The port in a mark ([`nodeway_datapath::mark`]).
fn marked_port(mark: u32) -> u16 {
    let [high, low, ..] = mark.to_be_bytes();
    u16::from_be(u16::from_be_bytes([high, low]))
}

/// Takes a frontend out.
pub(super) fn remove(rules: &mut Ruleset, key: FrontendKey) {
    let family = rules.family;
    for name in [active(family), arming(family), known(family)] {
        set(rules, &name, key, None);
    }
}

fn set(rules: &mut Ruleset, name: &SetName, key: FrontendKey, entry: Option<SetEntry>) {
    let at = SocketAddr::new(key.address, key.port);
    if let Some(set) = rules.sets.get_mut(name) {
        match entry {
            Some(entry) => {
                set.insert(at, entry);
            }
            None => {
                set.remove(&at);
            }
        }
    }
}

pub(super) fn tcp() -> Match {
    Match::Protocol {
        not: false,
        protocol: protocol::TCP,
    }
}

pub(super) fn in_set(set: &SetName) -> Match {
    Match::Set {
        not: false,
        set: set.clone(),
        source: false,
    }
}

pub(super) fn from_set(set: &SetName) -> Match {
    Match::Set {
        not: false,
        set: set.clone(),
        source: true,
    }
}
