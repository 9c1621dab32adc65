//! Rule sets as text; what its modules share. Each of them has rules on packets, by one noun.

mod led;
mod matches;
mod services;
mod stations;
mod targets;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodeway_datapath::{
    Family, Flow, Frontend, FrontendState, PROXY_MASK, Packet as Kind, TO_PROXY, protocol,
    tcp_flags,
};
use rstest::rstest;

use super::kube_proxy::{ExternalKind, ServicePort};
use super::*;
use crate::conntrack::{Conntrack, Direction, Tracked, Tuple};
use crate::frontend::FrontendKey;
use crate::redirect::Redirect;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn key(text: &str) -> FrontendKey {
    let at = at(text);
    FrontendKey {
        address: at.ip(),
        port: at.port(),
    }
}

fn tproxy(ports: &[u16]) -> Ruleset {
    let mut rules = Ruleset::new(Family::V4);
    tproxy::install(&mut rules);
    let active = Frontend {
        listener_port: 14_056,
        state: FrontendState::Active,
        ranged: false,
    };
    tproxy::put(&mut rules, key("10.96.0.10:80"), &active);
    tproxy::lead(&mut rules, &ports.iter().copied().collect());
    rules
}

fn shop() -> ServicePort {
    ServicePort {
        name: "default/shop:http".to_owned(),
        cluster: vec!["10.96.0.20".parse().unwrap(), "fd00::20".parse().unwrap()],
        external: vec![("192.0.2.20".parse().unwrap(), ExternalKind::LoadBalancer)],
        port: 80,
        node_port: Some(30_080),
        endpoints: vec![
            (at("10.244.0.5:8080"), true),
            (at("10.244.1.5:8080"), false),
        ],
        external_local: false,
        internal_local: false,
        affinity: None,
        source_ranges: Vec::new(),
    }
}

#[test]
fn the_rules_of_a_listener_read_as_iptables_save_prints_them() {
    let rules = tproxy(&[14_056]);
    rules.validate().unwrap();
    insta::assert_snapshot!(text::ruleset(&rules) + &text::sets(&rules));
}

#[test]
fn many_listeners_are_found_by_a_tree_of_chains() {
    let ports: Vec<u16> = (10_000..20_000).collect();
    let rules = tproxy(&ports);
    rules.validate().unwrap();
    let mangle = &rules.tables[&Table::Mangle];
    let longest = mangle.values().map(|chain| chain.rules.len()).max();
    assert_eq!(longest, Some(40), "one jump for each high byte of a port");
}

#[test]
fn kube_proxys_rules_read_as_its_own() {
    let rules = kube_proxy::rules(Family::V4, [&shop()]);
    rules.validate().unwrap();
    insta::assert_snapshot!(text::ruleset(&rules));
}

#[rstest]
#[case::none(vec![], false, false)]
#[case::none_here(vec![(at("10.244.1.5:8080"), false)], true, true)]
#[case::one_here(vec![(at("10.244.0.5:8080"), true)], true, true)]
fn rules_for_any_endpoints_are_valid(
    #[case] endpoints: Vec<(SocketAddr, bool)>,
    #[case] external_local: bool,
    #[case] internal_local: bool,
    #[values(None, Some(Duration::from_secs(60)))] affinity: Option<Duration>,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let port = ServicePort {
        endpoints,
        external_local,
        internal_local,
        affinity,
        ..shop()
    };
    kube_proxy::rules(family, [&port]).validate().unwrap();
}

#[test]
fn a_chain_of_kube_proxys_has_its_name() {
    // As kube-proxy's own tests have it for ns1/svc1:p80.
    let port = ServicePort {
        name: "ns1/svc1:p80".to_owned(),
        endpoints: vec![(at("10.180.0.1:80"), true)],
        ..shop()
    };
    let text = text::ruleset(&kube_proxy::rules(Family::V4, [&port]));
    assert!(text.contains(":KUBE-SVC-XPGD46QRK7WJZT7O -"), "{text}");
    assert!(text.contains(":KUBE-SEP-SXIVWICOYRO3J4NJ -"), "{text}");
}

#[test]
fn a_sidecars_rules_skip_the_proxy_itself() {
    insta::assert_snapshot!(text::ruleset(&sidecar::rules(Family::V4, &[8081])));
}

/// A namespace with some addresses, and sockets where it is told.
#[derive(Default)]
struct Around {
    listens: Vec<SocketAddr>,
    sockets: Vec<(SocketAddr, SocketAddr)>,
    /// What every look-up of a socket finds, whatever it is.
    found: Option<FoundSocket>,
    luck: u32,
    /// What is drawn first, second and so on for one packet, in place of `luck`.
    draws: Vec<u32>,
    now: Duration,
    matched: Vec<String>,
}

