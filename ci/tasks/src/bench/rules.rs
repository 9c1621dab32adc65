//! Packets per second through a node's rules, as services grow, beside one decision of the datapath;
//! kube-proxy's own chain for comparison; and how long a tracked connection takes to be found.
//!
//! A packet is taken through `PREROUTING`, where each way decides. It asks for the service in the
//! middle, so that kube-proxy's chain is walked half way.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use nodeway_core::conntrack::{Conntrack, Tracked, Tuple};
use nodeway_core::datapath::{Family, Flow, Frontend, FrontendState, parse, tcp_flags};
use nodeway_core::frontend::FrontendKey;
use nodeway_core::netfilter::kube_proxy::{self, ServicePort};
use nodeway_core::netfilter::{
    BuiltIn, Firewall, FoundSocket, Host, InterfaceName, Packet, Ruleset, RulesetError, ebpf,
    tproxy,
};

use super::decide::{self, segment};
use super::{Line, Spread, short, turns};

const LISTENER: u16 = 10_000;
const CLIENT: [u8; 4] = [10, 244, 1, 7];

/// What decides on a packet.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Iptables,
    SkLookup,
    Tc,
    KubeProxy,
}

impl Way {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Iptables, "iptables"),
        (Self::SkLookup, "sk-lookup's rules"),
        (Self::Tc, "tc's rules"),
        (Self::KubeProxy, "kube-proxy's own"),
    ];

    fn rules(self, services: u32) -> Ruleset {
        let mut rules = Ruleset::new(Family::V4);
        match self {
            Self::Iptables => {
                tproxy::install(&mut rules);
                tproxy::lead(&mut rules, &BTreeSet::from([LISTENER]));
            }
            Self::SkLookup => ebpf::install_sk_lookup(&mut rules),
            Self::Tc => ebpf::install_tc(&mut rules),
            Self::KubeProxy => {
                let ports: Vec<_> = (0..services).map(service).collect();
                return kube_proxy::rules(Family::V4, &ports);
            }
        }
        let frontend = Frontend {
            listener_port: LISTENER,
            state: FrontendState::Active,
            ranged: false,
        };
        for address in (0..services).map(|n| IpAddr::from(octets(n))) {
            let key = FrontendKey { address, port: 80 };
            if self == Self::Iptables {
                tproxy::put(&mut rules, key, &frontend);
            } else {
                ebpf::put(&mut rules, key, &frontend);
            }
        }
        rules
    }

    /// kube-proxy's chain is as long as there are services: fewer packets tell as much.
    fn packets(self, packets: u64, services: u32) -> u64 {
        match self {
            Self::KubeProxy => (packets * 10 / u64::from(services)).clamp(1, packets),
            _ => packets,
        }
    }
}

/// The address of a service.
const fn octets(service: u32) -> [u8; 4] {
    let [_, b, c, d] = service.to_be_bytes();
    [10, b, c, d]
}

fn service(number: u32) -> ServicePort {
    let endpoint = SocketAddr::new(Ipv4Addr::new(10, 244, 2, 2).into(), 8080);
    ServicePort {
        name: format!("bench/service-{number}:http"),
        cluster: vec![octets(number).into()],
        external: Vec::new(),
        port: 80,
        node_port: None,
        endpoints: vec![(endpoint, true)],
        external_local: false,
        internal_local: false,
        affinity: None,
        source_ranges: Vec::new(),
    }
}

/// A node whose proxy listens, and has the connections that are established.
struct Node {
    established: bool,
}

impl Host for Node {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn is_local(&self, _: IpAddr) -> bool {
        false
    }

    fn socket(&self, _: &Flow) -> Option<FoundSocket> {
        self.established.then_some(FoundSocket {
            transparent: true,
            wildcard: false,
        })
    }

    fn listens(&self, _: SocketAddr) -> bool {
        true
    }

    fn source(&self, _: Option<&InterfaceName>, _: IpAddr) -> Option<IpAddr> {
        None
    }

    fn draw(&self, _: &Flow, _: u32) -> u32 {
        0
    }
}

/// The lines of this benchmark, that many packets a round.
///
/// # Errors
/// When the rules cannot be followed.
pub fn run(rounds: usize, packets: u64) -> Result<Vec<Line>, RulesetError> {
    let mut lines = Vec::new();
    for (way, name) in Way::ALL {
        for services in [10, 1_000, 10_000] {
            for established in [false, true] {
                let what = if established { "established" } else { "new" };
                let what = format!("{name}, {services} services: {what}");
                let (rate, ratio) = measure(way, services, established, rounds, packets)?;
                let figure = format!("{}/s", short(rate));
                lines.push(Line::beside(what, figure, "decide", ratio));
            }
        }
    }
    lines.extend([10, 10_000, 100_000].map(|count| tracked(count, rounds, packets)));
    Ok(lines)
}

