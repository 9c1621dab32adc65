use rstest::rstest;

use super::*;

fn route(matches: Value, mut action: Value) -> RouteTable {
    if action.get("clusterHeader").is_none() {
        action["cluster"] = json!("c");
    }
    routes(json!([{"match": matches, "route": action}]))
}

#[rstest]
#[case::prefix(json!({"prefix": "/a"}), json!({"prefixRewrite": "/x"}), "/ab?q", "/xb?q")]
#[case::prefix_any_case(json!({"prefix": "/a", "caseSensitive": false}), json!({"prefixRewrite": "/x"}), "/A/b", "/x/b")]
#[case::whole_path(json!({"path": "/a"}), json!({"prefixRewrite": "/x"}), "/a?q", "/x?q")]
#[case::segments(json!({"pathSeparatedPrefix": "/a"}), json!({"prefixRewrite": "/x/y"}), "/a/b", "/x/y/b")]
#[case::after_a_regex(json!({"safeRegex": {"regex": "/a.*"}}), json!({"prefixRewrite": "/x"}), "/abc?q", "/x?q")]
#[case::regex(json!({"prefix": "/"}), json!({"regexRewrite": {"pattern": {"regex": "^/(\\w+)/(\\w+)"}, "substitution": "/\\2/\\1\\\\"}}), "/a/b?q=/a/b", "/b/a\\?q=/a/b")]
#[case::format(json!({"prefix": "/"}), json!({"pathRewrite": "/to%PATH(NQ:PATH)%"}), "/a?q", "/to/a?q")]
fn a_path_is_rewritten_and_its_query_stays(
    #[case] matches: Value,
    #[case] action: Value,
    #[case] path: &str,
    #[case] wanted: &str,
) {
    let choice = route(matches, action).route(&get("h", path, &[]));
    let forward = forwarded(&choice);
    assert_eq!(forward.path, wanted);
    assert_eq!(forward.original_path.as_deref(), Some(path));
    assert!(
        forward
            .headers
            .contains(&("x-envoy-original-path".to_owned(), path.to_owned()))
    );
}

fn template(template: &str) -> Value {
    json!({"pathMatchPolicy": {"name": "t", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
        "pathTemplate": template}}})
}

fn template_rewrite(rewrite: &str) -> Value {
    json!({"pathRewritePolicy": {"name": "t", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig",
        "pathTemplateRewrite": rewrite}}})
}

#[rstest]
#[case::names("/a/{x}/{y_2}", "/{y_2}-{x}/z", "/a/1/2?q", "/2-1/z?q")]
#[case::the_rest("/a/{x=**}", "/{x}", "/a/1/2", "/1/2")]
#[case::no_name("/a/*", "/b", "/a/1", "/b")]
fn a_path_is_made_of_the_names_of_its_template(
    #[case] from: &str,
    #[case] to: &str,
    #[case] path: &str,
    #[case] wanted: &str,
) {
    let choice = route(template(from), template_rewrite(to)).route(&get("h", path, &[]));
    assert_eq!(forwarded(&choice).path, wanted);
}

#[rstest]
#[case::no_slash(template("/{x}"), "{x}", "must begin with `/`")]
#[case::two_slashes(template("/{x}"), "/a//{x}", "no `//`")]
#[case::no_literal(template("/{x}"), "/[{x}", "not allowed")]
#[case::not_closed(template("/{x}"), "/{x", "not closed")]
#[case::no_name(template("/{x}"), "/{1}", "a name is none")]
#[case::another_name(template("/{x}"), "/{y}", "which `/{x}` does not have")]
#[case::no_template(json!({"prefix": "/"}), "/a", "needs a path_match_policy")]
fn a_template_rewrite_that_cannot_be_made_is_refused(
    #[case] matches: Value,
    #[case] rewrite: &str,
    #[case] says: &str,
) {
    let mut action = template_rewrite(rewrite);
    action["cluster"] = json!("c");
    let routes = json!([{"match": matches, "route": action}]);
    let error =
        read_table(json!({"virtualHosts": [{"name": "all", "domains": ["*"], "routes": routes}]}))
            .unwrap_err();
    assert!(error.field.ends_with("pathTemplateRewrite"), "{error}");
    assert!(error.reason.contains(says), "{error}");
}

