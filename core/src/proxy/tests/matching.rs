use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn takes(matches: Value, request: &Request) -> bool {
    let table = routes(json!([{"match": matches, "route": {"cluster": "yes"}}]));
    match outcome(&table.route(request)).as_str() {
        "yes" => true,
        "not found" => false,
        other => panic!("{other}"),
    }
}

#[rstest]
#[case::prefix(json!({"prefix": "/a"}), "/ab", true)]
#[case::prefix_case(json!({"prefix": "/a"}), "/A", false)]
#[case::prefix_any_case(json!({"prefix": "/a", "caseSensitive": false}), "/Ab", true)]
#[case::prefix_with_query(json!({"prefix": "/a?"}), "/a?b", false)]
#[case::exact(json!({"path": "/a"}), "/a?x=1", true)]
#[case::exact_case(json!({"path": "/a"}), "/A", false)]
#[case::segments_case(json!({"pathSeparatedPrefix": "/a"}), "/A/b", false)]
#[case::segments_any_case(json!({"pathSeparatedPrefix": "/a", "caseSensitive": false}), "/A/b", true)]
#[case::exact_longer(json!({"path": "/a"}), "/a/", false)]
#[case::exact_any_case(json!({"path": "/a", "caseSensitive": false}), "/A#f", true)]
#[case::segments(json!({"pathSeparatedPrefix": "/a"}), "/a/b", true)]
#[case::segments_exact(json!({"pathSeparatedPrefix": "/a"}), "/a", true)]
#[case::segments_query(json!({"pathSeparatedPrefix": "/a"}), "/a?b", true)]
#[case::segments_not_within(json!({"pathSeparatedPrefix": "/a"}), "/ab", false)]
#[case::regex_is_whole(json!({"safeRegex": {"regex": "/a|/b"}}), "/bc", false)]
#[case::regex(json!({"safeRegex": {"regex": "/\\d{3}"}}), "/123?x", true)]
#[case::regex_digits_are_ascii(json!({"safeRegex": {"regex": "/\\d"}}), "/٣", false)]
#[case::regex_loose_brace(json!({"safeRegex": {"regex": "/{id}"}}), "/{id}", true)]
#[case::connect_only(json!({"connectMatcher": {}}), "/a", false)]
fn a_path_is_matched_as_envoy_does(
    #[case] matches: Value,
    #[case] path: &str,
    #[case] wanted: bool,
) {
    assert_eq!(takes(matches, &get("h", path, &[])), wanted);
}

/// A CONNECT without a path has none that could begin with nothing.
#[rstest]
#[case::a_plain_connect(json!({"connectMatcher": {}}), "", true)]
#[case::by_a_prefix(json!({"prefix": ""}), "", false)]
#[case::a_connect_with_a_path(json!({"prefix": "/a"}), "/ab", true)]
fn a_connect_goes_by_its_path_if_it_has_one(
    #[case] matches: Value,
    #[case] path: &str,
    #[case] wanted: bool,
) {
    let mut request = get("h:443", path, &[]);
    request.method = "CONNECT".to_owned();
    assert_eq!(takes(matches, &request), wanted);
}

#[rstest]
#[case::of_one_segment("/a;v=1/b", "yes")]
#[case::of_the_last("/a/b;v=1;w=2?q", "yes")]
#[case::without_any("/a/b", "yes")]
#[case::another_path("/a/c;v=1", "not found")]
fn parameters_of_segments_are_ignored_where_the_table_says_so(
    #[case] path: &str,
    #[case] wanted: &str,
) {
    let table = table(
        json!({"ignorePathParametersInPathMatching": true, "virtualHosts": [{"name": "v", "domains": ["*"],
        "routes": [{"match": {"path": "/a/b"}, "route": {"cluster": "yes"}}]}]}),
    );
    assert_eq!(outcome(&table.route(&get("h", path, &[]))), wanted);
}

#[rstest]
#[case("/a/{x}/c", "/a/b/c", true)]
#[case("/a/{x}/c", "/a/b/d/c", false)]
#[case("/a/{x}/c", "/a//c", false)]
#[case("/a/**", "/a/b/c", true)]
#[case("/a/**.m3u8", "/a/b/c.m3u8", true)]
#[case("/a/*/c", "/a/b/c?q", true)]
#[case("/a/{x=v/*}", "/a/v/1", true)]
#[case("/a/{x=v/*}", "/a/w/1", false)]
#[case("/A.b", "/Axb", false)]
#[case("/a/{x}", "/A/b", false)]
#[case("/a/{x}", "/a/b/", false)]
#[case("/a/{x}/", "/a/b/", true)]
#[case("/a/**", "/a/", true)]
fn a_path_template_is_matched_by_segments(
    #[case] template: &str,
    #[case] path: &str,
    #[case] wanted: bool,
) {
    let policy = json!({"pathMatchPolicy": {"name": "t", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
        "pathTemplate": template}}});
    assert_eq!(takes(policy, &get("h", path, &[])), wanted);
}

