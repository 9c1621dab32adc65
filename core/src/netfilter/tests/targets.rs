//! What a target does to a packet and its connection.

use super::*;

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
    let routing = way::routing(redirect, frontends, &own);
    assert_eq!(routing.rules.is_empty(), !by_mark);
    let route = |address: &str, source| LocalRoute {
        address: address.parse().unwrap(),
        source,
    };
    let all = [route("10.96.0.10", own[0]), route("fd00::10", own[1])];
    let expected = if by_address { all.to_vec() } else { Vec::new() };
    assert_eq!(routing.local, expected, "its own address needs none");
}