#[test]
fn a_rewrite_leaves_the_other_headers_as_they_are() {
    let table = route(json!({"prefix": "/a"}), json!({"prefixRewrite": "/x"}));
    let came = [("x-a", "1"), ("x-envoy-original-path", "/forged")];
    let choice = table.route(&get("h", "/a", &came));
    let left = [("x-a", "1"), ("x-envoy-original-path", "/a")];
    let left = left.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(forwarded(&choice).headers, left);
}

#[test]
fn a_host_may_become_the_endpoints_name() {
    for (action, becomes) in [(json!({"autoHostRewrite": true}), true), (json!({}), false)] {
        let choice = route(json!({"prefix": "/"}), action).route(&get("h", "/", &[]));
        let forward = forwarded(&choice);
        assert_eq!(
            (forward.host_of_endpoint, forward.authority.as_str()),
            (becomes, "h")
        );
    }
}

#[test]
fn a_cluster_that_is_drawn_edits_before_its_route() {
    let entry = json!({"name": "c", "weight": 1, "hostRewriteLiteral": "drawn",
        "requestHeadersToAdd": [{"header": {"key": "x-a", "value": "drawn"}}]});
    let table = routes(
        json!([{"match": {"prefix": "/"}, "route": {"weightedClusters": {"clusters": [entry]}},
        "requestHeadersToAdd": [{"header": {"key": "x-a", "value": "route"}}]}]),
    );
    let choice = table.route(&get("h", "/", &[]));
    let forward = forwarded(&choice);
    assert_eq!(forward.authority, "drawn");
    let values: Vec<_> = forward.headers.iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["drawn", "route"]);
}

#[rstest]
#[case::literal(json!({"hostRewriteLiteral": "new"}), "new")]
#[case::header(json!({"hostRewriteHeader": "x-host"}), "there")]
#[case::absent_header(json!({"hostRewriteHeader": "x-other"}), "h")]
#[case::path(json!({"hostRewritePathRegex": {"pattern": {"regex": "^/([^/]+).*"}, "substitution": "\\1.local"}}), "a.local")]
#[case::format(json!({"hostRewrite": "%REQ(x-host):2%"}), "th")]
#[case::nothing(json!({}), "h")]
fn a_host_is_rewritten(#[case] action: Value, #[case] wanted: &str) {
    let choice =
        route(json!({"prefix": "/"}), action).route(&get("h", "/a/b", &[("x-host", "there")]));
    assert_eq!(forwarded(&choice).authority, wanted);
}

#[test]
fn a_rewritten_host_is_kept_where_asked() {
    let table = route(
        json!({"prefix": "/"}),
        json!({"hostRewriteLiteral": "new", "appendXForwardedHost": true}),
    );
    let choice = table.route(&get("old", "/", &[("x-forwarded-host", "first")]));
    assert!(
        forwarded(&choice)
            .headers
            .contains(&("x-forwarded-host".to_owned(), "first,old".to_owned()))
    );
}

#[rstest]
#[case::https(json!({"httpsRedirect": true}), "h:80", "/p?q", "301 https://h/p?q")]
#[case::another_port_stays(json!({"httpsRedirect": true}), "h:81", "/p", "301 https://h:81/p")]
#[case::same_scheme_keeps_the_port(json!({"responseCode": "FOUND"}), "h:80", "/p", "302 http://h:80/p")]
#[case::host(json!({"hostRedirect": "other", "responseCode": "PERMANENT_REDIRECT"}), "h", "/p", "308 http://other/p")]
#[case::port(json!({"portRedirect": 8443, "schemeRedirect": "https"}), "[::1]:80", "/", "301 https://[::1]:8443/")]
#[case::path(json!({"pathRedirect": "/new"}), "h", "/p?q", "301 http://h/new?q")]
#[case::path_and_strip(json!({"pathRedirect": "/new", "stripQuery": true}), "h", "/p?q", "301 http://h/new")]
#[case::path_with_query(json!({"pathRedirect": "/new?a", "stripQuery": true}), "h", "/p?q", "301 http://h/new?a")]
#[case::prefix(json!({"prefixRewrite": "/new"}), "h", "/p/x?q", "301 http://h/new/x?q")]
#[case::prefix_and_strip(json!({"prefixRewrite": "/new", "stripQuery": true}), "h", "/p/x?q", "301 http://h/new/x")]
#[case::regex(json!({"regexRewrite": {"pattern": {"regex": "^/p"}, "substitution": "/r"}}), "h", "/p/x?q", "301 http://h/r/x?q")]
#[case::regex_that_leaves_nothing(json!({"regexRewrite": {"pattern": {"regex": ".+"}, "substitution": ""}}), "h", "/p/x?q", "301 http://h/p/x?q")]
#[case::format(json!({"pathRewrite": "/to%PATH(NQ:PATH)%"}), "h", "/p?q", "301 http://h/to/p?q")]
#[case::see_other(json!({"responseCode": "SEE_OTHER"}), "h", "/p", "303 http://h/p")]
#[case::temporary(json!({"responseCode": "TEMPORARY_REDIRECT"}), "h", "/p", "307 http://h/p")]
fn a_redirect_names_its_place(
    #[case] redirect: Value,
    #[case] host: &str,
    #[case] path: &str,
    #[case] wanted: &str,
) {
    let table = routes(
        json!([{"match": {"prefix": "/p"}, "redirect": redirect.clone()},
                              {"match": {"prefix": "/"}, "redirect": redirect}]),
    );
    assert_eq!(outcome(&table.route(&get(host, path, &[]))), wanted);
}

