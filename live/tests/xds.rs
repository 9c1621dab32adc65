//! The xDS server against a real Envoy, in both protocols. Needs root, and Envoy in `$ENVOY` or on
//! `PATH`: `ci/setup` gets it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::bed::{Machine, serve_endpoints};
use nodeway_core::envoy::bootstrap::{Settings, told};
use nodeway_core::envoy::{self, ResourceKind};
use nodeway_core::plan::{
    NodePlan, PlanDelta, PlannedCluster, PlannedEndpoint, PlannedEndpoints, PlannedListener, Update,
};
use nodeway_core::problem::Code;
use nodeway_core::xds::{Protocol, ResourceDelta};
use nodeway_live::envoy::find;
use nodeway_live::xds::{ProxyHandle, XdsOptions, XdsServer};
use nodeway_sim::{Fixture, Sim};
use prost_reflect::DynamicMessage;
use rstest::rstest;
use serde_json::{Value, json};

const NODE: &str = "node-1";
const ADMIN: u16 = 9901;
const SOON: Duration = Duration::from_secs(10);

fn plan(fixture: &str) -> NodePlan {
    let folder = PathBuf::from("../fixtures").join(fixture);
    let fixture = Fixture::load(folder).unwrap();
    let sim = Sim::from_fixture(&fixture).unwrap().start().unwrap();
    sim.plan(NODE).unwrap().clone()
}

/// The bootstrap of an Envoy that is told all it has, with an admin that `curl` reaches.
fn bootstrap(socket: &Path, protocol: Protocol) -> Value {
    let settings = Settings {
        node: NODE.to_owned(),
        ..Settings::default()
    };
    let mut made = told(&settings, socket.to_str().unwrap()).json;
    let api_type = match protocol {
        Protocol::StateOfTheWorld => "GRPC",
        Protocol::Incremental => "DELTA_GRPC",
    };
    made["dynamicResources"]["adsConfig"]["apiType"] = json!(api_type);
    let address = json!({"socketAddress": {"address": "127.0.0.1", "portValue": ADMIN}});
    made["admin"] = json!({"address": address});
    made
}

/// A node with a server and its Envoy.
struct Node {
    envoy: Child,
    handle: ProxyHandle,
    server: Option<XdsServer>,
    socket: PathBuf,
    machine: Machine,
    plan: NodePlan,
    folder: tempfile::TempDir,
}

impl Node {
    fn start(what: &str, plan: NodePlan, protocol: Protocol) -> Self {
        let machine = Machine::new(what);
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("xds.sock");
        let (server, handle) = serve_plan(&socket, &plan);
        let file = folder.path().join("bootstrap.json");
        std::fs::write(&file, bootstrap(&socket, protocol).to_string()).unwrap();
        let envoy = run(&machine, folder.path());
        Self {
            envoy,
            handle,
            server: Some(server),
            socket,
            machine,
            plan,
            folder,
        }
    }

    /// The same, once Envoy has all of the plan and the backends are there.
    fn started(what: &str, protocol: Protocol) -> Self {
        let node = Self::start(what, plan("bookinfo"), protocol);
        serve_endpoints(&node.machine, &node.plan);
        node.settles();
        node.listens();
        node
    }

    #[track_caller]
    fn settles(&self) {
        let settled = self.handle.wait(SOON, nodeway_core::xds::Proxy::is_settled);
        assert!(settled, "{:#?}\n{}", self.handle.state(), self.log());
    }

    /// Waits until the one listener of the plan listens.
    #[track_caller]
    fn listens(&self) {
        until(SOON, || self.connects());
    }

    #[track_caller]
    fn has_its_listener(&self) {
        let listener = self.plan.listeners.keys().next().unwrap();
        let state = self.handle.resource(ResourceKind::Listener, listener);
        assert!(
            state.as_ref().is_some_and(|it| it.is_acknowledged()),
            "{state:?}"
        );
    }

    /// The port of the fixture's one listener; those that a test adds have other names.
    fn port(&self) -> u16 {
        let own = |name: &&Arc<str>| !name.starts_with("default/c/");
        let name = self.plan.listeners.keys().find(own).unwrap();
        self.plan.listeners[name].port
    }

