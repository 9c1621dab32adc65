//! The eBPF ways through changes and settings: what stands goes on, what is new is led, and no
//! TIME_WAIT traps anybody. Needs root, a cgroup2 mount, and Envoy for one test (`ci/setup`).

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::bed::{BACKEND, Bed, Listener, NODE, behind, echo, echo_much, service};
use nodeway_core::datapath::{Frontend, FrontendState, Reason};
use nodeway_core::derive::{DeriveOptions, derive};
use nodeway_core::frontend::{FrontendKey, SourceRanges};
use nodeway_core::plan::{Ledger, NodePlan, plan};
use nodeway_core::redirect::Redirect;
use nodeway_core::source::{Text, read};
use nodeway_live::bpf::{Datapath, Mode, Options};
use nodeway_live::envoy::{Envoy, EnvoyOptions, find};
use nodeway_live::netfilter::{Netfilter, Owner, Wanted};
use nodeway_live::redirect::{NodeRedirect, RedirectError, Site};
use rstest::rstest;

/// A service's addresses.
const VIP: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
const LISTENER: u16 = 15_080;

fn key(address: &str, port: u16) -> FrontendKey {
    FrontendKey {
        address: address.parse().unwrap(),
        port,
    }
}

/// The service's port 80 of both families.
fn frontends(state: FrontendState) -> BTreeMap<FrontendKey, Frontend> {
    let frontend = Frontend {
        listener_port: LISTENER,
        state,
        ranged: false,
    };
    VIP.map(|address| (key(address, 80), frontend)).into()
}

/// Leads them on the bed's node.
fn led(
    bed: &Bed,
    redirect: Redirect,
    frontends: BTreeMap<FrontendKey, Frontend>,
) -> Result<NodeRedirect, RedirectError> {
    let addresses: Vec<IpAddr> = NODE.iter().map(|it| it.parse().unwrap()).collect();
    let site = Site {
        netns: &bed.node.netns,
        addresses: &addresses,
        devices: &["to-pod".to_owned()],
        pins: None,
    };
    NodeRedirect::start(redirect, &site, frontends, SourceRanges::new())
}

/// Changes all frontends to a state.
fn change(redirect: &mut NodeRedirect, state: FrontendState) {
    let all = frontends(state).into_iter();
    let all = all.map(|(key, frontend)| (key, Some(frontend))).collect();
    redirect.change(&all, SourceRanges::new()).unwrap();
}

/// A backend on the node, to which kube-proxy leads the service.
fn kube_proxy(bed: &Bed) -> (Netfilter, Listener) {
    bed.node.run("ip addr add 10.244.9.9/32 dev lo");
    bed.node.run("ip addr add fd00:244::9/128 dev lo");
    let backend = Listener::anywhere(&bed.node, BACKEND);
    let mut rules = Netfilter::new(Owner::KubeProxy);
    let wanted = Wanted::kube_proxy(&[service(VIP)]);
    rules.apply(&bed.node.netns, &wanted).unwrap();
    (rules, backend)
}

/// The port that a new connection came to, by the word of who took it.
fn taken_at(bed: &Bed, family: usize) -> String {
    let said = bed.pod.ask(VIP[family], 80).unwrap();
    said.split(' ').nth(1).unwrap().to_owned()
}

#[rstest]
fn switched_on_it_leaves_older_connections_alone_and_switched_off_it_serves_its_own(
    #[values(Redirect::Tc, Redirect::SkLookup)] redirect: Redirect,
    #[values(0, 1)] family: usize,
    #[values(1, 2)] syncookies: u8,
) {
    let bed = Bed::new(&format!("life-{redirect}{family}{syncookies}"));
    bed.node.set("net.ipv4.tcp_syncookies", syncookies);
    let _listener = Listener::transparent(&bed.node, LISTENER);
    let _kube = kube_proxy(&bed);
    assert_eq!(taken_at(&bed, family), "8080");
    let mut older = bed.pod.stay(VIP[family], 80).unwrap();

    let mut own = led(&bed, redirect, frontends(FrontendState::Arming)).unwrap();
    echo(&mut older).unwrap();
    assert_eq!(
        taken_at(&bed, family),
        "80",
        "a new one comes to the listener"
    );
    let mut newer = bed.pod.stay(VIP[family], 80).unwrap();
    echo(&mut older).unwrap();

    change(&mut own, FrontendState::Active);
    echo(&mut newer).unwrap();
    change(&mut own, FrontendState::Draining);
    echo(&mut newer).unwrap();
    assert_eq!(taken_at(&bed, family), "8080", "a new one is kube-proxy's");
    echo(&mut newer).unwrap();

    own.stop().unwrap();
    assert_eq!(taken_at(&bed, family), "8080");
}

