//! A cluster of kind, by its own tools.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use miette::{IntoDiagnostic as _, miette};
use nodeway_core::object::{Kind, Provenance};
use nodeway_sim::Sim;
use serde_json::Value;

use crate::load::event::pause;

/// How long something may take to get ready.
const PATIENCE: &str = "120s";
/// Between two looks, and how many.
const PAUSE: Duration = Duration::from_millis(500);
const LOOKS: usize = 180;

/// The cluster of `KUBECONFIG`.
pub(super) struct Cluster {
    /// The image of our programs.
    pub(super) image: String,
    /// A node that runs pods, and its address.
    pub(super) node: (String, String),
}

impl Cluster {
    pub(super) fn of_kubeconfig(image: &str) -> miette::Result<Self> {
        let nodes = json(&["get", "nodes", "-o", "json"])?;
        let mut workers = items(&nodes, "/items").filter(|node| {
            let control_plane = "/metadata/labels/node-role.kubernetes.io~1control-plane";
            node.pointer(control_plane).is_none()
        });
        let worker = workers
            .next()
            .ok_or_else(|| miette!("the cluster has no node that runs pods"))?;
        let mut addresses = items(worker, "/status/addresses");
        let address = addresses.find(|it| text(it, "/type") == "InternalIP");
        Ok(Self {
            image: image.to_owned(),
            node: (
                text(worker, "/metadata/name").to_owned(),
                address
                    .map(|it| text(it, "/address"))
                    .unwrap_or_default()
                    .to_owned(),
            ),
        })
    }

    pub(super) fn apply(&self, manifests: &str) -> miette::Result<()> {
        kubectl(&["apply", "-f", "-"], manifests).map(drop)
    }

    pub(super) fn delete(&self, manifests: &str) -> miette::Result<()> {
        let arguments = [
            "delete",
            "--ignore-not-found",
            "--timeout",
            PATIENCE,
            "-f",
            "-",
        ];
        kubectl(&arguments, manifests)?;
        // Pods of Deployments go a moment later; where there are none, that is said as an error.
        let pods = [
            "wait",
            "--for",
            "delete",
            "--timeout",
            PATIENCE,
            "pods",
            "--all",
        ];
        let _ = kubectl(&pods, "");
        Ok(())
    }

    /// Waits until pods run, the operator has made what Ingresses ask for, and each agent and its Envoy
    /// have it.
    pub(super) fn settle(&self, model: &Sim) -> miette::Result<()> {
        let objects = model.objects();
        for deployment in objects.deployments() {
            let name = deployment.metadata.name.clone().unwrap_or_default();
            let what = format!("deployment/{name}");
            kubectl(&["rollout", "status", "--timeout", PATIENCE, &what], "")?;
        }
        for (reference, entry) in objects.iter() {
            let is_written = matches!(entry.provenance, Provenance::Written { .. });
            if reference.kind == Kind::Pod && is_written {
                let what = format!("pod/{}", reference.name);
                let arguments = [
                    "wait",
                    "--for",
                    "condition=Ready",
                    "--timeout",
                    PATIENCE,
                    &what,
                ];
                kubectl(&arguments, "")?;
            }
        }
        let frontends = objects.services().filter(|service| {
            let name = service.metadata.name.as_deref().unwrap_or_default();
            name.starts_with("cilium-ingress-")
        });
        let names: Vec<String> = frontends
            .filter_map(|service| service.metadata.name.clone())
            .collect();
        for _ in 0..LOOKS {
            let there = names
                .iter()
                .all(|name| json(&["get", "service", name, "-o", "json"]).is_ok());
            if there && in_sync(&names)? {
                return Ok(());
            }
            pause(PAUSE);
        }
        Err(miette!(
            "the agents are not on the plan of {names:?}; ask one: kubectl -n nodeway-system exec daemonset/nodeway-agent -c agent -- nodeway status"
        ))
    }

    /// Runs a command in a pod of that name, or of that Deployment.
    pub(super) fn in_pod(&self, pod: &str, command: &[&str]) -> miette::Result<String> {
        let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
        let pod = kubectl(&["-n", namespace, "get", "pod", name, "-o", "name"], "");
        let target = match pod.is_ok() {
            true => name.to_owned(),
            false => format!("deployment/{name}"),
        };
        let mut arguments = vec!["-n", namespace, "exec", &target, "--"];
        arguments.extend(command);
        kubectl(&arguments, "")
    }

    /// Runs a command on the node.
    pub(super) fn on_node(&self, command: &[&str]) -> miette::Result<String> {
        let mut arguments = vec!["exec", self.node.0.as_str()];
        arguments.extend(command);
        run("docker", &arguments, "")
    }

    /// The address of a Service in the cluster, and its first NodePort.
    pub(super) fn service(&self, path: &str) -> miette::Result<(String, Option<u16>)> {
        let (namespace, name) = path.split_once('/').unwrap_or(("default", path));
        let service = json(&["-n", namespace, "get", "service", name, "-o", "json"])?;
        let address = text(&service, "/spec/clusterIP");
        let port = service.pointer("/spec/ports/0/nodePort");
        let port = port.and_then(Value::as_u64);
        Ok((
            address.to_owned(),
            port.and_then(|port| u16::try_from(port).ok()),
        ))
    }
}

/// Whether each agent leads the frontends of these Services, and its Envoy has all that is planned.
fn in_sync(services: &[String]) -> miette::Result<bool> {
    let pods = json(&[
        "-n",
        "nodeway-system",
        "get",
        "pods",
        "-l",
        "app=nodeway-agent",
        "-o",
        "json",
    ])?;
    for pod in items(&pods, "/items") {
        let name = text(pod, "/metadata/name");
        let status = [
            "-n",
            "nodeway-system",
            "exec",
            name,
            "-c",
            "agent",
            "--",
            "nodeway",
            "status",
            "-o",
            "json",
        ];
        // It ends with 1 while something is not in sync.
        let Ok(status) = json(&status) else {
            return Ok(false);
        };
        let led = |service: &String| {
            let service = format!("default/{service}");
            let is_led =
                |it: &Value| text(it, "/service") == service && text(it, "/state") == "active";
            items(&status, "/frontends").any(is_led)
        };
        if !services.iter().all(led) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The items of a list in an object, by its place there.
fn items<'a>(of: &'a Value, at: &str) -> impl Iterator<Item = &'a Value> {
    let list = of.pointer(at).and_then(Value::as_array);
    list.into_iter().flatten()
}

/// A text in an object, by its place there; empty if there is none.
fn text<'a>(of: &'a Value, at: &str) -> &'a str {
    of.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

fn json(arguments: &[&str]) -> miette::Result<Value> {
    let text = kubectl(arguments, "")?;
    serde_json::from_str(&text).into_diagnostic()
}

fn kubectl(arguments: &[&str], input: &str) -> miette::Result<String> {
    run("kubectl", arguments, input)
}

/// Runs a command; what it prints.
pub(super) fn run(program: &str, arguments: &[&str], input: &str) -> miette::Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| miette!("cannot run `{program}`: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).into_diagnostic()?;
    }
    let output = child.wait_with_output().into_diagnostic()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(miette!(
            "`{program} {}`: {}",
            arguments.join(" "),
            said.trim()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
