//! Which packets a match has, and which it has turned round.

use super::*;

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
