//! A real Envoy from a plan, in a namespace of its own. Needs root, and Envoy in `$ENVOY` or on
//! `PATH`: `ci/setup` gets it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nodeway_core::envoy::bootstrap::{AccessEntry, AccessKind};
use nodeway_core::plan::NodePlan;
use nodeway_live::envoy::{Envoy, EnvoyError, EnvoyOptions, RunsAs, find};
use nodeway_live::netns::NetNs;
use nodeway_sim::{Fixture, Sim};

/// A namespace that goes away with the test.
struct Node {
    name: String,
    netns: NetNs,
    folder: tempfile::TempDir,
}

impl Node {
    fn new(what: &str) -> Self {
        let name = format!("nwtest-{what}-{}", std::process::id());
        let netns = NetNs::create(&name).unwrap_or_else(|error| panic!("{error}"));
        let node = Self {
            name,
            netns,
            folder: tempfile::tempdir().unwrap(),
        };
        node.ip("link set lo up");
        node
    }

    fn ip(&self, words: &str) {
        let run = || Command::new("ip").args(words.split(' ')).output();
        let output = self.netns.run(run).unwrap().unwrap();
        assert!(output.status.success(), "ip {words}: {output:?}");
    }

    /// Gives every endpoint of a plan an address here, and a server that answers with its own.
    fn serve(&self, plan: &NodePlan) {
        let endpoints = plan.endpoints.values().flat_map(|it| &it.endpoints);
        let mut addresses: Vec<SocketAddr> = endpoints.map(|it| it.address).collect();
        addresses.sort();
        addresses.dedup();
        for address in addresses {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            // A second port of one pod finds the address there.
            let add = format!("addr replace {}/{bits} dev lo", address.ip());
            self.ip(&add);
            let bind = || TcpListener::bind(address);
            let listener = self.netns.run(bind).unwrap().unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    answer(stream.unwrap(), address);
                }
            });
        }
    }

    fn options(&self) -> EnvoyOptions {
        let program = find(None).unwrap_or_else(|error| panic!("{error}"));
        EnvoyOptions::new(program, self.folder.path().join("envoy"), "node-1")
    }

    /// Asks a listener by its own port, and gives back all that came.
    fn ask(&self, port: u16, path: &str, way: &str) -> String {
        let connect = || TcpStream::connect(("127.0.0.1", port));
        let mut stream = self.netns.run(connect).unwrap().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: bookinfo\r\nx-nodeway-way: {way}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = NetNs::delete(&self.name);
    }
}

fn answer(mut stream: TcpStream, own: SocketAddr) {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !seen.windows(4).any(|it| it == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => seen.extend_from_slice(&buffer[..length]),
        }
    }
    let body = own.to_string();
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
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
    let node = Node::new("route");
    let plan = plan("bookinfo");
    node.serve(&plan);
    let envoy = Envoy::start(&node.netns, &plan, &node.options()).unwrap();
    assert_eq!(envoy.left_out(), [""; 0]);
    let answer = node.ask(only_port(&plan), "/details/0", "7.1");
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
    let node = Node::new("empty");
    let plan = plan("no-endpoints");
    let envoy = Envoy::start(&node.netns, &plan, &node.options()).unwrap();
    let port = only_port(&plan);
    assert!(node.ask(port, "/", "a").starts_with("HTTP/1.1 503"));
    let entry = entry(&envoy, "a");
    assert_eq!(entry.flags, ["UH"]);
    assert_eq!(entry.endpoint, None);
    assert!(entry.matched(&plan).is_some());
}

#[test]
fn it_runs_as_nobody_with_one_capability_in_a_folder_of_its_own() {
    use std::os::unix::fs::MetadataExt as _;
    let node = Node::new("user");
    let envoy = Envoy::start(&node.netns, &plan("bookinfo"), &node.options()).unwrap();
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
    let node = Node::new("drop");
    let options = node.options();
    let envoy = Envoy::start(&node.netns, &plan("bookinfo"), &options).unwrap();
    let process = PathBuf::from(format!("/proc/{}", envoy.pid()));
    assert!(process.exists() && options.folder.exists());
    drop(envoy);
    assert!(!process.exists());
    assert!(!options.folder.exists());
}

#[test]
fn one_that_is_left_is_found_again_and_one_that_crashed_is_gone() {
    let node = Node::new("adopt");
    let options = node.options();
    let plan = plan("no-endpoints");
    drop(Envoy::start(&node.netns, &plan, &options).unwrap().leave());
    let mut found = Envoy::adopt(&options.folder, "node-1").unwrap();
    assert_eq!(found.runs_as(), &RunsAs::User(65_534));
    assert!(
        node.ask(only_port(&plan), "/", "b")
            .starts_with("HTTP/1.1 503")
    );
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
    let node = Node::new("taken");
    let plan = plan("bookinfo");
    let port = only_port(&plan);
    let _other = node
        .netns
        .run(|| TcpListener::bind(("127.0.0.1", port)))
        .unwrap()
        .unwrap();
    let options = node.options();
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
    let (one, other) = (Node::new("side-a"), Node::new("side-b"));
    let plan = plan("no-endpoints");
    let first = Envoy::start(&one.netns, &plan, &one.options()).unwrap();
    let second = Envoy::start(&other.netns, &plan, &other.options()).unwrap();
    second.stop().unwrap();
    assert!(first.lives());
    assert!(
        one.ask(only_port(&plan), "/", "c")
            .starts_with("HTTP/1.1 503")
    );
    assert_eq!(entry(&first, "c").status, Some(503));
}
