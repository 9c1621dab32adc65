//! Rule sets as text, and rules on packets.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodeway_datapath::{
    Family, Flow, Frontend, FrontendState, PROXY_MASK, Packet as Kind, TO_PROXY, protocol,
    tcp_flags,
};
use rstest::rstest;

use super::kube_proxy::ServicePort;
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
        external: vec![("192.0.2.20".parse().unwrap(), "loadbalancer IP")],
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

#[rstest]
#[case::the_first(0, "10.244.0.5:8080")]
#[case::the_second(u32::MAX >> 1, "10.244.1.5:8080")]
fn a_service_is_translated_to_an_endpoint_by_chance(#[case] luck: u32, #[case] endpoint: &str) {
    let mut around = Around {
        luck,
        ..Around::default()
    };
    let mut firewall = firewall(kube_proxy::rules(Family::V4, [&shop()]));
    let mut first = packet(CLIENT, "10.96.0.20:80", SYN);
    assert_eq!(
        through(&mut firewall, &mut first, &mut around),
        Verdict::Accept
    );
    assert_eq!(
        (first.source(), first.destination()),
        (at(CLIENT), at(endpoint))
    );
    let mut reply = packet(endpoint, CLIENT, SYN | ACK);
    assert_eq!(
        through(&mut firewall, &mut reply, &mut around),
        Verdict::Accept
    );
    assert_eq!(
        (reply.source(), reply.destination()),
        (at("10.96.0.20:80"), at(CLIENT))
    );
    // What follows goes the same way, whatever luck says.
    around.luck = 1 << 30;
    let mut next = packet(CLIENT, "10.96.0.20:80", ACK);
    through(&mut firewall, &mut next, &mut around);
    assert_eq!(next.destination(), at(endpoint));
}

#[rstest]
#[case::inside("10.96.0.20:80", false)]
#[case::from_outside("192.0.2.20:80", true)]
#[case::by_node_port("172.18.0.2:30080", true)]
fn what_comes_from_outside_is_masqueraded(#[case] to: &str, #[case] masqueraded: bool) {
    let mut around = Around::default();
    let mut firewall = firewall(kube_proxy::rules(Family::V4, [&shop()]));
    let mut first = packet("203.0.113.1:5000", to, SYN);
    through(&mut firewall, &mut first, &mut around);
    assert_eq!(first.destination(), at("10.244.0.5:8080"));
    assert_eq!(first.source().ip().to_string() == NODE, masqueraded);
    assert_eq!(first.mark, 0, "the mark has done its work");
}

#[rstest]
#[case::within("203.0.113.1:5000", "192.0.2.20:80", true)]
#[case::without("198.51.100.1:5000", "192.0.2.20:80", false)]
#[case::by_node_port("198.51.100.1:5000", "172.18.0.2:30080", true)]
#[case::inside("198.51.100.1:5000", "10.96.0.20:80", true)]
fn source_ranges_are_for_the_load_balancers_address(
    #[case] from: &str,
    #[case] to: &str,
    #[case] through_it: bool,
) {
    let mut around = Around::default();
    let port = ServicePort {
        source_ranges: vec![
            "203.0.113.7/24".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ],
        ..shop()
    };
    let mut firewall = firewall(kube_proxy::rules(Family::V4, [&port]));
    let mut first = packet(from, to, SYN);
    let verdict = through(&mut firewall, &mut first, &mut around);
    assert_eq!(verdict == Verdict::Drop, !through_it, "{verdict:?}");
    assert_eq!(first.destination() != at(to), through_it);
}

#[test]
fn source_ranges_of_the_other_family_leave_an_address_open() {
    let port = ServicePort {
        source_ranges: vec!["2001:db8::/32".parse().unwrap()],
        ..shop()
    };
    let v4 = kube_proxy::rules(Family::V4, [&port]);
    assert_eq!(v4, kube_proxy::rules(Family::V4, [&shop()]));
}

#[test]
fn from_outside_to_local_endpoints_the_client_keeps_its_address() {
    let mut around = Around {
        luck: u32::MAX >> 1,
        ..Around::default()
    };
    let port = ServicePort {
        external_local: true,
        ..shop()
    };
    let mut firewall = firewall(kube_proxy::rules(Family::V4, [&port]));
    let mut first = packet("203.0.113.1:5000", "192.0.2.20:80", SYN);
    through(&mut firewall, &mut first, &mut around);
    assert_eq!(first.destination(), at("10.244.0.5:8080"), "the local one");
    assert_eq!(first.source(), at("203.0.113.1:5000"));
}

#[rstest]
#[case::no_endpoint(vec![], false, Verdict::Reject(RejectWith::PortUnreachable))]
#[case::no_local_endpoint(vec![(at("10.244.1.5:8080"), false)], true, Verdict::Drop)]
fn a_service_that_cannot_serve_refuses_or_drops(
    #[case] endpoints: Vec<(SocketAddr, bool)>,
    #[case] external_local: bool,
    #[case] verdict: Verdict,
) {
    let port = ServicePort {
        endpoints,
        external_local,
        ..shop()
    };
    let mut firewall = firewall(kube_proxy::rules(Family::V4, [&port]));
    let mut first = packet("203.0.113.1:5000", "192.0.2.20:80", SYN);
    let got = through(&mut firewall, &mut first, &mut Around::default());
    assert_eq!(got, verdict);
    assert!(
        firewall.conntrack().is_empty(),
        "nothing is remembered of it"
    );
}

#[test]
fn a_pod_that_asks_for_itself_sees_the_node() {
    let mut firewall = firewall(kube_proxy::rules(Family::V4, [&shop()]));
    let mut first = packet("10.244.0.5:5000", "10.96.0.20:80", SYN);
    through(&mut firewall, &mut first, &mut Around::default());
    assert_eq!(first.destination(), at("10.244.0.5:8080"));
    assert_eq!(first.source().ip().to_string(), NODE);
}

#[test]
fn a_client_with_affinity_stays_with_its_endpoint() {
    let port = ServicePort {
        affinity: Some(Duration::from_secs(60)),
        ..shop()
    };
    let mut firewall = firewall(kube_proxy::rules(Family::V4, [&port]));
    let mut around = Around {
        luck: u32::MAX >> 1,
        ..Around::default()
    };
    let mut ask = |from: &str, luck, now| {
        (around.luck, around.now) = (luck, Duration::from_secs(now));
        let mut first = packet(from, "10.96.0.20:80", SYN);
        through(&mut firewall, &mut first, &mut around);
        first.destination()
    };
    let second = at("10.244.1.5:8080");
    assert_eq!(ask("10.244.0.9:5000", u32::MAX >> 1, 0), second);
    assert_eq!(ask("10.244.0.9:5001", 0, 30), second);
    assert_eq!(
        ask("10.244.0.8:5000", 0, 30),
        at("10.244.0.5:8080"),
        "another client"
    );
    assert_eq!(
        ask("10.244.0.9:5002", 0, 100),
        at("10.244.0.5:8080"),
        "too late"
    );
}

#[test]
fn what_belongs_to_nothing_is_not_forwarded() {
    let mut firewall = firewall(kube_proxy::rules(Family::V4, [&shop()]));
    let mut stray = packet("10.244.1.5:8080", CLIENT, SYN | ACK);
    let got = through(&mut firewall, &mut stray, &mut Around::default());
    assert_eq!(got, Verdict::Drop);
}

