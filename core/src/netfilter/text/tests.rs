//! Text that comes back as it went, and text that is none.

use std::time::Duration;

use nodeway_datapath::Family;
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::netfilter::kube_proxy::{self, ExternalKind, ServicePort};
use crate::netfilter::{
    BuiltIn, ConnectionState, IpSet, Match, Policy, RecentList, RejectWith, Rule, Ruleset,
    SetEntry, Table, Target, sidecar,
};

fn one(line: &str) -> Result<Rule, String> {
    let text = format!("*mangle\n-A X {line}\n");
    let (rules, errors) = parse(&text, Family::V4);
    match errors.first() {
        Some(error) => Err(error.to_string()),
        None => Ok(rules.tables[&Table::Mangle]["X"].rules[0].clone()),
    }
}

#[rstest]
#[case::order("-j ACCEPT -p tcp -s 10.0.0.1", " -s 10.0.0.1/32 -p tcp -j ACCEPT")]
#[case::long_names(
    "--protocol tcp --source 10.0.0.0/8 --jump DROP",
    " -s 10.0.0.0/8 -p tcp -j DROP"
)]
#[case::not(
    "! -d 127.0.0.1/32 -p tcp ! --dport 15008 -j RETURN",
    " ! -d 127.0.0.1/32 -p tcp -m tcp ! --dport 15008 -j RETURN"
)]
#[case::a_range("-p tcp --dport 80:90 -j X", " -p tcp -m tcp --dport 80:90 -j X")]
#[case::set_mark("-j MARK --set-mark 1", " -j MARK --set-xmark 0x1/0xffffffff")]
#[case::or_mark("-j MARK --or-mark 0x4000", " -j MARK --set-xmark 0x4000/0x4000")]
#[case::a_quoted_comment(
    "-m comment --comment \"it's \\\"so\\\"\" -j X",
    " -m comment --comment \"it\\'s \\\"so\\\"\" -j X"
)]
#[case::old_states("-m state --state NEW -j X", " -m conntrack --ctstate NEW -j X")]
#[case::states_in_the_kernels_order(
    "-m conntrack --ctstate DNAT,SNAT,UNTRACKED,ESTABLISHED,RELATED,NEW,INVALID -j X",
    " -m conntrack --ctstate INVALID,NEW,RELATED,ESTABLISHED,UNTRACKED,SNAT,DNAT -j X"
)]
#[case::syn(
    "-p tcp ! --syn -j X",
    " -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j X"
)]
#[case::flags(
    "-p tcp --tcp-flags ALL NONE",
    " -p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE"
)]
#[case::a_flag_twice(
    "-p tcp --tcp-flags SYN,ACK,SYN SYN",
    " -p tcp -m tcp --tcp-flags SYN,ACK SYN"
)]
#[case::to_the_same_port(
    "-j DNAT --to-destination 10.0.0.1",
    " -j DNAT --to-destination 10.0.0.1"
)]
#[case::notrack("-j NOTRACK", " -j CT --notrack")]
#[case::only_counted("-p tcp", " -p tcp")]
fn a_rule_is_read_however_it_is_written(#[case] written: &str, #[case] printed: &str) {
    assert_eq!(rule(&one(written).unwrap(), Family::V4), printed);
}

