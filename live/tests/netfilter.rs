//! Rules in a real kernel: what they lead, what they leave alone, and what is left of them. Needs
//! root: `sudo -E cargo nextest run -p nodeway-live`.

use crate::bed::{self, Bed, Listener, POD, behind, echo, echo_much, service};
use nodeway_core::datapath::{Frontend, FrontendState};
use nodeway_core::frontend::FrontendKey;
use nodeway_core::netfilter::Marking;
use nodeway_core::redirect::Redirect;
use nodeway_live::netfilter::{Netfilter, NetfilterError, Owner, Wanted};
use rstest::rstest;

/// A service's addresses.
const VIP: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
const LISTENER: u16 = 15_080;

fn frontends(ports: &[u16]) -> Vec<(FrontendKey, Frontend)> {
    frontends_in(FrontendState::Active, ports)
}

fn frontends_in(state: FrontendState, ports: &[u16]) -> Vec<(FrontendKey, Frontend)> {
    let frontend = Frontend {
        listener_port: LISTENER,
        state,
        ranged: false,
    };
    let key = |address: &str, port| FrontendKey {
        address: address.parse().unwrap(),
        port,
    };
    let of = |port: &u16| VIP.map(|address| (key(address, *port), frontend));
    ports.iter().flat_map(of).collect()
}

fn tproxy(ports: &[u16]) -> Wanted {
    Wanted::tproxy(&frontends(ports), &Marking::default())
}

fn tproxy_in(state: FrontendState) -> Wanted {
    Wanted::tproxy(&frontends_in(state, &[80]), &Marking::default())
}

fn nodeway() -> Netfilter {
    Netfilter::new(Owner::Nodeway)
}

/// What others may have there: each table, a chain of their own, a set, a rule, a route.
const FOREIGN: &str = "
    ipset create theirs hash:ip; ipset add theirs 192.0.2.1
    for t in iptables ip6tables; do
      $t -t mangle -A PREROUTING -m comment --comment 'a -j NODEWAY_PRE of theirs' -p udp -j DROP
      $t -t nat -N THEIRS; $t -t nat -A PREROUTING -p tcp --dport 4444 -j THEIRS
      $t -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
      $t -A INPUT -p tcp -j DROP
    done
    iptables -A INPUT -m set --match-set theirs src -j ACCEPT
    ip rule add fwmark 0x10000/0x10000 lookup 100 pref 50; ip route add blackhole default table 100
    nft add table inet theirs; nft add chain inet theirs c '{ type filter hook input priority 0; }'
";

#[rstest]
fn a_pods_connection_comes_to_the_listener_with_both_addresses_as_they_were(
    #[values(0, 1)] family: usize,
) {
    let bed = Bed::new(&format!("lead{family}"));
    let _listener = Listener::transparent(&bed.node, LISTENER);
    nodeway().apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    let said = bed.pod.ask(VIP[family], 80).unwrap();
    assert_eq!(said, format!("{} 80 {}", VIP[family], POD[family]));
    bed.pod.ask(VIP[family], 81).unwrap_err();
}

#[rstest]
fn a_client_on_the_node_itself_comes_there_too(#[values(0, 1)] family: usize) {
    let bed = Bed::new(&format!("own{family}"));
    let _listener = Listener::transparent(&bed.node, LISTENER);
    // The service's network must have a way out, or a client has no source address.
    bed.node.run("ip route add 10.96.0.0/16 dev to-pod");
    bed.node.run("ip -6 route add fd00:96::/64 dev to-pod");
    nodeway().apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    let said = bed.node.ask(VIP[family], 80).unwrap();
    assert_eq!(said, format!("{} 80 {}", VIP[family], bed::NODE[family]));
}

/// Java connects so by default: the socket is an IPv6 one, its packets are not.
#[test]
fn who_names_an_ipv4_service_by_its_ipv6_form_comes_there_too() {
    let bed = Bed::new("mapped");
    let _listener = Listener::transparent(&bed.node, LISTENER);
    bed.node.run("ip route add 10.96.0.0/16 dev to-pod");
    nodeway().apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    let mapped = format!("::ffff:{}", VIP[0]);
    for (from, own) in [(&bed.pod, POD[0]), (&bed.node, bed::NODE[0])] {
        let said = from.ask(&mapped, 80).unwrap();
        assert_eq!(said, format!("{} 80 {own}", VIP[0]));
    }
}