/// Whom the ranges leave out waits, whether it has a connection or asks for one, by every redirect.
#[rstest]
fn ranges_that_change_let_in_and_shut_out(
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
    #[values(0, 1)] family: usize,
) {
    let bed = Bed::new(&format!("range-{redirect}{family}"));
    let before = bed.node.state();
    let _listener = Listener::transparent(&bed.node, LISTENER);
    let at = key(VIP[family], 80);
    let mut own = led(&bed, redirect, frontends(FrontendState::Active)).unwrap();
    let mut stays = bed.pod.stay(VIP[family], 80).unwrap();
    let ranged = Frontend {
        ranged: true,
        ..own.frontends()[&at]
    };
    let mut open_to = |range: &str| {
        let ranges = SourceRanges::from([(at, [range.parse().unwrap()].into())]);
        own.change(&[(at, Some(ranged))].into(), ranges).unwrap();
    };
    open_to(["10.0.0.0/30", "fd00::/126"][family]);
    echo(&mut stays).unwrap();
    taken_at(&bed, family);

    open_to(["192.0.2.0/24", "2001:db8::/32"][family]);
    let error = bed.pod.ask(VIP[family], 80).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    echo(&mut stays).unwrap_err();

    open_to(["0.0.0.0/0", "::/0"][family]);
    taken_at(&bed, family);
    own.stop().unwrap();
    bed.node.is_as(&before);
}

#[rstest]
fn frontends_come_and_go_one_by_one(
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let bed = Bed::new(&format!("one-{redirect}"));
    let before = bed.node.state();
    let _listener = Listener::transparent(&bed.node, LISTENER);
    let _other = Listener::transparent(&bed.node, LISTENER + 1);
    let mut own = led(&bed, redirect, BTreeMap::new()).unwrap();
    let at = |port| Frontend {
        listener_port: port,
        state: FrontendState::Active,
        ranged: false,
    };
    let (first, second) = (key(VIP[0], 80), key(VIP[0], 81));
    own.change(&[(first, Some(at(LISTENER)))].into(), SourceRanges::new())
        .unwrap();
    own.change(
        &[(second, Some(at(LISTENER + 1)))].into(),
        SourceRanges::new(),
    )
    .unwrap();
    bed.pod.ask(VIP[0], 80).unwrap();
    bed.pod.ask(VIP[0], 81).unwrap();
    // To another listener, as to another generation of an Envoy.
    own.change(
        &[(first, Some(at(LISTENER + 1)))].into(),
        SourceRanges::new(),
    )
    .unwrap();
    bed.pod.ask(VIP[0], 80).unwrap();
    own.change(&[(second, None)].into(), SourceRanges::new())
        .unwrap();
    bed.pod.ask(VIP[0], 81).unwrap_err();
    bed.pod.ask(VIP[0], 80).unwrap();
    own.stop().unwrap();
    bed.node.is_as(&before);
}

#[rstest]
#[case("net.ipv4.conf.all.rp_filter", &[0, 1, 2])]
#[case("net.ipv4.conf.to-pod.rp_filter", &[0, 1, 2])]
#[case("net.ipv4.conf.all.src_valid_mark", &[0, 1])]
#[case("net.ipv4.conf.to-pod.src_valid_mark", &[0, 1])]
#[case("net.ipv4.ip_early_demux", &[0, 1])]
#[case("net.ipv4.tcp_early_demux", &[0, 1])]
#[case("net.ipv4.tcp_fwmark_accept", &[0, 1])]
#[case("net.ipv4.fwmark_reflect", &[0, 1])]
#[case("net.ipv4.ip_nonlocal_bind", &[0, 1])]
#[case("net.ipv4.conf.all.accept_local", &[0, 1])]
fn every_setting_works_or_is_refused_before_anything_is_another(
    #[case] name: &str,
    #[case] values: &[u8],
    #[values(Redirect::Tc, Redirect::SkLookup)] redirect: Redirect,
) {
    let tag: String = name
        .chars()
        .filter(char::is_ascii_alphabetic)
        .skip(7)
        .collect();
    let bed = Bed::new(&format!("{tag}-{redirect}"));
    let _listener = Listener::transparent(&bed.node, LISTENER);
    for value in values {
        bed.node.set(name, *value);
        let before = bed.node.state();
        match led(&bed, redirect, frontends(FrontendState::Active)) {
            Ok(own) => {
                let said = bed.pod.ask(VIP[0], 80);
                assert!(said.is_ok(), "{name} is {value}: {said:?}");
                own.stop().unwrap();
            }
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains(&format!("{name} is {value}: ")), "{said}");
                assert!(said.contains(&format!("sysctl -w {name}=0")), "{said}");
            }
        }
        bed.node.is_as(&before);
    }
}

