//! What kube-proxy's rules do with packets, in each of its modes.

use super::*;

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
        .push(("2001:db8::20".parse().unwrap(), ExternalKind::ExternalIp));
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
            ("192.0.2.20".parse().unwrap(), ExternalKind::LoadBalancer),
            ("192.0.2.21".parse().unwrap(), ExternalKind::ExternalIp),
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
    way::install(Redirect::Iptables, &mut rules);
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
        way::put(Redirect::Iptables, &mut rules, key, &frontend);
    }
    way::lead(
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

#[test]
fn kube_proxys_marks_stay_when_ours_move() {
    let marking = Marking::new(0x40, 0xf0, 77, 5).unwrap();
    assert_eq!((marking.value(), marking.mask()), (0x40, 0xf0));
    let rules = kube_proxy::rules(Family::V4, [&shop()]);
    let mut moved = rules.clone();
    moved.remark(&marking);
    assert_eq!(moved, rules);
}
