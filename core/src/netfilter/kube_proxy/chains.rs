//! The rules of one port of a Service: which of its addresses leads to which chain, and whom each
//! chain leads to.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::service_port::{ExternalKind, ServicePort, of_family};
use super::{CLUSTER_IPS, FIREWALL};
use crate::netfilter::frontends::tcp;
use crate::netfilter::{ChainName, Match, RecentList, RejectWith, Rule, Ruleset, Table, Target};

/// Adds the rules of one port.
pub(super) fn of_port(rules: &mut Ruleset, port: &ServicePort) {
    let port = &of_family(port, rules.family);
    if port.cluster.is_empty() && port.external.is_empty() {
        return;
    }
    check_cluster_ips(rules, port);
    let all: Vec<SocketAddr> = port.endpoints.iter().map(|(it, _)| *it).collect();
    let here = port.endpoints.iter().filter(|(_, here)| *here);
    let here: Vec<SocketAddr> = here.map(|(it, _)| *it).collect();

    let (inside, chain) = match port.internal_local {
        true => (&here, port.chain("KUBE-SVL")),
        false => (&all, port.chain("KUBE-SVC")),
    };
    for address in &port.cluster {
        let says = format!("{} cluster IP", port.name);
        let to = to_address(*address, port.port);
        // A chain of local endpoints stands only where there are some.
        let there = !inside.is_empty();
        lead(
            rules,
            "KUBE-SERVICES",
            to,
            &says,
            (inside, &all),
            there.then_some(&chain),
        );
    }
    let outside = if port.external_local { &here } else { &all };
    let chain = port.chain("KUBE-EXT");
    let there = (!all.is_empty()).then_some(&chain);
    let guarded = guard(rules, port, &all);
    for (address, kind) in &port.external {
        let says = format!("{} {kind}", port.name);
        let to = to_address(*address, port.port);
        let first = guarded
            .as_ref()
            .filter(|_| *kind == ExternalKind::LoadBalancer);
        lead(
            rules,
            "KUBE-EXTERNAL-SERVICES",
            to,
            &says,
            (outside, &all),
            first.or(there),
        );
    }
    if let Some(node_port) = port.node_port {
        let to = to_port(node_port);
        lead(
            rules,
            "KUBE-NODEPORTS",
            to,
            &port.name,
            (outside, &all),
            there,
        );
    }
    chains(rules, port, &all, &here);
}

/// In nftables mode, refuses a ClusterIP that is still one after translation: no Service has that
/// port of it.
fn check_cluster_ips(rules: &mut Ruleset, port: &ServicePort) {
    let tables = rules.tables.get(&Table::Filter);
    if !tables.is_some_and(|chains| chains.contains_key(CLUSTER_IPS)) {
        return;
    }
    let chain = rules.chain_mut(Table::Filter, CLUSTER_IPS);
    for address in &port.cluster {
        let refuse = Target::Reject(RejectWith::PortUnreachable);
        chain.rules.push(Rule::new([to(*address)], refuse));
    }
}

/// The chain that lets source ranges through to a LoadBalancer address, where there are some. What
/// it lets nobody through for keeps that address, and by it is dropped.
fn guard(rules: &mut Ruleset, port: &ServicePort, all: &[SocketAddr]) -> Option<ChainName> {
    if all.is_empty() || port.source_ranges.is_empty() || port.balancers().next().is_none() {
        return None;
    }
    let chain = port.chain("KUBE-FW");
    let says = format!("{} {}", port.name, ExternalKind::LoadBalancer);
    for range in &port.source_ranges {
        let from = Match::Source {
            not: false,
            network: range.trunc(),
        };
        let let_through = Rule::new([from], Target::Jump(port.chain("KUBE-EXT"))).comment(&says);
        rules.append(Table::Nat, &chain, [let_through]);
    }
    let says = format!("{} traffic not accepted by {chain}", port.name);
    for address in port.balancers() {
        let drop = Rule::new(to_address(address, port.port), Target::Drop).comment(&says);
        rules.append(Table::Filter, FIREWALL, [drop]);
    }
    Some(chain)
}

/// Leads an address to a chain; where no endpoint may be used, refuses it, or, where others have
/// some, drops it.
fn lead(
    rules: &mut Ruleset,
    from: &str,
    to: Vec<Match>,
    says: &str,
    (usable, all): (&[SocketAddr], &[SocketAddr]),
    chain: Option<&ChainName>,
) {
    // In `nat`, addresses for the outside stand among the others.
    let nat = match from {
        "KUBE-EXTERNAL-SERVICES" => "KUBE-SERVICES",
        from => from,
    };
    if let Some(chain) = chain {
        let rule = Rule::new(to.clone(), Target::Jump(chain.clone())).comment(says);
        rules.append(Table::Nat, nat, [rule]);
    }
    if !usable.is_empty() {
        return;
    }
    let (target, why) = match all {
        [] => (Target::Reject(RejectWith::PortUnreachable), "endpoints"),
        _ => (Target::Drop, "local endpoints"),
    };
    let mut matches = to;
    let mut filter = from;
    if from == "KUBE-NODEPORTS" {
        matches.insert(0, Match::DestinationLocal { not: false });
        filter = "KUBE-EXTERNAL-SERVICES";
    }
    let rule = Rule::new(matches, target).comment(&format!("{says} has no {why}"));
    rules.append(Table::Filter, filter, [rule]);
}