#[rstest]
#[case::text(json!({"inlineString": "tea"}))]
#[case::bytes(json!({"inlineBytes": "dGVh"}))]
fn a_direct_response_has_its_body(#[case] body: Value) {
    let table = routes(
        json!([{"match": {"prefix": "/"}, "directResponse": {"status": 418, "body": body}}]),
    );
    let Action::Direct { status, body } = table.route(&get("h", "/", &[])).action else {
        panic!("no direct response")
    };
    assert_eq!((status, &*body), (418, b"tea".as_slice()));
}

fn edits(most_specific_wins: bool, append: &str) -> Vec<String> {
    let add =
        |value: &str| json!([{"header": {"key": "X-A", "value": value}, "appendAction": append}]);
    let table = table(json!({
        "mostSpecificHeaderMutationsWins": most_specific_wins,
        "requestHeadersToAdd": add("table"),
        "requestHeadersToRemove": ["x-gone"],
        "virtualHosts": [{"name": "v", "domains": ["*"], "requestHeadersToAdd": add("host"), "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "c"}, "requestHeadersToAdd": add("route")}]}],
    }));
    let choice = table.route(&get("h", "/", &[("x-a", "client"), ("x-gone", "1")]));
    let headers = &forwarded(&choice).headers;
    assert!(headers.iter().all(|(name, _)| name == "x-a"));
    headers.iter().map(|(_, value)| value.clone()).collect()
}

#[rstest]
#[case(false, "APPEND_IF_EXISTS_OR_ADD", &["client", "route", "host", "table"])]
#[case(true, "APPEND_IF_EXISTS_OR_ADD", &["client", "table", "host", "route"])]
#[case(false, "OVERWRITE_IF_EXISTS_OR_ADD", &["table"])]
#[case(true, "OVERWRITE_IF_EXISTS_OR_ADD", &["route"])]
#[case(false, "ADD_IF_ABSENT", &["client"])]
fn headers_are_edited_level_by_level(
    #[case] specific: bool,
    #[case] append: &str,
    #[case] wanted: &[&str],
) {
    assert_eq!(edits(specific, append), wanted);
}

#[test]
fn a_header_whose_value_is_not_modelled_is_named() {
    let table = routes(
        json!([{"match": {"prefix": "/"}, "route": {"cluster": "c"}, "requestHeadersToAdd": [
        {"header": {"key": "a", "value": "%UPSTREAM_HOST%"}}, {"header": {"key": "b", "value": "100%%"}}]}]),
    );
    let choice = table.route(&get("h", "/", &[]));
    assert_eq!(
        choice.not_simulated,
        ["virtualHosts[0].routes[0].requestHeadersToAdd[0].header.value"]
    );
    assert_eq!(
        forwarded(&choice).headers,
        [("b".to_owned(), "100%".to_owned())]
    );
}

/// A route that edits headers, and what a response with `x-a: origin` becomes.
fn response_headers(route: Value, request: &Request) -> Vec<String> {
    let choice = routes(json!([route])).route(request);
    let mut headers = vec![("x-a".to_owned(), "origin".to_owned())];
    choice.response.apply(&mut headers);
    headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect()
}

fn add(action: &str, name: &str, value: &str) -> Value {
    json!({"appendAction": action, "header": {"key": name, "value": value}})
}

/// `HeaderParser::evaluateHeaders` looks at a level's headers before it changes any, and replaces
/// before it adds.
#[rstest]
#[case::absent_for_all_of_a_level(json!([add("APPEND_IF_EXISTS_OR_ADD", "x-b", "1"), add("ADD_IF_ABSENT", "x-b", "2")]), &["x-a: origin", "x-b: 1", "x-b: 2"])]
#[case::replaced_before_added(json!([add("APPEND_IF_EXISTS_OR_ADD", "x-a", "1"), add("OVERWRITE_IF_EXISTS_OR_ADD", "x-a", "2")]), &["x-a: 2", "x-a: 1"])]
#[case::none_to_replace_yet(json!([add("APPEND_IF_EXISTS_OR_ADD", "x-b", "1"), add("OVERWRITE_IF_EXISTS", "x-b", "2")]), &["x-a: origin", "x-b: 1"])]
fn edits_of_one_level_do_not_see_each_other(#[case] edits: Value, #[case] wanted: &[&str]) {
    let route =
        json!({"match": {"prefix": "/"}, "route": {"cluster": "c"}, "responseHeadersToAdd": edits});
    assert_eq!(response_headers(route, &get("h", "/", &[])), wanted);
}

#[rstest]
#[case::appended(json!({"append": true}), "1", &["x-a: origin", "x-a: 1"])]
#[case::replaced(json!({"append": false}), "1", &["x-a: 1"])]
#[case::empty(json!({}), "%REQ(x-none)%", &["x-a: origin"])]
#[case::kept_though_empty(json!({"keepEmptyValue": true}), "%REQ(x-none)%", &["x-a: origin", "x-a: "])]
fn a_header_is_added_as_its_options_say(
    #[case] mut options: Value,
    #[case] value: &str,
    #[case] wanted: &[&str],
) {
    options["header"] = json!({"key": "x-a", "value": value});
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "c"}, "responseHeadersToAdd": [options]});
    assert_eq!(response_headers(route, &get("h", "/", &[])), wanted);
}

