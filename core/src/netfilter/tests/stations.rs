//! A packet's way through stations, tables and chains.

use super::*;

#[test]
fn what_belongs_to_nothing_is_not_forwarded() {
    let mut firewall = firewall(kube_proxy::rules(Family::V4, [&shop()]));
    let mut stray = packet("10.244.1.5:8080", CLIENT, SYN | ACK);
    let got = through(&mut firewall, &mut stray, &mut Around::default());
    assert_eq!(got, Verdict::Drop);
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
