use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn listener(chains: Value) -> Listener {
    read_listener(json!({"name": "l", "filterChains": chains})).unwrap()
}

fn connection(
    destination: &str,
    source: &str,
    server_name: &str,
    protocols: &[&str],
) -> Connection {
    let source: SocketAddr = source.parse().unwrap();
    Connection {
        destination: destination.parse().unwrap(),
        source,
        direct_source: source.ip(),
        server_name: server_name.to_owned(),
        transport_protocol: (if server_name.is_empty() {
            "raw_buffer"
        } else {
            "tls"
        })
        .to_owned(),
        application_protocols: protocols.iter().map(|it| (*it).to_owned()).collect(),
    }
}

fn chain(name: &str, matches: Value) -> Value {
    json!({"name": name, "filterChainMatch": matches})
}

fn range(prefix: &str, len: u32) -> Value {
    json!({"addressPrefix": prefix, "prefixLen": len})
}

fn name_of(listener: &Listener, connection: &Connection) -> String {
    let choice = listener.filter_chain(connection);
    listener
        .chain(&choice)
        .map_or_else(|| "closed".to_owned(), |chain| chain.name.clone())
}

fn many() -> Value {
    json!([
        chain("any", json!({})),
        chain("tls", json!({"transportProtocol": "tls"})),
        chain("exact", json!({"serverNames": ["a.example.com"]})),
        chain("wild", json!({"serverNames": ["*.example.com"]})),
        chain("wilder", json!({"serverNames": ["*.com"]})),
        chain(
            "port",
            json!({"destinationPort": 8080, "prefixRanges": [range("10.0.0.0", 8)]})
        ),
        chain("net", json!({"prefixRanges": [range("10.96.0.0", 16)]})),
        chain(
            "host",
            json!({"prefixRanges": [range("10.96.0.1", 32)], "sourcePorts": [7]})
        ),
    ])
}

#[rstest]
#[case::plain("1.1.1.1:80", "2.2.2.2:5", "", "any")]
#[case::exact_name("1.1.1.1:80", "2.2.2.2:5", "a.example.com", "exact")]
#[case::wildcard("1.1.1.1:80", "2.2.2.2:5", "b.example.com", "wild")]
#[case::several_labels("1.1.1.1:80", "2.2.2.2:5", "c.b.example.com", "wild")]
#[case::wider("1.1.1.1:80", "2.2.2.2:5", "example.com", "wilder")]
#[case::unknown_name("1.1.1.1:80", "2.2.2.2:5", "x.org", "tls")]
#[case::a_wildcard_is_not_empty("1.1.1.1:80", "2.2.2.2:5", ".example.com", "wilder")]
#[case::network("10.96.9.9:80", "2.2.2.2:5", "", "net")]
#[case::a_network_beats_a_name("10.96.9.9:80", "2.2.2.2:5", "a.example.com", "net")]
#[case::port("10.1.1.1:8080", "2.2.2.2:5", "", "port")]
#[case::a_port_is_never_left_again("1.1.1.1:8080", "2.2.2.2:5", "", "closed")]
#[case::host("10.96.0.1:80", "2.2.2.2:7", "", "host")]
#[case::a_host_is_never_left_again("10.96.0.1:80", "2.2.2.2:8", "", "closed")]
fn the_most_specific_chain_is_taken_property_by_property(
    #[case] destination: &str,
    #[case] source: &str,
    #[case] server_name: &str,
    #[case] wanted: &str,
) {
    let connection = connection(destination, source, server_name, &[]);
    assert_eq!(name_of(&listener(many()), &connection), wanted);
}

#[rstest]
#[case::same("1.1.1.1:80", "1.1.1.1:5", "local")]
#[case::loopback("1.1.1.1:80", "127.0.0.1:5", "local")]
#[case::other("1.1.1.1:80", "2.2.2.2:5", "external")]
#[case::network("1.1.1.1:80", "3.3.3.3:5", "external")]
fn a_source_is_local_or_external(
    #[case] destination: &str,
    #[case] source: &str,
    #[case] wanted: &str,
) {
    let listener = listener(json!([
        chain("local", json!({"sourceType": "SAME_IP_OR_LOOPBACK"})),
        chain("external", json!({"sourceType": "EXTERNAL"})),
        chain(
            "network",
            json!({"sourcePrefixRanges": [range("3.3.3.3", 32)]})
        ),
    ]));
    assert_eq!(
        name_of(&listener, &connection(destination, source, "", &[])),
        wanted
    );
}