#[test]
fn what_tc_has_marked_is_untracked_without_a_look_into_a_set() {
    let mut rules = Ruleset::new(Family::V4);
    ebpf::install_tc(&mut rules);
    // Were a set asked, the first rule that holds would be another.
    ebpf::put(
        &mut rules,
        key("10.96.0.10:80"),
        &Frontend {
            listener_port: 14_056,
            state: FrontendState::Active,
            ranged: false,
        },
    );
    let mut marked = packet(CLIENT, "10.96.0.10:80", SYN);
    marked.mark = nodeway_datapath::mark(14_056);
    let mut around = Around::default();
    firewall(rules).prerouting(&mut marked, &mut around);
    assert_eq!(marked.tracked, crate::conntrack::Tracked::Untracked);
    let asked = |rule: &String| rule.contains("--match-set");
    assert!(!around.matched.iter().any(asked), "{:?}", around.matched);
}

#[rstest]
#[case::rules(&["*nat\n:KUBE-SERVICES - [0:0]\n"], None, kube_proxy::Mode::Iptables)]
#[case::rules_of_ipv6(&["", "*nat\n:KUBE-SERVICES - [0:0]\n"], None, kube_proxy::Mode::Iptables)]
#[case::a_table(&[""], Some(r#"{"table": {"name": "kube-proxy"}}"#), kube_proxy::Mode::Nftables)]
#[case::no_tool(&[""], None, kube_proxy::Mode::None)]
#[case::somebody_else(&["*nat\n:DOCKER - [0:0]\n"], Some(r#"{"table": {"name": "docker"}}"#), kube_proxy::Mode::None)]
fn kube_proxy_is_known_by_what_it_always_has(
    #[case] iptables: &[&str],
    #[case] nft: Option<&str>,
    #[case] mode: kube_proxy::Mode,
) {
    assert_eq!(kube_proxy::Mode::found(iptables, nft), mode);
}

#[test]
fn a_redirected_connection_is_untracked_beside_kube_proxy() {
    let mut rules = tproxy(&[14_056]);
    let port = ServicePort {
        cluster: vec!["10.96.0.10".parse().unwrap()],
        ..shop()
    };
    kube_proxy::install(&mut rules, kube_proxy::Mode::Iptables, &[], [&port]);
    let mut firewall = firewall(rules);
    let mut around = Around {
        listens: vec![at("127.0.0.1:14056")],
        ..Around::default()
    };
    let mut first = packet(CLIENT, "10.96.0.10:80", SYN);
    assert_eq!(
        firewall.prerouting(&mut first, &mut around),
        Verdict::Assign(at("127.0.0.1:14056"))
    );
    assert_eq!(firewall.input(&mut first, &mut around), Verdict::Accept);
    let mut reply = packet("10.96.0.10:80", CLIENT, SYN | ACK);
    assert_eq!(firewall.output(&mut reply, &mut around), Verdict::Accept);
    assert_eq!(
        firewall.postrouting(&mut reply, &mut around),
        Verdict::Accept
    );
    assert_eq!(reply.source(), at("10.96.0.10:80"));
    assert!(firewall.conntrack().is_empty());
}

#[test]
fn a_pods_connection_is_redirected_to_its_proxy_and_remembers_where_it_meant_to_go() {
    let mut firewall = firewall(sidecar::rules(Family::V4, &[]));
    let mut around = Around::default();
    let mut first = packet("10.244.0.9:5000", "10.96.0.20:80", SYN);
    first.owner = Some(Owner::default());
    firewall.output(&mut first, &mut around);
    assert_eq!(first.destination(), at("127.0.0.1:15001"));
    firewall.postrouting(&mut first, &mut around);
    let meant = firewall
        .conntrack()
        .original_destination(first.source(), first.destination());
    assert_eq!(meant, Some(at("10.96.0.20:80")));
    let mut own = packet("10.244.0.9:5001", "10.244.1.5:8080", SYN);
    own.owner = Some(Owner {
        uid: sidecar::PROXY_UID,
        gid: sidecar::PROXY_UID,
    });
    firewall.output(&mut own, &mut around);
    assert_eq!(
        own.destination(),
        at("10.244.1.5:8080"),
        "the proxy's own is left alone"
    );
}

#[test]
fn rules_that_cannot_be_followed_are_refused() {
    let jump = |to: &str| Rule::new([], Target::Jump(to.into()));
    let mut missing = Ruleset::new(Family::V4);
    missing.built_in(Table::Filter, BuiltIn::Input, [jump("NOWHERE")]);
    let text = missing.validate().unwrap_err().to_string();
    assert_eq!(
        text,
        "table filter, chain INPUT, rule 1: there is no chain `NOWHERE`; add it, or mend its name"
    );
    let mut circle = Ruleset::new(Family::V4);
    circle.hook(Table::Filter, BuiltIn::Input, "A");
    circle.append(Table::Filter, "A", [jump("B")]);
    circle.append(Table::Filter, "B", [jump("A")]);
    assert!(matches!(
        circle.validate(),
        Err(RulesetError::TooDeep { .. })
    ));
}

/// What is known of a packet's connection.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    /// Connection tracking has seen it begin.
    Tracked,
    /// The node has a socket for it.
    Socket,
}

#[rstest]
#[case::armed_and_new(FrontendState::Arming, SYN, Before::Nothing, true, true)]
#[case::armed_and_older(FrontendState::Arming, ACK, Before::Tracked, false, false)]
#[case::armed_and_the_end_of_a_handshake_by_cookie(
    FrontendState::Arming,
    ACK,
    Before::Nothing,
    false,
    true
)]
#[case::armed_and_known(FrontendState::Arming, ACK, Before::Socket, true, true)]
#[case::in_force_and_new(FrontendState::Active, SYN, Before::Nothing, true, true)]
#[case::in_force_and_unknown(FrontendState::Active, ACK, Before::Nothing, true, true)]
#[case::draining_and_new(FrontendState::Draining, SYN, Before::Nothing, false, false)]
#[case::draining_and_unknown(FrontendState::Draining, ACK, Before::Nothing, false, false)]
#[case::draining_and_known(FrontendState::Draining, ACK, Before::Socket, true, true)]
fn a_frontends_state_says_what_is_led_on_and_what_stays_kube_proxys(
    #[case] state: FrontendState,
    #[case] flags: u8,
    #[case] before: Before,
    #[case] untracked: bool,
    #[case] led_on: bool,
) {
    let mut rules = tproxy(&[14_056]);
    let service = key("10.96.0.10:80");
    super::way::remove(&mut rules, service);
    let frontend = Frontend {
        listener_port: 14_056,
        state,
        ranged: false,
    };
    let socket = (at(CLIENT), at("10.96.0.10:80"));
    let mut around = Around {
        listens: vec![at("127.0.0.1:14056")],
        sockets: (before == Before::Socket)
            .then_some(socket)
            .into_iter()
            .collect(),
        ..Around::default()
    };
    let mut firewall = firewall(rules);
    if before == Before::Tracked {
        let mut opening = packet(CLIENT, "10.96.0.10:80", SYN);
        firewall.prerouting(&mut opening, &mut around);
        firewall.postrouting(&mut opening, &mut around);
        let mut answer = packet("10.96.0.10:80", CLIENT, SYN | ACK);
        firewall.prerouting(&mut answer, &mut around);
        firewall.postrouting(&mut answer, &mut around);
    }
    tproxy::put(firewall.rules_mut(Family::V4), service, &frontend);
    let mut packet = packet(CLIENT, "10.96.0.10:80", flags);
    let _ = firewall.prerouting(&mut packet, &mut around);
    let tracked = packet.tracked == crate::conntrack::Tracked::Untracked;
    let marked = packet.mark & PROXY_MASK == TO_PROXY;
    assert_eq!((tracked, marked), (untracked, led_on));
}

