//! What a namespace shall have: the rules of a way, for these frontends.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nodeway_core::datapath::{Family, Frontend};
use nodeway_core::frontend::{FrontendKey, SourceRanges};
use nodeway_core::netfilter::kube_proxy::{self, ServicePort};
use nodeway_core::netfilter::{Marking, Routing, Ruleset, sidecar, way};
use nodeway_core::redirect::Redirect;

/// Rules of both families, and the routing beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// For `iptables`.
    pub v4: Ruleset,
    /// For `ip6tables`.
    pub v6: Ruleset,
    /// For both.
    pub routing: Routing,
    /// Addresses that `lo` shall have.
    pub addresses: BTreeSet<IpAddr>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self::with(|_| {})
    }
}

impl Wanted {
    fn with(mut write: impl FnMut(&mut Ruleset)) -> Self {
        let mut wanted = Self {
            v4: Ruleset::new(Family::V4),
            v6: Ruleset::new(Family::V6),
            routing: Routing::default(),
            addresses: BTreeSet::new(),
        };
        write(&mut wanted.v4);
        write(&mut wanted.v6);
        wanted
    }

    /// Of a node, for a redirect and these frontends; `own` are the node's addresses.
    #[must_use]
    pub fn node(redirect: Redirect, frontends: &[(FrontendKey, Frontend)], own: &[IpAddr]) -> Self {
        let ports = frontends.iter().map(|(_, it)| it.listener_port).collect();
        Self::node_leading(redirect, frontends, &ports, own)
    }

    /// The same, that also leads to listeners on ports of which no frontend is there yet, or any
    /// more.
    #[must_use]
    pub fn node_leading(
        redirect: Redirect,
        frontends: &[(FrontendKey, Frontend)],
        ports: &BTreeSet<u16>,
        own: &[IpAddr],
    ) -> Self {
        let mut wanted = Self::with(|rules| {
            way::install(redirect, rules);
            for (key, frontend) in of_family(frontends, rules.family) {
                way::put(redirect, rules, *key, frontend);
            }
            way::lead(redirect, rules, ports);
        });
        let keys = frontends.iter().map(|(key, _)| *key);
        wanted.routing = way::routing(redirect, keys, own);
        wanted
    }

    /// The same, with frontends that programs are about to lead.
    #[must_use]
    pub fn announcing(mut self, keys: impl IntoIterator<Item = FrontendKey>) -> Self {
        for key in keys {
            let rules = match key.address {
                IpAddr::V4(_) => &mut self.v4,
                IpAddr::V6(_) => &mut self.v6,
            };
            way::announce(rules, key);
        }
        self
    }

    /// The same, with frontends that are open to some sources alone.
    #[must_use]
    pub fn guarded(mut self, redirect: Redirect, ranges: &SourceRanges) -> Self {
        way::guard(redirect, &mut self.v4, ranges);
        way::guard(redirect, &mut self.v6, ranges);
        self
    }

    /// Of a node whose rules decide (`iptables`), with marks of one's own. Programs mark with the
    /// default ones.
    #[must_use]
    pub fn tproxy(frontends: &[(FrontendKey, Frontend)], marking: &Marking) -> Self {
        let mut wanted = Self::node(Redirect::Iptables, frontends, &[]);
        wanted.v4.remark(marking);
        wanted.v6.remark(marking);
        wanted.routing = marking.routing();
        wanted
    }

    /// Of a pod with an Envoy of its own; `excluded` are ports that go past it.
    #[must_use]
    pub fn sidecar(excluded: &[u16]) -> Self {
        Self {
            v4: sidecar::rules(Family::V4, excluded),
            v6: sidecar::rules(Family::V6, excluded),
            // All of 127.0.0.0/8 is the pod's own; of IPv6 only what it is given.
            addresses: BTreeSet::from([sidecar::FROM_PROXY_V6.into()]),
            ..Self::default()
        }
    }

    /// What kube-proxy would have on a node.
    #[must_use]
    pub fn kube_proxy(services: &[ServicePort]) -> Self {
        Self {
            v4: kube_proxy::rules(Family::V4, services),
            v6: kube_proxy::rules(Family::V6, services),
            ..Self::default()
        }
    }

    pub(super) fn rules(&self, family: Family) -> &Ruleset {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

fn of_family(
    frontends: &[(FrontendKey, Frontend)],
    family: Family,
) -> impl Iterator<Item = &(FrontendKey, Frontend)> {
    frontends
        .iter()
        .filter(move |(key, _)| key.address.is_ipv4() == (family == Family::V4))
}