const NODE: &str = "172.18.0.2";

impl Host for Around {
    fn now(&self) -> Duration {
        self.now
    }

    fn is_local(&self, address: IpAddr) -> bool {
        address.to_string() == NODE || address.is_loopback()
    }

    fn socket(&self, flow: &Flow) -> Option<FoundSocket> {
        let packet = Packet::new(*flow);
        let found = self
            .sockets
            .contains(&(packet.source(), packet.destination()));
        self.found.or(found.then_some(FoundSocket {
            transparent: true,
            wildcard: false,
        }))
    }

    fn listens(&self, at: SocketAddr) -> bool {
        self.listens.contains(&at)
    }

    fn source(&self, _: Option<&InterfaceName>, to: IpAddr) -> Option<IpAddr> {
        to.is_ipv4().then(|| NODE.parse().unwrap())
    }

    fn draw(&self, _: &Flow, ordinal: u32) -> u32 {
        let drawn = (ordinal as usize).checked_sub(1);
        let drawn = drawn.and_then(|index| self.draws.get(index));
        drawn.copied().unwrap_or(self.luck)
    }

    fn matched(&mut self, matched: Matched<'_>) {
        let text = text::rule(matched.rule, Family::V4);
        let number = matched.index + 1;
        self.matched
            .push(format!("{} {number}{text}", matched.chain));
    }
}

fn packet(source: &str, destination: &str, flags: u8) -> Packet {
    let (source, destination) = (at(source), at(destination));
    let mut packet = Packet::new(Flow {
        family: Family::V4,
        packet: Kind::Segment,
        protocol: protocol::TCP,
        tcp_flags: flags,
        sport: 0,
        dport: 0,
        src: [0; 16],
        dst: [0; 16],
    });
    packet.set_source(source);
    packet.set_destination(destination);
    packet
}

fn firewall(rules: Ruleset) -> Firewall {
    Firewall::new(rules, Ruleset::new(Family::V6)).unwrap()
}

const CLIENT: &str = "10.244.0.9:5000";
const SYN: u8 = tcp_flags::SYN;
const ACK: u8 = tcp_flags::ACK;

#[rstest]
#[case::to_a_frontend("10.96.0.10:80", true, Verdict::Assign(at("127.0.0.1:14056")), 0x200)]
#[case::without_a_listener("10.96.0.10:80", false, Verdict::Drop, 0)]
#[case::to_another_port("10.96.0.10:81", true, Verdict::Accept, 0)]
#[case::to_another_address("10.96.0.11:80", true, Verdict::Accept, 0)]
fn a_new_connection_to_a_frontend_is_given_to_its_listener(
    #[case] to: &str,
    #[case] listens: bool,
    #[case] verdict: Verdict,
    #[case] mark: u32,
) {
    let mut around = Around {
        listens: listens.then(|| at("127.0.0.1:14056")).into_iter().collect(),
        ..Around::default()
    };
    let mut packet = packet(CLIENT, to, SYN);
    let got = firewall(tproxy(&[14_056])).prerouting(&mut packet, &mut around);
    assert_eq!(got, verdict);
    if got != Verdict::Drop {
        assert_eq!(packet.mark, mark);
    }
    assert_eq!(packet.destination(), at(to), "nothing is translated");
}

#[test]
fn a_packet_that_has_a_socket_is_delivered_to_it_even_when_the_frontend_is_gone() {
    let mut rules = tproxy(&[14_056]);
    let draining = Frontend {
        listener_port: 14_056,
        state: FrontendState::Draining,
        ranged: false,
    };
    tproxy::put(&mut rules, key("10.96.0.10:80"), &draining);
    let mut around = Around {
        sockets: vec![(at(CLIENT), at("10.96.0.10:80"))],
        ..Around::default()
    };
    let mut known = packet(CLIENT, "10.96.0.10:80", ACK);
    let mut firewall = firewall(rules);
    assert_eq!(
        firewall.prerouting(&mut known, &mut around),
        Verdict::Accept
    );
    assert_eq!(known.mark, TO_PROXY);
    assert_eq!(known.tracked, crate::conntrack::Tracked::Untracked);
    let mut fresh = packet("10.244.0.9:5001", "10.96.0.10:80", SYN);
    assert_eq!(
        firewall.prerouting(&mut fresh, &mut around),
        Verdict::Accept
    );
    assert_eq!(fresh.mark, 0, "a new one is not redirected any more");
}