#[rstest]
#[case::new(packet(CLIENT, "10.96.0.10:80", SYN), false)]
#[case::older(packet(CLIENT, "10.96.0.10:80", ACK), false)]
#[case::the_proxys_reply(packet("10.96.0.10:80", CLIENT, SYN | ACK), true)]
fn of_an_announced_frontend_replies_alone_are_untracked(
    #[case] mut packet: Packet,
    #[case] untracked: bool,
    #[values(Redirect::Tc, Redirect::SkLookup)] redirect: Redirect,
) {
    let mut rules = Ruleset::new(Family::V4);
    super::way::install(redirect, &mut rules);
    super::way::announce(&mut rules, key("10.96.0.10:80"));
    let mut firewall = firewall(rules);
    let mut around = Around::default();
    let verdict = if untracked {
        firewall.output(&mut packet, &mut around)
    } else {
        firewall.prerouting(&mut packet, &mut around)
    };
    assert_eq!(verdict, Verdict::Accept);
    let found = packet.tracked == crate::conntrack::Tracked::Untracked;
    assert_eq!((found, packet.mark), (untracked, 0));
}

#[rstest]
fn frontends_are_read_out_of_the_sets_that_they_were_put_into(
    #[values(FrontendState::Arming, FrontendState::Active, FrontendState::Draining)]
    state: FrontendState,
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let mut rules = Ruleset::new(Family::V4);
    super::way::install(redirect, &mut rules);
    let (service, frontend) = (
        key("10.96.0.10:80"),
        Frontend {
            listener_port: 14_056,
            state,
            ranged: false,
        },
    );
    super::way::put(redirect, &mut rules, service, &frontend);
    // A set tells the port of those alone that rules lead on.
    let listener_port = match (redirect, state) {
        (Redirect::Iptables, FrontendState::Arming | FrontendState::Active) => 14_056,
        _ => 0,
    };
    let found = frontends::read(Family::V4, &rules.sets);
    assert_eq!(
        found,
        [(
            service,
            Frontend {
                listener_port,
                ..frontend
            }
        )]
    );
    super::way::remove(&mut rules, service);
    assert_eq!(frontends::read(Family::V4, &rules.sets), []);
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

fn in_set(source: bool) -> impl Fn(bool) -> Match {
    move |not| Match::Set {
        not,
        set: "services".into(),
        source,
    }
}

#[rstest]
#[case::tcp(|not| Match::Protocol { not, protocol: 6 }, of(CLIENT, SERVICE), true)]
#[case::no_udp(|not| Match::Protocol { not, protocol: 17 }, of(CLIENT, SERVICE), false)]
#[case::error(|not| Match::Protocol { not, protocol: 1 }, icmp(of(CLIENT, SERVICE)), true)]
#[case::error_of_v6(|not| Match::Protocol { not, protocol: 58 }, icmp(of("[fd00::1]:1", "[fd00::2]:2")), true)]
#[case::source(|not| Match::Source { not, network: "10.244.0.0/24".parse().unwrap() }, of(CLIENT, SERVICE), true)]
#[case::other_source(|not| Match::Source { not, network: "10.96.0.0/24".parse().unwrap() }, of(CLIENT, SERVICE), false)]
#[case::source_v6(|not| Match::Source { not, network: "fd00::/126".parse().unwrap() }, of("[fd00::1]:1", "[fe00::2]:2"), true)]
#[case::destination(|not| Match::Destination { not, network: "10.96.0.0/24".parse().unwrap() }, of(CLIENT, SERVICE), true)]
#[case::other_destination(|not| Match::Destination { not, network: "10.244.0.0/24".parse().unwrap() }, of(CLIENT, SERVICE), false)]
#[case::in_device(|not| Match::InInterface { not, name: "lxc1".into() }, Packet { input: Some("lxc1".into()), ..of(CLIENT, SERVICE) }, true)]
#[case::in_longer_device(|not| Match::InInterface { not, name: "lxc1".into() }, Packet { input: Some("lxc12".into()), ..of(CLIENT, SERVICE) }, false)]
#[case::in_devices(|not| Match::InInterface { not, name: "lxc+".into() }, Packet { input: Some("lxc1".into()), ..of(CLIENT, SERVICE) }, true)]
#[case::in_no_device(|not| Match::InInterface { not, name: "lxc+".into() }, Packet { output: Some("lxc1".into()), ..of(CLIENT, SERVICE) }, false)]
#[case::out_device(|not| Match::OutInterface { not, name: "eth0".into() }, Packet { output: Some("eth0".into()), ..of(CLIENT, SERVICE) }, true)]
#[case::out_other_device(|not| Match::OutInterface { not, name: "eth+".into() }, Packet { output: Some("lxc1".into()), ..of(CLIENT, SERVICE) }, false)]
#[case::source_port(|not| Match::SourcePort { not, ports: 4_000..=5_000 }, of(CLIENT, SERVICE), true)]
#[case::other_source_port(|not| Match::SourcePort { not, ports: 80..=80 }, of(CLIENT, SERVICE), false)]
#[case::destination_port(|not| Match::DestinationPort { not, ports: 80..=90 }, of(CLIENT, SERVICE), true)]
#[case::other_destination_port(|not| Match::DestinationPort { not, ports: 5_000..=5_000 }, of(CLIENT, SERVICE), false)]
#[case::flags(|not| Match::TcpFlags { not, mask: SYN | ACK, set: SYN }, packet(CLIENT, SERVICE, SYN | tcp_flags::FIN), true)]
#[case::other_flags(|not| Match::TcpFlags { not, mask: SYN | ACK, set: SYN }, packet(CLIENT, SERVICE, SYN | ACK), false)]
#[case::mark(|not| Match::Mark { not, value: 0x200, mask: 0xf00 }, Packet { mark: 0x1000_1200, ..of(CLIENT, SERVICE) }, true)]
#[case::other_mark(|not| Match::Mark { not, value: 0x200, mask: 0xf00 }, Packet { mark: 0x300, ..of(CLIENT, SERVICE) }, false)]
#[case::in_a_set(in_set(false), of(CLIENT, SERVICE), true)]
#[case::by_another_port(in_set(false), of(CLIENT, "10.96.0.10:81"), false)]
#[case::from_a_set(in_set(true), of(SERVICE, CLIENT), true)]
#[case::not_from_a_set(in_set(true), of(CLIENT, SERVICE), false)]
#[case::error_in_no_set(in_set(false), icmp(of(CLIENT, SERVICE)), false)]
#[case::own_source(|not| Match::SourceLocal { not }, of("172.18.0.2:1", SERVICE), true)]
#[case::other_own_source(|not| Match::SourceLocal { not }, of(CLIENT, "172.18.0.2:1"), false)]
#[case::own_destination(|not| Match::DestinationLocal { not }, of(CLIENT, "172.18.0.2:1"), true)]
#[case::other_own_destination(|not| Match::DestinationLocal { not }, of("172.18.0.2:1", SERVICE), false)]
#[case::user(|not| Match::UidOwner { not, uid: 7 }, Packet { owner: Some(Owner { uid: 7, gid: 8 }), ..of(CLIENT, SERVICE) }, true)]
#[case::other_user(|not| Match::UidOwner { not, uid: 8 }, Packet { owner: Some(Owner { uid: 7, gid: 8 }), ..of(CLIENT, SERVICE) }, false)]
#[case::group(|not| Match::GidOwner { not, gid: 8 }, Packet { owner: Some(Owner { uid: 7, gid: 8 }), ..of(CLIENT, SERVICE) }, true)]
#[case::other_group(|not| Match::GidOwner { not, gid: 7 }, Packet { owner: Some(Owner { uid: 7, gid: 8 }), ..of(CLIENT, SERVICE) }, false)]
#[case::connections_mark(|not| Match::ConnMark { not, value: 0x200, mask: 0xf00 }, marked(0x1200), true)]
#[case::other_connections_mark(|not| Match::ConnMark { not, value: 0x200, mask: 0xf00 }, marked(0x300), false)]
fn a_match_has_the_packets_that_it_names_and_turned_round_all_others(
    #[case] wanted: impl Fn(bool) -> Match,
    #[case] packet: Packet,
    #[case] expected: bool,
) {
    let mut around = Around::default();
    assert_eq!(has(wanted(false), packet.clone(), &mut around), expected);
    assert_eq!(has(wanted(true), packet, &mut around), !expected);
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

/// The kernel's match does not hold then, and turning it round does not change that.
#[rstest]
#[case::source_port_of_an_error(|not| Match::SourcePort { not, ports: 5_000..=5_000 }, icmp(of(CLIENT, SERVICE)))]
#[case::destination_port_of_an_error(|not| Match::DestinationPort { not, ports: 80..=80 }, icmp(of(CLIENT, SERVICE)))]
#[case::flags_of_an_error(|not| Match::TcpFlags { not, mask: SYN, set: 0 }, icmp(of(CLIENT, SERVICE)))]
#[case::user_of_a_packet_from_elsewhere(|not| Match::UidOwner { not, uid: 0 }, of(CLIENT, SERVICE))]
#[case::group_of_a_packet_from_elsewhere(|not| Match::GidOwner { not, gid: 0 }, of(CLIENT, SERVICE))]
#[case::mark_of_no_connection(|not| Match::ConnMark { not, value: 0, mask: 0 }, of(CLIENT, SERVICE))]
fn what_a_packet_does_not_have_matches_neither_way(
    #[case] wanted: impl Fn(bool) -> Match,
    #[case] packet: Packet,
    #[values(true, false)] not: bool,
) {
    assert!(!has(wanted(not), packet, &mut Around::default()));
}

#[rstest]
#[case::unseen(Tracked::Unseen, &[])]
#[case::untracked(Tracked::Untracked, &[ConnectionState::Untracked])]
#[case::invalid(Tracked::Invalid, &[ConnectionState::Invalid])]
#[case::begins(Tracked::New(begun()), &[ConnectionState::New])]
#[case::led_elsewhere(changed(true, false), &[ConnectionState::New, ConnectionState::Dnat])]
#[case::from_elsewhere(changed(false, true), &[ConnectionState::New, ConnectionState::Snat])]
#[case::unanswered(known(Direction::Original, false, false), &[ConnectionState::New])]
#[case::answered(known(Direction::Original, true, false), &[ConnectionState::Established])]
#[case::answer(known(Direction::Reply, true, false), &[ConnectionState::Established])]
#[case::error(known(Direction::Reply, true, true), &[ConnectionState::Related])]
fn a_packet_is_in_the_states_that_connection_tracking_says(
    #[case] tracked: Tracked,
    #[case] expected: &[ConnectionState],
) {
    use ConnectionState::{Dnat, Established, Invalid, New, Related, Snat, Untracked};
    let packet = Packet {
        tracked,
        ..of(CLIENT, SERVICE)
    };
    let all = [New, Established, Related, Invalid, Untracked, Snat, Dnat];
    let has = |not, state| {
        let wanted = Match::ConnectionState {
            not,
            states: vec![state],
        };
        has(wanted, packet.clone(), &mut Around::default())
    };
    let found: Vec<_> = all.into_iter().filter(|it| has(false, *it)).collect();
    assert_eq!(found, expected);
    assert!(all.into_iter().all(|it| has(true, it) != has(false, it)));
}

fn changed(destination: bool, source: bool) -> Tracked {
    let (conntrack, mut connection) = (Conntrack::default(), begun());
    if destination {
        conntrack.change_destination(&mut connection, at("10.244.0.5:8080"));
    }
    if source {
        conntrack.change_source(&mut connection, Some(at("172.18.0.2:0").ip()), None);
    }
    Tracked::New(connection)
}

fn known(direction: Direction, answered: bool, related: bool) -> Tracked {
    Tracked::Of {
        connection: Conntrack::default().confirm(*begun()),
        direction,
        answered,
        related,
    }
}

#[rstest]
#[case::transparent(true, false, true, true)]
#[case::plain(false, false, true, false)]
#[case::wildcard(true, true, false, false)]
fn a_socket_counts_when_it_is_bound_to_an_address(
    #[case] transparent: bool,
    #[case] wildcard: bool,
    #[case] any: bool,
    #[case] of_transparent: bool,
) {
    let mut around = Around {
        found: Some(FoundSocket {
            transparent,
            wildcard,
        }),
        ..Around::default()
    };
    let any_socket = Match::Socket { transparent: false };
    assert_eq!(has(any_socket, of(CLIENT, SERVICE), &mut around), any);
    let only = Match::Socket { transparent: true };
    assert_eq!(has(only, of(CLIENT, SERVICE), &mut around), of_transparent);
}

#[rstest]
#[case::below(9, true)]
#[case::at_it(10, false)]
fn luck_decides_below_the_probability(#[case] luck: u32, #[case] expected: bool) {
    let mut around = Around {
        luck,
        ..Around::default()
    };
    let wanted = Match::Random { probability: 10 };
    assert_eq!(has(wanted, of(CLIENT, SERVICE), &mut around), expected);
}

#[test]
fn each_rule_that_asks_for_luck_draws_anew() {
    let mut rules = Ruleset::new(Family::V4);
    let by_chance = |bit| {
        let target = flip(bit).target.unwrap();
        Rule::new([Match::Random { probability: 10 }], target)
    };
    rules.built_in(Table::Mangle, BuiltIn::Input, [1, 2, 4].map(by_chance));
    let mut around = Around {
        draws: vec![10, 9, 10],
        ..Around::default()
    };
    let mut packet = of(CLIENT, SERVICE);
    firewall(rules).input(&mut packet, &mut around);
    assert_eq!(packet.mark, 2);
}

#[rstest]
#[case::kept(false, true)]
#[case::reaped(true, false)]
fn a_source_that_was_remembered_too_long_ago_is_forgotten_when_it_is_reaped(
    #[case] reap: bool,
    #[case] again: bool,
) {
    let name = std::sync::Arc::<str>::from("list");
    let check = |seconds, reap| {
        Match::Recent(RecentList::Check {
            name: name.clone(),
            within: Duration::from_secs(seconds),
            reap,
        })
    };
    let mut firewall = firewall(Ruleset::new(Family::V4));
    let mut around = Around::default();
    let mut ask = |firewall: &mut Firewall, now, wanted| {
        let rules = firewall.rules_mut(Family::V4);
        rules.tables.clear();
        rules.built_in(
            Table::Filter,
            BuiltIn::Forward,
            [Rule::new([wanted], Target::Drop)],
        );
        around.now = Duration::from_secs(now);
        firewall.forward(&mut of(CLIENT, SERVICE), &mut around) == Verdict::Drop
    };
    assert!(!ask(&mut firewall, 0, check(60, false)), "not yet known");
    let remember = Match::Recent(RecentList::Set { name: name.clone() });
    assert!(ask(&mut firewall, 0, remember), "it always matches");
    for _ in 0..2 {
        assert!(ask(&mut firewall, 60, check(60, reap)), "just in time");
    }
    assert!(!ask(&mut firewall, 61, check(60, reap)), "too late");
    assert_eq!(ask(&mut firewall, 62, check(100, false)), again);
}

const STATIONS: [(BuiltIn, &[Table]); 5] = [
    (
        BuiltIn::Prerouting,
        &[Table::Raw, Table::Mangle, Table::Nat],
    ),
    (
        BuiltIn::Output,
        &[Table::Raw, Table::Mangle, Table::Nat, Table::Filter],
    ),
    (BuiltIn::Input, &[Table::Mangle, Table::Filter, Table::Nat]),
    (BuiltIn::Forward, &[Table::Mangle, Table::Filter]),
    (BuiltIn::Postrouting, &[Table::Mangle, Table::Nat]),
];

/// A packet as it comes to a station: the last two know of its connection.
fn arriving(hook: BuiltIn) -> Packet {
    let tracked = match hook {
        BuiltIn::Prerouting | BuiltIn::Output => Tracked::Unseen,
        _ => Tracked::New(begun()),
    };
    Packet {
        tracked,
        ..of(CLIENT, SERVICE)
    }
}

#[test]
fn each_station_asks_its_tables_in_the_kernels_order() {
    let mut rules = Ruleset::new(Family::V4);
    for (hook, _) in STATIONS {
        for table in [Table::Raw, Table::Mangle, Table::Nat, Table::Filter] {
            let mut counts = Rule::new([], Target::Return).comment(table.name());
            counts.target = None;
            rules.built_in(table, hook, [counts]);
        }
    }
    for (hook, tables) in STATIONS {
        let mut around = Around::default();
        let verdict = firewall(rules.clone()).at(hook, &mut arriving(hook), &mut around);
        assert_eq!(verdict, Verdict::Accept);
        let asked: Vec<_> = tables
            .iter()
            .map(|table| format!("{} 1 -m comment --comment {}", hook.name(), table.name()))
            .collect();
        assert_eq!(around.matched, asked);
    }
}

#[test]
fn a_drop_in_any_table_ends_a_packets_way_and_leaves_no_connection() {
    for (hook, tables) in STATIONS {
        for table in tables {
            let mut rules = Ruleset::new(Family::V4);
            rules.built_in(*table, hook, [Rule::new([], Target::Drop)]);
            let mut firewall = firewall(rules);
            let verdict = firewall.at(hook, &mut arriving(hook), &mut Around::default());
            assert_eq!(verdict, Verdict::Drop, "{hook:?} {table:?}");
            assert!(firewall.conntrack().is_empty());
        }
    }
}

#[test]
fn nat_is_asked_for_the_first_packet_of_a_connection_alone() {
    let mut rules = Ruleset::new(Family::V4);
    let asked = Rule::new([], Target::Accept).comment("asked");
    for hook in [BuiltIn::Prerouting, BuiltIn::Postrouting] {
        rules.built_in(Table::Nat, hook, [asked.clone()]);
    }
    let mut firewall = firewall(rules);
    let mut around = Around::default();
    through(&mut firewall, &mut of(CLIENT, SERVICE), &mut around);
    assert_eq!(around.matched.len(), 2, "{:?}", around.matched);
    through(&mut firewall, &mut of(CLIENT, SERVICE), &mut around);
    assert_eq!(around.matched.len(), 2, "{:?}", around.matched);
    assert_eq!(firewall.conntrack().len(), 1);
}

fn flip(bit: u32) -> Rule {
    let target = Target::Mark {
        value: bit,
        mask: 0,
    };
    Rule::new([], target)
}

fn to(chain: &str) -> Rule {
    Rule::new([], Target::Jump(chain.into()))
}

#[test]
fn a_jump_comes_back_a_goto_goes_back_further_and_the_end_is_the_policy() {
    let mut rules = Ruleset::new(Family::V4);
    let (filter, input) = (Table::Filter, BuiltIn::Input);
    rules.built_in(filter, input, [to("A"), flip(8)]);
    let onward = Rule::new([], Target::Goto("C".into()));
    rules.append(filter, "A", [to("B"), flip(2)]);
    rules.append(filter, "B", [onward, flip(4)]);
    let back = Rule::new([], Target::Return);
    rules.append(filter, "C", [flip(1), back.clone(), flip(16)]);
    rules.built_in(filter, input, [back, flip(32)]);
    for (policy, verdict) in [
        (Policy::Accept, Verdict::Accept),
        (Policy::Drop, Verdict::Drop),
    ] {
        rules.chain_mut(filter, "INPUT").policy = Some(policy);
        let mut packet = of(CLIENT, SERVICE);
        let got = firewall(rules.clone()).input(&mut packet, &mut Around::default());
        assert_eq!((got, packet.mark), (verdict, 1 | 2 | 8));
    }
}

#[test]
fn sixteen_jumps_are_followed_and_one_more_is_refused() {
    let mut rules = Ruleset::new(Family::V4);
    let name = |depth: usize| format!("C{depth}");
    rules.hook(Table::Filter, BuiltIn::Input, &name(1));
    for depth in 1..16 {
        rules.append(Table::Filter, &name(depth), [to(&name(depth + 1))]);
    }
    let end = Rule::new([], Target::Reject(RejectWith::TcpReset));
    rules.append(Table::Filter, &name(16), [end.clone()]);
    let mut firewall = firewall(rules.clone());
    let ask =
        |firewall: &mut Firewall| firewall.input(&mut of(CLIENT, SERVICE), &mut Around::default());
    assert_eq!(ask(&mut firewall), Verdict::Reject(RejectWith::TcpReset));
    for rules in [&mut rules, firewall.rules_mut(Family::V4)] {
        rules.append(Table::Filter, &name(17), [end.clone()]);
        rules.chain_mut(Table::Filter, &name(16)).rules = vec![to(&name(17))];
    }
    assert!(matches!(
        rules.validate(),
        Err(RulesetError::TooDeep { .. })
    ));
    assert_eq!(ask(&mut firewall), Verdict::Drop);
}

#[rstest]
#[case::of_a_match(Rule::new([in_set(false)(false)], Target::Accept))]
#[case::of_a_target(Rule::new([], Target::MapMark("services".into())))]
fn a_rule_that_names_a_set_which_is_not_there_is_refused(#[case] rule: Rule) {
    let mut rules = Ruleset::new(Family::V4);
    rules.built_in(Table::Mangle, BuiltIn::Input, [flip(1), rule]);
    assert_eq!(
        Firewall::new(Ruleset::new(Family::V6), rules.clone())
            .unwrap_err()
            .to_string(),
        "table mangle, chain INPUT, rule 2: there is no ipset `services`; create it, or mend its name"
    );
    rules.sets.insert("services".into(), IpSet::new(true));
    rules.validate().unwrap();
}

#[rstest]
#[case::bits_of_the_mask(Target::Mark { value: 0x210, mask: 0xff0 }, 0x1234, 0x1214)]
#[case::flipped(Target::Mark { value: 0x204, mask: 0 }, 0x1234, 0x1030)]
#[case::mapped(Target::MapMark("marks".into()), 0x1234, 0x42)]
#[case::mapped_by_none(Target::MapMark("plain".into()), 0x1234, 0x1234)]
#[case::restored(Target::RestoreMark, 0x1234, 0x77)]
fn a_target_marks_a_packet(#[case] target: Target, #[case] before: u32, #[case] after: u32) {
    let mut rules = Ruleset::new(Family::V4);
    for (name, mark) in [("marks", Some(0x42)), ("plain", None)] {
        let mut set = IpSet::new(true);
        set.insert(at(SERVICE), SetEntry { mark });
        rules.sets.insert(name.into(), set);
    }
    rules.built_in(Table::Mangle, BuiltIn::Input, [Rule::new([], target)]);
    let mut packet = Packet {
        mark: before,
        ..marked(0x77)
    };
    firewall(rules).input(&mut packet, &mut Around::default());
    assert_eq!(packet.mark, after);
}

#[test]
fn a_connections_mark_is_saved_on_the_first_packet_and_restored_on_the_next() {
    let mut rules = Ruleset::new(Family::V4);
    let unmarked = Match::Mark {
        not: false,
        value: 0,
        mask: u32::MAX,
    };
    rules.built_in(
        Table::Mangle,
        BuiltIn::Prerouting,
        [
            Rule::new([unmarked], Target::RestoreMark),
            Rule::new([], Target::SaveMark),
        ],
    );
    let (mut firewall, mut around) = (firewall(rules), Around::default());
    let mut ask = |mark| {
        let mut packet = Packet {
            mark,
            ..of(CLIENT, SERVICE)
        };
        through(&mut firewall, &mut packet, &mut around);
        packet.mark
    };
    assert_eq!(ask(7), 7);
    assert_eq!(ask(0), 7);
    assert_eq!(ask(9), 9, "of a connection that is remembered too");
    assert_eq!(ask(0), 9);
}

#[test]
fn tproxy_marks_the_bits_of_its_mask() {
    let mut rules = Ruleset::new(Family::V4);
    let target = Target::Tproxy {
        to: at("127.0.0.1:1"),
        // As MARK does it: what of the value is outside of the mask is turned over.
        value: 0x1210,
        mask: 0xff0,
    };
    rules.built_in(Table::Mangle, BuiltIn::Prerouting, [Rule::new([], target)]);
    let mut packet = Packet {
        mark: 0x1234,
        ..of(CLIENT, SERVICE)
    };
    let mut around = Around {
        listens: vec![at("127.0.0.1:1")],
        ..Around::default()
    };
    let verdict = firewall(rules).prerouting(&mut packet, &mut around);
    assert_eq!(verdict, Verdict::Assign(at("127.0.0.1:1")));
    assert_eq!(packet.mark, 0x0214);
}

#[rstest]
#[case::dnat(BuiltIn::Prerouting, Target::Dnat { to: at("10.244.0.5:8080") }, of(CLIENT, SERVICE), CLIENT, "10.244.0.5:8080")]
#[case::dnat_by_the_same_port(BuiltIn::Prerouting, Target::Dnat { to: at("10.244.0.5:0") }, of(CLIENT, SERVICE), CLIENT, "10.244.0.5:80")]
#[case::redirect_of_ones_own(BuiltIn::Output, Target::Redirect { port: 15_001 }, of(CLIENT, SERVICE), CLIENT, "127.0.0.1:15001")]
#[case::redirect_of_ones_own_over_v6(BuiltIn::Output, Target::Redirect { port: 15_001 }, of("[fd00::1]:5000", "[fd00::2]:80"), "[fd00::1]:5000", "[::1]:15001")]
#[case::redirect_of_anothers(BuiltIn::Prerouting, Target::Redirect { port: 15_001 }, of(CLIENT, SERVICE), CLIENT, "172.18.0.2:15001")]
#[case::snat(BuiltIn::Postrouting, Target::Snat { from: at("192.0.2.1:0").ip() }, of(CLIENT, SERVICE), "192.0.2.1:5000", SERVICE)]
#[case::masquerade(BuiltIn::Postrouting, Target::Masquerade { random_fully: false }, of(CLIENT, SERVICE), "172.18.0.2:5000", SERVICE)]
#[case::masquerade_by_luck(BuiltIn::Postrouting, Target::Masquerade { random_fully: true }, of(CLIENT, SERVICE), "172.18.0.2:1124", SERVICE)]
fn a_translation_changes_what_it_names(
    #[case] hook: BuiltIn,
    #[case] target: Target,
    #[case] mut packet: Packet,
    #[case] source: &str,
    #[case] destination: &str,
) {
    let rules = |family| {
        let mut rules = Ruleset::new(family);
        let rule = Rule::new([], target.clone());
        rules.built_in(Table::Nat, hook, [rule]);
        rules
    };
    let mut firewall = Firewall::new(rules(Family::V4), rules(Family::V6)).unwrap();
    // The ports that MASQUERADE may take are 64,512.
    let mut around = Around {
        luck: 64_512 + 100,
        ..Around::default()
    };
    let first = match hook {
        BuiltIn::Output => BuiltIn::Output,
        _ => BuiltIn::Prerouting,
    };
    for hook in [first, BuiltIn::Postrouting] {
        let verdict = firewall.at(hook, &mut packet, &mut around);
        assert_eq!(verdict, Verdict::Accept);
    }
    assert_eq!(packet.source(), at(source));
    assert_eq!(packet.destination(), at(destination));
    // The answer comes from where the client had sent it.
    let mut reply = of(destination, source);
    reply.flow.tcp_flags = SYN | ACK;
    firewall.prerouting(&mut reply, &mut around);
    firewall.postrouting(&mut reply, &mut around);
    let client = if packet.flow.family == Family::V4 {
        CLIENT
    } else {
        "[fd00::1]:5000"
    };
    assert_eq!(reply.destination(), at(client));
}

#[test]
fn an_error_about_a_translated_connection_goes_to_its_client() {
    let mut firewall = firewall(kube_proxy::rules(Family::V4, [&shop()]));
    let mut around = Around::default();
    let mut first = packet(CLIENT, "10.96.0.20:80", SYN);
    through(&mut firewall, &mut first, &mut around);
    let mut error = icmp(packet("10.244.0.5:8080", CLIENT, 0));
    assert_eq!(
        through(&mut firewall, &mut error, &mut around),
        Verdict::Accept
    );
    assert_eq!(
        (error.source(), error.destination()),
        (at("10.96.0.20:80"), at(CLIENT))
    );
}

#[rstest]
#[case::tc(Redirect::Tc, true, true)]
#[case::sk_lookup(Redirect::SkLookup, false, true)]
#[case::iptables(Redirect::Iptables, true, false)]
#[case::sidecar(Redirect::Sidecar, false, false)]
fn a_way_has_the_routing_that_delivers_its_packets(
    #[case] redirect: Redirect,
    #[case] by_mark: bool,
    #[case] by_address: bool,
) {
    let frontends = [
        key("10.96.0.10:80"),
        key("10.96.0.10:81"),
        key("172.18.0.2:80"),
        key("[fd00::10]:80"),
    ];
    let own = [at("172.18.0.2:0").ip(), at("[fd01::2]:0").ip()];
    let routing = super::way::routing(redirect, frontends, &own);
    assert_eq!(routing.rules.is_empty(), !by_mark);
    let route = |address: &str, source| LocalRoute {
        address: address.parse().unwrap(),
        source,
    };
    let all = [route("10.96.0.10", own[0]), route("fd00::10", own[1])];
    let expected = if by_address { all.to_vec() } else { Vec::new() };
    assert_eq!(routing.local, expected, "its own address needs none");
}

#[test]
fn a_set_is_told_in_order_and_remarked_where_it_has_marks() {
    let mut set = IpSet::new(true);
    assert!(set.is_empty());
    set.insert(at("10.0.0.2:80"), SetEntry { mark: Some(1) });
    set.insert(at("10.0.0.1:80"), SetEntry { mark: None });
    set.remark(|mark| mark + 1);
    let expected = [
        (at("10.0.0.1:80"), SetEntry { mark: None }),
        (at("10.0.0.2:80"), SetEntry { mark: Some(2) }),
    ];
    assert_eq!(set.entries(), expected);
    assert_eq!((set.len(), set.is_empty()), (2, false));
    set.remove(&at("10.0.0.1:80"));
    assert_eq!(set.len(), 1);
}

#[test]
fn a_firewall_is_idle_without_a_rule_and_a_connection_and_forgets_what_it_knew() {
    let mut empty = Firewall::default();
    assert!(empty.is_idle(Family::V4));
    through(&mut empty, &mut of(CLIENT, SERVICE), &mut Around::default());
    assert!(!empty.is_idle(Family::V4), "it has a connection");
    empty.forget();
    assert!(empty.is_idle(Family::V4));
    let rules = firewall(kube_proxy::rules(Family::V4, []));
    assert!(!rules.is_idle(Family::V4), "it has rules");
    assert!(rules.is_idle(Family::V6));
}

/// Two frontends, the first of which is open to one network alone.
fn ranged(redirect: Redirect, state: FrontendState, range: &str) -> Ruleset {
    let mut rules = Ruleset::new(Family::V4);
    super::way::install(redirect, &mut rules);
    for service in [SERVICE, "10.96.0.11:80"] {
        let frontend = Frontend {
            listener_port: 14_056,
            state,
            ranged: service == SERVICE,
        };
        super::way::put(redirect, &mut rules, key(service), &frontend);
    }
    let ranges = |it: &str| std::sync::Arc::from([it.parse().unwrap()]);
    let all = [
        (key(SERVICE), ranges(range)),
        (key("[fd00::10]:80"), ranges("fd00::/64")),
    ];
    super::way::guard(redirect, &mut rules, &all.into());
    rules.validate().unwrap();
    rules
}

#[rstest]
#[case::within(CLIENT, SERVICE, "10.244.0.0/24", false)]
#[case::without("10.244.1.9:5000", SERVICE, "10.244.0.0/24", true)]
#[case::everybody("10.244.1.9:5000", SERVICE, "0.0.0.0/0", false)]
#[case::of_an_open_frontend("10.244.1.9:5000", "10.96.0.11:80", "10.244.0.0/24", false)]
fn what_comes_to_a_frontend_from_outside_of_its_ranges_is_dropped_in_every_state(
    #[case] from: &str,
    #[case] to: &str,
    #[case] range: &str,
    #[case] dropped: bool,
    #[values(FrontendState::Arming, FrontendState::Active, FrontendState::Draining)]
    state: FrontendState,
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
    #[values(SYN, ACK)] flags: u8,
) {
    let mut firewall = firewall(ranged(redirect, state, range));
    let mut around = Around {
        listens: vec![at("127.0.0.1:14056")],
        ..Around::default()
    };
    let verdict = firewall.prerouting(&mut packet(from, to, flags), &mut around);
    assert_eq!(verdict == Verdict::Drop, dropped, "{verdict:?}");
}

#[rstest]
fn a_frontend_without_ranges_any_more_costs_nothing(
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let mut rules = ranged(redirect, FrontendState::Active, "10.244.0.0/24");
    let of_sets = frontends::read(Family::V4, &rules.sets);
    let found: Vec<_> = of_sets.iter().map(|(_, it)| it.ranged).collect();
    assert_eq!(found, [true, false]);
    assert!(rules.sets.contains_key("nodeway-ranged-v4"));
    let again = rules.clone();
    let ranges = [(
        key(SERVICE),
        std::sync::Arc::from(["10.244.0.0/24".parse().unwrap()]),
    )];
    super::way::guard(redirect, &mut rules, &ranges.into());
    assert_eq!(rules, again, "the same ranges twice");
    super::way::guard(redirect, &mut rules, &Default::default());
    let text = text::ruleset(&rules) + &text::sets(&rules);
    assert!(
        !text.contains("RANGES") && !text.contains("ranged"),
        "{text}"
    );
}

#[test]
fn a_range_of_everybody_asks_for_no_source() {
    let text = text::ruleset(&ranged(Redirect::Tc, FrontendState::Active, "0.0.0.0/0"));
    assert!(!text.contains(" -s "), "{text}");
    let text = text::ruleset(&ranged(Redirect::Tc, FrontendState::Active, "10.0.0.0/8"));
    assert!(text.contains(" -s 10.0.0.0/8 "), "{text}");
}

/// As kube-proxy writes it with ten decimals, and the kernel rounds it to parts of 2^31.
#[rstest]
#[case(2, 1_073_741_824)]
#[case(3, 715_827_883)]
#[case(4, 536_870_912)]
#[case(5, 429_496_730)]
#[case(6, 357_913_941)]
#[case(15, 143_165_577)]
#[case(36, 59_652_324)]
fn the_first_of_some_endpoints_is_drawn_by_its_share(#[case] endpoints: u16, #[case] share: u32) {
    let endpoints = (1..=endpoints).map(|n| (at(&format!("10.244.0.{n}:8080")), true));
    let port = ServicePort {
        endpoints: endpoints.collect(),
        ..shop()
    };
    let rules = kube_proxy::rules(Family::V4, [&port]);
    let chains = &rules.tables[&Table::Nat];
    let (_, chain) = chains
        .iter()
        .find(|(name, _)| name.starts_with("KUBE-SVC-"))
        .unwrap();
    assert_eq!(
        chain.rules[0].matches,
        [Match::Random { probability: share }]
    );
}

#[rstest]
#[case::by_its_own_address("10.96.0.20:80", true, true)]
#[case::from_outside("192.0.2.20:80", true, false)]
#[case::by_a_node_port("172.18.0.2:30080", false, true)]
fn a_service_needs_not_all_kinds_of_addresses(
    #[case] to: &str,
    #[case] external: bool,
    #[case] node_port: bool,
    #[values(true, false)] cluster: bool,
) {
    let whole = shop();
    if to.starts_with("10.96") && !cluster {
        return;
    }
    let port = ServicePort {
        cluster: if cluster {
            whole.cluster.clone()
        } else {
            Vec::new()
        },
        external: if external {
            whole.external.clone()
        } else {
            Vec::new()
        },
        node_port: node_port.then_some(30_080),
        ..whole
    };
    if port.cluster.is_empty() && port.external.is_empty() {
        return;
    }
    let mut firewall = firewall(kube_proxy::rules(Family::V4, [&port]));
    let mut first = packet("203.0.113.1:5000", to, SYN);
    through(&mut firewall, &mut first, &mut Around::default());
    assert_eq!(first.destination(), at("10.244.0.5:8080"));
}

#[test]
fn rules_of_a_family_have_nothing_of_the_other() {
    let mut port = shop();
    port.external
        .push(("2001:db8::20".parse().unwrap(), "external IP"));
    port.endpoints.push((at("[fd00:244::5]:8080"), true));
    let v4 = text::ruleset(&kube_proxy::rules(Family::V4, [&port]));
    assert!(!v4.contains("fd00") && !v4.contains("2001"), "{v4}");
    let v6 = text::ruleset(&kube_proxy::rules(Family::V6, [&port]));
    assert!(!v6.contains("10.") && !v6.contains("192."), "{v6}");
    assert!(
        v6.contains("fd00:244::5") && v6.contains("2001:db8::20"),
        "{v6}"
    );
}

#[rstest]
#[case::node_port_at_the_primary_address("172.18.0.2:30080", "10.244.0.5:8080", Verdict::Accept)]
#[case::node_port_at_another("127.0.0.1:30080", "127.0.0.1:30080", Verdict::Accept)]
#[case::port_that_no_service_has(
    "10.96.0.20:81",
    "10.96.0.20:81",
    Verdict::Reject(RejectWith::PortUnreachable)
)]
#[case::port_that_one_has("10.96.0.20:80", "10.244.0.5:8080", Verdict::Accept)]
fn in_nftables_mode_node_ports_are_at_one_address_and_cluster_ips_refuse(
    #[case] to: &str,
    #[case] destination: &str,
    #[case] expected: Verdict,
) {
    let own = [at("172.18.0.2:0").ip(), at("127.0.0.1:0").ip()];
    let mut rules = Ruleset::new(Family::V4);
    kube_proxy::install(&mut rules, kube_proxy::Mode::Nftables, &own, [&shop()]);
    let mut firewall = firewall(rules);
    let mut first = packet(CLIENT, to, SYN);
    let verdict = through(&mut firewall, &mut first, &mut Around::default());
    assert_eq!((verdict, first.destination()), (expected, at(destination)));
}

