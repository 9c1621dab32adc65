//! The way `sidecar`, the baseline to compare with: in each pod's own namespace, all TCP is led to
//! the pod's own proxy.
//!
//! What the pod sends goes to the proxy's port for outbound connections, what it gets to the one
//! for inbound; what the proxy itself sends is left alone, by its user, unless it has chosen its own
//! pod: that comes in as from elsewhere. The proxy asks connection tracking where a connection meant
//! to go (`SO_ORIGINAL_DST`), and passes on what came in from an address of its own. The order and
//! the address are those of Istio's `istio-iptables`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nodeway_datapath::Family;

use super::frontends::tcp;
use super::{BuiltIn, Match, Rule, Ruleset, Table, Target};

/// The proxy's port for what its pod sends.
pub const OUTBOUND: u16 = 15_001;
/// The proxy's port for what its pod gets.
pub const INBOUND: u16 = 15_006;
/// The proxy's user and group.
pub const PROXY_UID: u32 = 1337;

/// The address that the proxy connects from to its own pod, so that it does not meet itself again.
pub const FROM_PROXY_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The same for IPv6: added to the pod's `lo`.
pub const FROM_PROXY_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

const IN: &str = "NODEWAY_IN";
const OUT: &str = "NODEWAY_OUT";

/// The rules of a pod whose ports `excluded` go past the proxy (health checks), in both directions.
#[must_use]
pub fn rules(family: Family, excluded: &[u16]) -> Ruleset {
    let mut rules = Ruleset::new(family);
    rules.hook(Table::Nat, BuiltIn::Prerouting, IN);
    rules.hook(Table::Nat, BuiltIn::Output, OUT);
    for chain in [IN, OUT] {
        let past = excluded.iter().map(|port| {
            let ports = *port..=*port;
            let to = Match::DestinationPort { not: false, ports };
            Rule::new([tcp(), to], Target::Return).comment("nodeway: past the proxy")
        });
        rules.append(Table::Nat, chain, past);
    }
    rules.append(
        Table::Nat,
        IN,
        [Rule::new([tcp()], Target::Redirect { port: INBOUND })],
    );
    rules.append(Table::Nat, OUT, sent(family));
    rules
}

/// The rules for what the pod sends, in Istio's order.
fn sent(family: Family) -> [Rule; 5] {
    let (from_proxy, loopback) = match family {
        Family::V4 => (IpAddr::V4(FROM_PROXY_V4), IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Family::V6 => (IpAddr::V6(FROM_PROXY_V6), IpAddr::V6(Ipv6Addr::LOCALHOST)),
    };
    let proxy = |not| Match::UidOwner {
        not,
        uid: PROXY_UID,
    };
    let lo = || Match::OutInterface {
        not: false,
        name: "lo".into(),
    };
    let from = Match::Source {
        not: false,
        network: from_proxy.into(),
    };
    let not_to = Match::Destination {
        not: true,
        network: loopback.into(),
    };
    [
        Rule::new([from, lo()], Target::Return).comment("nodeway: from the proxy to its own pod"),
        Rule::new(
            [not_to, lo(), tcp(), proxy(false)],
            Target::Redirect { port: INBOUND },
        )
        .comment("nodeway: the proxy has chosen its own pod"),
        Rule::new([lo(), proxy(true)], Target::Return).comment("nodeway: within the pod"),
        Rule::new([proxy(false)], Target::Return).comment("nodeway: sent by the proxy"),
        Rule::new([tcp()], Target::Redirect { port: OUTBOUND }),
    ]
}
