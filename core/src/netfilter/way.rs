//! What a redirect needs of a node's packet filter and routing, whichever it is.
//!
//! | redirect | rules | routing |
//! |---|---|---|
//! | `tc` | keep kube-proxy off what tc has marked ([`ebpf`]) | marks and frontend addresses are local |
//! | `sk-lookup` | keep kube-proxy off the frontends ([`ebpf`]) | frontend addresses are local |
//! | `iptables` | lead marks to listeners ([`tproxy`]) | marks are local |
//! | `sidecar` | none: they stand in the pods ([`super::sidecar`]) | none |

use std::collections::BTreeSet;
use std::net::IpAddr;

use nodeway_datapath::Frontend;

use super::{Routing, Ruleset, ebpf, frontends, tproxy};
use crate::frontend::{FrontendKey, SourceRanges};
use crate::redirect::Redirect;

/// Adds the chains and sets of a way, without a frontend yet.
pub fn install(redirect: Redirect, rules: &mut Ruleset) {
    match redirect {
        Redirect::Tc => ebpf::install_tc(rules),
        Redirect::SkLookup => ebpf::install_sk_lookup(rules),
        Redirect::Iptables => tproxy::install(rules),
        Redirect::Sidecar => {}
    }
}

/// Puts a frontend in, or changes it. It is of the rules' family.
pub fn put(redirect: Redirect, rules: &mut Ruleset, key: FrontendKey, frontend: &Frontend) {
    match redirect {
        Redirect::Tc | Redirect::SkLookup => ebpf::put(rules, key, frontend),
        Redirect::Iptables => tproxy::put(rules, key, frontend),
        Redirect::Sidecar => {}
    }
}

/// Makes a frontend known to the rules before a program leads the first packet of it.
pub fn announce(rules: &mut Ruleset, key: FrontendKey) {
    frontends::announce(rules, key);
}

/// Drops what comes to frontends from outside of the ranges that they have, and asks nothing of
/// others. Costs what the ranges are: to be called when they are others than before.
pub fn guard(redirect: Redirect, rules: &mut Ruleset, ranges: &SourceRanges) {
    if redirect != Redirect::Sidecar {
        frontends::guard(rules, ranges);
    }
}

/// Takes a frontend out.
pub fn remove(rules: &mut Ruleset, key: FrontendKey) {
    frontends::remove(rules, key);
}

/// Leads to the listeners on those ports, and to no other. Costs what the listeners are, not the
/// frontends: to be called when the ports are others than before.
pub fn lead(redirect: Redirect, rules: &mut Ruleset, ports: &BTreeSet<u16>) {
    if redirect == Redirect::Iptables {
        tproxy::lead(rules, ports);
    }
}

/// What delivers the packets of those frontends to the node, whose own addresses are given.
#[must_use]
pub fn routing(
    redirect: Redirect,
    frontends: impl IntoIterator<Item = FrontendKey>,
    own: &[IpAddr],
) -> Routing {
    match redirect {
        Redirect::Tc => ebpf::routing_tc(frontends, own),
        Redirect::SkLookup => ebpf::routing_sk_lookup(frontends, own),
        Redirect::Iptables => tproxy::routing(),
        Redirect::Sidecar => Routing::default(),
    }
}