#[test]
fn in_nftables_mode_a_node_without_an_address_has_no_node_ports_and_what_is_invalid_goes_on() {
    let mut rules = Ruleset::new(Family::V4);
    kube_proxy::install(&mut rules, kube_proxy::Mode::Nftables, &[], [&shop()]);
    let mut firewall = firewall(rules);
    let mut around = Around::default();
    let mut first = packet(CLIENT, "172.18.0.2:30080", SYN);
    through(&mut firewall, &mut first, &mut around);
    assert_eq!(first.destination(), at("172.18.0.2:30080"));
    let mut stray = packet("10.244.1.5:8080", CLIENT, SYN | ACK);
    assert_eq!(
        through(&mut firewall, &mut stray, &mut around),
        Verdict::Accept
    );
}

#[rstest]
#[case("none", Ok(kube_proxy::Mode::None), false)]
#[case("iptables", Ok(kube_proxy::Mode::Iptables), true)]
#[case("nftables", Ok(kube_proxy::Mode::Nftables), true)]
#[case("ipvs", Err(kube_proxy::BadMode::Ipvs), false)]
#[case("userspace", Err(kube_proxy::BadMode::Unknown("userspace".to_owned())), false)]
fn a_mode_of_kube_proxys_is_read_by_its_name(
    #[case] name: &str,
    #[case] expected: Result<kube_proxy::Mode, kube_proxy::BadMode>,
    #[case] translates: bool,
) {
    let mode = name.parse::<kube_proxy::Mode>();
    assert_eq!(mode, expected);
    if let Ok(mode) = mode {
        assert_eq!(
            (mode.to_string().as_str(), mode.translates()),
            (name, translates)
        );
    }
}

