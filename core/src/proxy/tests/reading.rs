use std::time::Duration;

use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn host(fields: Value) -> Value {
    let mut host = json!({"name": "v", "domains": ["*"]});
    host.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    json!({"virtualHosts": [host]})
}

fn forward(action: Value) -> Value {
    host(json!({"routes": [{"match": {"prefix": "/"}, "route": action}]}))
}

#[rstest]
#[case::no_domain(json!({"virtualHosts": [{"name": "v", "domains": []}]}), "domains", "at least 1")]
#[case::domain_twice(json!({"virtualHosts": [{"name": "v", "domains": ["a", "A"]}]}), "virtualHosts[0].domains[1]", "twice")]
#[case::two_catch_alls(json!({"virtualHosts": [{"name": "v", "domains": ["*"]}, {"name": "w", "domains": ["*"]}]}), "virtualHosts[1].domains[0]", "twice")]
#[case::wildcard_twice(json!({"virtualHosts": [{"name": "v", "domains": ["*.a", "*.A"]}]}), "virtualHosts[0].domains[1]", "twice")]
#[case::regex(host(json!({"routes": [{"match": {"safeRegex": {"regex": "(+"}}, "route": {"cluster": "c"}}]})), "match.safeRegex.regex", "no regular expression")]
#[case::virtual_cluster(host(json!({"virtualClusters": [{"name": "x"}]})), "virtualClusters[0].headers", "at least one")]
#[case::two_rewrites(forward(json!({"cluster": "c", "prefixRewrite": "/", "regexRewrite": {"pattern": {"regex": "a"}}})), "route", "keep one")]
#[case::weights(forward(json!({"weightedClusters": {"clusters": [{"name": "a", "weight": 0}]}})), "weightedClusters.clusters", "sum to 0")]
#[case::weight_overflow(forward(json!({"weightedClusters": {"clusters": [{"name": "a", "weight": 4_294_967_295_u32}, {"name": "b", "weight": 1}]}})), "weightedClusters.clusters", "sum to 4294967296")]
#[case::upgrade_twice(forward(json!({"cluster": "c", "upgradeConfigs": [{"upgradeType": "a"}, {"upgradeType": "A"}]})), "upgradeConfigs[1].upgradeType", "twice")]
#[case::backoff(forward(json!({"cluster": "c", "retryPolicy": {"retryBackOff": {"baseInterval": "10s", "maxInterval": "5s"}}})), "maxInterval", "shorter")]
#[case::mirror(forward(json!({"cluster": "c", "requestMirrorPolicies": [{}]})), "requestMirrorPolicies[0]", "exactly one")]
#[case::mirror_of_a_host(host(json!({"requestMirrorPolicies": [{}]})), "virtualHosts[0].requestMirrorPolicies[0]", "exactly one")]
#[case::negative_timeout(forward(json!({"cluster": "c", "timeout": "-1s"})), "route.timeout", "negative")]
#[case::pseudo_header(host(json!({"requestHeadersToAdd": [{"header": {"key": ":path", "value": "/"}}]})), "requestHeadersToAdd[0].header", "may not be set")]
#[case::host_removed(host(json!({"requestHeadersToRemove": ["Host"]})), "requestHeadersToRemove", "may not be removed")]
#[case::format(host(json!({"requestHeadersToAdd": [{"header": {"key": "a", "value": "50%"}}]})), "header.value", "not closed")]
#[case::unknown_command(host(json!({"requestHeadersToAdd": [{"header": {"key": "a", "value": "%NOT_A_COMMAND%"}}]})), "header.value", "none of Envoy's commands")]
#[case::command_without_parameters(host(json!({"responseHeadersToAdd": [{"header": {"key": "a", "value": "%REQ%"}}]})), "header.value", "no parameters")]
#[case::option_that_is_none(host(json!({"requestHeadersToAdd": [{"header": {"key": "a", "value": "%PATH(XX)%"}}]})), "header.value", "no option of PATH")]
#[case::length_that_is_none(host(json!({"requestHeadersToAdd": [{"header": {"key": "a", "value": "%REQ(x):y%"}}]})), "header.value", "no length")]
#[case::ignore_case_of_a_regex(host(json!({"routes": [{"match": {"prefix": "/", "headers": [{"name": "a", "stringMatch": {"safeRegex": {"regex": "a"}, "ignoreCase": true}}]}, "route": {"cluster": "c"}}]})), "stringMatch.ignoreCase", "no effect")]
#[case::body(host(json!({"routes": [{"match": {"prefix": "/"}, "directResponse": {"status": 200, "body": {"inlineString": "x".repeat(4097)}}}]})), "directResponse.body", "at most 4096")]
#[case::append_twice(host(json!({"requestHeadersToAdd": [{"header": {"key": "a", "value": "b"}, "append": true, "appendAction": "ADD_IF_ABSENT"}]})), "requestHeadersToAdd[0].header", "both given")]
#[case::connect_config_of_another_upgrade(forward(json!({"cluster": "c", "upgradeConfigs": [{"upgradeType": "websocket", "connectConfig": {}}]})), "upgradeConfigs[0].connectConfig", "only CONNECT")]
#[case::matcher_beside_routes(host(json!({"matcher": matcher("HttpRequestHeaderMatchInput"), "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c"}}]})), "virtualHosts[0].matcher", "only one of them")]
#[case::matcher_of_a_response(host(json!({"matcher": matcher("HttpResponseHeaderMatchInput")})), "matcherTree.input.typedConfig", "no input for routes")]
fn what_envoy_refuses_in_routes_is_refused(
    #[case] value: Value,
    #[case] field: &str,
    #[case] says: &str,
) {
    let error = read_table(value).unwrap_err();
    assert!(error.field.ends_with(field), "{error}");
    assert!(error.reason.contains(says), "{error}");
}