#[rstest]
#[case::alone("")]
#[case::beside_others(FOREIGN)]
fn nothing_is_left_after_remove(#[case] foreign: &str) {
    let bed = Bed::new(if foreign.is_empty() {
        "alone"
    } else {
        "beside"
    });
    bed.node.shell(foreign);
    let before = bed.node.state();
    let mut rules = nodeway();
    rules.apply(&bed.node.netns, &tproxy(&[80, 81])).unwrap();
    assert_ne!(bed.node.state(), before);
    rules.remove(&bed.node.netns).unwrap();
    bed.node.is_as(&before);
    rules.remove(&bed.node.netns).unwrap();
    bed.node.is_as(&before);
    // In a table of others an empty chain can stay, which says nothing; without others, nothing.
    assert!(!foreign.is_empty() || bed.node.nftables().is_empty());
    assert!(!bed.node.nftables().contains("NODEWAY"));
}

#[test]
fn beside_rules_of_others_ours_come_first() {
    let bed = Bed::new("first");
    bed.node.shell(FOREIGN);
    let _listener = Listener::transparent(&bed.node, LISTENER);
    nodeway().apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    // Theirs drops every connection that it does not know.
    bed.pod.ask(VIP[0], 80).unwrap();
}

#[test]
fn twice_is_once_for_the_same_and_for_another_process() {
    let bed = Bed::new("twice");
    let mut rules = nodeway();
    rules.apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    let once = bed.node.state();
    rules.apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    bed.node.is_as(&once);
    nodeway().apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    bed.node.is_as(&once);
}

#[test]
fn what_a_killed_process_left_is_taken_away_by_the_next() {
    let bed = Bed::new("killed");
    let before = bed.node.state();
    nodeway().apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    nodeway().remove(&bed.node.netns).unwrap();
    bed.node.is_as(&before);
}

#[test]
fn what_a_killed_process_left_half_is_made_whole_by_the_next() {
    let bed = Bed::new("half");
    let _listener = Listener::transparent(&bed.node, LISTENER);
    nodeway().apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    let whole = bed.node.state();
    bed.node.shell(
        "iptables -t mangle -D PREROUTING -j NODEWAY_PRE; iptables -t mangle -F NODEWAY_TPROXY
         ipset flush nodeway-v4; ip rule del pref 9",
    );
    bed.pod.ask(VIP[0], 80).unwrap_err();
    nodeway().apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    bed.node.is_as(&whole);
    bed.pod.ask(VIP[0], 80).unwrap();
}

/// As an agent that is started again with another redirect finds them. A table that came with us
/// stays until all of ours goes.
#[rstest]
fn another_redirect_takes_the_place_of_one(
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] one: Redirect,
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] other: Redirect,
) {
    let bed = Bed::new("other");
    let before = bed.node.state();
    let own: Vec<_> = bed::NODE.iter().map(|it| it.parse().unwrap()).collect();
    let apply = |redirect| {
        let wanted = Wanted::node(redirect, &frontends(&[80]), &own);
        nodeway().apply(&bed.node.netns, &wanted).unwrap();
        bed.node.shell(
            "for it in iptables-save ip6tables-save; do $it | grep NODEWAY_ | grep -v MADE || true; done
             ipset save | sed 's/ initval [^ ]*//'; ip rule; ip route show table all proto 78",
        )
    };
    let alone = apply(other);
    apply(one);
    assert_eq!(apply(other), alone);
    if other == Redirect::Iptables {
        let _listener = Listener::transparent(&bed.node, LISTENER);
        bed.pod.ask(VIP[0], 80).unwrap();
    }
    nodeway().remove(&bed.node.netns).unwrap();
    bed.node.is_as(&before);
}

#[test]
fn frontends_come_and_go_one_by_one() {
    let bed = Bed::new("change");
    let _listener = Listener::transparent(&bed.node, LISTENER);
    let mut rules = nodeway();
    rules.apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    let one = bed.node.state();
    rules.apply(&bed.node.netns, &tproxy(&[80, 81])).unwrap();
    bed.pod.ask(VIP[0], 81).unwrap();
    rules.apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    bed.node.is_as(&one);
    bed.pod.ask(VIP[0], 80).unwrap();
    bed.pod.ask(VIP[0], 81).unwrap_err();
}

#[test]
fn rules_that_somebody_flushed_are_written_again_by_the_next_change() {
    let bed = Bed::new("flushed");
    let _listener = Listener::transparent(&bed.node, LISTENER);
    let mut rules = nodeway();
    rules.apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    bed.node.shell("nft flush ruleset; ipset destroy");
    rules.apply(&bed.node.netns, &tproxy(&[80, 81])).unwrap();
    bed.pod.ask(VIP[0], 81).unwrap();
    bed.pod.ask(VIP[0], 80).unwrap();
}

