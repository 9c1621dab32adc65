//! The agent's source, the operator and the kinds, against a real API server. Run by `ci/kube`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "the set-up of tests"
)]

mod bed;
#[path = "kube/beside_cilium.rs"]
mod beside_cilium;
#[path = "kube/cilium_comes.rs"]
mod cilium_comes;
#[path = "kube/conditions.rs"]
mod conditions;
mod control_plane;
#[path = "kube/manifests.rs"]
mod manifests;
#[path = "kube/operator_lives.rs"]
mod operator_lives;
#[path = "kube/overall.rs"]
mod overall;
#[path = "kube/uninstall.rs"]
mod uninstall;

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bed::{Machine, serve_endpoints};
use control_plane::ControlPlane;
use kube::Client;
use nodeway_core::object::{Change, Kind, Object, ObjectRef, Objects};
use nodeway_core::plan::NodePlan;
use nodeway_live::agent::{Agent, AgentOptions, From, ask_status};
use nodeway_live::envoy::find;
use nodeway_live::generation::{Bounds, Order, Supervisor, SupervisorOptions};
use nodeway_live::kube::{Watched, Wish, crds};
use nodeway_live::operator::{Operator, OperatorOptions, Writes};
use nodeway_live::stop::Stop;
use nodeway_sim::{Fixture, Redirect, Sim};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const WITHIN: Duration = Duration::from_secs(20);

/// An API server that knows our kinds.
fn cluster() -> ControlPlane {
    let cluster = ControlPlane::start();
    cluster.apply(&crds::yaml());
    for kind in ["ciliumenvoyconfigs", "ciliumclusterwideenvoyconfigs"] {
        let crd = format!("crd/{kind}.cilium.io");
        let known = cluster.kubectl(&["wait", "--for=condition=Established", &crd]);
        known.unwrap_or_else(|error| panic!("{error}"));
    }
    cluster
}

/// Waits for something that comes.
fn until<T>(what: &str, mut is: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = is() {
            return found;
        }
        assert!(begun.elapsed() < WITHIN, "{what} does not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn ciliums_own_configs_are_admitted_and_a_wrong_one_is_not() {
    let cluster = cluster();
    let cases = std::env::var("NODEWAY_CASES").unwrap();
    let examples = Path::new(&cases).join("cilium-cec/examples");
    for name in [
        "envoy__envoy-admin-listener.yaml",
        "envoy__envoy-admin-listener-nodeselector.yaml",
        "envoy__envoy-circuit-breaker.yaml",
        "envoy__envoy-helloworld-v1-90-v2-10.yaml",
        "envoy__envoy-prometheus-metrics-listener.yaml",
        "envoy__envoy-traffic-management-test.yaml",
    ] {
        let file = examples.join(name).display().to_string();
        let applied = cluster.kubectl(&["apply", "-f", &file]);
        assert!(
            applied.as_ref().is_ok_and(|it| !it.is_empty()),
            "{name}: {applied:?}"
        );
    }
    let bad = examples.join("../bad.yaml");
    assert!(!bad.exists(), "nothing of ours stands there");
    let wrong = "apiVersion: cilium.io/v2\nkind: CiliumEnvoyConfig\nmetadata: {name: bad}\nspec: {services: [{name: a, ports: [http]}]}\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.yaml");
    std::fs::write(&file, wrong).unwrap();
    let refused = cluster.kubectl(&["apply", "-f", &file.display().to_string()]);
    assert!(refused.unwrap_err().contains("spec.services[0].ports[0]"));
    let old = cluster.kubectl(&["get", "ciliumenvoyconfigs.v2alpha1.cilium.io", "-A"]);
    assert!(
        old.unwrap().contains("envoy-lb-listener"),
        "the article's version is served too"
    );
}

const INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: cilium}
spec: {controller: cilium.io/ingress-controller}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: basic-ingress, namespace: default}
spec:
  ingressClassName: cilium
  rules:
  - http:
      paths:
      - {path: /details, pathType: Prefix, backend: {service: {name: details, port: {number: 9080}}}}
      - {path: /, pathType: Prefix, backend: {service: {name: productpage, port: {number: 9080}}}}
";

/// An operator on a thread of its own.
struct Running {
    stop: Stop,
    writes: Writes,
    thread: JoinHandle<()>,
}

fn operator(cluster: &ControlPlane, identity: &str) -> Running {
    start(options(cluster, identity))
}