#[rstest]
#[case::exact(json!({"stringMatch": {"exact": "a"}}), &["a"], true)]
#[case::absent(json!({"stringMatch": {"exact": "a"}}), &[], false)]
#[case::absent_inverted(json!({"stringMatch": {"exact": "a"}, "invertMatch": true}), &[], false)]
#[case::absent_as_empty_inverted(json!({"stringMatch": {"exact": "a"}, "invertMatch": true, "treatMissingHeaderAsEmpty": true}), &[], true)]
#[case::absent_as_empty(json!({"stringMatch": {"safeRegex": {"regex": "^$"}}, "treatMissingHeaderAsEmpty": true}), &[], true)]
#[case::present(json!({"presentMatch": true}), &["x"], true)]
#[case::not_present(json!({"presentMatch": false}), &[], true)]
#[case::present_inverted(json!({"presentMatch": true, "invertMatch": true}), &[], true)]
#[case::absent_as_empty_is_present(json!({"presentMatch": true, "treatMissingHeaderAsEmpty": true}), &[], true)]
#[case::absent_as_empty_is_not_absent(json!({"presentMatch": false, "treatMissingHeaderAsEmpty": true}), &[], false)]
#[case::absent_as_empty_present_inverted(json!({"presentMatch": true, "invertMatch": true, "treatMissingHeaderAsEmpty": true}), &[], false)]
#[case::range_with_sign(json!({"rangeMatch": {"start": "1", "end": "20"}}), &["+5"], true)]
#[case::no_form_is_presence(json!({}), &["x"], true)]
#[case::range(json!({"rangeMatch": {"start": "-10", "end": "0"}}), &["-1"], true)]
#[case::range_end_is_out(json!({"rangeMatch": {"start": "-10", "end": "0"}}), &["0"], false)]
#[case::range_of_text(json!({"rangeMatch": {"start": "0", "end": "9"}}), &["1x"], false)]
#[case::any_case(json!({"stringMatch": {"contains": "BC", "ignoreCase": true}}), &["abcd"], true)]
#[case::prefix(json!({"prefixMatch": "a"}), &["ab"], true)]
#[case::exact_in_its_older_form(json!({"exactMatch": "a"}), &["a"], true)]
#[case::exact_in_its_older_form_is_whole(json!({"exactMatch": "a"}), &["ab"], false)]
#[case::exactly_nothing_is_anything(json!({"exactMatch": ""}), &["x"], true)]
#[case::contains_in_its_older_form(json!({"containsMatch": "z"}), &["abc"], false)]
#[case::regex_in_its_older_form(json!({"safeRegexMatch": {"regex": "a.c"}}), &["abcd"], false)]
#[case::suffix_of_a_text(json!({"stringMatch": {"suffix": "b"}}), &["ab"], true)]
#[case::suffix(json!({"suffixMatch": "a"}), &["ab"], false)]
#[case::one_of_two(json!({"stringMatch": {"exact": "b"}}), &["a", "b"], true)]
#[case::two_inverted(json!({"stringMatch": {"exact": "b"}, "invertMatch": true}), &["a", "b"], false)]
fn a_header_is_matched_as_envoy_does(
    #[case] mut matcher: Value,
    #[case] values: &[&str],
    #[case] wanted: bool,
) {
    matcher["name"] = json!("X-H");
    let headers: Vec<_> = values.iter().map(|value| ("x-h", *value)).collect();
    assert_eq!(
        takes(
            json!({"prefix": "/", "headers": [matcher]}),
            &get("h", "/", &headers)
        ),
        wanted
    );
}

#[test]
fn older_envoys_join_a_repeated_header() {
    let table = routes(
        json!([{"match": {"prefix": "/", "headers": [{"name": "x", "stringMatch": {"exact": "a,b"}}]},
        "route": {"cluster": "c"}}]),
    );
    let request = get("h", "/", &[("x", "a"), ("x", "b")]);
    let older = Context {
        repeated_headers: RepeatedHeaders::Concatenated,
        ..Context::default()
    };
    assert_eq!(outcome(&table.route(&request)), "not found");
    assert_eq!(outcome(&table.route_in(&request, &older)), "c");
}