#[test]
fn without_kube_proxy_nothing_is_installed() {
    let mut rules = Ruleset::new(Family::V4);
    kube_proxy::install(&mut rules, kube_proxy::Mode::None, &[], [&shop()]);
    assert_eq!(rules, Ruleset::new(Family::V4));
}

fn object<T: serde::de::DeserializeOwned>(json: serde_json::Value) -> T {
    serde_json::from_value(json).unwrap()
}

#[test]
fn the_ports_of_a_service_are_what_its_spec_and_slices_say() {
    use serde_json::json;
    let mut spec = json!({
        "clusterIPs": ["10.96.0.20", "fd00::20"],
        "externalIPs": ["192.0.2.21"],
        "type": "LoadBalancer",
        "selector": {"app": "shop"},
        "sessionAffinity": "ClientIP",
        "externalTrafficPolicy": "Local",
        "loadBalancerSourceRanges": ["203.0.113.0/24"],
        "ports": [
            {"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ],
    });
    let service = |spec: &serde_json::Value| {
        object(json!({
            "metadata": {"namespace": "default", "name": "shop"},
            "spec": spec,
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.20"}]}},
        }))
    };
    let slice = object(json!({
        "metadata": {
            "namespace": "default", "name": "shop-1",
            "labels": {"kubernetes.io/service-name": "shop"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [
            {"addresses": ["10.244.0.5"], "nodeName": "node-1", "conditions": {"ready": true}},
            {"addresses": ["10.244.1.5"], "nodeName": "node-2", "conditions": {"ready": true}},
        ],
    }));
    let expected = ServicePort {
        external: vec![
            ("192.0.2.20".parse().unwrap(), "loadbalancer IP"),
            ("192.0.2.21".parse().unwrap(), "external IP"),
        ],
        external_local: true,
        affinity: Some(Duration::from_secs(10_800)),
        source_ranges: vec!["203.0.113.0/24".parse().unwrap()],
        ..shop()
    };
    let of = |spec: &serde_json::Value| ServicePort::of(&service(spec), &[&slice], "node-1");
    assert_eq!(of(&spec), std::slice::from_ref(&expected));

    // Without a name, for a time of its own, and local the other way round.
    spec["ports"] = json!([{"port": 80}]);
    spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 60}});
    spec["externalTrafficPolicy"] = json!("Cluster");
    spec["internalTrafficPolicy"] = json!("Local");
    let found = of(&spec);
    assert_eq!(found[0].name, "default/shop");
    assert_eq!(found[0].affinity, Some(Duration::from_secs(60)));
    assert_eq!(
        (found[0].external_local, found[0].internal_local),
        (false, true)
    );

    // One that has an address of its own alone, and one that has none.
    spec["sessionAffinity"] = json!("None");
    spec["type"] = json!("ClusterIP");
    spec["externalIPs"] = json!([]);
    let metadata = json!({"namespace": "default", "name": "shop"});
    let of = |spec: &serde_json::Value| {
        let service = object(json!({"metadata": metadata, "spec": spec}));
        ServicePort::of(&service, &[&slice], "node-1")
    };
    let found = of(&spec);
    assert_eq!(found[0].affinity, None);
    assert_eq!(found[0].cluster, expected.cluster);
    assert_eq!(found[0].external, []);
    spec["clusterIPs"] = json!(["None"]);
    assert_eq!(of(&spec), []);
}

#[rstest]
#[case::in_one_chain(16, 1)]
#[case::in_a_tree(17, 2)]
#[case::in_a_wide_tree(1_000, 16)]
fn each_listener_is_given_the_packets_of_its_frontends_however_many_there_are(
    #[case] listeners: u16,
    #[case] apart: u16,
) {
    let ports: Vec<u16> = (0..listeners).map(|n| 10_000 + apart * n).collect();
    let mut rules = Ruleset::new(Family::V4);
    super::way::install(Redirect::Iptables, &mut rules);
    for port in &ports {
        let frontend = Frontend {
            listener_port: *port,
            state: FrontendState::Active,
            ranged: false,
        };
        let key = FrontendKey {
            address: at(SERVICE).ip(),
            port: *port,
        };
        super::way::put(Redirect::Iptables, &mut rules, key, &frontend);
    }
    super::way::lead(
        Redirect::Iptables,
        &mut rules,
        &ports.iter().copied().collect(),
    );
    let leading = rules.tables[&Table::Mangle].keys();
    let leading = leading
        .filter(|it| it.starts_with("NODEWAY_TPROXY"))
        .count();
    assert_eq!(leading == 1, listeners <= 16, "{leading} chains");
    let mut firewall = firewall(rules);
    for port in ports {
        let listener = SocketAddr::new([127, 0, 0, 1].into(), port);
        let mut around = Around {
            listens: vec![listener],
            ..Around::default()
        };
        let mut first = packet(CLIENT, &format!("10.96.0.10:{port}"), SYN);
        let verdict = firewall.prerouting(&mut first, &mut around);
        assert_eq!(verdict, Verdict::Assign(listener));
        let jumps = around.matched.iter();
        let jumps = jumps.filter(|it| it.contains("-j NODEWAY_TPROXY")).count();
        assert!(
            jumps <= 3,
            "by the port's own branch alone: {:?}",
            around.matched
        );
    }
}

#[rstest]
fn beside_programs_and_sidecars_no_rule_leads_to_a_listener(
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Sidecar)] redirect: Redirect,
) {
    let mut rules = Ruleset::new(Family::V4);
    super::way::install(redirect, &mut rules);
    let before = rules.clone();
    super::way::lead(redirect, &mut rules, &[14_056].into());
    assert_eq!(rules, before);
}

#[test]
fn kube_proxys_marks_stay_when_ours_move() {
    let marking = Marking::new(0x40, 0xf0, 77, 5).unwrap();
    assert_eq!((marking.value(), marking.mask()), (0x40, 0xf0));
    let rules = kube_proxy::rules(Family::V4, [&shop()]);
    let mut moved = rules.clone();
    moved.remark(&marking);
    assert_eq!(moved, rules);
}

#[test]
fn matches_stand_in_the_order_in_which_text_has_them() {
    let not = false;
    let last = Match::Socket { transparent: true };
    let all = [
        Match::Source {
            not,
            network: "10.0.0.0/8".parse().unwrap(),
        },
        Match::Destination {
            not,
            network: "10.0.0.0/8".parse().unwrap(),
        },
        Match::InInterface {
            not,
            name: "eth0".into(),
        },
        Match::OutInterface {
            not,
            name: "eth0".into(),
        },
        Match::Protocol { not, protocol: 6 },
        last,
    ];
    let reversed = all.iter().rev().cloned();
    assert_eq!(Rule::new(reversed, Target::Accept).matches, all);
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
