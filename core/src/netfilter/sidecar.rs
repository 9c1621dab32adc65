//! The way `sidecar`, the baseline to compare with: in each pod's own namespace, all TCP is led to
//! the pod's own proxy.
//!
//! What the pod sends goes to the proxy's port for outbound connections, what it gets to the one
//! for inbound; what the proxy itself sends is left alone, by its user. The proxy asks connection
//! tracking where a connection meant to go (`SO_ORIGINAL_DST`). After Istio's `istio-iptables`.

use nodeway_datapath::Family;

use super::frontends::tcp;
use super::{BuiltIn, Match, Rule, Ruleset, Table, Target};

/// The proxy's port for what its pod sends.
pub const OUTBOUND: u16 = 15_001;
/// The proxy's port for what its pod gets.
pub const INBOUND: u16 = 15_006;
/// The proxy's user and group.
pub const PROXY_UID: u32 = 1337;

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
    let proxy = Match::UidOwner {
        not: false,
        uid: PROXY_UID,
    };
    let loopback = Match::OutInterface {
        not: false,
        name: "lo".into(),
    };
    rules.append(
        Table::Nat,
        OUT,
        [
            Rule::new([proxy], Target::Return).comment("nodeway: sent by the proxy"),
            Rule::new([loopback], Target::Return).comment("nodeway: within the pod"),
            Rule::new([tcp()], Target::Redirect { port: OUTBOUND }),
        ],
    );
    rules
}
