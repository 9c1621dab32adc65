//! What a user writes may be anything: each mangled manifest is an error, a problem or a cluster
//! that answers, and never a panic.

use nodeway_core::source::Text;
use nodeway_sim::{Ask, Cluster, Fixture, Redirect, Sim, Source};
use proptest::prelude::*;

/// What somebody does to a line.
#[derive(Clone, Debug)]
enum Slip {
    /// It is gone.
    Remove,
    /// It is there twice.
    Twice,
    /// It is at another depth.
    Indent(usize),
    /// Its value is another one.
    Value(String),
    /// Its key is another one.
    Key(String),
    /// Something is put into it.
    Insert(usize, String),
}

fn value() -> impl Strategy<Value = String> {
    let known = [
        "",
        "null",
        "0",
        "-1",
        "65536",
        "99999999999999999999",
        "true",
        "''",
        "[]",
        "{}",
        "[x]",
        "{a: b}",
        "*",
        "*.example",
        "a..b",
        "/",
        "//",
        "a b",
        "(",
        "[",
        "/[",
        "/(?=x)",
        "None",
        "10.96.0.1",
        "::1",
        "fd00::1",
        "300.0.0.1",
        "ExternalName",
        "NodePort",
        "ClusterIP",
        "Exact",
        "ImplementationSpecific",
        "nginx",
        "shared",
        "UDP",
        "details",
        "client",
        "node-1",
        "node-9",
        "kube-system",
        "\u{1F980}",
        "!!binary x",
        "&a x",
        "|",
    ];
    prop_oneof![
        4 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => "[ -~]{0,12}",
    ]
}

fn slip() -> impl Strategy<Value = Slip> {
    prop_oneof![
        Just(Slip::Remove),
        Just(Slip::Twice),
        (0_usize..12).prop_map(Slip::Indent),
        value().prop_map(Slip::Value),
        "[a-zA-Z]{0,10}".prop_map(Slip::Key),
        (0_usize..30, "\\PC{0,4}").prop_map(|(at, what)| Slip::Insert(at, what)),
    ]
}

impl Slip {
    fn of(&self, line: &str) -> String {
        match self {
            Self::Remove => String::new(),
            Self::Twice => format!("{line}\n{line}"),
            Self::Indent(depth) => format!("{}{}", " ".repeat(*depth), line.trim_start()),
            Self::Value(value) => match line.split_once(':') {
                Some((key, _)) => format!("{key}: {value}"),
                None => value.clone(),
            },
            Self::Key(key) => match line.split_once(':') {
                Some((old, value)) => {
                    let depth = old.len() - old.trim_start_matches([' ', '-']).len();
                    format!("{}{key}:{value}", old.get(..depth).unwrap_or_default())
                }
                None => key.clone(),
            },
            Self::Insert(at, what) => {
                let at = line
                    .char_indices()
                    .nth(*at)
                    .map_or(line.len(), |(at, _)| at);
                let (before, after) = line.split_at(at);
                format!("{before}{what}{after}")
            }
        }
    }
}

fn mangle(text: &Text, slips: &[(usize, Slip)]) -> Text {
    let mut lines: Vec<String> = text.content.lines().map(str::to_owned).collect();
    let count = lines.len().max(1);
    for (at, slip) in slips {
        if let Some(line) = lines.get_mut(at % count) {
            *line = slip.of(line);
        }
    }
    Text::new(text.name.clone(), lines.join("\n"))
}

const FIXTURES: [(&str, &str); 4] = [
    ("bookinfo", "http://cilium-ingress-basic-ingress/details/0"),
    ("hosts", "http://cilium-ingress-hosts/"),
    ("path-types", "http://cilium-ingress-paths/tree/leaf"),
    ("two-ingresses", "http://cilium-ingress.kube-system/"),
];

const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "CONNECT", "OPTIONS", "TRACE", "PUT", "PRI",
];

const FIELDS: [&str; 12] = [
    "host",
    "connection",
    "te",
    "upgrade",
    "expect",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-envoy-internal",
    "x-request-id",
    "cookie",
    "accept-encoding",
    "x-any",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_mangled_manifest_is_an_error_a_problem_or_a_cluster_that_answers(
        which in 0..FIXTURES.len(),
        slips in proptest::collection::vec((any::<usize>(), slip()), 1..4),
        sk_lookup in any::<bool>(),
    ) {
        let (name, url) = FIXTURES[which];
        let folder = format!("{}/../fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        let fixture = Fixture::load(folder).unwrap();
        let mut texts = fixture.manifests.clone();
        let count = texts.len();
        for (at, slip) in &slips {
            let text = &mut texts[at % count];
            *text = mangle(text, &[(at / count, slip.clone())]);
        }
        let source = Source { name: name.to_owned(), fixture: None, texts, recordings: Vec::new() };
        let Ok(builder) = Sim::from_source(&source) else { return Ok(()) };
        let redirect = if sk_lookup { Redirect::SkLookup } else { Redirect::Tc };
        let Ok(mut sim) = builder.redirect(redirect).start() else { return Ok(()) };
        for from in ["default/client", "outside", "node/node-1"] {
            match sim.get(from, url) {
                Ok(reply) => prop_assert!(reply.status >= 200),
                Err(failed) => prop_assert!(!failed.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn whatever_a_client_asks_the_request_ends(
        method in prop_oneof![proptest::sample::select(METHODS.to_vec()).prop_map(str::to_owned), "[A-Z]{1,8}"],
        path in "[!-~]{0,24}",
        fields in proptest::collection::vec((proptest::sample::select(FIELDS.to_vec()), "[ -~]{0,20}"), 0..4),
        body in proptest::collection::vec(any::<u8>(), 0..40),
        tls in any::<bool>(),
    ) {
        let scheme = if tls { "https" } else { "http" };
        let folder = format!("{}/../fixtures/hosts", env!("CARGO_MANIFEST_DIR"));
        let mut sim = Sim::load(folder).unwrap().start().unwrap();
        let mut ask = Ask::get(format!("{scheme}://cilium-ingress-hosts:80/{path}")).method(method).body(body);
        for (name, value) in fields {
            ask = ask.header(name, value);
        }
        match sim.request("default/client", ask) {
            Ok(reply) => prop_assert!(reply.status >= 200),
            Err(failed) => prop_assert!(!failed.to_string().is_empty()),
        }
        // Whatever that was, it did no harm.
        let next = Ask::get("http://cilium-ingress-hosts/").header("host", "shop.example");
        let reply = sim.request("default/client", next).unwrap();
        prop_assert_eq!((reply.status, reply.service.to_string()), (200, "default/shop".to_owned()));
    }
}
