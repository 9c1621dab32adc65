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
    luck: u32,
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
        found.then_some(FoundSocket {
            transparent: true,
            wildcard: false,
        })
    }

    fn listens(&self, at: SocketAddr) -> bool {
        self.listens.contains(&at)
    }

    fn source(&self, _: Option<&InterfaceName>, to: IpAddr) -> Option<IpAddr> {
        to.is_ipv4().then(|| NODE.parse().unwrap())
    }

    fn draw(&self, _: &Flow, _: u32) -> u32 {
        self.luck
    }

    fn matched(&mut self, matched: Matched<'_>) {
        let text = text::rule(matched.rule, Family::V4);
        self.matched.push(format!("{}{text}", matched.chain));
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
) {
    let mut rules = Ruleset::new(Family::V4);
    tproxy::install(&mut rules);
    let (service, frontend) = (
        key("10.96.0.10:80"),
        Frontend {
            listener_port: 14_056,
            state,
            ranged: false,
        },
    );
    tproxy::put(&mut rules, service, &frontend);
    // A set tells the port of those alone that are led on.
    let listener_port = match state {
        FrontendState::Draining => 0,
        _ => 14_056,
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
}