#[rstest]
fn a_small_mtu_on_the_way_is_told_to_the_socket_behind_a_frontend(
    #[values(Redirect::Tc, Redirect::SkLookup)] redirect: Redirect,
    #[values(0, 1)] family: usize,
) {
    let name = format!("mtu-{redirect}{family}");
    let bed = Bed::new(&name);
    let far = behind(&bed, &name);
    let _listener = Listener::transparent(&bed.node, LISTENER);
    let _own = led(&bed, redirect, frontends(FrontendState::Active)).unwrap();
    let stream = far.stay(VIP[family], 80).unwrap();
    echo_much(stream).unwrap();
}

#[rstest]
fn without_a_listener_it_is_refused_counted_and_never_kube_proxys(
    #[values(Redirect::Tc, Redirect::SkLookup)] redirect: Redirect,
) {
    let bed = Bed::new(&format!("nobody-{redirect}"));
    let _kube = kube_proxy(&bed);
    let own = led(&bed, redirect, frontends(FrontendState::Active)).unwrap();
    let error = bed.pod.ask(VIP[0], 80).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let counters = own.counters().unwrap().unwrap();
    let counted = ["tc", "sk-lookup"].map(|hook| counters.of(hook, Reason::NoListener));
    assert!(counted.iter().sum::<u64>() > 0, "{counters:?}");
}

/// An Envoy that answers by itself, behind the service and on a port of the node's.
fn answering() -> NodePlan {
    const SHOP: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}
---
apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: shop}
spec:
  services: [{name: shop, namespace: default, listener: led}]
  resources:
  - &listener
    "@type": type.googleapis.com/envoy.config.listener.v3.Listener
    name: led
    filterChains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typedConfig:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          statPrefix: shop
          # The server closes first, so that it is the one who remembers the port.
          delayedCloseTimeout: 0s
          routeConfig: {name: shop, virtualHosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, directResponse: {status: 200}}]}]}
          httpFilters:
          - name: envoy.filters.http.router
            typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"#;
    let direct = SHOP.split("  resources:\n").nth(1).unwrap();
    let direct = direct.replace("&listener\n    ", "").replace(
        "name: led\n",
        "name: direct\n    address: {socketAddress: {address: 0.0.0.0, portValue: 18080}}\n",
    );
    let text = SHOP.replace("&listener\n    ", "") + &direct;
    let objects = read(&[Text::new("shop.yaml", text)]);
    let objects = objects.unwrap_or_else(|errors| panic!("{errors:?}"));
    let objects = derive(objects, &DeriveOptions::default());
    let plan = plan(&objects, "node-1", Ledger::default());
    assert_eq!(
        (plan.listeners.len(), plan.frontends.len()),
        (2, 1),
        "{:?}",
        plan.problems
    );
    plan
}