#[rstest]
#[case::a_module("-m time --timestart 8:00 -j X", "line 2: not simulated: -m time")]
#[case::a_target("-j LOG", "line 2: not simulated: -j LOG")]
#[case::a_targets_option("-j CT --zone 1", "line 2: not simulated: -j CT --zone")]
#[case::some_bits_of_a_mark(
    "-j CONNMARK --save-mark --nfmask 0xff",
    "line 2: not simulated: --nfmask 0xff"
)]
#[case::a_connections_mark(
    "-j CONNMARK --set-mark 1",
    "line 2: not simulated: -j CONNMARK --set-mark"
)]
#[case::an_entry(
    "-j SET --add-set x dst,dst",
    "line 2: not simulated: -j SET --add-set"
)]
#[case::a_map_by_source(
    "-j SET --map-set x src,src --map-mark",
    "line 2: not simulated: --map-set src,src --map-mark"
)]
#[case::a_map_to_a_priority(
    "-j SET --map-set x dst,dst --map-prio",
    "line 2: not simulated: --map-set dst,dst --map-prio"
)]
#[case::a_range_of_targets(
    "-j DNAT --to-destination 10.0.0.1-10.0.0.9",
    "line 2: not simulated: --to-destination 10.0.0.1-10.0.0.9"
)]
#[case::a_protocol("-p sctp", "line 2: not simulated: -p sctp")]
#[case::an_option("-p tcp --tcp-option 5 -j X", "line 2: not simulated: --tcp-option")]
#[case::a_flag(
    "-p tcp --tcp-flags SYN,ECE SYN",
    "line 2: `SYN,ECE` is no value of `--tcp-flags`"
)]
#[case::an_address("-d example.com -j X", "line 2: `example.com` is no value of `-d`")]
#[case::a_port("-p tcp --dport http -j X", "line 2: `http` is no value of `--dport`")]
#[case::an_open_quote(
    "-m comment --comment \"open",
    "line 2: a quotation mark is never closed"
)]
#[case::no_chains_name(
    "-j 'a b'",
    "line 2: `a b` is no name of a target: at most 28 bytes, no blanks, no `-` or `!` in front"
)]
#[case::an_option_for_a_device(
    "-i -o -j X",
    "line 2: `-o` is no name of a device: at most 15 bytes, no blanks, no `-` or `!` in front"
)]
#[case::an_end("-j", "line 2: the line ends where a target should stand")]
#[case::a_share(
    "-m statistic --mode random --probability 2",
    "line 2: 2 is no probability"
)]
fn a_line_outside_the_closed_set_says_which_option(#[case] line: &str, #[case] want: &str) {
    assert_eq!(one(line).unwrap_err(), want);
}

#[rstest]
#[case::a_type("create x hash:ip", "not simulated: a set of type hash:ip")]
#[case::a_command("flush x", "not simulated: command `flush`")]
#[case::no_set("add y 10.0.0.1,tcp:80", "the set `y` is not created before")]
#[case::a_long_name(
    "create a23456789-123456789-123456789-12 hash:ip,port",
    "`a23456789-123456789-123456789-12` is no name of a set: at most 31 bytes, no blanks, no `-` or `!` in front"
)]
#[case::no_mark(
    "create x hash:ip,port\nadd x 10.0.0.1,tcp:80 skbmark so",
    "`so` is no value of `skbmark`"
)]
fn a_set_outside_the_closed_set_says_what_it_is(#[case] text: &str, #[case] want: &str) {
    let errors = parse_sets(text, &mut Ruleset::new(Family::V4));
    let told = errors.first().map(ToString::to_string).unwrap();
    assert!(told.contains(want), "{told}");
    assert_eq!(errors.first().unwrap().line, text.lines().count());
}

#[test]
fn sets_come_back_as_they_went() {
    let mut wanted = Ruleset::new(Family::V4);
    let mut marks = IpSet::new(true);
    let at = |text: &str| text.parse().unwrap();
    marks.insert(
        at("10.0.0.1:80"),
        SetEntry {
            mark: Some(0x36e8_0200),
        },
    );
    let mut plain = IpSet::new(false);
    plain.insert(at("10.0.0.2:81"), SetEntry::default());
    wanted.sets = [("marks".into(), marks), ("plain".into(), plain)].into();
    let mut back = Ruleset::new(Family::V4);
    let text = format!("# of ipset\n\n{}", sets(&wanted));
    assert_eq!(parse_sets(&text, &mut back), []);
    assert_eq!(back, wanted);
}