/// A tree that asks a header, for a route by each of its values.
fn matcher(input: &str) -> Value {
    let route = json!({"@type": "type.googleapis.com/envoy.config.route.v3.Route", "match": {"prefix": "/"}, "route": {"cluster": "c"}});
    json!({"matcherTree": {
        "input": {"name": "i", "typedConfig": {"@type": format!("type.googleapis.com/envoy.type.matcher.v3.{input}"), "headerName": "x"}},
        "exactMatchMap": {"map": {"a": {"action": {"name": "r", "typedConfig": route}}}},
    }})
}

#[rstest]
#[case::connect_config(forward(json!({"cluster": "c", "upgradeConfigs": [{"upgradeType": "CONNECT", "connectConfig": {}}]})))]
#[case::backoff_that_does_not_grow(forward(json!({"cluster": "c", "retryPolicy": {"retryBackOff": {"baseInterval": "5s", "maxInterval": "5s"}}})))]
#[case::percent_sign_within_parentheses(host(json!({"requestHeadersToAdd": [{"header": {"key": "a", "value": "%START_TIME(%Y)%"}}]})))]
#[case::matcher_of_a_request(host(json!({"matcher": matcher("HttpRequestHeaderMatchInput")})))]
fn what_envoy_takes_in_routes_is_taken(#[case] value: Value) {
    assert_eq!(read_table(value).map(|_| ()), Ok(()));
}

#[test]
fn a_tree_of_routes_is_not_guessed() {
    let table = table(host(
        json!({"matcher": matcher("HttpRequestHeaderMatchInput")}),
    ));
    assert_eq!(
        outcome(&table.route(&get("h", "/", &[("x", "a")]))),
        "not simulated: virtualHosts[0].matcher"
    );
}

#[rstest]
#[case("", "must begin with `/`")]
#[case("/{a}/{a}", "there twice")]
#[case("/{a}/{b}/{c}/{d}/{e}/{f}", "more than 5")]
#[case("/**/{a}", "after `**`")]
#[case("/{a", "not closed")]
#[case("/{1a}", "is no name")]
#[case("/{a=}", "is empty")]
#[case("/**.a/b", "suffix")]
#[case("/a b", "printable")]
#[case("/a[b", "is no literal")]
#[case("/a//b", "is no literal")]
#[case("/{a=*b}", "after its operator")]
#[case("/{abcdefghijklmnopq}", "at most 16 letters")]
fn a_bad_path_template_says_what_is_wrong(#[case] template: &str, #[case] says: &str) {
    let error = PathTemplate::new(template).unwrap_err();
    assert!(error.contains(says), "{error}");
}