/// New connections, one after the other, each closed by the server first: how many of them a
/// second, or the first error.
fn rate(bed: &Bed, to: &str, port: u16, connections: u32) -> std::io::Result<f64> {
    let to = (to.parse::<IpAddr>().unwrap(), port);
    let talk = || {
        let begun = Instant::now();
        for _ in 0..connections {
            let mut stream = TcpStream::connect_timeout(&to.into(), Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            assert!(text.contains(" 200 "), "{text}");
        }
        Ok(f64::from(connections) / begun.elapsed().as_secs_f64())
    };
    bed.pod.netns.run(talk).unwrap()
}

struct Shop {
    bed: Bed,
    frontends: BTreeMap<FrontendKey, Frontend>,
    _folder: tempfile::TempDir,
    _envoy: Envoy,
}

/// A client whose few ports come again while the server still remembers them.
fn shop(what: &str, ports: u32) -> Shop {
    let bed = Bed::new(what);
    let last = 39_999 + ports;
    bed.pod.shell(&format!(
        "echo 40000 {last} > /proc/sys/net/ipv4/ip_local_port_range"
    ));
    let folder = tempfile::tempdir().unwrap();
    let program = find(None).unwrap_or_else(|error| panic!("{error}"));
    let options = EnvoyOptions {
        access_log: false,
        ..EnvoyOptions::new(program, folder.path().join("envoy"), "node-1")
    };
    let plan = answering();
    let envoy = Envoy::start(&bed.node.netns, &plan, &options);
    let frontends = plan.frontends.iter().map(|(key, it)| {
        let frontend = Frontend {
            listener_port: it.listener_port,
            state: FrontendState::Active,
            ranged: false,
        };
        (*key, frontend)
    });
    Shop {
        frontends: frontends.collect(),
        _envoy: envoy.unwrap_or_else(|error| panic!("{error}")),
        bed,
        _folder: folder,
    }
}

#[rstest]
fn ports_that_come_again_are_as_good_as_on_the_same_envoy_addressed_directly(
    #[values(Redirect::Tc, Redirect::SkLookup)] redirect: Redirect,
) {
    let shop = shop(&format!("again-{redirect}"), 100);
    let _own = led(&shop.bed, redirect, shop.frontends.clone()).unwrap();
    let mut ratios: Vec<f64> = (0..7)
        .map(|_| {
            let direct = rate(&shop.bed, NODE[0], 18_080, 150).unwrap();
            rate(&shop.bed, VIP[0], 80, 150).unwrap() / direct
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!("led ÷ direct, new connections a second: {ratios:.2?}");
    assert!(ratios[3] >= 0.8, "{ratios:.2?}");
}

/// Two connections that a client makes from its only port; the server remembers the first.
fn twice_from_one_port(shop: &Shop) {
    rate(&shop.bed, VIP[0], 80, 1).unwrap();
    let remembered = shop.bed.node.run("ss -Htan state time-wait");
    assert!(remembered.contains(":40000"), "{remembered}");
    rate(&shop.bed, VIP[0], 80, 1).unwrap();
}

#[test]
fn a_port_that_comes_again_is_taken_at_the_first_syn() {
    let shop = shop("once", 1);
    let own = led(&shop.bed, Redirect::Tc, shop.frontends.clone()).unwrap();
    twice_from_one_port(&shop);
    let counters = own.counters().unwrap().unwrap();
    assert_eq!(counters.of("tc", Reason::TimeWait), 1, "{counters:?}");
}

#[test]
fn with_tc_alone_a_port_that_comes_again_costs_a_second_syn() {
    let shop = shop("trap", 1);
    let options = Options {
        mode: Mode::Tc,
        ..Options::default()
    };
    let netns = shop.bed.node.netns.try_clone().unwrap();
    let mut datapath = Datapath::load(netns, &options).unwrap();
    let addresses: Vec<IpAddr> = NODE.iter().map(|it| it.parse().unwrap()).collect();
    let all: Vec<_> = shop.frontends.iter().map(|(key, it)| (*key, *it)).collect();
    let wanted = Wanted::node(Redirect::Tc, &all, &addresses);
    let mut rules = Netfilter::new(Owner::Nodeway);
    rules.apply(&shop.bed.node.netns, &wanted).unwrap();
    for (key, frontend) in &all {
        datapath.put(*key, frontend).unwrap();
    }
    let ports: Vec<u16> = all.iter().map(|(_, it)| it.listener_port).collect();
    datapath.take_sockets(&ports).unwrap();
    datapath.attach(&["to-pod"]).unwrap();
    twice_from_one_port(&shop);
    // The old socket answers the first one, and goes by the client's RST.
    let counters = datapath.counters().unwrap();
    assert_eq!(counters.of("tc", Reason::TimeWait), 2, "{counters:?}");
    assert_eq!(counters.of("tc", Reason::NewConnection), 2, "{counters:?}");
}