#[test]
fn what_says_nothing_is_left_out_of_a_comparison_and_all_else_stays() {
    let mut rules = Ruleset::new(Family::V4);
    rules.built_in(Table::Raw, BuiltIn::Output, []);
    rules.built_in(Table::Filter, BuiltIn::Input, []);
    rules.chain_mut(Table::Filter, "INPUT").policy = Some(Policy::Drop);
    rules.built_in(Table::Filter, BuiltIn::Forward, []);
    rules.built_in(
        Table::Filter,
        BuiltIn::Output,
        [Rule::new([], Target::Accept)],
    );
    rules.chain_mut(Table::Filter, "OWN");
    let normal = rules.normal();
    let tables: Vec<_> = normal.tables.keys().copied().collect();
    assert_eq!(tables, [Table::Filter]);
    let chains = normal.tables[&Table::Filter].iter();
    let chains: Vec<_> = chains.map(|(name, it)| (&**name, it.policy)).collect();
    assert_eq!(
        chains,
        [
            ("INPUT", Some(Policy::Drop)),
            ("OUTPUT", None),
            ("OWN", None)
        ]
    );
}

#[test]
fn every_bad_line_is_told_and_the_others_are_read() {
    let text = "# of iptables\n\n*security\nCOMMIT\n*nat\n:X - [0:0]\n-A X -j LOG\n-A X -j ACCEPT\n-D X 1\nCOMMIT\n";
    let (rules, errors) = parse(text, Family::V4);
    let told: Vec<_> = errors.iter().map(|error| error.line).collect();
    assert_eq!(told, [3, 7, 9]);
    assert_eq!(rules.tables[&Table::Nat]["X"].rules.len(), 1);
}

#[test]
fn the_rules_of_kube_proxy_come_back_as_they_went() {
    let port = ServicePort {
        name: "default/shop:http".to_owned(),
        cluster: vec!["10.96.0.20".parse().unwrap()],
        external: vec![("192.0.2.20".parse().unwrap(), ExternalKind::ExternalIp)],
        port: 80,
        node_port: Some(30_080),
        endpoints: (1..8)
            .map(|n| (format!("10.244.0.{n}:80").parse().unwrap(), n % 2 == 0))
            .collect(),
        external_local: true,
        internal_local: false,
        affinity: Some(Duration::from_secs(60)),
        source_ranges: vec!["203.0.113.0/24".parse().unwrap()],
    };
    let rules = kube_proxy::rules(Family::V4, [&port]);
    let (back, errors) = parse(&ruleset(&rules), Family::V4);
    assert_eq!(errors, []);
    assert_eq!(back.normal(), rules.normal());
    let rules = sidecar::rules(Family::V6, &[80, 81]);
    let (back, _) = parse(&ruleset(&rules), Family::V6);
    assert_eq!(back.normal(), rules.normal());
}

fn any_match() -> impl Strategy<Value = Match> {
    let network = (any::<[u8; 4]>(), 0_u8..=32)
        .prop_map(|(address, length)| ipnet::IpNet::new(address.into(), length).unwrap().trunc());
    let name = "[a-z]{1,8}[+]?";
    prop_oneof![
        (any::<bool>(), network.clone()).prop_map(|(not, network)| Match::Source { not, network }),
        (any::<bool>(), network).prop_map(|(not, network)| Match::Destination { not, network }),
        (any::<bool>(), name).prop_map(|(not, name)| Match::InInterface {
            not,
            name: name.into()
        }),
        (any::<bool>(), any::<u16>(), any::<u16>()).prop_map(|(not, a, b)| {
            Match::DestinationPort {
                not,
                ports: a.min(b)..=a.max(b),
            }
        }),
        (any::<bool>(), any::<u32>(), any::<u32>()).prop_map(|(not, value, mask)| Match::Mark {
            not,
            value,
            mask
        }),
        (any::<bool>(), any::<u32>()).prop_map(|(not, uid)| Match::UidOwner { not, uid }),
        any::<bool>().prop_map(|transparent| Match::Socket { transparent }),
        (any::<bool>(), "[a-z]{1,9}", any::<bool>()).prop_map(|(not, set, source)| Match::Set {
            not,
            set: set.into(),
            source
        }),
        any::<bool>().prop_map(|not| Match::DestinationLocal { not }),
        any::<bool>().prop_map(|not| Match::SourceLocal { not }),
        (any::<bool>(), name).prop_map(|(not, name)| Match::OutInterface {
            not,
            name: name.into()
        }),
        (any::<bool>(), any::<u16>(), any::<u16>()).prop_map(|(not, a, b)| Match::SourcePort {
            not,
            ports: a.min(b)..=a.max(b),
        }),
        (any::<bool>(), 0_u8..64, 0_u8..64).prop_map(|(not, mask, set)| Match::TcpFlags {
            not,
            mask,
            set
        }),
        (any::<bool>(), any::<u32>(), any::<u32>())
            .prop_map(|(not, value, mask)| Match::ConnMark { not, value, mask }),
        (any::<bool>(), any::<u32>()).prop_map(|(not, gid)| Match::GidOwner { not, gid }),
        (
            any::<bool>(),
            proptest::sample::subsequence(STATES.to_vec(), 1..=STATES.len())
        )
            .prop_map(|(not, states)| Match::ConnectionState { not, states }),
        ("[A-Z]{1,9}", 1_u64..9_999, any::<bool>()).prop_map(|(name, seconds, reap)| {
            Match::Recent(RecentList::Check {
                name: name.into(),
                within: Duration::from_secs(seconds),
                reap,
            })
        }),
        "[A-Z]{1,9}".prop_map(|name| Match::Recent(RecentList::Set { name: name.into() })),
        // As many decimals as the text has.
        (1_u32..1000).prop_map(|parts| Match::Random {
            probability: (1_u32 << 31) / 1000 * parts
        }),
    ]
}