#[rstest]
#[case::query(json!({"queryParameters": [{"name": "a", "stringMatch": {"exact": "1"}}]}), "/?a=1&a=2", true)]
#[case::only_the_first(json!({"queryParameters": [{"name": "a", "stringMatch": {"exact": "2"}}]}), "/?a=1&a=2", false)]
#[case::presence(json!({"queryParameters": [{"name": "a"}]}), "/?b&a", true)]
#[case::absence(json!({"queryParameters": [{"name": "a"}]}), "/?b", false)]
#[case::method(json!({"headers": [{"name": ":method", "stringMatch": {"exact": "GET"}}]}), "/", true)]
#[case::host(json!({"headers": [{"name": "host", "stringMatch": {"exact": "h"}}]}), "/", true)]
#[case::scheme(json!({"headers": [{"name": ":scheme", "stringMatch": {"exact": "http"}}]}), "/", true)]
#[case::wanted_absent(json!({"queryParameters": [{"name": "a", "presentMatch": false}]}), "/?b", true)]
#[case::wanted_absent_and_there(json!({"queryParameters": [{"name": "a", "presentMatch": false}]}), "/?a", false)]
#[case::escapes_stay(json!({"queryParameters": [{"name": "a", "stringMatch": {"exact": "b c"}}]}), "/?a=b%20c", false)]
#[case::only_ampersands_part(json!({"queryParameters": [{"name": "a"}]}), "/?b;a=1", false)]
#[case::second_equals_sign(json!({"queryParameters": [{"name": "a", "stringMatch": {"exact": "1=2"}}]}), "/?a=1=2", true)]
#[case::first_cookie(json!({"cookies": [{"name": "c", "stringMatch": {"exact": "2"}}]}), "/", false)]
#[case::metadata_inverted(json!({"dynamicMetadata": [{"filter": "f", "path": [{"key": "k"}], "value": {"stringMatch": {"exact": "a"}}, "invert": true}]}), "/", true)]
#[case::metadata_null(json!({"dynamicMetadata": [{"filter": "f", "path": [{"key": "k"}], "value": {"nullMatch": {}}}]}), "/", false)]
#[case::cookie(json!({"cookies": [{"name": "b", "stringMatch": {"prefix": "2"}}]}), "/", true)]
#[case::cookie_absent_inverted(json!({"cookies": [{"name": "z", "stringMatch": {"prefix": "2"}, "invertMatch": true}]}), "/", true)]
#[case::grpc(json!({"grpc": {}}), "/", false)]
#[case::no_share(json!({"runtimeFraction": {"defaultValue": {"numerator": 0}}}), "/", false)]
#[case::whole_share(json!({"runtimeFraction": {"defaultValue": {"numerator": 100}}}), "/", true)]
#[case::metadata(json!({"dynamicMetadata": [{"filter": "f", "path": [{"key": "k"}], "value": {"presentMatch": true}}]}), "/", false)]
fn other_conditions_are_matched_as_envoy_does(
    #[case] mut matches: Value,
    #[case] path: &str,
    #[case] wanted: bool,
) {
    matches["prefix"] = json!("/");
    assert_eq!(
        takes(
            matches,
            &get("h", path, &[("cookie", "a=1; b=\"23\"; c=1; c=2")])
        ),
        wanted
    );
}

#[rstest]
#[case::grpc("application/grpc", true)]
#[case::grpc_of_a_format("application/grpc+proto", true)]
#[case::what_only_begins_so("application/grpc-web", false)]
fn a_route_for_grpc_asks_the_content_type(#[case] content_type: &str, #[case] wanted: bool) {
    let request = get("h", "/", &[("content-type", content_type)]);
    assert_eq!(takes(json!({"prefix": "/", "grpc": {}}), &request), wanted);
}