#[test]
fn a_name_of_a_path_template_has_up_to_sixteen_letters() {
    assert!(PathTemplate::new("/{abcdefghijklmn_p}").is_ok());
}

#[rstest]
#[case::text("a.b", "a.b", true)]
#[case::quoted(r"\Qa.b\E+", "a.bb", true)]
#[case::quoted_is_literal(r"\Qa.b\E", "axb", false)]
#[case::ampersands(r"[a&&b]+", "a&b", true)]
#[case::bracket_in_a_class(r"[[]+", "[[", true)]
#[case::closing_bracket_first(r"[]a]+", "]a", true)]
#[case::not_a_closing_bracket(r"[^]a]+", "b", true)]
#[case::named_class(r"[[:digit:]]+", "12", true)]
#[case::loose_braces(r"{a}{,2}", "{a}{,2}", true)]
#[case::repetition("a{2,3}", "aaa", true)]
#[case::lazy("a+?b", "aab", true)]
#[case::hexadecimal(r"\x{61}", "a", true)]
#[case::most_repetitions("a{2,1000}", "aa", true)]
#[case::brace_behind_a_class(r"[ab]{x}", "a{x}", true)]
#[case::brace_behind_an_escape(r"\d{x}", "1{x}", true)]
#[case::repetitions_in_a_class(r"[**+]+", "*+", true)]
#[case::numbers_in_a_class(r"[{2000}]+", "{2}", true)]
#[case::named_class_among_others(r"[[:digit:]&&**]+", "1&*", true)]
#[case::class_of_one_letter(r"\pL+\d{2}", "é12", true)]
#[case::script(r"\p{Greek}+", "λ", true)]
fn a_pattern_is_read_as_re2_does(#[case] source: &str, #[case] text: &str, #[case] wanted: bool) {
    assert_eq!(Pattern::new(source).unwrap().matches(text), wanted);
}

#[rstest]
#[case("a++")]
#[case("a**")]
#[case("[a]**")]
#[case("a{1001}")]
#[case("(?=a)")]
#[case("(a")]
#[case("*")]
fn what_re2_refuses_is_refused(#[case] source: &str) {
    assert!(
        Pattern::new(source)
            .unwrap_err()
            .contains("no regular expression")
    );
}

proptest! {
    #[test]
    fn no_text_makes_a_pattern_panic(source in "[\\\\QE\\[\\]{}^:&*+?a1,é-]{0,10}") {
        let _ = Pattern::new(&source);
    }
}

#[test]
fn what_a_table_leaves_unread_is_named_by_path() {
    let table = table(
        json!({"vhds": {"configSource": {"ads": {}}}, "virtualHosts": [{"name": "v", "domains": ["*"],
        "cors": {}, "routes": [{"match": {"prefix": "/"}, "decorator": {"operation": "o"},
                    "route": {"cluster": "c", "retryPolicy": {"retryOn": "5xx"}}}]}]}),
    );
    assert_eq!(
        table.not_simulated,
        [
            "vhds",
            "virtualHosts[0].cors",
            "virtualHosts[0].routes[0].decorator",
            "virtualHosts[0].routes[0].route.retryPolicy",
        ],
    );
    assert_eq!(
        outcome(&table.route(&get("h", "/", &[]))),
        "not simulated: vhds"
    );
}

fn cluster(mut value: Value) -> Result<Cluster, ReadError> {
    value["@type"] = json!("type.googleapis.com/envoy.config.cluster.v3.Cluster");
    Cluster::read(&decode(&value).unwrap().message)
}