const STATES: [ConnectionState; 7] = [
    ConnectionState::New,
    ConnectionState::Established,
    ConnectionState::Related,
    ConnectionState::Invalid,
    ConnectionState::Untracked,
    ConnectionState::Snat,
    ConnectionState::Dnat,
];

fn any_target() -> impl Strategy<Value = Target> {
    let to = (any::<[u8; 4]>(), 1_u16..).prop_map(std::net::SocketAddr::from);
    prop_oneof![
        Just(Target::Accept),
        Just(Target::Drop),
        Just(Target::Return),
        Just(Target::NoTrack),
        Just(Target::SaveMark),
        Just(Target::RestoreMark),
        Just(Target::Reject(RejectWith::PortUnreachable)),
        "[A-Z]{1,3}-[A-Z0-9]{1,9}".prop_map(|name| Target::Goto(name.into())),
        "[a-z]{1,9}".prop_map(|set| Target::MapMark(set.into())),
        any::<[u8; 4]>().prop_map(|from| Target::Snat { from: from.into() }),
        Just(Target::Reject(RejectWith::TcpReset)),
        "[A-Z]{1,3}-[A-Z0-9]{1,9}".prop_map(|name| Target::Jump(name.into())),
        (any::<u32>(), any::<u32>()).prop_map(|(value, mask)| Target::Mark { value, mask }),
        (to.clone(), any::<u32>(), any::<u32>()).prop_map(|(to, value, mask)| Target::Tproxy {
            to,
            value,
            mask
        }),
        to.prop_map(|to| Target::Dnat { to }),
        any::<u16>().prop_map(|port| Target::Redirect { port }),
        any::<bool>().prop_map(|random_fully| Target::Masquerade { random_fully }),
    ]
}

proptest! {
    #[test]
    fn any_rules_come_back_as_they_went(
        rules in proptest::collection::vec(
            (proptest::collection::vec(any_match(), 0..4), any_target(), proptest::option::of("[ -~]{1,20}")),
            0..8,
        ),
    ) {
        let mut wanted = Ruleset::new(Family::V4);
        for (matches, target, comment) in rules {
            let rule = Rule::new(matches, target);
            let rule = match &comment {
                Some(comment) => rule.comment(comment),
                None => rule,
            };
            wanted.append(Table::Mangle, BuiltIn::Output.name(), [rule]);
        }
        let text = ruleset(&wanted);
        let (back, errors) = parse(&text, Family::V4);
        prop_assert_eq!(errors, []);
        prop_assert_eq!(back.normal(), wanted.normal(), "{}", text);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[ -~\\n]{0,200}") {
        let mut rules = parse(&format!("*nat\n{text}"), Family::V4).0;
        let _ = parse_sets(&text, &mut rules);
        let _ = parse(&format!("*filter\n-A X {text}"), Family::V6);
    }
}
