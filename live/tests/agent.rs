//! An agent with its folder, a real Envoy and the kernel, in a namespace that is a node. Needs root,
//! and Envoy in `$ENVOY` or on `PATH`: `ci/setup` gets it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::bed::{Machine, serve_endpoints};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nodeway_core::plan::NodePlan;
use nodeway_live::agent::status::Status;
use nodeway_live::agent::{self, Agent, AgentError, AgentOptions, From, RunDirError, ask_status};
use nodeway_live::envoy::find;
use nodeway_live::generation::{Bounds, Order, Supervisor, SupervisorOptions};
use nodeway_live::stop::Stop;
use nodeway_sim::{Fixture, Redirect, Sim};
use rstest::rstest;

/// The ingress's ClusterIP in the fixture.
const WEB: (&str, u16) = ("10.96.102.213", 80);
const WITHIN: Duration = Duration::from_secs(20);

/// A node with the fixture's pods behind it, its Envoy's supervisor and its agent.
struct Node {
    folder: tempfile::TempDir,
    machine: Machine,
    redirect: Redirect,
    orders: Sender<Order>,
    supervisor: Option<JoinHandle<()>>,
    agent: Option<(Stop, JoinHandle<()>)>,
}

impl Node {
    fn start(what: &str, redirect: Redirect) -> Self {
        let mut node = Self::without_agent(what, redirect);
        node.start_agent();
        node
    }