fn options(cluster: &ControlPlane, identity: &str) -> OperatorOptions {
    OperatorOptions {
        kubeconfig: Some(cluster.kubeconfig()),
        namespace: "default".to_owned(),
        identity: identity.to_owned(),
        ..OperatorOptions::default()
    }
}

fn start(options: OperatorOptions) -> Running {
    let operator = Operator::start(options);
    let operator = operator.unwrap_or_else(|error| panic!("{error}"));
    Running {
        stop: operator.stop(),
        writes: operator.writes(),
        thread: std::thread::spawn(move || operator.run()),
    }
}

fn get(cluster: &ControlPlane, what: &str) -> Option<Value> {
    let got = cluster
        .kubectl(&["get", what, "-o", "json", "--show-managed-fields"])
        .ok()?;
    serde_json::from_str(&got).ok()
}

const CONFIG: &str = "ciliumenvoyconfig/cilium-ingress-default-basic-ingress";
const SERVICE: &str = "service/cilium-ingress-basic-ingress";

/// Whether the operator has said something of the config.
fn has_conditions(cluster: &ControlPlane) -> Option<()> {
    let config = get(cluster, CONFIG)?;
    config["status"]["conditions"].is_array().then_some(())
}

#[test]
fn an_ingress_has_its_config_and_service_and_takes_them_with_it() {
    let cluster = cluster();
    cluster.apply(INGRESS);
    let running = operator(&cluster, "one");
    let config = until("the config", || get(&cluster, CONFIG));
    let service = until("the Service", || get(&cluster, SERVICE));
    assert_eq!(
        config["spec"]["services"][0]["name"],
        "cilium-ingress-basic-ingress"
    );
    assert_eq!(config["metadata"]["ownerReferences"][0]["kind"], "Ingress");
    assert_eq!(
        config["metadata"]["managedFields"][0]["manager"],
        "nodeway-operator"
    );
    assert_eq!(
        service["metadata"]["ownerReferences"][0]["name"],
        "basic-ingress"
    );
    assert!(service["spec"]["clusterIP"].is_string(), "{service}");
    // Its load balancer gives it an address: the Ingress has it then.
    let status =
        json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}).to_string();
    let patched = cluster.kubectl(&[
        "patch",
        SERVICE,
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ]);
    patched.unwrap_or_else(|error| panic!("{error}"));
    until("the Ingress's address", || {
        let ingress = get(&cluster, "ingress/basic-ingress")?;
        (ingress["status"]["loadBalancer"]["ingress"][0]["ip"] == "192.0.2.7").then_some(())
    });
    cluster
        .kubectl(&["delete", "ingress", "basic-ingress"])
        .unwrap();
    until("the config's end", || {
        get(&cluster, CONFIG).is_none().then_some(())
    });
    until("the Service's end", || {
        get(&cluster, SERVICE).is_none().then_some(())
    });
    running.stop.now();
    running.thread.join().unwrap();
}

#[test]
fn a_cluster_in_which_nothing_happens_is_left_alone() {
    let cluster = cluster();
    cluster.apply(INGRESS);
    let first = operator(&cluster, "one");
    until("the config", || get(&cluster, CONFIG));
    until("the Service", || get(&cluster, SERVICE));
    until("the config's conditions", || has_conditions(&cluster));
    // Longer than the Lease takes to be renewed.
    let quiet = Duration::from_secs(7);
    std::thread::sleep(Duration::from_secs(1));
    let written = first.writes.count();
    assert_eq!(written, 3, "a config, its conditions and a Service");
    std::thread::sleep(quiet);
    assert_eq!(first.writes.count(), written);
    // The next one finds all as it should be.
    first.stop.now();
    first.thread.join().unwrap();
    let second = operator(&cluster, "two");
    std::thread::sleep(quiet);
    assert_eq!(second.writes.count(), 0);
    second.stop.now();
    second.thread.join().unwrap();
}

#[test]
fn of_two_operators_one_writes_and_the_other_when_it_ends() {
    let cluster = cluster();
    let first = operator(&cluster, "one");
    let holder = || {
        get(&cluster, "lease/nodeway-operator")?["spec"]["holderIdentity"]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(until("the Lease", holder), "one");
    let second = operator(&cluster, "two");
    cluster.apply(INGRESS);
    until("the config", || get(&cluster, CONFIG));
    until("the Service", || get(&cluster, SERVICE));
    until("the config's conditions", || has_conditions(&cluster));
    assert_eq!((first.writes.count(), second.writes.count()), (3, 0));
    first.stop.now();
    first.thread.join().unwrap();
    until("the other", || {
        (holder().as_deref() == Some("two")).then_some(())
    });
    cluster.kubectl(&["delete", CONFIG]).unwrap();
    until("the config again", || has_conditions(&cluster));
    assert_eq!(second.writes.count(), 2);
    second.stop.now();
    second.thread.join().unwrap();
}

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{ports: [{{port: 80}}]}}\n"
    )
}