#[test]
fn a_cluster_says_where_its_endpoints_come_from() {
    let eds = cluster(json!({"name": "c", "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}, "serviceName": "default/details:9080"}})).unwrap();
    assert_eq!(
        (eds.endpoints.as_str(), &eds.discovery),
        ("default/details:9080", &Discovery::Eds)
    );
    assert_eq!(
        (eds.connect_timeout, eds.lb_policy.as_str()),
        (Duration::from_secs(5), "ROUND_ROBIN")
    );
    let own = cluster(json!({"name": "c", "connectTimeout": "1.5s", "lbPolicy": "LEAST_REQUEST", "outlierDetection": {},
        "loadAssignment": {"clusterName": "c", "endpoints": [{"lbEndpoints": [
            {"endpoint": {"address": {"socketAddress": {"address": "fd00::1", "portValue": 80}}}, "loadBalancingWeight": 3}]}]}}))
    .unwrap();
    assert_eq!(own.connect_timeout, Duration::from_millis(1500));
    assert_eq!(own.not_simulated, ["outlierDetection"]);
    let Discovery::Static(assignment) = own.discovery else {
        panic!("{:?}", own.discovery)
    };
    let endpoint = &assignment.endpoints[0];
    assert_eq!(
        (endpoint.address.to_string(), endpoint.weight),
        ("[fd00::1]:80".to_owned(), 3)
    );
}

#[rstest]
#[case::tls(json!({"name": "tls", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}}), true)]
#[case::plain(json!({"name": "raw", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}), false)]
fn a_cluster_says_whether_it_speaks_tls(#[case] socket: Value, #[case] wanted: bool) {
    let plain = cluster(json!({"name": "c", "type": "STATIC"})).unwrap();
    let read = cluster(json!({"name": "c", "type": "STATIC", "transportSocket": socket})).unwrap();
    assert_eq!((plain.tls, read.tls), (false, wanted));
}

#[test]
fn an_endpoint_needs_an_ip_address() {
    let error = cluster(json!({"name": "c", "loadAssignment": {"clusterName": "c", "endpoints": [{"lbEndpoints": [
        {"endpoint": {"address": {"socketAddress": {"address": "localhost", "portValue": 80}}}}]}]}}))
    .unwrap_err();
    assert!(error.field.ends_with("socketAddress.address"), "{error}");
}

#[test]
fn a_connection_manager_knows_its_routes_and_what_may_change_a_request() {
    let filter = |name: &str, kind: &str| json!({"name": name, "typedConfig": {"@type": format!("type.googleapis.com/envoy.extensions.filters.http.{kind}")}});
    let listener = read_listener(json!({"name": "l", "filterChains": [{"filters": [{"name": "hcm", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "statPrefix": "s", "useRemoteAddress": true, "normalizePath": true,
        "rds": {"routeConfigName": "r", "configSource": {"ads": {}}},
        "httpFilters": [filter("web", "grpc_web.v3.GrpcWeb"), filter("lua", "lua.v3.Lua"), filter("router", "router.v3.Router")],
    }}]}]}))
    .unwrap();
    let Terminal::Http(manager) = &listener.filter_chains[0].terminal else {
        panic!("no connection manager")
    };
    assert_eq!(manager.routes, RouteSource::Rds("r".to_owned()));
    assert!(manager.use_remote_address);
    assert_eq!(manager.filters, ["web", "lua"]);
    let at = "filterChains[0].filters[0].typedConfig";
    assert_eq!(
        manager.undecided,
        [
            format!("{at}.httpFilters[1]"),
            format!("{at}.normalizePath")
        ]
    );
    let unread = [
        format!("{at}.httpFilters[0]"),
        format!("{at}.httpFilters[1]"),
        format!("{at}.normalizePath"),
    ];
    assert_eq!(listener.not_simulated, unread);
}

#[rstest]
#[case::private("10.1.2.3", true, false)]
#[case::this_host("127.0.0.1", true, false)]
#[case::another_address_of_loopback("127.0.0.2", false, false)]
#[case::public("192.0.2.7", false, true)]
#[case::unique_local("fd00::1", true, false)]
#[case::this_host_in_ipv6("::1", true, false)]
#[case::public_in_ipv6("2001:db8::1", false, true)]
fn a_client_is_internal_by_its_address(
    #[case] address: &str,
    #[case] by_default: bool,
    #[case] by_config: bool,
) {
    let address: IpAddr = address.parse().unwrap();
    let networks = json!({"cidrRanges": [{"addressPrefix": "192.0.2.0", "prefixLen": 24}, {"addressPrefix": "2001:db8::", "prefixLen": 32}]});
    let configured = manager(json!({"internalAddressConfig": networks}));
    assert_eq!(manager(json!({})).is_internal(address), by_default);
    assert_eq!(configured.is_internal(address), by_config);
}

fn manager(fields: Value) -> HttpConnectionManager {
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "statPrefix": "s", "rds": {"routeConfigName": "r", "configSource": {"ads": {}}},
    });
    let all = config.as_object_mut().unwrap();
    all.extend(fields.as_object().unwrap().clone());
    let filters = json!([{"name": "hcm", "typedConfig": config}]);
    let listener = read_listener(json!({"name": "l", "filterChains": [{"filters": filters}]}));
    match &listener.unwrap().filter_chains[0].terminal {
        Terminal::Http(manager) => (**manager).clone(),
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case::text(json!({"inlineString": "PEM"}), Some("PEM"))]
#[case::bytes(json!({"inlineBytes": "UEVN"}), Some("PEM"))]
#[case::in_a_file(json!({"filename": "/tls.crt"}), None)]
fn a_chain_shows_certificates_by_name_and_those_that_are_written_down(
    #[case] certificate: Value,
    #[case] written: Option<&str>,
) {
    let context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "commonTlsContext": {
            "alpnProtocols": ["h2,http/1.1"],
            "tlsCertificateSdsSecretConfigs": [{"name": "a/tls"}],
            "tlsCertificates": [{"certificateChain": certificate}],
        },
    });
    let chain = json!({"transportSocket": {"name": "tls", "typedConfig": context}});
    let listener = read_listener(json!({"name": "l", "filterChains": [chain]})).unwrap();
    let tls = DownstreamTls {
        secrets: vec!["a/tls".to_owned()],
        inline: written
            .map(|it| it.as_bytes().to_vec())
            .into_iter()
            .collect(),
        protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
        assumed: false,
    };
    assert_eq!(listener.filter_chains[0].tls, Some(tls));
}