/// `Router::Filter` makes the response's headers of the request's as they are by then.
#[rstest]
#[case::path(json!({"route": {"cluster": "c", "prefixRewrite": "/new"}}), "%REQ(:path)%", "/new")]
#[case::host(json!({"route": {"cluster": "c", "hostRewriteLiteral": "new"}}), "%REQ(:authority)%", "new")]
#[case::edited_header(json!({"route": {"cluster": "c"}, "requestHeadersToAdd": [{"header": {"key": "x-c", "value": "set"}}]}), "%REQ(x-c)%", "set")]
#[case::redirect(json!({"redirect": {"prefixRewrite": "/new"}}), "%REQ(:path)%", "/new")]
#[case::path_that_a_redirect_does_not_rewrite(json!({"redirect": {"pathRedirect": "/new"}}), "%REQ(:path)%", "/old")]
fn values_of_a_response_are_made_of_the_request_as_it_was_left(
    #[case] mut route: Value,
    #[case] format: &str,
    #[case] wanted: &str,
) {
    route["match"] = json!({"prefix": "/old"});
    route["responseHeadersToAdd"] = json!([{"header": {"key": "x-b", "value": format}}]);
    let headers = response_headers(route, &get("h", "/old", &[]));
    assert_eq!(
        headers,
        ["x-a: origin".to_owned(), format!("x-b: {wanted}")]
    );
}

/// A cluster is looked for before the request is edited.
#[test]
fn values_are_made_of_the_request_as_it_came_when_there_is_no_such_cluster() {
    let route = json!({
        "match": {"prefix": "/"}, "route": {"cluster": "c", "prefixRewrite": "/new"},
        "responseHeadersToAdd": [{"header": {"key": "x-b", "value": "%REQ(:path)%"}}],
    });
    let choice = routes(json!([route])).route(&get("h", "/old", &[]));
    let mut headers = Vec::new();
    forwarded(&choice)
        .cluster_not_found_edits
        .apply(&mut headers);
    assert_eq!(headers, [("x-b".to_owned(), "/old".to_owned())]);
}

/// The format of `host_rewrite` writes `-` for what is absent; those of headers and paths write nothing.
#[test]
fn an_absent_value_in_a_host_is_a_dash() {
    let choice = route(
        json!({"prefix": "/"}),
        json!({"hostRewrite": "%REQ(x-a)%.test"}),
    )
    .route(&get("h", "/", &[]));
    assert_eq!(forwarded(&choice).authority, "-.test");
}