#[test]
fn a_marking_of_ones_own_works_as_well() {
    let bed = Bed::new("mark");
    let _listener = Listener::transparent(&bed.node, LISTENER);
    let marking = Marking::new(0x40, 0xf0, 77, 5).unwrap();
    bed.node
        .run("ip rule add fwmark 0x200/0xf00 lookup 100 pref 9");
    let wanted = Wanted::tproxy(&frontends(&[80]), &marking);
    nodeway().apply(&bed.node.netns, &wanted).unwrap();
    for (vip, pod) in VIP.iter().zip(POD) {
        assert_eq!(bed.pod.ask(vip, 80).unwrap(), format!("{vip} 80 {pod}"));
    }
}

#[rstest]
#[case::our_place(
    "ip rule add from 192.0.2.0/24 lookup 100 pref 9",
    "stands where our own would"
)]
#[case::our_mark(
    "ip -6 rule add fwmark 0x200/0xf00 lookup 100 pref 50",
    "takes packets with our mark"
)]
#[case::our_table("ip route add blackhole 192.0.2.0/24 table 2004", "is in use")]
#[case::their_rule_marks_as_we_do(
    "ip6tables -t mangle -A PREROUTING -p udp -j MARK --set-xmark 0x200/0xf00",
    "gives packets our mark"
)]
fn what_somebody_else_has_already_is_refused_and_named(#[case] foreign: &str, #[case] why: &str) {
    let name: String = why
        .chars()
        .filter(char::is_ascii_lowercase)
        .take(8)
        .collect();
    let bed = Bed::new(&name);
    bed.node.run(foreign);
    let before = bed.node.state();
    let error = nodeway()
        .apply(&bed.node.netns, &tproxy(&[80]))
        .unwrap_err();
    assert!(matches!(error, NetfilterError::Clash { .. }), "{error}");
    assert!(error.to_string().contains(why), "{error}");
    bed.node.is_as(&before);
}

#[test]
fn a_change_that_fails_half_way_leaves_what_was_there() {
    let bed = Bed::new("fails");
    // Rules and sets of IPv4 go in before this is met.
    bed.node.run("ipset create nodeway-v6 hash:ip family inet6");
    let before = bed.node.state();
    let error = nodeway()
        .apply(&bed.node.netns, &tproxy(&[80]))
        .unwrap_err();
    assert!(
        error.to_string().contains("create nodeway-v6 hash:ip,port"),
        "{error}"
    );
    bed.node.is_as(&before);
}

#[rstest]
#[case::before(&[Owner::Nodeway, Owner::KubeProxy])]
#[case::after(&[Owner::KubeProxy, Owner::Nodeway])]
fn two_owners_go_in_any_order(#[case] order: &[Owner; 2]) {
    let bed = Bed::new(&format!("two{:?}", order[0]).to_lowercase());
    let before = bed.node.state();
    let mut ours = nodeway();
    ours.apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    let mut theirs = Netfilter::new(Owner::KubeProxy);
    theirs
        .apply(&bed.node.netns, &Wanted::kube_proxy(&[]))
        .unwrap();
    Netfilter::new(order[0]).remove(&bed.node.netns).unwrap();
    assert_ne!(bed.node.state(), before);
    Netfilter::new(order[1]).remove(&bed.node.netns).unwrap();
    bed.node.is_as(&before);
}

#[test]
fn the_addresses_of_frontends_are_local_routes_for_sk_lookup() {
    let bed = Bed::new("local");
    let before = bed.node.state();
    let own: Vec<_> = bed::NODE.iter().map(|it| it.parse().unwrap()).collect();
    let mut rules = nodeway();
    let wanted = Wanted::node(Redirect::SkLookup, &frontends(&[80, 81]), &own);
    rules.apply(&bed.node.netns, &wanted).unwrap();
    let routes = bed.node.run("ip route show table local proto 78");
    assert_eq!(routes, "local 10.96.0.10 dev lo scope host src 10.0.0.1 \n");
    rules
        .apply(
            &bed.node.netns,
            &Wanted::node(Redirect::SkLookup, &[], &own),
        )
        .unwrap();
    assert_eq!(bed.node.run("ip route show table local proto 78"), "");
    rules.remove(&bed.node.netns).unwrap();
    bed.node.is_as(&before);
}