    fn without_agent(what: &str, redirect: Redirect) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Envoy is another user, and must get to its folder.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        copy(
            "../fixtures/bookinfo/manifests",
            &folder.path().join("manifests"),
        );
        let machine = Machine::new(what);
        machine.link_up();
        serve_endpoints(&machine, &plan());
        let options = SupervisorOptions {
            run: folder.path().join("run"),
            node: "node-1".to_owned(),
            program: find(None).unwrap_or_else(|error| panic!("{error}")),
            concurrency: 1,
            access_log: false,
            bounds: Bounds {
                handover: WITHIN,
                drain: WITHIN,
            },
        };
        fs::create_dir(&options.run).unwrap();
        let (bpf, kind) = (folder.path().join("bpf"), Some("bpf"));
        fs::create_dir(&bpf).unwrap();
        mount(kind, &bpf, kind, MsFlags::empty(), None::<&str>).unwrap();
        fs::set_permissions(&options.run, fs::Permissions::from_mode(0o711)).unwrap();
        let (orders, received) = channel();
        let start = || Supervisor::start(options);
        let supervisor = machine.netns.run(start).unwrap();
        let supervisor = supervisor.unwrap_or_else(|error| panic!("{error}"));
        Self {
            folder,
            machine,
            redirect,
            orders,
            supervisor: Some(std::thread::spawn(move || supervisor.run(&received))),
            agent: None,
        }
    }

    fn options(&self) -> AgentOptions {
        AgentOptions {
            from: From::Folder(self.manifests()),
            node: "node-1".to_owned(),
            redirect: self.redirect,
            run: self.run(),
            pins: self.pins(),
            access_log: false,
            metrics: None,
            arming: WITHIN,
            draining: Duration::from_secs(2),
        }
    }

    fn start_agent(&mut self) {
        let options = self.options();
        // All that it starts belongs to the namespace of the thread that starts it.
        let start = || Agent::start(options);
        let agent = self.machine.netns.run(start).unwrap();
        let agent = agent.unwrap_or_else(|error| panic!("{error}"));
        let stop = agent.stop();
        self.agent = Some((stop, std::thread::spawn(move || agent.run())));
    }

    fn stop_agent(&mut self) {
        if let Some((stop, thread)) = self.agent.take() {
            stop.now();
            thread.join().unwrap();
        }
    }

    fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Programs that outlive their agent.
    fn pins(&self) -> Option<PathBuf> {
        (self.redirect != Redirect::Iptables).then(|| self.bpf().join("pins"))
    }

    fn bpf(&self) -> PathBuf {
        self.folder.path().join("bpf")
    }

    fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    /// Edits a manifest.
    fn edit(&self, file: &str, edit: impl Fn(&str) -> String) {
        let path = self.manifests().join(file);
        let before = fs::read_to_string(&path).unwrap_or_default();
        let after = edit(&before);
        assert_ne!(before, after);
        fs::write(path, after).unwrap();
    }

    fn status(&self) -> Status {
        ask_status(&self.run()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until the status is as it should be; how long that took.
    fn wait(&self, what: &str, is: impl Fn(&Status) -> bool) -> Duration {
        let begun = Instant::now();
        loop {
            let status = self.status();
            if is(&status) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < WITHIN, "{what}: {status:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_until_in_sync(&self) {
        self.wait("in sync", |it| {
            // While a frontend arms, what its node itself calls is not led.
            it.out_of_sync().is_empty() && it.awaited().is_empty() && it.frontends.len() == 3
        });
    }

    fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n");
        self.machine.say(WEB.0, WEB.1, &request).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.agent.take() {
            stop.now();
            let _ = thread.join();
        }
        let _ = self.orders.send(Order::EndNow);
        if let Some(thread) = self.supervisor.take() {
            let _ = thread.join();
        }
        // An agent leaves everything as it is.
        let _ = umount2(&self.bpf(), MntFlags::MNT_DETACH);
    }
}

fn copy(from: &str, to: &std::path::Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// The fixture's plan, for the addresses of its pods.
fn plan() -> NodePlan {
    let fixture = Fixture::load(PathBuf::from("../fixtures/bookinfo")).unwrap();
    let sim = Sim::from_fixture(&fixture).unwrap().start().unwrap();
    sim.plan("node-1").unwrap().clone()
}

/// The addresses of a Service's pods.
fn pods(service: &str) -> Vec<String> {
    let plan = plan();
    let name = format!("default/{service}:9080");
    let endpoints = &plan.endpoints.get(name.as_str()).unwrap().endpoints;
    endpoints.iter().map(|it| it.address.to_string()).collect()
}

fn is_from(answer: &str, service: &str) -> bool {
    pods(service)
        .iter()
        .any(|pod| answer.ends_with(pod.as_str()))
}

#[rstest]
fn the_articles_two_requests_reach_their_services(
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let node = Node::start(&format!("article-{redirect}"), redirect);
    node.wait_until_in_sync();
    let (details, page) = (node.get("/details/0"), node.get("/"));
    assert!(is_from(&details, "details"), "{details}");
    assert!(is_from(&page, "productpage"), "{page}");
}

#[test]
fn an_endpoint_that_goes_reaches_envoy_by_eds_alone_and_soon() {
    let node = Node::start("eds", Redirect::Iptables);
    node.wait_until_in_sync();
    let versions = |status: &Status| -> Vec<_> {
        let all = status.resources.iter();
        let others = all.filter(|it| it.kind != "ClusterLoadAssignment");
        others
            .map(|it| (it.name.clone(), it.sent.clone()))
            .collect()
    };
    let before = node.status();
    node.edit("bookinfo.yaml", |text| {
        text.replacen("app: details", "app: details-gone", 1)
    });
    let took = node.wait("no endpoint", |it| {
        let mut assignments = it.resources.iter();
        let now = assignments.find(|it| it.name == "default/details:9080");
        let then = before
            .resources
            .iter()
            .find(|it| it.name == "default/details:9080");
        now.map(|it| &it.acknowledged) != then.map(|it| &it.acknowledged)
    });
    println!("from the file's change to Envoy's word: {took:?}");
    assert_eq!(versions(&node.status()), versions(&before));
    let answer = node.get("/details/0");
    assert!(
        answer.contains(" 503 "),
        "an empty assignment is sent as empty: {answer}"
    );
}

/// What only Envoy itself refuses: the names of ciphers are in none of its rules.
const BAD: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: bad}
spec:
  resources:
  - "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
    name: bad
    connectTimeout: 1s
    type: STATIC
    transportSocket:
      name: tls
      typedConfig:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        commonTlsContext: {tlsParams: {cipherSuites: [NO-SUCH-CIPHER]}}
"#;

#[test]
fn what_envoy_refuses_is_a_problem_of_its_object_and_all_else_goes_on() {
    let node = Node::start("nack", Redirect::Iptables);
    node.wait_until_in_sync();
    node.edit("bad.yaml", |_| BAD.to_owned());
    let took = node.wait("a problem", |it| {
        let mut problems = it.problems.iter();
        problems.any(|it| it.contains("NO-SUCH-CIPHER") && it.contains("default/bad"))
    });
    println!("from the file's change to the problem: {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(is_from(&node.get("/details/0"), "details"));
    fs::remove_file(node.manifests().join("bad.yaml")).unwrap();
    node.wait_until_in_sync();
}

#[test]
fn a_file_that_cannot_be_read_changes_nothing_and_is_told() {
    let node = Node::start("bad-file", Redirect::Iptables);
    node.wait_until_in_sync();
    node.edit("x.yaml", |_| "kind: [".to_owned());
    node.wait("the error", |it| {
        it.source
            .error
            .as_ref()
            .is_some_and(|it| it.contains("x.yaml:1"))
    });
    assert!(is_from(&node.get("/details/0"), "details"));
    fs::remove_file(node.manifests().join("x.yaml")).unwrap();
    node.wait_until_in_sync();
}

#[test]
fn without_an_agent_all_goes_on_and_the_next_one_takes_it_up() {
    let mut node = Node::start("restart", Redirect::Iptables);
    node.wait_until_in_sync();
    let before = node.status();
    node.stop_agent();
    assert!(is_from(&node.get("/details/0"), "details"));
    node.start_agent();
    node.wait_until_in_sync();
    let after = node.status();
    assert_eq!(after.frontends, before.frontends);
    assert!(is_from(&node.get("/details/0"), "details"));
}

#[test]
fn a_connection_that_stands_is_asked_to_end_when_its_envoy_is_replaced() {
    let node = Node::start("upgrade", Redirect::Iptables);
    node.wait_until_in_sync();
    let connect = || TcpStream::connect((WEB.0.parse::<std::net::IpAddr>().unwrap(), WEB.1));
    let mut stream = node.machine.netns.run(connect).unwrap().unwrap();
    let mut ask = || {
        stream
            .write_all(b"GET /details/0 HTTP/1.1\r\nhost: web\r\n\r\n")
            .unwrap();
        let (mut seen, mut buffer) = (String::new(), [0; 4096]);
        while !pods("details")
            .iter()
            .any(|pod| seen.ends_with(pod.as_str()))
        {
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(buffer.get(..length).unwrap()));
        }
        seen
    };
    assert!(!ask().contains("connection: close"));
    node.orders.send(Order::Upgrade).unwrap();
    node.wait("led to the new one", |it| {
        it.frontends.len() == 3 && it.frontends.iter().all(|it| it.generation == "g2")
    });
    node.wait("the old one drains", |it| {
        it.generations
            .iter()
            .all(|it| it.id == "g2" || it.phase == "draining")
    });
    let answer = ask();
    assert!(
        answer.contains("200 OK") && answer.contains("connection: close"),
        "{answer}"
    );
    assert!(is_from(&node.get("/details/0"), "details"));
    node.wait("the old one ends", |it| it.generations.len() == 1);
}

#[test]
fn a_frontend_is_led_nowhere_before_its_listener_goes() {
    let node = Node::start("remove", Redirect::Iptables);
    node.wait_until_in_sync();
    fs::remove_file(node.manifests().join("ingress.yaml")).unwrap();
    node.wait("nothing is left", |it| {
        let listeners = it.resources.iter().filter(|it| it.kind == "Listener");
        it.frontends.is_empty() && listeners.count() == 0
    });
}

#[test]
fn one_agent_at_a_time_has_the_run_directory() {
    let node = Node::start("two", Redirect::Iptables);
    let options = node.options();
    let start = || Agent::start(options).map(|_| ());
    let second = node.machine.netns.run(start).unwrap();
    assert!(
        matches!(second, Err(AgentError::Run(RunDirError::Another(_)))),
        "{second:?}"
    );
}

#[rstest]
#[case::no_such_node("node-9", "has no node `node-9`; it has node-1")]
#[case::another_machine("node-2", "has none of the addresses of node `node-2`")]
fn an_agent_on_the_wrong_node_says_so(#[case] name: &str, #[case] said: &str) {
    let node = Node::without_agent(name, Redirect::Iptables);
    let mut options = node.options();
    options.from = From::Folder("../fixtures/bookinfo".into());
    name.clone_into(&mut options.node);
    let start = || Agent::start(options).map(|_| ());
    let error = node
        .machine
        .netns
        .run(start)
        .unwrap()
        .unwrap_err()
        .to_string();
    assert!(error.contains(said), "{error}");
}

/// Asks without end until it is told to stop: how many were answered, and what went wrong.
struct Load {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    clients: Vec<JoinHandle<(u32, Vec<String>)>>,
}

impl Load {
    /// One client makes a connection for each request, the other keeps its own.
    fn on(node: &Node) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let clients = [true, false].map(|close| {
            let (stop, netns) = (stop.clone(), node.machine.netns.try_clone().unwrap());
            std::thread::spawn(move || netns.run(|| ask_on(close, &stop)).unwrap())
        });
        Self {
            stop,
            clients: clients.into(),
        }
    }

    #[track_caller]
    fn none_failed(self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for client in self.clients {
            let (answered, failed) = client.join().unwrap();
            println!("{answered} answered, {} failed", failed.len());
            assert!(answered > 20 && failed.is_empty(), "{answered}: {failed:?}");
        }
    }
}

