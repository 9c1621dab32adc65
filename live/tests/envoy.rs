//! A real Envoy from a plan, in a namespace of its own. Needs root, and Envoy in `$ENVOY` or on
//! `PATH`: `ci/setup` gets it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use crate::bed::{self, Bed, Listener, Machine, serve_endpoints};
use nodeway_core::datapath::{Frontend, FrontendState};
use nodeway_core::envoy::bootstrap::{AccessEntry, AccessKind};
use nodeway_core::frontend::FrontendKey;
use nodeway_core::netfilter::Marking;
use nodeway_core::plan::NodePlan;
use nodeway_live::envoy::{Envoy, EnvoyError, EnvoyOptions, RunsAs, find};
use nodeway_live::netfilter::{Netfilter, Owner, Wanted};
use nodeway_sim::{Fixture, Sim};
use rstest::rstest;

/// The options of an Envoy with a folder that goes away.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn node(&self) -> EnvoyOptions {
        let program = find(None).unwrap_or_else(|error| panic!("{error}"));
        EnvoyOptions::new(program, self.folder.path().join("envoy"), "node-1")
    }

    fn pod(&self) -> EnvoyOptions {
        let program = find(None).unwrap_or_else(|error| panic!("{error}"));
        EnvoyOptions::sidecar(program, self.folder.path().join("envoy"), "default/client")
    }
}

/// Asks by HTTP, and gives back all that came.
fn get(machine: &Machine, (to, port): (&str, u16), path: &str, way: &str) -> String {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: bookinfo\r\nx-nodeway-way: {way}\r\nconnection: close\r\n\r\n"
    );
    machine.say(to, port, &request).unwrap()
}

fn ask(machine: &Machine, port: u16, path: &str, way: &str) -> String {
    get(machine, ("127.0.0.1", port), path, way)
}

fn plan(fixture: &str) -> NodePlan {
    let folder = PathBuf::from("../fixtures").join(fixture);
    let fixture = Fixture::load(folder).unwrap();
    let sim = Sim::from_fixture(&fixture).unwrap().start().unwrap();
    sim.plan("node-1").unwrap().clone()
}

fn only_port(plan: &NodePlan) -> u16 {
    assert_eq!(plan.listeners.len(), 1);
    plan.listeners.values().next().unwrap().port
}

fn entry(envoy: &Envoy, way: &str) -> AccessEntry {
    let within = Duration::from_secs(5);
    let mut entries = envoy.entries_of(way, within).unwrap();
    assert_eq!(entries.len(), 1, "{:?}\n{}", envoy.entries(), envoy.words());
    entries.remove(0)
}

#[test]
fn a_request_is_answered_and_its_line_leads_back_to_the_plans_route() {
    let place = Place::new();
    let node = Machine::new("route");
    let plan = plan("bookinfo");
    serve_endpoints(&node, &plan);
    let envoy = Envoy::start(&node.netns, &plan, &place.node()).unwrap();
    let answer = ask(&node, only_port(&plan), "/details/0", "7.1");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let entry = entry(&envoy, "7.1");
    assert_eq!(entry.kind, AccessKind::Request);
    assert_eq!(
        entry.listener,
        "default/cilium-ingress-default-basic-ingress/listener"
    );
    assert_eq!(entry.filter_chain, Some(0));
    let matched = entry.matched(&plan).unwrap();
    assert_eq!(
        &*matched.route.matches.description,
        "path_separated_prefix /details"
    );
    assert_eq!(
        &*matched.virtual_host.name,
        "default/cilium-ingress-default-basic-ingress/*"
    );
    let cluster = entry.cluster.as_deref().unwrap();
    assert!(plan.clusters.contains_key(cluster), "{cluster}");
    assert!(answer.ends_with(&entry.endpoint.unwrap().to_string()));
    assert_eq!(entry.status, Some(200));
    assert_eq!(entry.flags, [""; 0]);
    assert_eq!(entry.details.as_deref(), Some("via_upstream"));
    assert!(entry.peer.ip().is_loopback());
    envoy.stop().unwrap();
}

#[test]
fn a_service_without_endpoints_is_answered_503_by_envoy_itself() {
    let place = Place::new();
    let node = Machine::new("empty");
    let plan = plan("no-endpoints");
    let envoy = Envoy::start(&node.netns, &plan, &place.node()).unwrap();
    let port = only_port(&plan);
    assert!(ask(&node, port, "/", "a").starts_with("HTTP/1.1 503"));
    let entry = entry(&envoy, "a");
    assert_eq!(entry.flags, ["UH"]);
    assert_eq!(entry.endpoint, None);
    assert!(entry.matched(&plan).is_some());
}