fn measure(
    way: Way,
    services: u32,
    established: bool,
    rounds: usize,
    packets: u64,
) -> Result<(f64, Spread), RulesetError> {
    let mut firewall = Firewall::new(way.rules(services), Ruleset::new(Family::V6))?;
    let mut node = Node { established };
    let to = octets(services / 2);
    if established {
        // What is translated is remembered once its first packet has left.
        take(&mut firewall, to, tcp_flags::SYN, &mut node, true);
    }
    let flags = if established {
        tcp_flags::ACK
    } else {
        tcp_flags::SYN
    };
    let count = if established {
        packets
    } else {
        way.packets(packets, services)
    };
    let mut reference = decide::reference(established);
    let (rate, _, ratio) = turns(
        rounds,
        || {
            for _ in 0..count {
                take(&mut firewall, to, flags, &mut node, false);
            }
            count
        },
        || reference(packets),
    );
    Ok((rate, ratio))
}

fn take(firewall: &mut Firewall, to: [u8; 4], flags: u8, node: &mut Node, leaves: bool) {
    let bytes = std::hint::black_box(segment(to, flags));
    let Ok(flow) = parse(bytes.as_slice()) else {
        return;
    };
    let mut packet = Packet::new(flow);
    let verdict = firewall.at(BuiltIn::Prerouting, &mut packet, node);
    let _ = std::hint::black_box(verdict);
    if leaves {
        let verdict = firewall.at(BuiltIn::Postrouting, &mut packet, node);
        let _ = std::hint::black_box(verdict);
    }
}

fn tuple(number: u32) -> Tuple {
    let [_, high, c, d] = number.to_be_bytes();
    Tuple {
        source: SocketAddr::new(Ipv4Addr::new(10, high, c, d).into(), 5_000),
        destination: SocketAddr::new(CLIENT.into(), 80),
    }
}

fn table(connections: u32) -> Conntrack {
    let mut table = Conntrack::default();
    for tuple in (0..connections).map(tuple) {
        if let Tracked::New(connection) = table.segment(Duration::ZERO, tuple, tcp_flags::SYN) {
            table.confirm(*connection);
        }
    }
    table
}

/// Looks connections up in a table of that size, beside one of ten.
fn tracked(connections: u32, rounds: usize, packets: u64) -> Line {
    let look_up = |table: &mut Conntrack, size: u32| {
        for number in (0..size).cycle().step_by(7).zip(0..packets) {
            let found = table.segment(Duration::ZERO, tuple(number.0), tcp_flags::ACK);
            let _ = std::hint::black_box(found);
        }
        packets
    };
    let (mut asked, mut small) = (table(connections), table(10));
    let (rate, _, ratio) = turns(
        rounds,
        || look_up(&mut asked, connections),
        || look_up(&mut small, 10),
    );
    let what = format!("look-up in {connections} tracked connections");
    Line::beside(what, format!("{}/s", short(rate)), "the same in 10", ratio)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodeway_core::netfilter::Verdict;

    fn first(way: Way) -> (Verdict, Packet) {
        let rules = way.rules(10);
        let mut firewall = Firewall::new(rules, Ruleset::new(Family::V6)).unwrap();
        let flow = parse(segment(octets(5), tcp_flags::SYN).as_slice()).unwrap();
        let mut packet = Packet::new(flow);
        let mut node = Node { established: false };
        let verdict = firewall.prerouting(&mut packet, &mut node);
        (verdict, packet)
    }

    #[test]
    fn what_is_measured_is_redirected_or_translated() {
        assert!(matches!(first(Way::Iptables).0, Verdict::Assign(_)));
        assert_eq!(first(Way::SkLookup).1.tracked, Tracked::Untracked);
        assert_eq!(first(Way::Tc).1.tracked, Tracked::Untracked);
        let translated = first(Way::KubeProxy).1;
        assert_eq!(translated.destination().to_string(), "10.244.2.2:8080");
    }

    #[test]
    fn every_connection_that_is_looked_up_is_there() {
        let mut table = table(100);
        assert_eq!(table.len(), 100);
        let found = table.segment(Duration::ZERO, tuple(99), tcp_flags::ACK);
        assert!(matches!(found, Tracked::Of { .. }));
    }
}
