//! What the two eBPF ways need beside kube-proxy: packets that a program leads to the proxy pass
//! the same hooks as all others, and must not be translated there.
//!
//! tc marks what it delivers. sk_lookup comes after routing, so its frontends must be known by
//! address; each is a local route, or the packet would be forwarded.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nodeway_datapath::{Frontend, PROXY_MASK, TO_PROXY};

use super::frontends::{self, arming, in_set, no_syn, tcp};
use super::tproxy;
use super::{BuiltIn, LocalRoute, Match, Routing, Rule, Ruleset, Table, Target};
use crate::frontend::FrontendKey;

const PRE: &str = "NODEWAY_PRE";

/// Adds the chains of the way `tc`: what it has marked is untracked; so are the replies, by the
/// frontend that they come from, and calls of the node that a connect hook does not see.
pub fn install_tc(rules: &mut Ruleset) {
    install_sk_lookup(rules);
    let marked = Match::Mark {
        not: false,
        value: TO_PROXY,
        mask: PROXY_MASK,
    };
    let marked = Rule::new([marked], frontends::untrack()).comment("nodeway: what tc has marked");
    // First: the mark says all that the sets would, and asks none of them.
    let chain = rules.chain_mut(Table::Raw, PRE);
    chain.rules.insert(0, marked);
}

/// Adds the chains of the way `sk-lookup`.
pub fn install_sk_lookup(rules: &mut Ruleset) {
    frontends::install(rules, false);
    // `nat` is asked for what begins: no older connection does.
    let family = rules.family;
    rules.hook(Table::Nat, BuiltIn::Prerouting, PRE);
    let since = [tcp(), in_set(&arming(family)), no_syn()];
    rules.append(
        Table::Nat,
        PRE,
        [Rule::new(since, Target::Accept).comment("nodeway: connections since then")],
    );
}

/// Puts a frontend in, or changes it.
pub fn put(rules: &mut Ruleset, key: FrontendKey, frontend: &Frontend) {
    frontends::put(rules, key, frontend, None);
}

/// What delivers packets that tc has marked. Marks would do for that; the local routes let the node
/// answer where nobody listens: no RST leaves it from an address that is not its own.
#[must_use]
pub fn routing_tc(frontends: impl IntoIterator<Item = FrontendKey>, own: &[IpAddr]) -> Routing {
    Routing {
        rules: tproxy::routing().rules,
        local: local_routes(frontends, own),
    }
}

/// What delivers packets of frontends to sk_lookup, by their addresses.
#[must_use]
pub fn routing_sk_lookup(
    frontends: impl IntoIterator<Item = FrontendKey>,
    own: &[IpAddr],
) -> Routing {
    Routing {
        rules: Vec::new(),
        local: local_routes(frontends, own),
    }
}

/// A route for each address, with the node's own address of that family as the source of its own
/// clients; an address of the node's own needs none.
fn local_routes(
    frontends: impl IntoIterator<Item = FrontendKey>,
    own: &[IpAddr],
) -> Vec<LocalRoute> {
    let routes: BTreeSet<LocalRoute> = frontends
        .into_iter()
        .map(|key| key.address)
        .filter(|address| !own.contains(address))
        .filter_map(|address| {
            let of_family = |own: &&IpAddr| own.is_ipv4() == address.is_ipv4();
            let source = *own.iter().find(of_family)?;
            Some(LocalRoute { address, source })
        })
        .collect();
    routes.into_iter().collect()
}