#[rstest]
#[case::of_a_hundred("HUNDRED", 50, 149, true)]
#[case::beyond_it("HUNDRED", 50, 250, false)]
#[case::of_ten_thousand("TEN_THOUSAND", 1, 10_000, true)]
#[case::beyond_ten_thousand("TEN_THOUSAND", 1, 100, false)]
#[case::of_a_million("MILLION", 1, 1_000_000, true)]
#[case::beyond_a_million("MILLION", 1, 10_000, false)]
fn a_share_is_of_a_hundred_ten_thousand_or_a_million(
    #[case] denominator: &str,
    #[case] numerator: u32,
    #[case] random: u64,
    #[case] wanted: bool,
) {
    let share = json!({"numerator": numerator, "denominator": denominator});
    let matches = json!({"prefix": "/", "runtimeFraction": {"defaultValue": share}});
    let mut request = get("h", "/", &[]);
    request.random = random;
    assert_eq!(takes(matches, &request), wanted);
}

#[rstest]
#[case::a_flag(json!({"boolMatch": true}), json!(true), true)]
#[case::another_flag(json!({"boolMatch": false}), json!(true), false)]
#[case::no_flag(json!({"boolMatch": true}), json!("true"), false)]
#[case::a_text(json!({"stringMatch": {"exact": "a"}}), json!("a"), true)]
#[case::null(json!({"nullMatch": {}}), json!(null), true)]
#[case::there(json!({"presentMatch": true}), json!(0), true)]
fn metadata_is_matched_by_its_value(
    #[case] matcher: Value,
    #[case] found: Value,
    #[case] wanted: bool,
) {
    let condition = json!({"filter": "f", "path": [{"key": "a"}, {"key": "b"}], "value": matcher});
    let table = routes(
        json!([{"match": {"prefix": "/", "dynamicMetadata": [condition]}, "route": {"cluster": "yes"}}]),
    );
    let context = Context {
        metadata: [("f".to_owned(), json!({"a": {"b": found}}))].into(),
        ..Context::default()
    };
    let choice = table.route_in(&get("h", "/", &[]), &context);
    assert_eq!(outcome(&choice) == "yes", wanted);
}

#[rstest]
#[case::a_parameter(json!({"queryParameters": [{"name": "a", "stringMatch": {"exact": "1"}}]}), "query parameter a exact `1` is not met")]
#[case::a_cookie(json!({"cookies": [{"name": "a", "stringMatch": {"exact": "1"}}]}), "cookie a exact `1` is not met")]
#[case::a_template(json!({"pathMatchPolicy": {"name": "t", "typedConfig": {
    "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
    "pathTemplate": "/a/{x}"}}}), "path / does not match path template /a/{x}")]
fn what_a_route_wants_is_said_where_it_is_not_met(#[case] mut matches: Value, #[case] says: &str) {
    if matches.get("pathMatchPolicy").is_none() {
        matches["prefix"] = json!("/");
    }
    let table = routes(json!([{"match": matches, "route": {"cluster": "c"}}]));
    let Action::NotFound { lost, .. } = table.route(&get("h", "/", &[])).action else {
        panic!("found")
    };
    assert_eq!(lost[0].why.to_string(), says);
}

#[test]
fn the_first_route_wins_and_says_why_the_others_did_not() {
    let table = routes(json!([
        {"match": {"pathSeparatedPrefix": "/details"}, "route": {"cluster": "details"}},
        {"match": {"prefix": "/", "headers": [{"name": "end-user", "stringMatch": {"exact": "jason"}}]}, "route": {"cluster": "v2"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "productpage"}, "name": "rest"},
        {"match": {"path": "/ratings"}, "route": {"cluster": "never"}},
    ]));
    let choice = table.route(&get("h", "/ratings?x", &[("end-user", "john")]));
    assert_eq!(outcome(&choice), "productpage");
    let route = choice.route.unwrap();
    assert_eq!(
        (route.index, &*route.name, &*route.description),
        (2, "rest", "prefix /")
    );
    let lost: Vec<String> = route.lost.iter().map(|lost| lost.why.to_string()).collect();
    assert_eq!(
        lost,
        [
            "path /ratings does not match path_separated_prefix /details",
            "header end-user exact `jason` is not met by `john`",
        ],
    );
}