fn ask_on(close: bool, stop: &std::sync::atomic::AtomicBool) -> (u32, Vec<String>) {
    let to = (WEB.0.parse::<std::net::IpAddr>().unwrap(), WEB.1);
    let (mut kept, mut answered, mut failed) = (None, 0, Vec::new());
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let mut once = || -> std::io::Result<bool> {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => TcpStream::connect_timeout(&to.into(), Duration::from_secs(3))?,
            };
            stream.set_read_timeout(Some(Duration::from_secs(3)))?;
            let connection = if close { "close" } else { "keep-alive" };
            let request =
                format!("GET /details/0 HTTP/1.1\r\nhost: web\r\nconnection: {connection}\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let (mut seen, mut buffer) = (String::new(), [0; 2048]);
            while !seen.ends_with(":9080") {
                match stream.read(&mut buffer)? {
                    0 => return Err(std::io::Error::other(format!("cut off: `{seen}`"))),
                    length => seen.push_str(&String::from_utf8_lossy(
                        buffer.get(..length).unwrap_or_default(),
                    )),
                }
            }
            // Who is asked to end its connection makes a new one.
            if !close && !seen.contains("connection: close") {
                kept = Some(stream);
            }
            Ok(seen.contains(" 200 OK"))
        };
        match once() {
            Ok(true) => answered += 1,
            Ok(false) => failed.push("another status".to_owned()),
            Err(error) => failed.push(error.to_string()),
        }
    }
    (answered, failed)
}