fn names(watched: &Watched) -> Vec<String> {
    let services = watched.store().objects().services();
    services.filter_map(|it| it.metadata.name.clone()).collect()
}

/// The cluster as the agent of a node watches it.
fn watched(runtime: &Runtime, client: &Client) -> Watched {
    let wishes = Wish::of_agent(Some("node-1"));
    let watched = Watched::begin(runtime.handle(), client, wishes, || {});
    watched.unwrap_or_else(|error| panic!("{error}"))
}

/// How an agent is started here.
fn agent_options(cluster: &ControlPlane, redirect: Redirect, run: &Path) -> AgentOptions {
    AgentOptions {
        from: From::Kube(Some(cluster.kubeconfig())),
        node: "node-1".to_owned(),
        redirect,
        run: run.to_owned(),
        pins: None,
        access_log: false,
        metrics: None,
        arming: WITHIN,
        draining: Duration::from_secs(2),
    }
}

#[test]
fn an_api_server_that_goes_away_takes_nothing_and_is_followed_when_it_is_back() {
    let mut cluster = cluster();
    cluster.apply(&service("one"));
    let (runtime, client) = cluster.client();
    let (sender, wakes) = std::sync::mpsc::channel();
    let wake = move || sender.send(()).unwrap_or_default();
    let wishes = Wish::of_agent(Some("node-1"));
    let watched = Watched::begin(runtime.handle(), &client, wishes, wake);
    let mut watched = watched.unwrap_or_else(|error| panic!("{error}"));
    assert!(names(&watched).contains(&"one".to_owned()));
    assert_eq!(watched.store().error(), None);
    cluster.kill_server();
    until("an error", || {
        assert_eq!(watched.take(), []);
        watched.store().error()
    });
    assert!(
        names(&watched).contains(&"one".to_owned()),
        "what it told is in force"
    );
    cluster.start_server();
    // Nothing has changed there, and whoever waits for changes hears of it all the same.
    while watched.store().error().is_some() {
        wakes.recv_timeout(WITHIN).unwrap();
        watched.take();
    }
    cluster.apply(&service("two"));
    cluster.kubectl(&["delete", "service", "one"]).unwrap();
    until("what has changed", || {
        watched.take();
        let names = names(&watched);
        (names.contains(&"two".to_owned()) && !names.contains(&"one".to_owned())).then_some(())
    });
}

#[test]
fn a_watch_that_cannot_go_on_where_it_was_is_begun_anew_with_a_whole_list() {
    let mut cluster = cluster();
    cluster.apply(&service("one"));
    cluster.apply(&service("two"));
    let (runtime, client) = cluster.client();
    let mut watched = watched(&runtime, &client);
    cluster.kill_server();
    // No event will ever tell of this: only a new list lacks it.
    cluster.forget_service("one");
    cluster.start_server();
    let mut gone = Vec::new();
    until("the new list", || {
        gone.extend(watched.take());
        (!names(&watched).contains(&"one".to_owned())).then_some(())
    });
    let one = ObjectRef::new(Kind::Service, "default", "one");
    assert_eq!(gone, [Change::Delete(one)], "nothing else has changed");
}

#[test]
fn a_source_without_an_error_knows_what_there_is_also_after_the_api_server_was_away() {
    let mut cluster = cluster();
    cluster.apply(&service("one"));
    let (runtime, client) = cluster.client();
    let mut watched = watched(&runtime, &client);
    cluster.kill_server();
    until("the error", || {
        watched.take();
        watched.store().error().filter(|it| it.contains("Service"))
    });
    cluster.forget_service("one");
    cluster.start_server();
    until("no error", || {
        watched.take();
        watched.store().error().is_none().then_some(())
    });
    assert!(!names(&watched).contains(&"one".to_owned()));
}

