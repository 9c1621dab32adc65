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