/// A packet that comes in and is sent on, as a node does it.
fn through(firewall: &mut Firewall, packet: &mut Packet, around: &mut Around) -> Verdict {
    for step in [
        Firewall::prerouting,
        Firewall::forward,
        Firewall::postrouting,
    ] {
        let verdict = step(firewall, packet, around);
        if verdict != Verdict::Accept {
            return verdict;
        }
    }
    Verdict::Accept
}

const SERVICE: &str = "10.96.0.10:80";

/// A packet of either family's tuple, of which nobody knows anything yet.
fn of(source: &str, destination: &str) -> Packet {
    let mut packet = packet(source, destination, SYN);
    if at(source).is_ipv6() {
        packet.flow.family = Family::V6;
    }
    packet
}

fn icmp(packet: Packet) -> Packet {
    Packet {
        flow: Flow {
            packet: Kind::IcmpError,
            tcp_flags: 0,
            ..packet.flow
        },
        ..packet
    }
}

/// A connection that its first packet begins.
fn begun() -> Box<crate::conntrack::Connection> {
    let tuple = Tuple {
        source: at(CLIENT),
        destination: at(SERVICE),
    };
    match Conntrack::default().segment(Duration::ZERO, tuple, SYN) {
        Tracked::New(connection) => connection,
        other => panic!("a SYN begins a connection: {other:?}"),
    }
}

/// Whether a rule with that match alone has the packet.
fn has(wanted: Match, mut packet: Packet, around: &mut Around) -> bool {
    let rules = |family| {
        let mut rules = Ruleset::new(family);
        let mut set = IpSet::new(false);
        set.insert(at(SERVICE), SetEntry::default());
        rules.sets.insert("services".into(), set);
        let rule = Rule::new([wanted.clone()], Target::Drop);
        rules.built_in(Table::Filter, BuiltIn::Forward, [rule]);
        rules
    };
    let mut firewall = Firewall::new(rules(Family::V4), rules(Family::V6)).unwrap();
    firewall.forward(&mut packet, around) == Verdict::Drop
}

#[test]
fn kube_proxys_nftables_script_reads_as_its_own() {
    let local = |name: &str, external_local, internal_local| ServicePort {
        name: name.to_owned(),
        external_local,
        internal_local,
        ..shop()
    };
    let empty = |name: &str, endpoints: &[(SocketAddr, bool)]| ServicePort {
        endpoints: endpoints.to_vec(),
        ..local(name, true, true)
    };
    let elsewhere = [(at("10.244.1.5:8080"), false)];
    let services = [
        ServicePort {
            affinity: Some(Duration::from_secs(60)),
            source_ranges: vec![
                "172.18.0.0/24".parse().unwrap(),
                "203.0.113.0/24".parse().unwrap(),
            ],
            ..shop()
        },
        local("default/local-outside:http", true, false),
        local("default/local-inside:http", false, true),
        empty("default/none-here", &elsewhere),
        empty("default/none", &[]),
        ServicePort {
            name: "default/inside:http".to_owned(),
            external: Vec::new(),
            node_port: None,
            ..shop()
        },
        ServicePort {
            name: "default/closed:http".to_owned(),
            cluster: Vec::new(),
            node_port: None,
            source_ranges: vec!["203.0.113.0/24".parse().unwrap()],
            ..shop()
        },
        ServicePort {
            name: "default/by-node-port:http".to_owned(),
            external: Vec::new(),
            source_ranges: vec!["203.0.113.0/24".parse().unwrap()],
            ..shop()
        },
        ServicePort {
            name: "default/nowhere:http".to_owned(),
            cluster: Vec::new(),
            external: Vec::new(),
            ..shop()
        },
    ];
    let own = ["fd00:18::2".parse().unwrap(), NODE.parse().unwrap()];
    insta::assert_snapshot!(kube_proxy::nftables::script(Family::V4, &services, &own));
    let v6 = ServicePort {
        endpoints: vec![(at("[fd00:244::5]:8080"), true)],
        ..shop()
    };
    insta::assert_snapshot!(kube_proxy::nftables::script(Family::V6, &[v6], &own));
}

fn flip(bit: u32) -> Rule {
    let target = Target::Mark {
        value: bit,
        mask: 0,
    };
    Rule::new([], target)
}

fn in_set(source: bool) -> impl Fn(bool) -> Match {
    move |not| Match::Set {
        not,
        set: "services".into(),
        source,
    }
}

/// A packet whose connection has that mark.
fn marked(mark: u32) -> Packet {
    let mut connection = begun();
    connection.mark = mark;
    Packet {
        tracked: Tracked::New(connection),
        ..of(CLIENT, SERVICE)
    }
}
