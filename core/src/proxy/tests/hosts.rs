use rstest::rstest;

use super::*;

fn hosts(ignore_port: bool) -> RouteTable {
    let host = |name: &str, domains: &[&str]| {
        json!({"name": name, "domains": domains,
               "routes": [{"match": {"prefix": "/"}, "route": {"cluster": name}}]})
    };
    table(
        json!({"ignorePortInHostMatching": ignore_port, "virtualHosts": [
            host("any", &["*"]),
            host("suffix", &["*.example.com"]),
            host("longer", &["*-x.example.com"]),
            host("prefix", &["example.*"]),
            host("exact", &["example.com", "example.com:8080"]),
            host("address", &["[fd00::1]"]),
        ]}),
    )
}

#[rstest]
#[case::exact("example.com", "exact")]
#[case::any_case("EXAMPLE.com", "exact")]
#[case::with_a_port_of_its_own("example.com:8080", "exact")]
#[case::with_another_port("example.com:9090", "prefix")]
#[case::suffix("a.example.com", "suffix")]
#[case::several_labels("b.a.example.com", "suffix")]
#[case::longest_suffix("a-x.example.com", "longer")]
#[case::a_wildcard_is_not_empty("-x.example.com", "suffix")]
#[case::nothing_before_the_dot(".example.com", "any")]
#[case::prefix("example.org", "prefix")]
#[case::nothing_behind_the_dot("example.", "any")]
#[case::none("other", "any")]
#[case::letters_beyond_ascii("é.example.com", "suffix")]
fn a_host_finds_its_most_specific_domain(#[case] host: &str, #[case] name: &str) {
    assert_eq!(outcome(&hosts(false).route(&get(host, "/", &[]))), name);
}

#[rstest]
#[case::port("example.com:9090", "exact")]
#[case::suffix_with_port("a.example.com:1", "suffix")]
#[case::address("[fd00::1]:80", "address")]
#[case::address_without_port("[fd00::1]", "address")]
fn a_port_is_ignored_where_the_table_says_so(#[case] host: &str, #[case] name: &str) {
    assert_eq!(outcome(&hosts(true).route(&get(host, "/", &[]))), name);
}

#[test]
fn domains_that_match_too_lost_for_being_less_specific() {
    let choice = hosts(false).route(&get("a-x.example.com", "/", &[]));
    let host = choice.virtual_host.unwrap();
    assert_eq!(
        (&*host.domain, host.why),
        (
            "*-x.example.com",
            "the longest domain that the host ends with"
        )
    );
    let lost: Vec<String> = host.lost.iter().map(ToString::to_string).collect();
    assert_eq!(
        lost,
        [
            "*.example.com: less specific than *-x.example.com",
            "*: less specific than *-x.example.com"
        ]
    );
}

#[test]
fn without_a_host_nothing_is_found() {
    let choice = hosts(false).route(&get("", "/", &[]));
    assert_eq!(outcome(&choice), "not found");
    assert_eq!(choice.virtual_host, None);
}

#[test]
fn a_table_for_all_hosts_asks_for_none() {
    let table = routes(json!([{"match": {"prefix": "/"}, "route": {"cluster": "c"}}]));
    assert_eq!(outcome(&table.route(&get("", "/", &[]))), "c");
}

#[rstest]
fn a_table_with_more_than_all_hosts_asks_for_one(#[values("a.test", "*.test", "a.*")] more: &str) {
    let table = table(
        json!({"virtualHosts": [{"name": "v", "domains": ["*", more],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c"}}]}]}),
    );
    assert_eq!(outcome(&table.route(&get("", "/", &[]))), "not found");
}

#[test]
fn the_domains_that_a_host_is_not_among_are_named() {
    let table = table(json!({"virtualHosts": [{"name": "v", "domains": ["a.test", "*.b.test"]}]}));
    let Action::NotFound { lost, .. } = table.route(&get("c.test", "/", &[])).action else {
        panic!("found")
    };
    let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
    assert_eq!(
        lost,
        [
            "a.test: domain a.test for host c.test is not met",
            "*.b.test: domain *.b.test for host c.test is not met"
        ]
    );
}

#[rstest]
#[case::that_asks_for_it("POST", "posts")]
#[case::that_no_other_has("GET", "other")]
fn a_request_is_counted_under_a_virtual_cluster(#[case] method: &str, #[case] name: &str) {
    let table = table(json!({"virtualHosts": [
        {"name": "v", "domains": ["a"], "virtualClusters": [
            {"name": "posts", "headers": [{"name": ":method", "stringMatch": {"exact": "POST"}}]}]},
        {"name": "w", "domains": ["b"]},
    ]}));
    let mut request = get("a", "/", &[]);
    request.method = method.to_owned();
    let under = |host: usize| {
        let host = &table.virtual_hosts[host];
        host.virtual_cluster(&request, &Context::default())
    };
    assert_eq!((under(0), under(1)), (Some(name), None));
}

#[rstest]
#[case::never(json!("NONE"), "http", false, "c")]
#[case::plain(json!("ALL"), "http", false, "301 https://h:80/p")]
#[case::over_tls(json!("ALL"), "https", false, "c")]
#[case::from_outside(json!("EXTERNAL_ONLY"), "http", false, "301 https://h:80/p")]
#[case::from_the_mesh(json!("EXTERNAL_ONLY"), "http", true, "c")]
fn tls_is_required_by_a_redirect(
    #[case] require: Value,
    #[case] scheme: &str,
    #[case] internal: bool,
    #[case] wanted: &str,
) {
    let table = table(
        json!({"virtualHosts": [{"name": "v", "domains": ["*"], "requireTls": require,
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c"}}]}]}),
    );
    let mut request = get("h:80", "/p", &[]);
    request.scheme = scheme.to_owned();
    if internal {
        request
            .headers
            .push(("x-envoy-internal".to_owned(), "true".to_owned()));
    }
    assert_eq!(outcome(&table.route(&request)), wanted);
}

#[rstest]
#[case::any_port(HostStripping { any_port: true, ..HostStripping::default() }, "a.:81", "a.")]
#[case::own_port(HostStripping { own_port: true, ..HostStripping::default() }, "a:80", "a")]
#[case::another_port(HostStripping { own_port: true, ..HostStripping::default() }, "a:81", "a:81")]
#[case::dot(HostStripping { dot: true, ..HostStripping::default() }, "a.b.:81", "a.b:81")]
#[case::dot_without_port(HostStripping { dot: true, ..HostStripping::default() }, "a.b.", "a.b")]
#[case::address(HostStripping { any_port: true, dot: true, own_port: false }, "[::1]:80", "[::1]")]
#[case::nothing(HostStripping { any_port: true, dot: true, own_port: true }, "", "")]
fn a_connection_manager_strips_the_host(
    #[case] strip: HostStripping,
    #[case] host: &str,
    #[case] left: &str,
) {
    let mut request = get(host, "/", &[]);
    strip.apply(&mut request, 80);
    assert_eq!(request.authority, left);
}