#[rstest]
#[case::examined(json!({"prefix": "/", "tlsContext": {"presented": true}}), "/", "not simulated: virtualHosts[0].routes[0].match.tlsContext")]
#[case::ruled_out_already(json!({"prefix": "/x", "tlsContext": {"presented": true}}), "/", "rest")]
#[case::extension(json!({"prefix": "/", "headers": [{"name": "a", "stringMatch": {"custom": {"name": "x", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}}]}), "/", "not simulated: virtualHosts[0].routes[0].match.headers[0].stringMatch.custom")]
#[case::extension_inverted(json!({"prefix": "/", "headers": [{"name": "a", "invertMatch": true, "stringMatch": {"custom": {"name": "x", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}}]}), "/", "not simulated: virtualHosts[0].routes[0].match.headers[0].stringMatch.custom")]
#[case::extension_for_an_absent_header(json!({"prefix": "/", "headers": [{"name": "b", "stringMatch": {"custom": {"name": "x", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}}]}), "/", "rest")]
fn a_condition_that_is_not_modelled_is_never_guessed(
    #[case] matches: Value,
    #[case] path: &str,
    #[case] wanted: &str,
) {
    let table = routes(json!([
        {"match": matches, "route": {"cluster": "first"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "rest"}},
    ]));
    let choice = table.route(&get("h", path, &[("a", "1")]));
    assert_eq!(outcome(&choice), wanted);
}

#[rstest]
#[case(0, "a")]
#[case(29, "a")]
#[case(30, "c")]
#[case(99, "c")]
#[case(100, "a")]
fn a_weighted_draw_takes_the_number_modulo_the_sum(#[case] random: u64, #[case] cluster: &str) {
    let table = routes(
        json!([{"match": {"prefix": "/"}, "route": {"weightedClusters": {"clusters": [
        {"name": "a", "weight": 30}, {"name": "b", "weight": 0}, {"name": "c", "weight": 70}]}}}]),
    );
    let mut request = get("h", "/", &[]);
    request.random = random;
    let choice = table.route(&request);
    assert_eq!(forwarded(&choice).cluster, cluster);
    assert_eq!(forwarded(&choice).drawn.unwrap().total, 100);
}

#[rstest]
#[case::a_number(&["35"], "c")]
#[case::beyond_the_sum(&["129"], "a")]
#[case::two_numbers(&["35", "36"], "a")]
#[case::no_number(&["x"], "a")]
fn a_header_may_say_which_cluster_is_drawn(#[case] values: &[&str], #[case] cluster: &str) {
    let table = routes(
        json!([{"match": {"prefix": "/"}, "route": {"weightedClusters": {"headerName": "X-N", "clusters": [
        {"name": "a", "weight": 30}, {"name": "c", "weight": 70}]}}}]),
    );
    let headers: Vec<_> = values.iter().map(|value| ("x-n", *value)).collect();
    assert_eq!(outcome(&table.route(&get("h", "/", &headers))), cluster);
}

#[rstest]
#[case::of_the_route(json!({"clusterHeader": "X-Cluster"}))]
#[case::of_a_draw(json!({"weightedClusters": {"clusters": [{"clusterHeader": "X-Cluster", "weight": 1}]}}))]
fn a_header_may_name_the_cluster(#[case] action: Value) {
    let table = routes(json!([{"match": {"prefix": "/"}, "route": action}]));
    let request = get("h", "/", &[("x-cluster", "there")]);
    assert_eq!(outcome(&table.route(&request)), "there");
    assert_eq!(outcome(&table.route(&get("h", "/", &[]))), "");
}

proptest! {
    #[test]
    fn a_segment_prefix_never_splits_a_segment(prefix in "(/[a-c]{1,2}){1,2}", path in "(/[a-c]{1,3}){1,3}") {
        let table = routes(json!([{"match": {"pathSeparatedPrefix": prefix}, "route": {"cluster": "yes"}}]));
        let wanted = path.split('/').collect::<Vec<_>>().starts_with(&prefix.split('/').collect::<Vec<_>>());
        prop_assert_eq!(outcome(&table.route(&get("h", &path, &[]))) == "yes", wanted);
    }

    #[test]
    fn no_request_makes_routing_panic(host in "\\PC{0,12}", path in "\\PC{0,24}", value in "\\PC{0,12}") {
        let table = table(json!({"ignorePortInHostMatching": true, "virtualHosts": [
            {"name": "a", "domains": ["*.é"], "routes": [{"match": {"prefix": "/"}, "redirect": {"portRedirect": 1, "prefixRewrite": "/x"}}]},
            {"name": "b", "domains": ["*"], "routes": [
                {"match": {"prefix": "/a", "caseSensitive": false}, "route": {"clusterHeader": "x", "prefixRewrite": "/é"}},
                {"match": {"safeRegex": {"regex": ".*"}}, "route": {"hostRewritePathRegex": {"pattern": {"regex": "(.)"}, "substitution": "\\1"}, "cluster": "c"}}]},
        ]}));
        let _ = table.route(&get(&host, &path, &[("x", &value), ("cookie", &value)]));
    }
}
