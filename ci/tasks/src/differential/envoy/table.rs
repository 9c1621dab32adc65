//! A route table, drawn: a connection manager with virtual hosts and routes of all kinds.
//!
//! Texts come from small alphabets that requests draw from too ([`super::ask`]), so that most
//! conditions hold for some requests and not for others.

use serde_json::{Map, Value, json};

use super::luck::{Feature as F, Luck};
use super::real::CLUSTERS;

/// Names of headers that conditions and edits are about.
pub(super) const HEADERS: [&str; 4] = ["x-a", "x-b", "x-c", "x-d"];
/// What they say.
pub(super) const VALUES: [&str; 9] = [
    "one", "two", "onetwo", "One", "7", "-3", "10", "a.test", "one,two",
];
/// Names of query parameters and cookies.
pub(super) const KEYS: [&str; 3] = ["k", "K", "key"];
/// Where a request says what is drawn among weighted clusters.
pub(super) const DRAW_HEADER: &str = "x-draw";
/// Where a request names a cluster.
pub(super) const CLUSTER_HEADER: &str = "x-cluster";
/// Regular expressions over values and paths.
const VALUE_REGEXES: [&str; 6] = ["one|two", "o.*", "[a-z]+", "-?\\d+", ".*two", "(?i)ONE"];
const PATH_REGEXES: [&str; 7] = [
    "/a.*",
    "/[ab]+",
    "/(api|v1)/.*",
    ".*b",
    "/[^/]+/b?",
    "/.*%20.*",
    "(?i)/API.*",
];
/// Regular expressions and what they are replaced by.
const SUBSTITUTIONS: [(&str, &str); 6] = [
    ("a", "x"),
    ("^/([^/]+)/(.*)$", "/\\2/\\1"),
    ("/+", "/"),
    ("^.*$", "/all"),
    ("(b)", "<\\0\\1\\1>"),
    ("nothing", "/never"),
];
const TEMPLATES: [(&str, &[&str]); 6] = [
    ("/{one}", &["/{one}/x", "/new"]),
    ("/api/{one}", &["/{one}", "/x/{one}/y"]),
    ("/*/{one=**}", &["/{one}", "/deep/{one}"]),
    ("/**", &["/new"]),
    ("/{one}/{two}", &["/{two}/{one}", "/{one}-{two}"]),
    ("/a/*", &["/new"]),
];

type Fields = Map<String, Value>;

/// A path as routes and requests have it.
pub(super) fn path(luck: &mut Luck) -> String {
    const SEGMENTS: [&str; 12] = [
        "a", "b", "api", "A", "v1", "a%20b", "%61", "a;p=1", "ab", "", "API", "b.c",
    ];
    let depth = luck.below(4);
    let mut path = String::new();
    for _ in 0..depth {
        path.push('/');
        path.push_str(luck.pick(&SEGMENTS));
    }
    if path.is_empty() || luck.once_in(5) {
        path.push('/');
    }
    path
}