/// What a cluster has of the fixture: addresses are those that it would give.
fn objects_of_bookinfo() -> (Objects, NodePlan, Vec<Value>) {
    let fixture = Fixture::load(PathBuf::from("../fixtures/bookinfo")).unwrap();
    let sim = Sim::from_fixture(&fixture).unwrap().start().unwrap();
    let mut all = Vec::new();
    for (reference, entry) in sim.objects().iter() {
        let value = match &entry.object {
            Object::Node(it) => serde_json::to_value(it.as_ref()),
            Object::Service(it) => serde_json::to_value(it.as_ref()),
            Object::EndpointSlice(it) => serde_json::to_value(it.as_ref()),
            Object::CiliumEnvoyConfig(it) => Ok(json!({
                "apiVersion": "cilium.io/v2", "kind": "CiliumEnvoyConfig",
                "metadata": it.metadata, "spec": it.spec,
            })),
            _ => continue,
        };
        let mut value = value.unwrap();
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("uid");
            metadata.remove("ownerReferences");
        }
        if reference.kind != Kind::Node {
            value["metadata"]["namespace"] = reference.namespace.clone().into();
        }
        all.push(value);
    }
    let plan = sim.plan("node-1").unwrap().clone();
    (sim.objects().clone(), plan, all)
}

#[rstest]
fn the_articles_two_requests_are_answered_on_a_node_of_a_real_api_server(
    #[values(Redirect::Tc, Redirect::Iptables)] redirect: Redirect,
) {
    let machine = Machine::new(&format!("kube-{redirect}"));
    machine.link_up();
    let (model, plan, objects) = objects_of_bookinfo();
    serve_endpoints(&machine, &plan);
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    for path in [folder.path(), &run] {
        let _ = std::fs::create_dir(path);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(path, mode).unwrap();
    }
    // All that is started belongs to the namespace of the thread that starts it.
    let within = machine.netns.run(|| {
        let cluster = cluster();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        cluster.apply(&list.to_string());
        for node in model.nodes() {
            let name = format!("node/{}", node.metadata.name.as_deref().unwrap());
            let status = json!({"status": {"addresses": node.status.as_ref().unwrap().addresses}});
            let done = cluster.kubectl(&[
                "patch",
                &name,
                "--subresource=status",
                "--type=merge",
                "-p",
                &status.to_string(),
            ]);
            done.unwrap_or_else(|error| panic!("{error}"));
        }
        let supervisor = Supervisor::start(SupervisorOptions {
            run: run.clone(),
            node: "node-1".to_owned(),
            program: find(None).unwrap_or_else(|error| panic!("{error}")),
            concurrency: 1,
            access_log: false,
            bounds: Bounds {
                handover: WITHIN,
                drain: WITHIN,
            },
        });
        let agent = Agent::start(agent_options(&cluster, redirect, &run));
        let agent = agent.unwrap_or_else(|error| panic!("{error}"));
        (
            cluster,
            supervisor.unwrap_or_else(|error| panic!("{error}")),
            agent,
        )
    });
    let (cluster, supervisor, agent) = within.unwrap();
    let (orders, received) = std::sync::mpsc::channel();
    let supervising = std::thread::spawn(move || supervisor.run(&received));
    let stop = agent.stop();
    let running = std::thread::spawn(move || agent.run());
    let in_sync = || {
        let status = ask_status(&run).ok()?;
        (status.out_of_sync().is_empty()
            && status.awaited().is_empty()
            && !status.frontends.is_empty())
        .then_some(status)
    };
    let status = until("the plan", in_sync);
    assert_eq!(status.source.name, "the API server");
    let config = "ciliumenvoyconfig/cilium-ingress-default-basic-ingress";
    until("the config's status", || {
        let config = machine.netns.run(|| get(&cluster, config)).unwrap()?;
        let said = conditions::said(&config, "node-1");
        (said == ["+Accepted", "+ResolvedRefs", "-NoConflict", "+Programmed"]).then_some(())
    });
    let web = model
        .service("default", "cilium-ingress-basic-ingress")
        .unwrap();
    let address = web.spec.as_ref().unwrap().cluster_ip.clone().unwrap();
    let ask = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n");
        machine.say(&address, 80, &request).unwrap()
    };
    assert!(
        ask("/details/0").starts_with("HTTP/1.1 200"),
        "{}",
        ask("/details/0")
    );
    assert!(ask("/").starts_with("HTTP/1.1 200"));
    // A change in the cluster reaches Envoy: the endpoints of `details` go.
    let slices = machine.netns.run(|| {
        cluster.kubectl(&[
            "delete",
            "endpointslices",
            "-l",
            "kubernetes.io/service-name=details",
        ])
    });
    slices.unwrap().unwrap_or_else(|error| panic!("{error}"));
    until("no endpoint", || {
        ask("/details/0").starts_with("HTTP/1.1 503").then_some(())
    });
    stop.now();
    running.join().unwrap();
    let _ = orders.send(Order::EndNow);
    supervising.join().unwrap();
}
