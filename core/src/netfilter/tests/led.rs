//! What rules do with the packets of a frontend, by its state, its ranges and its redirect.

use super::*;

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
    way::remove(&mut rules, service);
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
    way::install(redirect, &mut rules);
    way::announce(&mut rules, key("10.96.0.10:80"));
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
    way::install(redirect, &mut rules);
    let (service, frontend) = (
        key("10.96.0.10:80"),
        Frontend {
            listener_port: 14_056,
            state,
            ranged: false,
        },
    );
    way::put(redirect, &mut rules, service, &frontend);
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
    way::remove(&mut rules, service);
    assert_eq!(frontends::read(Family::V4, &rules.sets), []);
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

/// Two frontends, the first of which is open to one network alone.
fn ranged(redirect: Redirect, state: FrontendState, range: &str) -> Ruleset {
    let mut rules = Ruleset::new(Family::V4);
    way::install(redirect, &mut rules);
    for service in [SERVICE, "10.96.0.11:80"] {
        let frontend = Frontend {
            listener_port: 14_056,
            state,
            ranged: service == SERVICE,
        };
        way::put(redirect, &mut rules, key(service), &frontend);
    }
    let ranges = |it: &str| std::sync::Arc::from([it.parse().unwrap()]);
    let all = [
        (key(SERVICE), ranges(range)),
        (key("[fd00::10]:80"), ranges("fd00::/64")),
    ];
    way::guard(redirect, &mut rules, &all.into());
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
    way::guard(redirect, &mut rules, &ranges.into());
    assert_eq!(rules, again, "the same ranges twice");
    way::guard(redirect, &mut rules, &Default::default());
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
fn beside_programs_and_sidecars_no_rule_leads_to_a_listener(
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Sidecar)] redirect: Redirect,
) {
    let mut rules = Ruleset::new(Family::V4);
    way::install(redirect, &mut rules);
    let before = rules.clone();
    way::lead(redirect, &mut rules, &[14_056].into());
    assert_eq!(rules, before);
}