/// A pod that nobody redirects could still get an answer, if somebody else listened there.
#[rstest]
#[case("net.ipv4.conf.all.src_valid_mark", false)]
#[case("net.ipv4.conf.to-pod.src_valid_mark", false)]
#[case("net.ipv4.tcp_fwmark_accept", false)]
#[case("net.ipv4.conf.all.rp_filter", true)]
#[case("net.ipv4.conf.to-pod.rp_filter", true)]
#[case("net.ipv4.ip_early_demux", true)]
#[case("net.ipv4.tcp_early_demux", true)]
#[case("net.ipv4.fwmark_reflect", true)]
#[case("net.ipv4.ip_forward", true)]
#[case("net.ipv4.ip_nonlocal_bind", true)]
#[case("net.ipv4.conf.all.route_localnet", true)]
#[case("net.ipv4.conf.all.accept_local", true)]
fn every_setting_works_or_is_refused_with_the_reason(
    #[case] name: &str,
    #[case] works: bool,
    #[values(0, 1)] value: u8,
) {
    let tag: String = name.rsplit('.').take(2).collect::<String>();
    let bed = Bed::new(&format!("{}{value}", tag.replace(['_', '-'], "")));
    bed.node.set(name, value);
    let _listener = Listener::transparent(&bed.node, LISTENER);
    let applied = nodeway().apply(&bed.node.netns, &tproxy(&[80]));
    if works || value == 0 {
        applied.unwrap();
        bed.pod.ask(VIP[0], 80).unwrap();
    } else {
        let error = applied.unwrap_err();
        assert!(matches!(error, NetfilterError::Settings { .. }), "{error}");
        let fix = format!("{name} is 1: ");
        assert!(error.to_string().contains(&fix), "{error}");
        // And rightly so: set after the rules stand, it stops them.
        bed.node.set(name, 0);
        nodeway().apply(&bed.node.netns, &tproxy(&[80])).unwrap();
        bed.pod.ask(VIP[0], 80).unwrap();
        bed.node.set(name, 1);
        bed.pod.ask(VIP[0], 80).unwrap_err();
    }
}

#[rstest]
#[case::input(
    "nft add table inet wall; nft add chain inet wall in '{ type filter hook input priority 0; policy drop; }'; nft add rule inet wall in ct state established,related accept"
)]
#[case::output(
    "nft add table ip wall; nft add chain ip wall out '{ type filter hook output priority 0; }'; nft add rule ip wall out drop"
)]
fn a_filter_that_would_stop_it_is_named_and_its_remedy_helps(#[case] wall: &str) {
    let bed = Bed::new(if wall.contains("inet") {
        "wallin"
    } else {
        "wallout"
    });
    let _listener = Listener::transparent(&bed.node, LISTENER);
    let mut rules = nodeway();
    let wanted = tproxy(&[80]);
    rules.apply(&bed.node.netns, &wanted).unwrap();
    assert_eq!(rules.obstacles(&bed.node.netns, &wanted).unwrap(), []);
    bed.node.shell(wall);
    bed.pod.ask(VIP[0], 80).unwrap_err();
    let obstacles = rules.obstacles(&bed.node.netns, &wanted).unwrap();
    assert_eq!(obstacles.len(), 1, "{obstacles:?}");
    let (_, command) = obstacles[0].fix.split_once(": ").unwrap();
    bed.node.shell(command);
    bed.pod.ask(VIP[0], 80).unwrap();
    assert_eq!(rules.obstacles(&bed.node.netns, &wanted).unwrap(), []);
}

#[rstest]
fn a_sidecars_rules_lead_all_but_what_the_proxy_sends(#[values(0, 1)] family: usize) {
    let bed = Bed::new(&format!("side{family}"));
    let before = bed.pod.state();
    let _app = Listener::anywhere(&bed.node, 80);
    let _outbound = Listener::anywhere(&bed.pod, 15_001);
    let _inbound = Listener::anywhere(&bed.pod, 15_006);
    let mut rules = nodeway();
    rules
        .apply(&bed.pod.netns, &Wanted::sidecar(&[9000]))
        .unwrap();
    let own_port = |said: String| said.split(' ').nth(1).unwrap().to_owned();
    let node = bed::NODE[family];
    assert_eq!(own_port(bed.pod.ask(node, 80).unwrap()), "15001");
    assert_eq!(own_port(bed.node.ask(POD[family], 8080).unwrap()), "15006");
    // Excluded: there is nobody at that port of the pod.
    bed.node.ask(POD[family], 9000).unwrap_err();
    let as_proxy = format!(
        "PATH=/usr/bin:/bin setpriv --reuid=1337 --clear-groups python3 -c \"
import socket
s = socket.create_connection(('{node}', 80), 3)
s.shutdown(socket.SHUT_WR)
print(s.recv(64).decode())\""
    );
    assert_eq!(own_port(bed.pod.shell(&as_proxy)), "80");
    rules.remove(&bed.pod.netns).unwrap();
    assert_eq!(own_port(bed.pod.ask(node, 80).unwrap()), "80");
    bed.pod.is_as(&before);
}

