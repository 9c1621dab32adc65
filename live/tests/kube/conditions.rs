//! What an agent writes into configs' status.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use nodeway_live::agent::Agent;
use nodeway_live::stop::Stop;
use nodeway_sim::Redirect;
use serde_json::Value;

use super::bed::Machine;
use super::control_plane::ControlPlane;
use super::{agent_options, cluster, get, until};

pub(super) const NODE: &str = "
apiVersion: v1
kind: Node
metadata: {name: node-1, labels: {pool: edge}}
";
pub(super) const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {ports: [{port: 80}]}
";

/// A config that claims the Service for its listener.
pub(super) fn config(name: &str, selector: &str) -> String {
    format!(
        "
apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {{name: {name}, namespace: default}}
spec:
  {selector}
  services: [{{name: web, listener: web}}]
  resources:
  - \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener
    name: web
    filterChains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typedConfig:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          statPrefix: web
          cluster: default/web
  - \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster
    name: default/web
    connectTimeout: 1s
    type: EDS
"
    )
}

/// The reasons of a node's conditions, each with whether it holds; nothing if the node says nothing.
pub(super) fn said(config: &Value, node: &str) -> Vec<String> {
    let nodes = config["status"]["nodes"].as_array();
    let own = nodes.and_then(|all| all.iter().find(|it| it["name"] == node));
    let conditions = own.and_then(|it| it["conditions"].as_array());
    let all = conditions.into_iter().flatten().map(|it| {
        let holds = if it["status"] == "True" { "+" } else { "-" };
        format!("{holds}{}", it["reason"].as_str().unwrap())
    });
    all.collect()
}

pub(super) fn get_config(machine: &Machine, cluster: &ControlPlane, name: &str) -> Value {
    let what = format!("ciliumenvoyconfig/{name}");
    machine.netns.run(|| get(cluster, &what)).unwrap().unwrap()
}

pub(super) struct Running {
    pub(super) cluster: ControlPlane,
    stop: Stop,
    thread: JoinHandle<()>,
    folder: tempfile::TempDir,
}

/// An agent without an Envoy.
pub(super) fn agent(machine: &Machine, objects: &[String]) -> Running {
    machine.link_up();
    let folder = tempfile::tempdir().unwrap();
    let started = machine.netns.run(|| {
        let cluster = cluster();
        for object in objects {
            cluster.apply(object);
        }
        let addresses =
            r#"{"status":{"addresses":[{"type":"InternalIP","address":"172.18.0.2"}]}}"#;
        let patched = cluster.kubectl(&[
            "patch",
            "node/node-1",
            "--subresource=status",
            "--type=merge",
            "-p",
            addresses,
        ]);
        patched.unwrap();
        let agent = Agent::start(agent_options(
            &cluster,
            Redirect::Iptables,
            &folder.path().join("run"),
        ));
        (cluster, agent.unwrap_or_else(|error| panic!("{error}")))
    });
    let (cluster, agent) = started.unwrap();
    Running {
        cluster,
        stop: agent.stop(),
        thread: std::thread::spawn(move || agent.run()),
        folder,
    }
}

impl Running {
    /// The agent's run directory.
    pub(super) fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub(super) fn end(self) {
        self.stop.now();
        self.thread.join().unwrap();
    }
}

#[test]
fn the_older_of_two_configs_has_the_frontend_and_the_younger_is_told_in_its_status() {
    let machine = Machine::new("kube-claims");
    let objects = [NODE, WEB].map(str::to_owned);
    let running = agent(&machine, &objects);
    let cluster = &running.cluster;
    // By name it would be the other way round: times are told in seconds.
    machine
        .netns
        .run(|| cluster.apply(&config("zz-older", "")))
        .unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    machine
        .netns
        .run(|| cluster.apply(&config("a-younger", "")))
        .unwrap();
    let pending =
        |conflict: &str| ["+Accepted", "+ResolvedRefs", conflict, "-Pending"].map(str::to_owned);
    until("what the younger is told", || {
        let younger = get_config(&machine, cluster, "a-younger");
        (said(&younger, "node-1") == pending("+FrontendClaimedTwice")).then_some(())
    });
    let younger = get_config(&machine, cluster, "a-younger");
    let words = &younger["status"]["nodes"][0]["conditions"][2]["message"];
    let words = words.as_str().unwrap();
    assert!(
        words.starts_with("NW0007") && words.contains("zz-older"),
        "{words}"
    );
    assert_eq!(
        younger["status"]["nodes"][0]["conditions"][0]["observedGeneration"],
        1
    );
    let older = get_config(&machine, cluster, "zz-older");
    assert_eq!(said(&older, "node-1"), pending("-NoConflict"));
    // The winner goes: the other has it.
    let deleted = machine
        .netns
        .run(|| cluster.kubectl(&["delete", "cec", "zz-older"]));
    deleted.unwrap().unwrap();
    until("the end of the conflict", || {
        let younger = get_config(&machine, cluster, "a-younger");
        (said(&younger, "node-1") == pending("-NoConflict")).then_some(())
    });
    running.end();
}

#[test]
fn a_node_that_the_cluster_has_no_more_takes_back_what_it_said() {
    let machine = Machine::new("kube-no-node");
    let here = config("here", "");
    let running = agent(&machine, &[NODE.to_owned(), WEB.to_owned(), here]);
    let cluster = &running.cluster;
    let says = |what: &str, count: usize| {
        until(what, || {
            let here = get_config(&machine, cluster, "here");
            (said(&here, "node-1").len() == count).then_some(())
        });
    };
    says("a status", 4);
    let gone = machine
        .netns
        .run(|| cluster.kubectl(&["delete", "node", "node-1"]));
    gone.unwrap().unwrap();
    says("the end of it", 0);
    machine.netns.run(|| cluster.apply(NODE)).unwrap();
    says("a status again", 4);
    running.end();
}

#[test]
fn a_status_is_written_once_by_each_agent_and_not_at_all_for_other_nodes() {
    let machine = Machine::new("kube-status");
    let here = config("here", "nodeSelector: {matchLabels: {pool: edge}}");
    let elsewhere = config("elsewhere", "nodeSelector: {matchLabels: {pool: core}}");
    let objects = [NODE.to_owned(), WEB.to_owned(), here, elsewhere];
    let running = agent(&machine, &objects);
    let cluster = &running.cluster;
    until("a status", || {
        let here = get_config(&machine, cluster, "here");
        (said(&here, "node-1").len() == 4).then_some(())
    });
    let version = |name| get_config(&machine, cluster, name)["metadata"]["resourceVersion"].clone();
    let (written, untouched) = (version("here"), version("elsewhere"));
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(
        (version("here"), version("elsewhere")),
        (written, untouched)
    );
    assert_eq!(
        said(&get_config(&machine, cluster, "elsewhere"), "node-1"),
        [""; 0]
    );
    // It is for other nodes from now on: what was said of it here goes.
    let moved = config("here", "nodeSelector: {matchLabels: {pool: core}}");
    machine.netns.run(|| cluster.apply(&moved)).unwrap();
    until("the end of what was said", || {
        let here = get_config(&machine, cluster, "here");
        said(&here, "node-1").is_empty().then_some(())
    });
    running.end();
}
