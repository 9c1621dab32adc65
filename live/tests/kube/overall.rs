//! What the operator says of configs for all nodes together, and what it tells of what it refuses.

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use nodeway_live::kube::{ToldConfig, told};
use nodeway_live::operator::OperatorOptions;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::control_plane::ControlPlane;
use super::{INGRESS, Running, cluster, get, operator, options, start, until};

const CONFIG: &str = "
apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: web, namespace: default}
spec: {resources: []}
";

fn node(name: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n")
}

/// Agents as the operator sees them: entries of configs' status.
struct Agents<'a> {
    cluster: &'a ControlPlane,
    runtime: Runtime,
    client: Client,
}

impl<'a> Agents<'a> {
    fn of(cluster: &'a ControlPlane) -> Self {
        let (runtime, client) = cluster.client();
        Self {
            cluster,
            runtime,
            client,
        }
    }

    /// A node says of the config's present spec that it has it, or why not.
    fn say(&self, node: &str, refused: Option<&str>) {
        let config = get(self.cluster, "cec/web").unwrap();
        let generation = &config["metadata"]["generation"];
        let conditions = [
            ("Accepted", "True", "Accepted", ""),
            ("ResolvedRefs", "True", "ResolvedRefs", ""),
            ("Conflicted", "False", "NoConflict", ""),
            match refused {
                None => ("Programmed", "True", "Programmed", ""),
                Some(words) => ("Programmed", "False", "RefusedByEnvoy", words),
            },
        ]
        .map(|(about, status, reason, message)| {
            json!({
                "type": about, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": generation,
            })
        });
        let body = json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumEnvoyConfig", "metadata": {"name": "web"},
            "status": {"nodes": [{"name": node, "conditions": conditions}]},
        });
        let kind = GroupVersionKind::gvk("cilium.io", "v2", "CiliumEnvoyConfig");
        let api: Api<DynamicObject> = Api::namespaced_with(
            self.client.clone(),
            "default",
            &ApiResource::from_gvk(&kind),
        );
        let params = PatchParams::apply(&format!("nodeway-agent-{node}")).force();
        let patch = Patch::Apply(&body);
        let done = self
            .runtime
            .block_on(api.patch_status("web", &params, &patch));
        done.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The status and reason of a condition.
fn condition(config: &Value, about: &str) -> Option<(String, String, String)> {
    let all = config["status"]["conditions"].as_array()?;
    let found = all.iter().find(|it| it["type"] == about)?;
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

fn until_programmed(cluster: &ControlPlane, status: &str, reason: &str) -> String {
    until(&format!("Programmed={status}, {reason}"), || {
        let config = get(cluster, "cec/web")?;
        let (is, why, message) = condition(&config, "Programmed")?;
        (is == status && why == reason).then_some(message)
    })
}

fn end(running: Running) {
    running.stop.now();
    running.thread.join().unwrap();
}

#[test]
fn a_config_is_programmed_when_every_node_says_so_and_kubectl_can_wait_for_it() {
    let cluster = cluster();
    cluster.apply(&node("a"));
    cluster.apply(&node("b"));
    cluster.apply(CONFIG);
    let running = operator(&cluster, "one");
    let awaited = until_programmed(&cluster, "False", "Pending");
    assert_eq!(awaited, "a, b: nothing said of this spec yet");
    let agents = Agents::of(&cluster);
    agents.say("a", None);
    until("the silence of b", || {
        let message = until_programmed(&cluster, "False", "Pending");
        (message == "b: nothing said of this spec yet").then_some(())
    });
    agents.say("b", None);
    let waited = cluster.kubectl(&[
        "wait",
        "--for=condition=Programmed",
        "--timeout=20s",
        "ciliumenvoyconfig/web",
    ]);
    waited.unwrap_or_else(|error| panic!("{error}"));
    let shown = cluster.kubectl(&["get", "cec", "web", "--no-headers"]);
    let shown = shown.unwrap();
    let columns: Vec<&str> = shown.split_whitespace().take(5).collect();
    assert_eq!(columns, ["web", "True", "True", "False", "True"]);
    // Another spec: what was said of the one before does not hold any more.
    cluster.apply(&CONFIG.replace("resources: []", "resources: [], services: []"));
    cluster
        .kubectl(&[
            "patch",
            "cec",
            "web",
            "--type=merge",
            "-p",
            r#"{"spec":{"services":[{"name":"x"}]}}"#,
        ])
        .unwrap();
    until_programmed(&cluster, "False", "Pending");
    end(running);
}

#[test]
fn what_a_node_says_goes_with_the_node() {
    let cluster = cluster();
    cluster.apply(&node("a"));
    cluster.apply(&node("b"));
    cluster.apply(CONFIG);
    let running = operator(&cluster, "one");
    let agents = Agents::of(&cluster);
    agents.say("a", None);
    agents.say("b", Some("NW0028 no such cipher"));
    let message = until_programmed(&cluster, "False", "RefusedByEnvoy");
    assert_eq!(message, "b: NW0028 no such cipher");
    cluster.kubectl(&["delete", "node", "b"]).unwrap();
    until_programmed(&cluster, "True", "Programmed");
    let config = get(&cluster, "cec/web").unwrap();
    let nodes = config["status"]["nodes"].as_array().unwrap();
    let names: Vec<&Value> = nodes.iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["a"]);
    end(running);
}