#[rstest]
fn connections_go_on_when_a_frontend_is_changed_or_drained(
    #[values(0, 1)] family: usize,
    #[values(1, 2)] syncookies: u8,
) {
    let bed = Bed::new(&format!("drain{family}{syncookies}"));
    bed.node.set("net.ipv4.tcp_syncookies", syncookies);
    let _listener = Listener::transparent(&bed.node, LISTENER);
    let mut rules = nodeway();
    rules.apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    let mut stream = bed.pod.stay(VIP[family], 80).unwrap();
    rules.apply(&bed.node.netns, &tproxy(&[80, 81])).unwrap();
    echo(&mut stream).unwrap();
    let draining = tproxy_in(FrontendState::Draining);
    rules.apply(&bed.node.netns, &draining).unwrap();
    echo(&mut stream).unwrap();
    bed.pod.ask(VIP[family], 80).unwrap_err();
    echo(&mut stream).unwrap();
}

#[rstest]
fn a_redirect_that_is_switched_on_leaves_older_connections_to_kube_proxy(
    #[values(0, 1)] family: usize,
    #[values(1, 2)] syncookies: u8,
) {
    let bed = Bed::new(&format!("arm{family}{syncookies}"));
    bed.node.set("net.ipv4.tcp_syncookies", syncookies);
    bed.node.run("ip addr add 10.244.9.9/32 dev lo");
    bed.node.run("ip addr add fd00:244::9/128 dev lo");
    let _backend = Listener::anywhere(&bed.node, 8080);
    let _listener = Listener::transparent(&bed.node, LISTENER);
    let mut kube = Netfilter::new(Owner::KubeProxy);
    kube.apply(&bed.node.netns, &Wanted::kube_proxy(&[service(VIP)]))
        .unwrap();
    let own_port = || {
        let said = bed.pod.ask(VIP[family], 80).unwrap();
        said.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(own_port(), "8080");
    let mut older = bed.pod.stay(VIP[family], 80).unwrap();

    let mut rules = nodeway();
    rules
        .apply(&bed.node.netns, &tproxy_in(FrontendState::Arming))
        .unwrap();
    echo(&mut older).unwrap();
    assert_eq!(
        own_port(),
        "80",
        "new ones come to the listener, which sees the service's port"
    );
    let mut newer = bed.pod.stay(VIP[family], 80).unwrap();
    echo(&mut older).unwrap();

    rules
        .apply(&bed.node.netns, &tproxy_in(FrontendState::Active))
        .unwrap();
    echo(&mut newer).unwrap();
    rules
        .apply(&bed.node.netns, &tproxy_in(FrontendState::Draining))
        .unwrap();
    echo(&mut newer).unwrap();
    assert_eq!(own_port(), "8080");
    rules.remove(&bed.node.netns).unwrap();
    assert_eq!(own_port(), "8080");
}

#[test]
fn without_a_listener_a_frontend_answers_nobody_and_kube_proxy_does_not_step_in() {
    let bed = Bed::new("nobody");
    bed.node.run("ip addr add 10.244.9.9/32 dev lo");
    let _backend = Listener::anywhere(&bed.node, 8080);
    let mut kube = Netfilter::new(Owner::KubeProxy);
    kube.apply(&bed.node.netns, &Wanted::kube_proxy(&[service(VIP)]))
        .unwrap();
    bed.pod.ask(VIP[0], 80).unwrap();
    nodeway().apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    let error = bed.pod.ask(VIP[0], 80).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
}

#[rstest]
fn a_small_mtu_on_the_way_is_told_to_the_socket_behind_a_frontend(#[values(0, 1)] family: usize) {
    let name = format!("mtu{family}");
    let bed = Bed::new(&name);
    let far = behind(&bed, &name);
    let _listener = Listener::transparent(&bed.node, LISTENER);
    nodeway().apply(&bed.node.netns, &tproxy(&[80])).unwrap();
    let stream = far.stay(VIP[family], 80).unwrap();
    echo_much(stream).unwrap();
}