    fn connects(&self) -> bool {
        let port = self.port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        self.machine
            .netns
            .run(|| TcpStream::connect(address))
            .unwrap()
            .is_ok()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn apply(&mut self, delta: &PlanDelta) {
        self.plan.apply(delta);
        self.handle.apply(&ResourceDelta::of(delta));
    }

    /// What Envoy's admin answers; nothing before it listens.
    fn says(&self, method: &str, path: &str) -> String {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        let said = self.machine.say("127.0.0.1", ADMIN, &request);
        said.unwrap_or_default()
    }

    /// A counter or gauge of Envoy.
    fn stat(&self, name: &str) -> u64 {
        let said = self.says("GET", &format!("/stats?filter=^{name}$"));
        let value = said
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")));
        value
            .and_then(|it| it.trim().parse().ok())
            .unwrap_or_default()
    }

    /// The head of an answer: Envoy closes a connection some time after an answer of its own.
    fn ask(&self, path: &str) -> String {
        let port = self.port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let connect = || TcpStream::connect(address);
        let mut stream = self.machine.netns.run(connect).unwrap().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: bookinfo\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while !seen.windows(4).any(|it| it == b"\r\n\r\n") {
            match stream.read(&mut buffer).unwrap() {
                0 => break,
                length => seen.extend_from_slice(&buffer[..length]),
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.envoy.kill();
        let _ = self.envoy.wait();
    }
}

/// Starts an Envoy from the bootstrap in a folder.
fn run(machine: &Machine, folder: &Path) -> Child {
    let program = find(None).unwrap_or_else(|error| panic!("{error}"));
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let start = || {
        Command::new(program)
            .args(["--disable-hot-restart", "--concurrency", "1"])
            .args(["--log-level", "warn", "--config-path"])
            .arg(folder.join("bootstrap.json"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
    };
    machine.netns.run(start).unwrap().unwrap()
}

fn serve_plan(socket: &Path, plan: &NodePlan) -> (XdsServer, ProxyHandle) {
    let options = XdsOptions::default();
    let server = XdsServer::bind(socket, &options).unwrap_or_else(|error| panic!("{error}"));
    let handle = server.proxy(NODE, &ResourceDelta::all(plan));
    (server, handle)
}

/// The name under which the details service's endpoints are served.
fn details(plan: &NodePlan) -> Arc<str> {
    let mut clusters = plan.clusters.values();
    let cluster = clusters.find(|it| it.model.endpoints.contains("details"));
    cluster.unwrap().model.endpoints.as_str().into()
}

fn endpoints(plan: &NodePlan, name: &str, addresses: &[&str]) -> PlanDelta {
    let one = |address: &&str| PlannedEndpoint {
        address: address.parse().unwrap(),
        pod: None,
        node: None,
    };
    let planned = PlannedEndpoints {
        endpoints: addresses.iter().map(one).collect(),
        ..(*plan.endpoints[name]).clone()
    };
    PlanDelta {
        endpoints: [(name.into(), Update::Put(Arc::new(planned)))].into(),
        ..PlanDelta::default()
    }
}

#[rstest]
fn a_plan_comes_up_and_a_request_is_answered(
    #[values(Protocol::StateOfTheWorld, Protocol::Incremental)] protocol: Protocol,
) {
    let node = Node::started(&format!("xds-up-{protocol:?}"), protocol);
    let answer = node.ask("/details/0");
    assert!(
        answer.starts_with("HTTP/1.1 200"),
        "{answer}\n{}",
        node.log()
    );
    assert_eq!(node.handle.rejections(), []);
    node.has_its_listener();
}

/// Until when something holds, and how long that took.
#[track_caller]
fn until(within: Duration, what: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < within, "not within {within:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}

#[rstest]
fn an_added_endpoint_is_there_at_once_and_nothing_else_is_sent(
    #[values(Protocol::StateOfTheWorld, Protocol::Incremental)] protocol: Protocol,
) {
    let mut node = Node::started(&format!("xds-eds-{protocol:?}"), protocol);
    let name = details(&node.plan);
    let updates = |node: &Node| {
        let said = node.says("GET", "/stats?filter=update_success$");
        let lines = said
            .lines()
            .filter(|line| line.contains("update_success: "));
        let stats = lines.map(|line| line.trim().rsplit_once(": ").unwrap());
        stats
            .map(|(name, count)| (name.to_owned(), count.parse::<u64>().unwrap()))
            .collect::<Vec<_>>()
    };
    let before = updates(&node);
    let own = node.plan.endpoints[&name].endpoints[0].address.to_string();
    // The best of five: the machine that tests has other things to do.
    let took = (1..=5).map(|number| {
        let added = format!("10.9.9.{number}:80");
        let delta = endpoints(&node.plan, &name, &[&own, &added]);
        node.apply(&delta);
        until(SOON, || {
            node.says("GET", "/clusters")
                .contains(&format!("{added}::"))
        })
    });
    let took = took.min().unwrap();
    println!("{protocol:?}: an added endpoint reached Envoy in {took:?}");
    assert!(took < Duration::from_millis(100), "{took:?}");
    node.settles();
    let after = updates(&node);
    let changed: Vec<_> = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after)
        .map(|(before, after)| (before.0.as_str(), after.1 - before.1))
        .collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert!(
        changed[0].0.contains("details") && changed[0].1 == 5,
        "{changed:?}"
    );
}

#[rstest]
fn no_endpoints_are_an_empty_assignment_and_503(
    #[values(Protocol::StateOfTheWorld, Protocol::Incremental)] protocol: Protocol,
) {
    let mut node = Node::started(&format!("xds-none-{protocol:?}"), protocol);
    let name = details(&node.plan);
    assert!(node.ask("/details/0").starts_with("HTTP/1.1 200"));
    let own = node.plan.endpoints[&name].endpoints[0].address.to_string();
    let delta = endpoints(&node.plan, &name, &[]);
    node.apply(&delta);
    node.settles();
    let took = until(SOON, || node.ask("/details/0").starts_with("HTTP/1.1 503"));
    println!("{protocol:?}: without endpoints 503 after {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert!(!node.says("GET", "/clusters").contains(&format!("{own}::")));
    // A name that leaves the plan while a cluster needs it is an empty set too.
    let delta = endpoints(&node.plan, &name, &[&own]);
    node.apply(&delta);
    let took = until(SOON, || node.ask("/details/0").starts_with("HTTP/1.1 200"));
    println!("{protocol:?}: with endpoints again 200 after {took:?}");
    node.apply(&PlanDelta {
        endpoints: [(name, Update::Remove)].into(),
        ..PlanDelta::default()
    });
    let took = until(SOON, || node.ask("/details/0").starts_with("HTTP/1.1 503"));
    println!("{protocol:?}: with endpoints that nobody plans 503 after {took:?}");
}

/// A listener of the same config on another port, which passes all bytes on. Two chains that match
/// the same are what only Envoy itself refuses.
fn listener(plan: &NodePlan, name: &str, port: u16, chains: usize) -> PlanDelta {
    let (_, first) = plan.listeners.iter().next().unwrap();
    let chain = json!({"filters": [{"name": "tcp", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "statPrefix": "tcp",
        "cluster": &**plan.clusters.keys().next().unwrap(),
    }}]});
    let written = json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": {"socketAddress": {"address": "127.0.0.1", "portValue": port}},
        "filterChains": vec![chain; chains],
    });
    let planned = PlannedListener {
        port,
        message: envoy::decode(&written).unwrap().message,
        ..(**first).clone()
    };
    PlanDelta {
        listeners: [(name.into(), Update::Put(Arc::new(planned)))].into(),
        ..PlanDelta::default()
    }
}

#[rstest]
fn a_bad_listener_beside_a_good_one_is_told_and_mended(
    #[values(Protocol::StateOfTheWorld, Protocol::Incremental)] protocol: Protocol,
) {
    let mut node = Node::started(&format!("xds-bad-{protocol:?}"), protocol);
    let mut delta = listener(&node.plan, "default/c/good", 10_901, 1);
    let bad = listener(&node.plan, "default/c/bad", 10_902, 2);
    delta.listeners.extend(bad.listeners);
    let start = Instant::now();
    node.apply(&delta);
    let told = node.handle.wait(SOON, |proxy| {
        let good = proxy.resource(ResourceKind::Listener, "default/c/good");
        !proxy.rejections().is_empty() && good.is_some_and(|it| it.is_acknowledged())
    });
    let took = start.elapsed();
    println!("{protocol:?}: the bad listener was told, the good one taken in {took:?}");
    assert!(
        told && took < Duration::from_secs(2),
        "{took:?} {}",
        node.log()
    );
    until(SOON, || {
        node.says("GET", "/listeners").contains("default/c/good")
    });
    let problems = node.handle.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    println!("{}", problems[0]);
    assert_eq!(problems[0].code, Code::RefusedByEnvoy);
    assert_eq!(
        problems[0].object,
        node.plan.listeners["default/c/bad"].config
    );
    for words in ["default/c/bad", "same matching rules"] {
        assert!(problems[0].reason.contains(words), "{}", problems[0].reason);
    }
    // Once it is told, there is no more of it.
    node.settles();
    let refused = node.stat("listener_manager.lds.update_rejected");
    assert!((1..=2).contains(&refused), "{refused}");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(node.stat("listener_manager.lds.update_rejected"), refused);

    let mended = listener(&node.plan, "default/c/bad", 10_902, 1);
    node.apply(&mended);
    node.settles();
    assert_eq!(node.handle.problems(), []);
    until(SOON, || {
        node.says("GET", "/listeners").contains("default/c/bad")
    });
    assert!(node.ask("/details/0").starts_with("HTTP/1.1 200"));
}

#[rstest]
fn a_storm_of_refused_listeners_holds_up_no_other_namespaces_endpoints(
    #[values(Protocol::StateOfTheWorld, Protocol::Incremental)] protocol: Protocol,
) {
    let mut node = Node::started(&format!("xds-storm-{protocol:?}"), protocol);
    let name = details(&node.plan);
    let own = node.plan.endpoints[&name].endpoints[0].address.to_string();
    let mut took: Vec<Duration> = (1..=9_u16)
        .map(|round| {
            // Each round has new versions of all, and all are refused.
            for bad in 0..8 {
                let port = 11_000 + round * 8 + bad;
                let delta = listener(&node.plan, &format!("evil/c/{bad}"), port, 2);
                node.apply(&delta);
            }
            let added = format!("10.9.9.{round}:80");
            let delta = endpoints(&node.plan, &name, &[&own, &added]);
            node.apply(&delta);
            let took = until(SOON, || {
                node.says("GET", "/clusters")
                    .contains(&format!("{added}::"))
            });
            assert!(node.ask("/").starts_with("HTTP/1.1 200"));
            took
        })
        .collect();
    took.sort();
    println!("{protocol:?}: in a storm of refusals endpoints reached Envoy in {took:?}");
    assert!(took[4] < Duration::from_millis(100), "{took:?}");
    // What was asked for last has nobody at one of two addresses.
    let delta = endpoints(&node.plan, &name, &[&own]);
    node.apply(&delta);
    node.settles();
    assert!(node.ask("/details/0").starts_with("HTTP/1.1 200"));
    let refused = node.stat("listener_manager.lds.update_rejected");
    assert!(refused >= 9, "{refused}");
    let told = node.handle.problems();
    assert_eq!(told.len(), 8, "{told:?}");
}

#[rstest]
fn a_server_that_starts_again_changes_nothing(
    #[values(Protocol::StateOfTheWorld, Protocol::Incremental)] protocol: Protocol,
) {
    let mut node = Node::started(&format!("xds-again-{protocol:?}"), protocol);
    let counters = |node: &Node| {
        [
            "listener_manager.listener_modified",
            "listener_manager.listener_added",
            "listener_manager.listener_removed",
            "cluster_manager.cluster_modified",
            "cluster_manager.cluster_added",
            "cluster_manager.cluster_removed",
        ]
        .map(|name| node.stat(name))
    };
    let responses = |node: &Node| {
        let stats = [
            "listener_manager.lds.update_success",
            "cluster_manager.cds.update_success",
        ];
        stats.map(|name| node.stat(name))
    };
    let told = responses(&node);
    let before = counters(&node);
    assert!(before[1] > 0 && before[4] > 0, "{before:?}");
    node.server = None;
    until(SOON, || node.stat("control_plane.connected_state") == 0);
    assert!(node.ask("/details/0").starts_with("HTTP/1.1 200"));
    let (server, handle) = serve_plan(&node.socket, &node.plan);
    (node.server, node.handle) = (Some(server), handle);
    node.settles();
    assert_eq!(counters(&node), before);
    // What it has by the versions that it states is not even sent.
    if protocol == Protocol::Incremental {
        assert_eq!(responses(&node), told);
    }
    assert!(node.ask("/details/0").starts_with("HTTP/1.1 200"));
    node.has_its_listener();
}

#[rstest]
fn a_cluster_that_changes_is_warm_at_once(
    #[values(Protocol::StateOfTheWorld, Protocol::Incremental)] protocol: Protocol,
) {
    let mut node = Node::started(&format!("xds-warm-{protocol:?}"), protocol);
    let (name, planned) = node.plan.clusters.iter().next().unwrap();
    let mut changed = (**planned).clone();
    let timeout = json!({"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "connectTimeout": "7s"});
    let timeout = envoy::decode(&timeout).unwrap().message;
    let timeout = timeout
        .get_field_by_name("connect_timeout")
        .unwrap()
        .into_owned();
    changed
        .message
        .set_field_by_name("connect_timeout", timeout);
    let delta = PlanDelta {
        clusters: [(name.clone(), Update::Put(Arc::new(changed)))].into(),
        ..PlanDelta::default()
    };
    node.apply(&delta);
    node.settles();
    // Without its endpoints sent once more, it would be warming for 15 seconds.
    let took = until(SOON, || {
        node.stat("cluster_manager.cluster_modified") == 1
            && node.stat("cluster_manager.warming_clusters") == 0
    });
    println!("{protocol:?}: a changed cluster was warm in {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// A cluster's twin with endpoints of its own, and routes that lead there in its place.
fn moved(plan: &NodePlan, from: &str, to: &str) -> PlanDelta {
    let planned = &plan.clusters[from];
    let served = planned.model.endpoints.as_str();
    let again = |message: &DynamicMessage, kind: ResourceKind| {
        let mut json = serde_json::to_value(message).unwrap();
        json["@type"] = format!("type.googleapis.com/{}", kind.message_name()).into();
        let quoted = [from, served].map(|name| format!("\"{name}\""));
        let text = quoted.iter().fold(json.to_string(), |text, name| {
            text.replace(name, &format!("\"{to}\""))
        });
        envoy::decode(&serde_json::from_str(&text).unwrap())
            .unwrap()
            .message
    };
    let mut model = (*planned.model).clone();
    (model.name, model.endpoints) = (to.to_owned(), to.to_owned());
    let twin = PlannedCluster {
        model: Arc::new(model),
        message: again(&planned.message, ResourceKind::Cluster),
        config: planned.config.clone(),
    };
    let endpoints = Arc::clone(&plan.endpoints[served]);
    let mut delta = PlanDelta::default();
    delta
        .clusters
        .insert(to.into(), Update::Put(Arc::new(twin)));
    delta.clusters.insert(from.into(), Update::Remove);
    delta.endpoints.insert(to.into(), Update::Put(endpoints));
    delta.endpoints.insert(served.into(), Update::Remove);
    for (name, routes) in &plan.routes {
        let mut routes = (**routes).clone();
        routes.message = again(&routes.message, ResourceKind::RouteConfiguration);
        delta
            .routes
            .insert(name.clone(), Update::Put(Arc::new(routes)));
    }
    delta
}

#[rstest]
fn routes_move_to_another_cluster_and_no_request_is_missed(
    #[values(Protocol::StateOfTheWorld, Protocol::Incremental)] protocol: Protocol,
) {
    let mut node = Node::started(&format!("xds-move-{protocol:?}"), protocol);
    assert!(
        !node.plan.routes.is_empty(),
        "the fixture's routes come by RDS"
    );
    let mut clusters = node.plan.clusters.iter();
    let first = clusters.find(|(_, it)| it.model.endpoints.contains("details"));
    let first = first.unwrap().0.to_string();
    let names: Vec<String> = (0..20)
        .map(|number| format!("default/moved-{number}"))
        .collect();
    let mut from = first;
    let deltas: Vec<PlanDelta> = names
        .into_iter()
        .map(|to| {
            let delta = moved(&node.plan, &from, &to);
            node.plan.apply(&delta);
            from = to;
            delta
        })
        .collect();
    let (node, over) = (&node, &AtomicBool::new(false));
    std::thread::scope(|threads| {
        let load = threads.spawn(move || {
            let mut asked = 0;
            while !over.load(Ordering::Relaxed) {
                let answer = node.ask("/details/0");
                assert!(
                    answer.starts_with("HTTP/1.1 200"),
                    "after {asked}: {answer}"
                );
                asked += 1;
            }
            asked
        });
        for delta in &deltas {
            node.handle.apply(&ResourceDelta::of(delta));
            node.settles();
            std::thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
        let asked: u32 = load.join().unwrap();
        println!("{protocol:?}: routes moved 20 times, {asked} requests, none missed");
        assert!(asked > 50, "{asked}");
    });
    assert_eq!(node.stat("cluster_manager.cluster_removed"), 20);
}

#[rstest]
fn certificates_come_by_sds_and_a_new_one_is_all_that_is_sent(
    #[values(Protocol::StateOfTheWorld, Protocol::Incremental)] protocol: Protocol,
) {
    let mut node = Node::start(
        &format!("xds-sds-{protocol:?}"),
        plan("tls-two-hosts"),
        protocol,
    );
    assert!(node.handle.wait(SOON, |proxy| {
        let secrets = proxy.state().resources.into_iter();
        let mut secrets = secrets.filter(|it| it.kind == ResourceKind::Secret);
        secrets.clone().count() > 0 && secrets.all(|it| it.is_acknowledged())
    }));
    node.listens();
    let updates = node.stat("listener_manager.lds.update_success");
    // One name's certificate takes the place of another's.
    let names: Vec<_> = node.plan.secrets.keys().cloned().collect();
    let mut other = (*node.plan.secrets[&names[1]]).clone();
    let message = other.message.as_mut().unwrap();
    message.set_field_by_name("name", prost_reflect::Value::String(names[0].to_string()));
    let delta = PlanDelta {
        secrets: [(names[0].clone(), Update::Put(Arc::new(other)))].into(),
        ..PlanDelta::default()
    };
    let serials = |node: &Node| {
        let said = node.says("GET", "/certs");
        let lines = said.lines().filter(|line| line.contains("serial_number"));
        lines
            .map(|it| it.trim().to_owned())
            .collect::<std::collections::BTreeSet<_>>()
    };
    until(SOON, || serials(&node).len() == 2);
    node.apply(&delta);
    until(SOON, || serials(&node).len() == 1);
    node.settles();
    assert_eq!(node.stat("listener_manager.lds.update_success"), updates);
}

#[rstest]
fn a_missing_certificate_holds_up_no_listener(
    #[values(Protocol::StateOfTheWorld, Protocol::Incremental)] protocol: Protocol,
) {
    let mut whole = plan("tls-two-hosts");
    let gone = whole.secrets.keys().next().unwrap().clone();
    whole.secrets.remove(&gone);
    let what = format!("xds-uncertain-{protocol:?}");
    let mut node = Node::start(&what, NodePlan::default(), protocol);
    // To an Envoy that runs a listener comes by itself, without a start to wait for.
    until(SOON, || node.stat("server.live") == 1);
    node.apply(&whole.as_delta());
    let took = until(SOON, || node.connects());
    println!("{protocol:?}: a listener without one of its certificates listens after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[rstest]
fn an_envoy_that_starts_again_gets_all_but_what_it_refused(
    #[values(Protocol::StateOfTheWorld, Protocol::Incremental)] protocol: Protocol,
) {
    let mut node = Node::started(&format!("xds-crash-{protocol:?}"), protocol);
    let mut delta = listener(&node.plan, "default/c/good", 10_901, 1);
    delta
        .listeners
        .extend(listener(&node.plan, "default/c/bad", 10_902, 2).listeners);
    node.apply(&delta);
    node.settles();
    assert_eq!(node.handle.problems().len(), 1);

    node.envoy.kill().unwrap();
    node.envoy.wait().unwrap();
    assert!(node.handle.wait(SOON, |proxy| !proxy.is_connected()));
    node.envoy = run(&node.machine, node.folder.path());
    node.settles();
    node.listens();
    assert!(node.ask("/details/0").starts_with("HTTP/1.1 200"));
    until(SOON, || {
        node.says("GET", "/listeners").contains("default/c/good")
    });
    // The bad one was not even tried again, and is still told.
    assert_eq!(node.stat("listener_manager.lds.update_rejected"), 0);
    assert_eq!(node.handle.problems().len(), 1);
}