#[rstest]
#[case::by_default(json!({"cluster": "c"}), 503)]
#[case::not_found(json!({"cluster": "c", "clusterNotFoundResponseCode": "NOT_FOUND"}), 404)]
#[case::error(json!({"cluster": "c", "clusterNotFoundResponseCode": "INTERNAL_SERVER_ERROR"}), 500)]
fn a_route_says_what_is_answered_without_its_cluster(#[case] action: Value, #[case] status: u16) {
    let choice = table(forward(action)).route(&get("a", "/", &[]));
    assert_eq!(forwarded(&choice).cluster_not_found, status);
}

#[test]
fn a_table_names_the_clusters_of_draws_and_mirrors_and_a_route_those_it_sends_to() {
    let table = table(forward(json!({
        "weightedClusters": {"clusters": [{"name": "a", "weight": 1}, {"clusterHeader": "x", "weight": 1}, {"name": "b", "weight": 1}]},
        "requestMirrorPolicies": [{"cluster": "mirror"}, {"clusterHeader": "y"}],
    })));
    let all: Vec<_> = table.clusters().collect();
    let at = "virtualHosts[0].routes[0].route".to_owned();
    assert_eq!(all, ["a", "b", "mirror"].map(|it| (at.clone(), it)));
    let action = &table.virtual_hosts[0].routes[0].action;
    assert_eq!(action.clusters(), ["a", "b"]);
}

#[rstest]
#[case::a_limit("3s", &["virtualHosts[0].routes[0].route.maxStreamDuration.maxStreamDuration"])]
#[case::no_limit("0s", &[])]
fn a_limit_of_streams_is_named_if_it_is_one(#[case] limit: &str, #[case] named: &[&str]) {
    let action = json!({"cluster": "c", "maxStreamDuration": {"maxStreamDuration": limit}});
    assert_eq!(table(forward(action)).not_simulated, named);
}

#[rstest]
#[case::nobody_says(json!({"cluster": "c"}), Some(15))]
#[case::said(json!({"cluster": "c", "timeout": "3s"}), Some(3))]
#[case::for_ever(json!({"cluster": "c", "timeout": "0s"}), None)]
#[case::by_the_length_of_a_stream(
    json!({"cluster": "c", "maxStreamDuration": {"maxStreamDuration": "0s"}}),
    None
)]
#[case::whose_mere_presence_counts(
    json!({"cluster": "c", "timeout": "3s", "maxStreamDuration": {}}),
    None
)]
fn a_response_has_a_time_limit_unless_streams_have_one(
    #[case] action: Value,
    #[case] seconds: Option<u64>,
) {
    let choice = table(forward(action)).route(&get("a", "/", &[]));
    let limit = forwarded(&choice).timeout;
    assert_eq!(limit, seconds.map(Duration::from_secs));
}