pub(super) fn to(address: IpAddr) -> Match {
    Match::Destination {
        not: false,
        network: IpNet::from(address),
    }
}

fn to_address(address: IpAddr, port: u16) -> Vec<Match> {
    let mut matches = vec![to(address)];
    matches.extend(to_port(port));
    matches
}

fn to_port(port: u16) -> Vec<Match> {
    let ports = port..=port;
    vec![tcp(), Match::DestinationPort { not: false, ports }]
}

/// The chains of a port: its endpoints by chance, and what comes from outside.
fn chains(rules: &mut Ruleset, port: &ServicePort, all: &[SocketAddr], here: &[SocketAddr]) {
    if all.is_empty() {
        return;
    }
    balance(rules, port, &port.chain("KUBE-SVC"), all);
    for endpoint in all {
        endpoint_chain(rules, port, *endpoint);
    }
    let local = port.external_local || port.internal_local;
    if local && !here.is_empty() {
        balance(rules, port, &port.chain("KUBE-SVL"), here);
    }
    if port.external.is_empty() && port.node_port.is_none() {
        return;
    }
    let (svc, ext) = (port.chain("KUBE-SVC"), port.chain("KUBE-EXT"));
    let masquerade = || Target::Jump("KUBE-MARK-MASQ".into());
    if port.external_local {
        let own = || Match::SourceLocal { not: false };
        let says = format!(
            "masquerade LOCAL traffic for {} external destinations",
            port.name
        );
        let route = format!(
            "route LOCAL traffic for {} external destinations",
            port.name
        );
        rules.append(
            Table::Nat,
            &ext,
            [
                Rule::new([own()], masquerade()).comment(&says),
                Rule::new([own()], Target::Jump(svc)).comment(&route),
            ],
        );
        if !here.is_empty() {
            let svl = port.chain("KUBE-SVL");
            rules.append(Table::Nat, &ext, [Rule::new([], Target::Jump(svl))]);
        }
    } else {
        let says = format!("masquerade traffic for {} external destinations", port.name);
        rules.append(
            Table::Nat,
            &ext,
            [
                Rule::new([], masquerade()).comment(&says),
                Rule::new([], Target::Jump(svc)),
            ],
        );
    }
}

/// One of the endpoints by equal chance: each is asked with the chance of those that are left. A
/// client that stays with its endpoint is asked for first.
fn balance(rules: &mut Ruleset, port: &ServicePort, chain: &str, endpoints: &[SocketAddr]) {
    if let Some(within) = port.affinity {
        for endpoint in endpoints {
            let to = port.endpoint_chain(*endpoint);
            let recent = Match::Recent(RecentList::Check {
                name: to.clone(),
                within,
                reap: true,
            });
            let says = format!("{} -> {endpoint}", port.name);
            rules.append(
                Table::Nat,
                chain,
                [Rule::new([recent], Target::Jump(to)).comment(&says)],
            );
        }
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let left = endpoints.len() - index;
        let chance = (left > 1).then(|| Match::Random {
            probability: share(left),
        });
        let to = port.endpoint_chain(*endpoint);
        let says = format!("{} -> {endpoint}", port.name);
        let rule = Rule::new(chance, Target::Jump(to)).comment(&says);
        rules.append(Table::Nat, chain, [rule]);
    }
}

/// One of that many, in parts of 2^31; as kube-proxy writes it with ten decimals.
fn share(left: usize) -> u32 {
    const WHOLE: u64 = 1 << 31;
    const DECIMALS: u64 = 10_000_000_000;
    let left = u64::try_from(left).unwrap_or(1).max(1);
    // Rounded to ten decimals first, as the text has it.
    let decimals = (DECIMALS + left / 2) / left;
    let parts = (u128::from(decimals) * u128::from(WHOLE) + u128::from(DECIMALS / 2))
        / u128::from(DECIMALS);
    u32::try_from(parts).unwrap_or(u32::MAX)
}

fn endpoint_chain(rules: &mut Ruleset, port: &ServicePort, endpoint: SocketAddr) {
    let chain = port.endpoint_chain(endpoint);
    let itself = Match::Source {
        not: false,
        network: IpNet::from(endpoint.ip()),
    };
    let mut to = vec![tcp()];
    if port.affinity.is_some() {
        to.push(Match::Recent(RecentList::Set {
            name: chain.clone(),
        }));
    }
    rules.append(
        Table::Nat,
        &chain,
        [
            // A pod that reaches itself by a Service must see somebody else.
            Rule::new([itself], Target::Jump("KUBE-MARK-MASQ".into())).comment(&port.name),
            Rule::new(to, Target::Dnat { to: endpoint }).comment(&port.name),
        ],
    );
}