#[rstest]
fn under_load_no_request_fails_while_the_agent_is_replaced(
    #[values(Redirect::Tc, Redirect::Iptables)] redirect: Redirect,
) {
    let mut node = Node::start(&format!("load-agent-{redirect}"), redirect);
    node.wait_until_in_sync();
    let load = Load::on(&node);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(300));
        node.stop_agent();
        std::thread::sleep(Duration::from_millis(300));
        node.start_agent();
        node.wait_until_in_sync();
    }
    load.none_failed();
}

#[rstest]
fn under_load_no_request_fails_while_envoy_is_replaced(
    #[values(Redirect::Tc, Redirect::Iptables)] redirect: Redirect,
) {
    let node = Node::start(&format!("load-envoy-{redirect}"), redirect);
    node.wait_until_in_sync();
    let load = Load::on(&node);
    for generation in ["g2", "g3"] {
        node.orders.send(Order::Upgrade).unwrap();
        node.wait("the next one alone", |it| {
            it.generations.len() == 1 && it.generations.iter().all(|it| it.id == generation)
        });
    }
    std::thread::sleep(Duration::from_millis(200));
    load.none_failed();
}

#[rstest]
fn under_load_no_request_fails_while_envoy_refuses_a_config(
    #[values(Redirect::Tc, Redirect::Iptables)] redirect: Redirect,
) {
    let node = Node::start(&format!("load-nack-{redirect}"), redirect);
    node.wait_until_in_sync();
    let load = Load::on(&node);
    node.edit("bad.yaml", |_| BAD.to_owned());
    node.wait("a problem", |it| {
        it.problems.iter().any(|it| it.contains("NO-SUCH-CIPHER"))
    });
    std::thread::sleep(Duration::from_millis(300));
    load.none_failed();
}