#[rstest]
#[case::port(json!({"destinationPort": 8080}), "destination port is 80, the chain wants 8080")]
#[case::destination(json!({"prefixRanges": [range("10.1.2.3", 8), range("fd00::1", 16)]}), "destination address is 1.1.1.1, the chain wants 10.0.0.0/8, fd00::/16")]
#[case::name(json!({"serverNames": ["b.test", "a.test"]}), "the connection has no server name, the chain wants a.test, b.test")]
#[case::transport(json!({"transportProtocol": "tls"}), "transport protocol is raw_buffer, the chain wants tls")]
#[case::protocol(json!({"applicationProtocols": ["h2"]}), "application protocol is spdy, the chain wants h2")]
#[case::direct_source(json!({"directSourcePrefixRanges": [range("3.3.3.3", 32)]}), "direct source address is 2.2.2.2, the chain wants 3.3.3.3/32")]
#[case::source_type(json!({"sourceType": "SAME_IP_OR_LOOPBACK"}), "source type is external, the chain wants local")]
#[case::source(json!({"sourcePrefixRanges": [range("3.3.3.3", 32)]}), "source address is 2.2.2.2, the chain wants 3.3.3.3/32")]
#[case::source_port(json!({"sourcePorts": [7, 8]}), "source port is 5, the chain wants 7, 8")]
fn a_chain_that_lost_says_what_it_wanted(#[case] matches: Value, #[case] says: &str) {
    let listener = listener(json!([chain("a", matches)]));
    let choice = listener.filter_chain(&connection("1.1.1.1:80", "2.2.2.2:5", "", &["spdy"]));
    assert_eq!((choice.chosen, choice.by_default), (None, false));
    assert_eq!(
        &*choice.why,
        "no filter chain matches and there is no default one: the connection is closed"
    );
    assert_eq!(choice.lost[0].why.to_string(), says);
}

#[test]
fn a_chain_that_is_taken_says_by_what() {
    let connection = connection("1.1.1.1:80", "2.2.2.2:5", "a.example.com", &[]);
    let why = |chains: Value| {
        let with_default =
            json!({"name": "l", "filterChains": chains, "defaultFilterChain": {"name": "default"}});
        let choice = read_listener(with_default)
            .unwrap()
            .filter_chain(&connection);
        assert!(!choice.by_default);
        choice.why.to_string()
    };
    assert_eq!(
        why(json!([chain("a", json!({}))])),
        "the only filter chain, and the connection matches it"
    );
    assert_eq!(
        why(many()),
        "the most specific match, by destination port, then destination address, then server name"
    );
}

#[test]
fn a_network_of_all_addresses_is_more_specific_than_none() {
    let chains = [
        chain("any", json!({})),
        chain("all", json!({"prefixRanges": [range("0.0.0.0", 0)]})),
    ];
    let connection = connection("1.1.1.1:80", "2.2.2.2:5", "", &[]);
    assert_eq!(name_of(&listener(json!(chains)), &connection), "all");
}

#[test]
fn a_network_of_ipv6_has_the_addresses_that_begin_so() {
    let listener = listener(json!([chain(
        "net",
        json!({"prefixRanges": [range("fd00:1::9", 32)]})
    )]));
    let of = |destination: &str| {
        name_of(
            &listener,
            &connection(destination, "[fd00:2::2]:5", "", &[]),
        )
    };
    assert_eq!(
        (of("[fd00:1::5]:80"), of("[fd00:2::9]:80")),
        ("net".to_owned(), "closed".to_owned())
    );
}

#[rstest]
#[case::finds_out_what_chains_ask("tls_inspector.v3.TlsInspector", &[])]
#[case::changes_what_they_see("proxy_protocol.v3.ProxyProtocol", &["listenerFilters[0].name"])]
fn a_listener_filter_that_is_not_modelled_is_named(#[case] kind: &str, #[case] named: &[&str]) {
    let kind = format!("type.googleapis.com/envoy.extensions.filters.listener.{kind}");
    let filters = json!([{"name": "f", "typedConfig": {"@type": kind}}]);
    let listener = read_listener(json!({"name": "l", "listenerFilters": filters})).unwrap();
    assert_eq!(listener.not_simulated, named);
}

#[test]
fn the_clients_order_of_protocols_counts() {
    let listener = listener(json!([
        chain("h2", json!({"applicationProtocols": ["h2"]})),
        chain("http/1.1", json!({"applicationProtocols": ["http/1.1"]})),
    ]));
    let of = |protocols: &[&str]| {
        name_of(
            &listener,
            &connection("1.1.1.1:1", "2.2.2.2:2", "x", protocols),
        )
    };
    assert_eq!(
        (of(&["h2", "http/1.1"]), of(&["http/1.1", "h2"])),
        ("h2".to_owned(), "http/1.1".to_owned())
    );
    assert_eq!(of(&["spdy"]), "closed");
}

#[test]
fn the_default_chain_takes_what_no_other_does_and_says_so() {
    let listener = read_listener(json!({
        "name": "l",
        "filterChains": [chain("tls", json!({"transportProtocol": "tls"}))],
        "defaultFilterChain": {"name": "default"},
    }))
    .unwrap();
    let choice = listener.filter_chain(&connection("1.1.1.1:1", "2.2.2.2:2", "", &[]));
    assert!(choice.by_default);
    assert_eq!(
        &*choice.why,
        "no filter chain matches, so it is the default one"
    );
    assert_eq!(
        choice.lost[0].to_string(),
        "tls: transport protocol is raw_buffer, the chain wants tls"
    );
    assert_eq!(listener.chain(&choice).unwrap().name, "default");
}