#[test]
fn it_runs_as_nobody_with_one_capability_in_a_folder_of_its_own() {
    use std::os::unix::fs::MetadataExt as _;
    let place = Place::new();
    let node = Machine::new("user");
    let envoy = Envoy::start(&node.netns, &plan("bookinfo"), &place.node()).unwrap();
    assert_eq!(envoy.runs_as(), &RunsAs::User(65_534));
    let status = std::fs::read_to_string(format!("/proc/{}/status", envoy.pid())).unwrap();
    let value = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    assert_eq!(value("Uid"), "65534\t65534\t65534\t65534");
    // CAP_NET_ADMIN is number 12.
    for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(value(set), "0000000000001000", "{set}");
    }
    let folder = envoy.folder().metadata().unwrap();
    assert_eq!((folder.uid(), folder.mode() & 0o777), (65_534, 0o700));
    let ready = envoy.admin("/ready").unwrap();
    assert_eq!(ready.trim(), "LIVE");
}

#[test]
fn nothing_is_left_of_one_that_goes_out_of_scope() {
    let place = Place::new();
    let node = Machine::new("drop");
    let options = place.node();
    let envoy = Envoy::start(&node.netns, &plan("bookinfo"), &options).unwrap();
    let process = PathBuf::from(format!("/proc/{}", envoy.pid()));
    assert!(process.exists() && options.folder.exists());
    drop(envoy);
    assert!(!process.exists());
    assert!(!options.folder.exists());
}

#[test]
fn one_that_is_left_is_found_again_and_one_that_crashed_is_gone() {
    let place = Place::new();
    let node = Machine::new("adopt");
    let options = place.node();
    let plan = plan("no-endpoints");
    drop(Envoy::start(&node.netns, &plan, &options).unwrap().leave());
    let mut found = Envoy::adopt(&options.folder, "node-1").unwrap();
    assert_eq!(found.runs_as(), &RunsAs::User(65_534));
    assert!(ask(&node, only_port(&plan), "/", "b").starts_with("HTTP/1.1 503"));
    assert_eq!(entry(&found, "b").status, Some(503));
    found.crash();
    assert!(!found.lives());
    let gone = Envoy::adopt(&options.folder, "node-1").unwrap_err();
    assert!(matches!(gone, EnvoyError::Gone(_)));
    found.stop().unwrap();
    assert!(!options.folder.exists());
}

#[test]
fn a_port_that_is_taken_is_told_in_envoys_own_words_and_nothing_is_left() {
    let place = Place::new();
    let node = Machine::new("taken");
    let plan = plan("bookinfo");
    let port = only_port(&plan);
    let _other = node
        .netns
        .run(|| TcpListener::bind(("127.0.0.1", port)))
        .unwrap()
        .unwrap();
    let options = place.node();
    let error = Envoy::start(&node.netns, &plan, &options).unwrap_err();
    assert!(matches!(error, EnvoyError::Ended { .. }), "{error}");
    assert!(
        error.to_string().contains("Address already in use"),
        "{error}"
    );
    assert!(!options.folder.exists());
}

#[test]
fn two_of_one_plan_run_side_by_side_in_two_namespaces() {
    let (one, other) = (Machine::new("side-a"), Machine::new("side-b"));
    let (place, another) = (Place::new(), Place::new());
    let plan = plan("no-endpoints");
    let first = Envoy::start(&one.netns, &plan, &place.node()).unwrap();
    let second = Envoy::start(&other.netns, &plan, &another.node()).unwrap();
    second.stop().unwrap();
    assert!(first.lives());
    assert!(ask(&one, only_port(&plan), "/", "c").starts_with("HTTP/1.1 503"));
    assert_eq!(entry(&first, "c").status, Some(503));
}

/// The service address of an Ingress, of one family.
fn service(plan: &NodePlan, v4: bool) -> FrontendKey {
    let mut keys = plan.frontends.keys();
    *keys
        .find(|key| key.port == 80 && key.address.is_ipv4() == v4)
        .unwrap()
}

fn frontends(plan: &NodePlan) -> Vec<(FrontendKey, Frontend)> {
    let frontend = |port| Frontend {
        listener_port: port,
        state: FrontendState::Active,
        ranged: false,
    };
    let planned = plan.frontends.iter();
    planned
        .map(|(key, it)| (*key, frontend(it.listener_port)))
        .collect()
}

#[rstest]
fn a_pod_reaches_the_nodes_envoy_by_a_service_address(#[values(0, 1)] family: usize) {
    let (bed, place) = (Bed::new(&format!("all{family}")), Place::new());
    let plan = plan("dual-stack");
    serve_endpoints(&bed.node, &plan);
    let envoy = Envoy::start(&bed.node.netns, &plan, &place.node()).unwrap();
    let wanted = Wanted::tproxy(&frontends(&plan), &Marking::default());
    let mut rules = Netfilter::new(Owner::Nodeway);
    rules.apply(&bed.node.netns, &wanted).unwrap();

    let service = service(&plan, family == 0);
    let address = service.address.to_string();
    let answer = get(&bed.pod, (&address, 80), "/", "way-1");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let entry = entry(&envoy, "way-1");
    assert_eq!(entry.destination.to_string(), service.to_string());
    assert_eq!(entry.peer.ip().to_string(), bed::POD[family]);
    assert!(entry.matched(&plan).is_some());
}