/// A connection manager with routes of its own.
pub(super) fn manager(luck: &mut Luck) -> Value {
    let mut fields = fields(json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "suite",
        "route_config": table(luck),
        "http_filters": [{
            "name": "router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    }));
    for (feature, name) in [
        (F::StripAnyPort, "strip_any_host_port"),
        (F::StripDot, "strip_trailing_host_dot"),
    ] {
        if luck.has(feature, 6) {
            fields.insert(name.to_owned(), json!(true));
        }
    }
    // Envoy takes only one of the two.
    if !fields.contains_key("strip_any_host_port") && luck.has(F::StripOwnPort, 6) {
        fields.insert("strip_matching_host_port".to_owned(), json!(true));
    }
    Value::Object(fields)
}

fn table(luck: &mut Luck) -> Value {
    let mut table = Fields::new();
    let mut domains = Vec::new();
    let hosts: Vec<Value> = (0..1 + luck.below(4))
        .filter_map(|index| host(luck, index, &mut domains))
        .collect();
    table.insert("name".to_owned(), json!("table"));
    table.insert("virtual_hosts".to_owned(), json!(hosts));
    table.insert("validate_clusters".to_owned(), json!(false));
    for (feature, name) in [
        (F::IgnorePort, "ignore_port_in_host_matching"),
        (
            F::IgnorePathParameters,
            "ignore_path_parameters_in_path_matching",
        ),
        (F::SpecificWins, "most_specific_header_mutations_wins"),
    ] {
        if luck.has(feature, 4) {
            table.insert(name.to_owned(), json!(true));
        }
    }
    if luck.has(F::HostHeader, 12) {
        table.insert("vhost_header".to_owned(), json!("x-host"));
    }
    edits(luck, &mut table, 4);
    Value::Object(table)
}

/// A domain; none if the one that was drawn is there already.
fn domain(luck: &mut Luck) -> String {
    let kind = luck.feature(&[
        F::DomainExact,
        F::DomainPort,
        F::DomainSuffix,
        F::DomainPrefix,
        F::DomainAny,
    ]);
    match kind {
        F::DomainExact => {
            luck.pick(&["a.test", "b.a.test", "A.Test", "test", "[::1]", "127.0.0.1"])
        }
        F::DomainPort => luck.pick(&["a.test:8080", "b.a.test:80", "test:443"]),
        F::DomainSuffix => luck.pick(&["*.test", "*.a.test", "*a.test", "*-x.test", "*.test:8080"]),
        F::DomainPrefix => luck.pick(&["a.*", "b.a.*", "a*", "test*"]),
        _ => "*",
    }
    .to_owned()
}

fn host(luck: &mut Luck, index: usize, taken: &mut Vec<String>) -> Option<Value> {
    let mut domains = Vec::new();
    for _ in 0..1 + luck.below(3) {
        let domain = domain(luck);
        let key = domain.to_ascii_lowercase();
        if !taken.contains(&key) {
            taken.push(key);
            domains.push(domain);
        }
    }
    if domains.is_empty() {
        return None;
    }
    let mut host = Fields::new();
    let routes: Vec<Value> = (0..1 + luck.below(5))
        .map(|at| route(luck, &format!("{index}/{at}")))
        .collect();
    host.insert("name".to_owned(), json!(index.to_string()));
    host.insert("domains".to_owned(), json!(domains));
    host.insert("routes".to_owned(), json!(routes));
    if luck.has(F::RequireTls, 24) {
        host.insert("require_tls".to_owned(), json!("ALL"));
    } else if luck.has(F::RequireTlsExternal, 24) {
        host.insert("require_tls".to_owned(), json!("EXTERNAL_ONLY"));
    }
    edits(luck, &mut host, 4);
    Some(Value::Object(host))
}

fn route(luck: &mut Luck, name: &str) -> Value {
    let mut route = Fields::new();
    route.insert("name".to_owned(), json!(name));
    let mut matches = Fields::new();
    let kind = path_condition(luck, &mut matches);
    conditions(luck, &mut matches);
    route.insert("match".to_owned(), Value::Object(matches));
    match luck.below(4) {
        0 => {
            luck.count(F::Redirect);
            route.insert("redirect".to_owned(), redirect(luck, kind));
        }
        1 => {
            luck.count(F::Direct);
            let status = luck.pick(&[200, 403, 404, 418, 503, 599]);
            let body = json!({ "inline_string": format!("direct {name}") });
            route.insert(
                "direct_response".to_owned(),
                json!({ "status": status, "body": body }),
            );
        }
        _ => {
            route.insert("route".to_owned(), forward(luck, kind));
        }
    }
    edits(luck, &mut route, 2);
    Value::Object(route)
}

/// What a path condition is; a template with the rewrites that fit it.
#[derive(Clone, Copy)]
enum PathKind {
    Plain,
    Template(&'static [&'static str]),
}

fn path_condition(luck: &mut Luck, matches: &mut Fields) -> PathKind {
    let kind = luck.feature(&[
        F::PathPrefix,
        F::PathExact,
        F::PathSeparated,
        F::PathRegex,
        F::PathTemplate,
    ]);
    let mut set = |name: &str, value: Value| matches.insert(name.to_owned(), value);
    match kind {
        F::PathExact => set("path", json!(path(luck))),
        F::PathSeparated => {
            let mut path = path(luck);
            // Envoy takes no slash at the end there.
            while path.ends_with('/') {
                path.pop();
            }
            let path = if path.is_empty() {
                "/a".to_owned()
            } else {
                path
            };
            set("path_separated_prefix", json!(path))
        }
        F::PathRegex => set("safe_regex", json!({ "regex": luck.pick(&PATH_REGEXES) })),
        F::PathTemplate => {
            let (template, rewrites) = luck.pick(&TEMPLATES);
            let config = json!({
                "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
                "path_template": template,
            });
            set(
                "path_match_policy",
                json!({ "name": "template", "typed_config": config }),
            );
            return PathKind::Template(rewrites);
        }
        _ => set(
            "prefix",
            json!(if luck.once_in(2) {
                "/".to_owned()
            } else {
                path(luck)
            }),
        ),
    };
    if !matches!(kind, F::PathRegex) && luck.has(F::AnyCase, 4) {
        matches.insert("case_sensitive".to_owned(), json!(false));
    }
    PathKind::Plain
}

fn conditions(luck: &mut Luck, matches: &mut Fields) {
    if luck.once_in(2) {
        let headers: Vec<Value> = (0..1 + luck.below(2)).map(|_| header(luck)).collect();
        matches.insert("headers".to_owned(), json!(headers));
    }
    if luck.once_in(5) {
        matches.insert("query_parameters".to_owned(), json!([query(luck)]));
    }
    if luck.once_in(8) {
        matches.insert("cookies".to_owned(), json!([cookie(luck)]));
    }
    if luck.has(F::Grpc, 24) {
        matches.insert("grpc".to_owned(), json!({}));
    }
    if luck.once_in(12) {
        let share = match luck.feature(&[F::FractionNone, F::FractionAll]) {
            F::FractionNone => 0,
            _ => 100,
        };
        let value = json!({ "numerator": share, "denominator": "HUNDRED" });
        matches.insert(
            "runtime_fraction".to_owned(),
            json!({ "default_value": value }),
        );
    }
}

fn text_match(luck: &mut Luck, feature: F) -> Value {
    let value = luck.pick(&VALUES);
    match feature {
        F::HeaderPrefix => json!({ "prefix": luck.pick(&["o", "one", "t", "-"]) }),
        F::HeaderSuffix => json!({ "suffix": luck.pick(&["o", "two", "e", "7"]) }),
        F::HeaderContains => json!({ "contains": luck.pick(&["net", "e", "."]) }),
        F::HeaderRegex => json!({ "safe_regex": { "regex": luck.pick(&VALUE_REGEXES) } }),
        F::HeaderAnyCase => {
            let how = luck.pick(&["exact", "prefix", "suffix", "contains"]);
            json!({ how: value.to_ascii_uppercase(), "ignore_case": true })
        }
        _ => json!({ "exact": value }),
    }
}

/// The ways to compare a text, wherever one is compared.
const TEXTS: [F; 6] = [
    F::HeaderExact,
    F::HeaderPrefix,
    F::HeaderSuffix,
    F::HeaderContains,
    F::HeaderRegex,
    F::HeaderAnyCase,
];

fn header(luck: &mut Luck) -> Value {
    let others = [
        F::HeaderOldExact,
        F::HeaderOldPrefix,
        F::HeaderOldSuffix,
        F::HeaderOldContains,
        F::HeaderOldRegex,
        F::HeaderRange,
        F::HeaderPresent,
        F::HeaderAbsent,
        F::HeaderAny,
        F::HeaderPseudo,
    ];
    let kind = luck.feature(&[&TEXTS[..], &others].concat());
    let mut fields = Fields::new();
    let name = luck.pick(&HEADERS);
    fields.insert("name".to_owned(), json!(name));
    let mut set = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    match kind {
        F::HeaderOldExact => set("exact_match", json!(luck.pick(&VALUES))),
        F::HeaderOldPrefix => set("prefix_match", json!(luck.pick(&["o", "one", "t"]))),
        F::HeaderOldSuffix => set("suffix_match", json!(luck.pick(&["o", "two", "e"]))),
        F::HeaderOldContains => set("contains_match", json!(luck.pick(&["net", "e", "."]))),
        F::HeaderOldRegex => set(
            "safe_regex_match",
            json!({ "regex": luck.pick(&VALUE_REGEXES) }),
        ),
        F::HeaderRange => {
            let start = luck.pick(&[-3, 0, 7]);
            set(
                "range_match",
                json!({ "start": start, "end": start + luck.pick(&[1, 3, 10]) }),
            );
        }
        F::HeaderPresent => set("present_match", json!(true)),
        F::HeaderAbsent => set("present_match", json!(false)),
        F::HeaderAny => {}
        F::HeaderPseudo => {
            let (name, value) = luck.pick(&[
                (":method", "GET"),
                (":authority", "a.test"),
                (":path", "/a"),
                (":scheme", "http"),
                ("host", "a.test"),
            ]);
            set("name", json!(name));
            set("string_match", json!({ "prefix": value }));
        }
        kind => set("string_match", text_match(luck, kind)),
    }
    for (feature, name) in [
        (F::HeaderInverted, "invert_match"),
        (F::HeaderMissingEmpty, "treat_missing_header_as_empty"),
    ] {
        if luck.has(feature, 4) {
            fields.insert(name.to_owned(), json!(true));
        }
    }
    Value::Object(fields)
}

fn query(luck: &mut Luck) -> Value {
    let name = luck.pick(&KEYS);
    match luck.feature(&[F::QueryText, F::QueryPresent, F::QueryAbsent]) {
        F::QueryText => json!({ "name": name, "string_match": any_text(luck) }),
        F::QueryPresent => json!({ "name": name, "present_match": true }),
        _ => json!({ "name": name, "present_match": false }),
    }
}

fn cookie(luck: &mut Luck) -> Value {
    luck.count(F::Cookie);
    let inverted = luck.has(F::CookieInverted, 2);
    json!({ "name": luck.pick(&KEYS), "string_match": any_text(luck), "invert_match": inverted })
}

fn any_text(luck: &mut Luck) -> Value {
    let kind = luck.pick(&TEXTS);
    text_match(luck, kind)
}

fn forward(luck: &mut Luck, kind: PathKind) -> Value {
    let mut route = Fields::new();
    target(luck, &mut route);
    if luck.has(F::NotFoundCode, 8) {
        let code = luck.pick(&["NOT_FOUND", "INTERNAL_SERVER_ERROR", "SERVICE_UNAVAILABLE"]);
        route.insert("cluster_not_found_response_code".to_owned(), json!(code));
    }
    if luck.once_in(2) {
        new_path(luck, &mut route, kind);
    }
    if luck.once_in(2) {
        new_host(luck, &mut route);
    }
    if luck.has(F::ForwardedHost, 4) {
        route.insert("append_x_forwarded_host".to_owned(), json!(true));
    }
    Value::Object(route)
}

fn target(luck: &mut Luck, route: &mut Fields) {
    let (name, value) = match luck.feature(&[
        F::ToCluster,
        F::ToClusterHeader,
        F::ToUnknownCluster,
        F::Weighted,
        F::Weighted,
    ]) {
        F::ToCluster => ("cluster", json!(luck.pick(&CLUSTERS))),
        F::ToClusterHeader => ("cluster_header", json!(CLUSTER_HEADER)),
        F::ToUnknownCluster => ("cluster", json!("nowhere")),
        _ => ("weighted_clusters", weighted(luck)),
    };
    route.insert(name.to_owned(), value);
}

fn weighted(luck: &mut Luck) -> Value {
    let mut clusters = Vec::new();
    for index in 0..1 + luck.below(3) {
        let mut entry = Fields::new();
        if luck.has(F::WeightedHeader, 5) {
            entry.insert("cluster_header".to_owned(), json!(CLUSTER_HEADER));
        } else {
            entry.insert("name".to_owned(), json!(luck.pick(&CLUSTERS)));
        }
        let weight = if index == 0 {
            1 + luck.below(50)
        } else {
            luck.below(50)
        };
        entry.insert("weight".to_owned(), json!(weight));
        if luck.has(F::WeightedHost, 4) {
            entry.insert("host_rewrite_literal".to_owned(), json!("weighted.test"));
        }
        if luck.has(F::WeightedEdits, 3) {
            edits(luck, &mut entry, 1);
        }
        clusters.push(Value::Object(entry));
    }
    json!({ "clusters": clusters, "header_name": DRAW_HEADER })
}

fn substitution(luck: &mut Luck) -> Value {
    let (regex, substitution) = luck.pick(&SUBSTITUTIONS);
    json!({ "pattern": { "regex": regex }, "substitution": substitution })
}

fn new_path(luck: &mut Luck, route: &mut Fields, kind: PathKind) {
    let (name, value) = match kind {
        PathKind::Template(rewrites) if !luck.once_in(4) => {
            luck.count(F::RewriteTemplate);
            let config = json!({
                "@type": "type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig",
                "path_template_rewrite": luck.pick(rewrites),
            });
            (
                "path_rewrite_policy",
                json!({ "name": "template", "typed_config": config }),
            )
        }
        kind => match luck.feature(&[F::RewritePrefix, F::RewriteRegex, F::RewriteFormat]) {
            F::RewritePrefix if matches!(kind, PathKind::Plain) => (
                "prefix_rewrite",
                json!(luck.pick(&["/new", "/", "/new/", "/a/b"])),
            ),
            F::RewriteFormat => (
                "path_rewrite",
                json!(luck.pick(&["/f%REQ(x-a)%", "/f%PATH(NQ)%", "/%REQ(x-b?x-c)%/x"])),
            ),
            _ => ("regex_rewrite", substitution(luck)),
        },
    };
    route.insert(name.to_owned(), value);
}

fn new_host(luck: &mut Luck, route: &mut Fields) {
    let (name, value) = match luck.feature(&[
        F::HostLiteral,
        F::HostFromHeader,
        F::HostFromPath,
        F::HostFormat,
    ]) {
        F::HostLiteral => ("host_rewrite_literal", json!("new.test")),
        F::HostFromHeader => ("host_rewrite_header", json!(luck.pick(&HEADERS))),
        F::HostFromPath => ("host_rewrite_path_regex", substitution(luck)),
        _ => (
            "host_rewrite",
            json!(luck.pick(&["%REQ(x-a)%.test", "f.test", "%REQ(:authority)%"])),
        ),
    };
    route.insert(name.to_owned(), value);
}

fn redirect(luck: &mut Luck, kind: PathKind) -> Value {
    let mut redirect = Fields::new();
    let mut set = |name: &str, value: Value| {
        redirect.insert(name.to_owned(), value);
    };
    if luck.has(F::RedirectHost, 3) {
        set("host_redirect", json!("else.test"));
    }
    if luck.has(F::RedirectPort, 3) {
        set("port_redirect", json!(luck.pick(&[80, 443, 8443])));
    }
    if luck.once_in(2) {
        match luck.feature(&[F::RedirectHttps, F::RedirectScheme]) {
            F::RedirectHttps => set("https_redirect", json!(true)),
            _ => set(
                "scheme_redirect",
                json!(luck.pick(&["https", "http", "ftp"])),
            ),
        }
    }
    if luck.once_in(2) {
        match luck.feature(&[
            F::RedirectPath,
            F::RedirectPrefix,
            F::RedirectRegex,
            F::RedirectFormat,
        ]) {
            F::RedirectPath => set(
                "path_redirect",
                json!(luck.pick(&["/else", "/else?q=1", "/"])),
            ),
            F::RedirectPrefix if matches!(kind, PathKind::Plain) => {
                set("prefix_rewrite", json!(luck.pick(&["/new", "/", "/new/"])));
            }
            F::RedirectFormat => set(
                "path_rewrite",
                json!(luck.pick(&["/f%REQ(x-a)%", "/f%PATH(NQ)%"])),
            ),
            _ => set("regex_rewrite", substitution(luck)),
        }
    }
    if luck.has(F::RedirectCode, 2) {
        let codes = [
            "MOVED_PERMANENTLY",
            "FOUND",
            "SEE_OTHER",
            "TEMPORARY_REDIRECT",
            "PERMANENT_REDIRECT",
        ];
        set("response_code", json!(luck.pick(&codes)));
    }
    if luck.has(F::RedirectStrip, 3) {
        set("strip_query", json!(true));
    }
    Value::Object(redirect)
}

/// Header edits of one level, each kind once in so many times.
fn edits(luck: &mut Luck, level: &mut Fields, once_in: usize) {
    for (of, add, remove) in [
        ("request", F::RequestAdd, F::RequestRemove),
        ("response", F::ResponseAdd, F::ResponseRemove),
    ] {
        if luck.has(add, once_in) {
            let all: Vec<Value> = (0..1 + luck.below(2)).map(|_| addition(luck)).collect();
            level.insert(format!("{of}_headers_to_add"), json!(all));
        }
        if luck.has(remove, once_in * 2) {
            level.insert(
                format!("{of}_headers_to_remove"),
                json!([luck.pick(&HEADERS)]),
            );
        }
    }
}

fn addition(luck: &mut Luck) -> Value {
    let action = luck.feature(&[
        F::AppendOrAdd,
        F::AddIfAbsent,
        F::OverwriteOrAdd,
        F::OverwriteIfExists,
    ]);
    let action = action.name().rsplit(' ').next().unwrap_or_default();
    let value = if luck.once_in(2) {
        luck.pick(&["plain", "100%%", ""])
    } else {
        match luck.feature(&[F::FormatHeader, F::FormatPath, F::FormatClient]) {
            F::FormatHeader => luck.pick(&[
                "%REQ(x-b)%",
                "%REQ(x-c?x-a):3%",
                "<%REQ(:method)%>",
                "%REQ(X-D)%",
            ]),
            F::FormatPath => luck.pick(&[
                "%PATH(NQ)%",
                "%REQ(:path)%",
                "%PATH(WQ:PATH)%",
                "%PATH(NQ:ORIG)%",
            ]),
            _ => "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        }
    };
    let keep = luck.has(F::KeepEmpty, 4);
    json!({
        "header": { "key": luck.pick(&HEADERS), "value": value },
        "append_action": action, "keep_empty_value": keep,
    })
}

fn fields(value: Value) -> Fields {
    match value {
        Value::Object(fields) => fields,
        _ => Fields::new(),
    }
}