#[rstest]
#[case::equal(json!({}), json!({}))]
#[case::overlapping(json!({"serverNames": ["a", "b"]}), json!({"serverNames": ["B", "c"]}))]
#[case::same_network(json!({"prefixRanges": [range("10.0.0.1", 8)]}), json!({"prefixRanges": [range("10.9.9.9", 8)]}))]
fn two_chains_for_the_same_connections_are_refused(#[case] a: Value, #[case] b: Value) {
    let error = read_listener(json!({"name": "l", "filterChains": [chain("a", a), chain("b", b)]}))
        .unwrap_err();
    assert_eq!(error.field, "filterChains[1].filterChainMatch");
}

#[rstest]
#[case::address(json!({"prefixRanges": [range("a.b.c.d", 32)]}), "prefixRanges[0].addressPrefix", "no IP address")]
#[case::length(json!({"sourcePrefixRanges": [range("1.1.1.1", 129)]}), "sourcePrefixRanges[0].prefixLen", "at most 128")]
#[case::partial_wildcard(json!({"serverNames": ["*a.com"]}), "serverNames[0]", "partial wildcard")]
#[case::bare_wildcard(json!({"serverNames": ["*"]}), "serverNames[0]", "partial wildcard")]
#[case::suffix(json!({"suffixLen": 3}), "suffixLen", "not implemented")]
#[case::port(json!({"destinationPort": 70000}), "destinationPort", "at most 65535")]
#[case::no_port(json!({"destinationPort": 0}), "destinationPort", "at least 1")]
fn a_condition_that_envoy_refuses_is_refused(
    #[case] matches: Value,
    #[case] field: &str,
    #[case] says: &str,
) {
    let error =
        read_listener(json!({"name": "l", "filterChains": [chain("a", matches)]})).unwrap_err();
    assert_eq!(
        error.field,
        format!("filterChains[0].filterChainMatch.{field}")
    );
    assert!(error.reason.contains(says), "{error}");
}

fn any_match() -> impl Strategy<Value = Value> {
    let port = prop_oneof![Just(None), (1_u32..3).prop_map(Some)];
    let network = prop_oneof![
        Just(None),
        (0_u8..3, prop_oneof![Just(8_u32), Just(16), Just(32)]).prop_map(Some)
    ];
    let name = prop_oneof![
        Just(None),
        Just(Some("a.b")),
        Just(Some("*.b")),
        Just(Some("c.b"))
    ];
    let kind = prop_oneof![Just("ANY"), Just("EXTERNAL"), Just("SAME_IP_OR_LOOPBACK")];
    (port, network, name, kind).prop_map(|(port, network, name, kind)| {
        let mut matches = json!({"sourceType": kind});
        if let Some(port) = port {
            matches["destinationPort"] = json!(port);
        }
        if let Some((byte, len)) = network {
            matches["prefixRanges"] = json!([range(&format!("10.{byte}.0.0"), len)]);
        }
        if let Some(name) = name {
            matches["serverNames"] = json!([name]);
        }
        matches
    })
}

proptest! {
    #[test]
    fn the_order_of_chains_does_not_matter(
        matches in prop::collection::vec(any_match(), 1..8),
        port in 1_u16..4,
        byte in 0_u8..3,
        name in prop_oneof![Just(""), Just("a.b"), Just("x.b"), Just("z")],
    ) {
        let chains: Vec<Value> = matches.iter().enumerate().map(|(i, it)| chain(&i.to_string(), it.clone())).collect();
        let reversed: Vec<Value> = chains.iter().rev().cloned().collect();
        let read = |chains| read_listener(json!({"name": "l", "filterChains": chains}));
        // Chains that overlap are refused in any order.
        match (read(chains), read(reversed)) {
            (Ok(one), Ok(other)) => {
                let connection = connection(&format!("10.{byte}.0.0:{port}"), "10.1.0.0:9", name, &[]);
                prop_assert_eq!(name_of(&one, &connection), name_of(&other, &connection));
                let choice = one.filter_chain(&connection);
                let kept = usize::from(choice.chosen.is_some());
                prop_assert_eq!(choice.lost.len() + kept, one.filter_chains.len());
            }
            (one, other) => prop_assert_eq!(one.is_err(), other.is_err()),
        }
    }
}

/// Of IPv4's loopback only 127.0.0.1 counts (`Utility::isLoopbackAddress`).
#[rstest]
#[case::loopback("127.0.0.1:1", "local")]
#[case::another_address_of_loopback("127.0.0.9:1", "external")]
#[case::own_address("10.0.0.1:1", "local")]
fn only_the_first_address_of_loopback_is_local(#[case] source: &str, #[case] wanted: &str) {
    let listener = listener(json!([
        chain("local", json!({"sourceType": "SAME_IP_OR_LOOPBACK"})),
        chain("external", json!({"sourceType": "EXTERNAL"})),
    ]));
    assert_eq!(
        name_of(&listener, &connection("10.0.0.1:80", source, "", &[])),
        wanted
    );
}
