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
fn what_envoy_refuses_in_routes_is_refused(
    #[case] value: Value,
    #[case] field: &str,
    #[case] says: &str,
) {
    let error = read_table(value).unwrap_err();
    assert!(error.field.ends_with(field), "{error}");
    assert!(error.reason.contains(says), "{error}");
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
fn a_bad_path_template_says_what_is_wrong(#[case] template: &str, #[case] says: &str) {
    let error = PathTemplate::new(template).unwrap_err();
    assert!(error.contains(says), "{error}");
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
fn a_pattern_is_read_as_re2_does(#[case] source: &str, #[case] text: &str, #[case] wanted: bool) {
    assert_eq!(Pattern::new(source).unwrap().matches(text), wanted);
}

#[rstest]
#[case("a++")]
#[case("a**")]
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
