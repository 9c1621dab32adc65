//! kube-proxy's rules, as its iptables mode writes them: the baseline beside every way.
//!
//! ```text
//! PREROUTING, OUTPUT -> KUBE-SERVICES -> KUBE-SVC-x  one endpoint by chance -> KUBE-SEP-y  DNAT
//!                                     -> KUBE-EXT-x  from outside: masqueraded, or local endpoints only
//!                                     -> KUBE-FW-x   a load balancer's source ranges -> KUBE-EXT-x
//!                                     -> KUBE-NODEPORTS -> KUBE-EXT-x
//! INPUT, OUTPUT, FORWARD -> KUBE-PROXY-FIREWALL  drops what no source range let through
//! POSTROUTING -> KUBE-POSTROUTING  MASQUERADE what is marked
//! FORWARD -> KUBE-FORWARD  drops what is INVALID
//! ```
//!
//! Names, order and marks follow `pkg/proxy/iptables/proxier.go` of Kubernetes. Without
//! `--cluster-cidr`; TCP only. A source range lets a node through only if it holds the node's
//! address: no rule is written for load balancers that make their own address the source.

mod chains;
mod mode;
pub mod nftables;
mod service_port;

use std::net::IpAddr;

use nodeway_datapath::Family;

pub use mode::{BadMode, Mode};
pub use service_port::{ExternalKind, ServicePort};

use super::{BuiltIn, ConnectionState, Match, Rule, Ruleset, Table, Target};
use chains::{of_port, to};

/// The bit by which kube-proxy marks what is to be masqueraded.
const MASQUERADE: u32 = 0x4000;

/// What drops packets to a LoadBalancer address from outside of its source ranges.
const FIREWALL: &str = "KUBE-PROXY-FIREWALL";

/// What refuses, in nftables mode, ports of ClusterIPs that nobody has.
const CLUSTER_IPS: &str = "KUBE-CLUSTER-IPS";

/// Adds the rules of a mode for those Services; `own` are the node's own addresses. What nftables
/// decides is written in the form of iptables too, which is what a simulated node evaluates: the
/// real table is [`nftables::script`].
pub fn install<'a>(
    rules: &mut Ruleset,
    mode: Mode,
    own: &[IpAddr],
    ports: impl IntoIterator<Item = &'a ServicePort>,
) {
    if mode == Mode::None {
        return;
    }
    for hook in [BuiltIn::Prerouting, BuiltIn::Output] {
        rules.hook(Table::Nat, hook, "KUBE-SERVICES");
    }
    masquerade(rules);
    rules.chain_mut(Table::Nat, "KUBE-NODEPORTS");
    filter(rules, mode);
    for port in ports {
        of_port(rules, port);
    }
    let to_node = match (mode, nftables::node_port_address(rules.family, own)) {
        (Mode::Nftables, Some(address)) => vec![to(address)],
        // A node without an address of that family: nowhere.
        (Mode::Nftables, None) => vec![
            Match::DestinationLocal { not: false },
            Match::DestinationLocal { not: true },
        ],
        _ => vec![Match::DestinationLocal { not: false }],
    };
    rules.append(
        Table::Nat,
        "KUBE-SERVICES",
        [
            Rule::new(to_node, Target::Jump("KUBE-NODEPORTS".into())).comment(
                "kubernetes service nodeports; NOTE: this must be the last rule in this chain",
            ),
        ],
    );
}

/// Masquerades what is marked, and marks what a chain sends to `KUBE-MARK-MASQ`.
fn masquerade(rules: &mut Ruleset) {
    rules.hook(Table::Nat, BuiltIn::Postrouting, "KUBE-POSTROUTING");
    rules.append(
        Table::Nat,
        "KUBE-POSTROUTING",
        [
            Rule::new([marked(true)], Target::Return),
            // The mark has done its work: a packet that goes round must not be masqueraded again.
            Rule::new(
                [],
                Target::Mark {
                    value: MASQUERADE,
                    mask: 0,
                },
            ),
            Rule::new([], Target::Masquerade { random_fully: true })
                .comment("kubernetes service traffic requiring SNAT"),
        ],
    );
    let value = MASQUERADE;
    rules.append(
        Table::Nat,
        "KUBE-MARK-MASQ",
        [Rule::new([], Target::Mark { value, mask: value })],
    );
}

fn marked(not: bool) -> Match {
    Match::Mark {
        not,
        value: MASQUERADE,
        mask: MASQUERADE,
    }
}

fn filter(rules: &mut Ruleset, mode: Mode) {
    let new = || state(&[ConnectionState::New]);
    let jump = |matches: Vec<Match>, to: &str| Rule::new(matches, Target::Jump(to.into()));
    for name in ["KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD"] {
        rules.chain_mut(Table::Filter, name);
    }
    rules.chain_mut(Table::Filter, FIREWALL);
    for hook in [BuiltIn::Input, BuiltIn::Forward, BuiltIn::Output] {
        let rule = jump(vec![new()], FIREWALL).comment("kubernetes load balancer firewall");
        rules.built_in(Table::Filter, hook, [rule]);
    }
    let portals = "kubernetes service portals";
    let external = "kubernetes externally-visible service portals";
    rules.built_in(
        Table::Filter,
        BuiltIn::Input,
        [jump(vec![new()], "KUBE-EXTERNAL-SERVICES").comment(external)],
    );
    rules.built_in(
        Table::Filter,
        BuiltIn::Forward,
        [
            jump(vec![], "KUBE-FORWARD").comment("kubernetes forwarding rules"),
            jump(vec![new()], "KUBE-SERVICES").comment(portals),
            jump(vec![new()], "KUBE-EXTERNAL-SERVICES").comment(external),
        ],
    );
    rules.built_in(
        Table::Filter,
        BuiltIn::Output,
        [jump(vec![new()], "KUBE-SERVICES").comment(portals)],
    );
    if mode == Mode::Nftables {
        for hook in [BuiltIn::Forward, BuiltIn::Output] {
            rules.chain_mut(Table::Filter, CLUSTER_IPS);
            rules.built_in(Table::Filter, hook, [jump(vec![new()], CLUSTER_IPS)]);
        }
    }
    let follows = [ConnectionState::Related, ConnectionState::Established];
    let invalid = Rule::new([state(&[ConnectionState::Invalid])], Target::Drop);
    let invalid = (mode == Mode::Iptables).then_some(invalid);
    rules.append(Table::Filter, "KUBE-FORWARD", invalid);
    rules.append(
        Table::Filter,
        "KUBE-FORWARD",
        [
            Rule::new([marked(false)], Target::Accept).comment("kubernetes forwarding rules"),
            Rule::new([state(&follows)], Target::Accept)
                .comment("kubernetes forwarding conntrack rule"),
        ],
    );
}

fn state(states: &[ConnectionState]) -> Match {
    Match::ConnectionState {
        not: false,
        states: states.to_vec(),
    }
}

/// All the rules for those Services, as the iptables mode writes them.
#[must_use]
pub fn rules<'a>(family: Family, ports: impl IntoIterator<Item = &'a ServicePort>) -> Ruleset {
    let mut rules = Ruleset::new(family);
    install(&mut rules, Mode::Iptables, &[], ports);
    rules
}