#[test]
fn envoy_that_is_killed_fails_what_is_in_flight_and_its_successor_is_led_to_soon() {
    let node = Node::start("killed", Redirect::Iptables);
    node.wait_until_in_sync();
    let pid = node
        .status()
        .generations
        .first()
        .and_then(|it| it.pid)
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let took = node.wait("the next one", |it| {
        it.frontends.len() == 3 && it.frontends.iter().all(|it| it.generation == "g2")
    });
    println!("from the kill to the successor: {took:?}");
    assert!(is_from(&node.get("/details/0"), "details"));
}

/// All that a redirect puts into the kernel of a node, as its tools tell it.
fn kernel(node: &Node) -> String {
    let pins = node.bpf().join("pins").display().to_string();
    let commands = [
        "iptables-save",
        "ip6tables-save",
        "ipset save",
        "ip rule",
        "ip -6 rule",
        "ip route show table all",
        "tc filter show dev uplink ingress",
        "tc qdisc show dev uplink",
        &format!("ls {pins}"),
    ];
    let told = |command: &&str| {
        let mut words = command.split(' ');
        let program = words.next().unwrap();
        let told = node
            .machine
            .netns
            .run(|| std::process::Command::new(program).args(words).output());
        let told = String::from_utf8(told.unwrap().unwrap().stdout).unwrap();
        // Times stand in comments.
        let lines = told.lines().filter(|it| !it.starts_with('#'));
        format!("{command}:\n{}\n", lines.collect::<Vec<_>>().join("\n"))
    };
    commands.iter().map(told).collect()
}

#[rstest]
fn nothing_is_left_after_a_cleanup(
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let mut node = Node::without_agent(&format!("clean-{redirect}"), redirect);
    let before = kernel(&node);
    node.start_agent();
    node.wait_until_in_sync();
    let pins = node.bpf().join("pins");
    let clean = || agent::cleanup(&node.machine.netns, &node.run(), &pins);
    let refused = clean().unwrap_err();
    assert!(
        refused.to_string().contains("another agent runs"),
        "{refused}"
    );
    assert!(
        is_from(&node.get("/details/0"), "details"),
        "nothing was taken away"
    );
    let meanwhile = kernel(&node);
    assert_ne!(meanwhile, before);
    node.stop_agent();
    assert_eq!(
        kernel(&node),
        meanwhile,
        "an agent that ends leaves all as it is"
    );
    let clean = || agent::cleanup(&node.machine.netns, &node.run(), &pins);
    assert_eq!(clean().unwrap(), ["g1"], "its Envoy still runs");
    assert_eq!(kernel(&node), before);
    assert!(!node.run().join("agent.json").exists());
    assert_eq!(clean().unwrap(), ["g1"], "once more does no harm");
}