#[test]
fn conditions_that_stand_there_are_not_written_again() {
    let cluster = cluster();
    cluster.apply(&node("a"));
    cluster.apply(CONFIG);
    Agents::of(&cluster).say("a", None);
    let first = operator(&cluster, "one");
    until_programmed(&cluster, "True", "Programmed");
    // Longer than what changes takes to settle, and the Lease to be renewed.
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert_eq!(first.writes.count(), 1);
    end(first);
    let second = operator(&cluster, "two");
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert_eq!(second.writes.count(), 0);
    end(second);
}

#[test]
fn whoever_looks_is_told_the_same_without_an_operator() {
    let cluster = cluster();
    cluster.apply(&node("a"));
    cluster.apply(CONFIG);
    let kubeconfig = cluster.kubeconfig();
    let look = || told(Some(&kubeconfig)).unwrap_or_else(|error| panic!("{error}"));
    let programmed = |all: &[ToldConfig]| all[0].conditions[3].reason.clone();
    let silent = look();
    assert_eq!(
        (silent.len(), programmed(&silent)),
        (1, "Pending".to_owned())
    );
    assert!(!silent[0].is_good());
    Agents::of(&cluster).say("a", None);
    let all = look();
    assert_eq!(programmed(&all), "Programmed");
    assert!(all[0].is_good());
    assert!(all[0].nodes[0].current);
}

#[test]
fn a_node_that_has_no_agent_is_not_waited_for() {
    let cluster = cluster();
    cluster.apply(&node("a"));
    cluster.apply(&node("b"));
    cluster
        .kubectl(&["label", "node", "a", "pool=edge"])
        .unwrap();
    cluster.apply(CONFIG);
    let running = start(OperatorOptions {
        agents: Some("pool=edge".to_owned()),
        ..options(&cluster, "one")
    });
    Agents::of(&cluster).say("a", None);
    until_programmed(&cluster, "True", "Programmed");
    end(running);
}

/// The Events on an object, as `REASON MESSAGE`.
fn events(cluster: &ControlPlane, object: &str) -> Vec<String> {
    let selector = format!("--field-selector=involvedObject.name={object}");
    let all = cluster.kubectl(&["get", "events", &selector, "-o", "json"]);
    let all: Value = serde_json::from_str(&all.unwrap()).unwrap();
    let all = all["items"].as_array().unwrap().iter();
    let all = all.map(|it| format!("{} {}", it["reason"], it["message"]));
    all.collect()
}

#[test]
fn what_is_refused_is_an_event_on_its_object_and_told_once() {
    let cluster = cluster();
    cluster.apply(&node("a"));
    cluster.apply(CONFIG);
    // A path that is no regular expression is refused.
    let bad = INGRESS.replace(
        "{path: /details, pathType: Prefix,",
        "{path: '/(', pathType: ImplementationSpecific,",
    );
    cluster.apply(&bad);
    let first = operator(&cluster, "one");
    let told = until("an Event", || {
        Some(events(&cluster, "basic-ingress")).filter(|it| !it.is_empty())
    });
    assert!(told.len() == 1 && told[0].contains("NW"), "{told:?}");
    Agents::of(&cluster).say("a", Some("NW0028 no such cipher"));
    let of_config = until("the config's Event", || {
        Some(events(&cluster, "web")).filter(|it| !it.is_empty())
    });
    assert_eq!(
        of_config,
        [r#""RefusedByEnvoy" "a: NW0028 no such cipher""#]
    );
    end(first);
    let second = operator(&cluster, "two");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(events(&cluster, "basic-ingress"), told);
    assert_eq!(events(&cluster, "web"), of_config);
    end(second);
}
