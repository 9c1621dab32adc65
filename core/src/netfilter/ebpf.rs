//! What the two eBPF ways need beside kube-proxy: packets that a program leads to the proxy pass
//! the same hooks as all others, and must not be translated there.
//!
//! tc marks what it delivers. sk_lookup comes after routing, so its frontends must be known by
//! address; each is a local route, or the packet would be forwarded.

use std::net::IpAddr;

use nodeway_datapath::{Family, Frontend};

use super::frontends;
use super::tproxy::{self, PROXY_MASK, TO_PROXY};
use super::{LocalRoute, Match, PolicyRule, Routing, Rule, Ruleset, Table, Target};
use crate::frontend::FrontendKey;

/// Adds the chains of the way `tc`: what it has marked is untracked; so are the replies, by the
/// frontend that they come from, and calls of the node that a connect hook does not see.
pub fn install_tc(rules: &mut Ruleset) {
    install_sk_lookup(rules);
    let marked = Match::Mark {
        not: false,
        value: TO_PROXY,
        mask: PROXY_MASK,
    };
    rules.append(
        Table::Raw,
        "NODEWAY_PRE",
        [Rule::new([marked], Target::NoTrack).comment("nodeway: what tc has marked")],
    );
}

/// Adds the chains of the way `sk-lookup`.
pub fn install_sk_lookup(rules: &mut Ruleset) {
    frontends::install(rules, false);
}

/// Puts a frontend in, or changes it.
pub fn put(rules: &mut Ruleset, key: FrontendKey, frontend: &Frontend) {
    frontends::put(rules, key, frontend, None);
}

/// Takes a frontend out.
pub fn remove(rules: &mut Ruleset, key: FrontendKey) {
    frontends::remove(rules, key);
}

/// What delivers packets that tc has marked.
#[must_use]
pub fn routing_tc() -> Routing {
    let rules: Vec<PolicyRule> = tproxy::routing().rules;
    Routing {
        rules,
        local: Vec::new(),
    }
}

/// What delivers a frontend's packets to sk_lookup, with the node's own address of that family as
/// the source of its own clients.
#[must_use]
pub fn local_route(key: FrontendKey, node: &[IpAddr]) -> Option<LocalRoute> {
    let family = |address: &IpAddr| {
        if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    };
    let source = node
        .iter()
        .copied()
        .find(|own| family(own) == family(&key.address))?;
    Some(LocalRoute {
        address: key.address,
        source,
    })
}