#[test]
fn a_pods_own_envoy_takes_its_frontends_and_passes_all_else() {
    let (bed, place) = (Bed::new("sidecar"), Place::new());
    let plan = plan("bookinfo");
    serve_endpoints(&bed.node, &plan);
    let _elsewhere = Listener::anywhere(&bed.node, 8081);
    let _app = Listener::anywhere(&bed.pod, 8080);
    let envoy = Envoy::start(&bed.pod.netns, &plan, &place.pod()).unwrap();
    assert_eq!(envoy.runs_as(), &RunsAs::User(1337));
    let mut rules = Netfilter::new(Owner::Nodeway);
    rules.apply(&bed.pod.netns, &Wanted::sidecar(&[])).unwrap();

    // A frontend: routed as on a node.
    let service = service(&plan, true);
    let answer = get(
        &bed.pod,
        (&service.address.to_string(), 80),
        "/details/0",
        "way-2",
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let entry = entry(&envoy, "way-2");
    assert_eq!(entry.destination.to_string(), service.to_string());
    let matched = entry.matched(&plan).unwrap();
    let route = &*matched.route.matches.description;
    assert_eq!(route, "path_separated_prefix /details");

    // What is no frontend: passed on, in both directions.
    let said = bed.pod.ask(bed::NODE[0], 8081).unwrap();
    assert_eq!(said, format!("{} 8081 {}", bed::NODE[0], bed::POD[0]));
    for (pod, from) in bed::POD.iter().zip(["127.0.0.6", "::6"]) {
        let said = bed.node.ask(pod, 8080).unwrap();
        assert_eq!(said, format!("{pod} 8080 {from}"));
    }
    // The port itself goes round no circle: it is answered by nobody.
    assert_eq!(bed.pod.ask("127.0.0.1", 15_001).unwrap_or_default(), "");
    let passed = || {
        let entries = envoy.entries().unwrap();
        let of = |listener: &str| entries.iter().filter(|it| it.listener == listener).count();
        (of("virtualOutbound"), of("virtualInbound"))
    };
    // A line is written when a connection has ended on both sides.
    // On a loaded machine that takes long; only a wrong count may end the test.
    for _ in 0..3000 {
        if passed() == (2, 2) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(passed(), (2, 2));
}

/// What a server shows a client that asks for a name: its own certificate in hexadecimal, or the
/// name of the error.
fn shown(machine: &Machine, port: u16, name: &str) -> String {
    let program = format!(
        "python3 - <<'END'
import socket, ssl
context = ssl._create_unverified_context()
plain = socket.create_connection(('127.0.0.1', {port}), 3)
try:
    print(context.wrap_socket(plain, server_hostname='{name}').getpeercert(True).hex())
except (ssl.SSLError, OSError) as error:
    print(type(error).__name__)
END"
    );
    machine.shell(&program).trim().to_owned()
}

fn certificate(plan: &NodePlan, source: &str) -> String {
    let mut secrets = plan.secrets.values();
    let secret = secrets.find(|it| it.source.path() == source).unwrap();
    let chain = secret
        .certificate
        .as_ref()
        .unwrap()
        .chain()
        .next()
        .unwrap()
        .to_vec();
    chain.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_client_of_tls_is_shown_the_certificate_of_its_server_name() {
    let (node, place) = (Machine::new("tls"), Place::new());
    let plan = plan("tls-two-hosts");
    let envoy = Envoy::start(&node.netns, &plan, &place.node()).unwrap();
    let port = only_port(&plan);
    for (name, secret) in [
        ("shop.example", "default/shop"),
        ("cart.example", "default/cart"),
    ] {
        assert_eq!(
            shown(&node, port, name),
            certificate(&plan, secret),
            "{name}"
        );
    }
    // No filter chain has that name: the connection is closed, and the log says so.
    let error = shown(&node, port, "other.example");
    assert!(error.ends_with("Error"), "{error}");
    let refused = || {
        let mut entries = envoy.entries().unwrap();
        entries.retain(|it| it.kind == AccessKind::Refused);
        entries
    };
    // It is written after the client has seen the end; only a line that never comes may end the test.
    for _ in 0..3000 {
        if !refused().is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let refused = refused();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].server_name.as_deref(), Some("other.example"));
    assert_eq!(refused[0].flags, ["NR"]);
}

#[test]
fn without_its_certificate_one_name_fails_and_the_other_is_served() {
    let (node, place) = (Machine::new("nosecret"), Place::new());
    let mut plan = plan("tls-two-hosts");
    let cart = certificate(&plan, "default/cart");
    plan.secrets
        .retain(|_, it| it.source.path() != "default/shop");
    let _envoy = Envoy::start(&node.netns, &plan, &place.node()).unwrap();
    let port = only_port(&plan);
    let error = shown(&node, port, "shop.example");
    assert!(error.ends_with("Error"), "{error}");
    assert_eq!(shown(&node, port, "cart.example"), cart);
}
