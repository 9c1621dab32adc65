//! A cluster of kind, by its own tools.

use std::collections::BTreeSet;
use std::time::Duration;

use miette::{IntoDiagnostic as _, miette};
use nodeway_core::object::{Kind, ObjectRef, Provenance};
use nodeway_sim::Sim;
use serde_json::Value;

use crate::kubectl::{apply, feed, items, json, kubectl, run, text};
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
        let label = "!node-role.kubernetes.io/control-plane";
        let nodes = json(&["get", "nodes", "-l", label]).into_diagnostic()?;
        let worker = items(&nodes)
            .next()
            .ok_or_else(|| miette!("the cluster has no node that runs pods"))?;
        let addresses = worker
            .pointer("/status/addresses")
            .and_then(Value::as_array);
        let mut addresses = addresses.into_iter().flatten();
        let address = addresses.find(|it| text(it, "/type") == "InternalIP");
        Ok(Self {
            image: image.to_owned(),
            node: (
                text(worker, "/metadata/name"),
                address.map(|it| text(it, "/address")).unwrap_or_default(),
            ),
        })
    }

    pub(super) fn apply(&self, manifests: &str) -> miette::Result<()> {
        apply(manifests).into_diagnostic()
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
        feed(&arguments, manifests).into_diagnostic()?;
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
        let _ = kubectl(&pods);
        Ok(())
    }

    /// Waits until pods run, the operator has made what Ingresses ask for, and each agent and its Envoy
    /// have it.
    pub(super) fn settle(&self, model: &Sim) -> miette::Result<()> {
        let objects = model.objects();
        for deployment in objects.deployments() {
            let name = deployment.metadata.name.clone().unwrap_or_default();
            let what = format!("deployment/{name}");
            kubectl(&["rollout", "status", "--timeout", PATIENCE, &what]).into_diagnostic()?;
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
                kubectl(&arguments).into_diagnostic()?;
            }
        }
        let frontends = model.plans().flat_map(|(_, plan)| plan.frontends.values());
        let services: BTreeSet<&ObjectRef> = frontends.map(|it| &it.service).collect();
        for _ in 0..LOOKS {
            if in_sync(&services)? {
                return Ok(());
            }
            pause(PAUSE);
        }
        let paths: Vec<String> = services.iter().map(|it| it.path()).collect();
        Err(miette!(
            "the agents do not lead {}; ask one: kubectl -n nodeway-system exec daemonset/nodeway-agent -c agent -- nodeway status",
            paths.join(", ")
        ))
    }

    /// Runs a command in a pod of that name, or of that Deployment.
    pub(super) fn in_pod(&self, pod: &str, command: &[&str]) -> miette::Result<String> {
        let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
        let pod = kubectl(&["-n", namespace, "get", "pod", name, "-o", "name"]);
        let target = match pod.is_ok() {
            true => name.to_owned(),
            false => format!("deployment/{name}"),
        };
        let mut arguments = vec!["-n", namespace, "exec", &target, "--"];
        arguments.extend(command);
        kubectl(&arguments).into_diagnostic()
    }

    /// Runs a command on the node.
    pub(super) fn on_node(&self, command: &[&str]) -> miette::Result<String> {
        let mut arguments = vec!["exec", self.node.0.as_str()];
        arguments.extend(command);
        run("docker", &arguments, "").into_diagnostic()
    }

    /// The address of a Service in the cluster, and its first NodePort.
    pub(super) fn service(&self, path: &str) -> miette::Result<(String, Option<u16>)> {
        let (namespace, name) = path.split_once('/').unwrap_or(("default", path));
        let service = json(&["-n", namespace, "get", "service", name]).into_diagnostic()?;
        let address = text(&service, "/spec/clusterIP");
        let port = service.pointer("/spec/ports/0/nodePort");
        let port = port.and_then(Value::as_u64);
        Ok((address, port.and_then(|port| u16::try_from(port).ok())))
    }
}

/// Whether each agent leads the frontends of these Services, and its Envoy has all that is planned.
fn in_sync(services: &BTreeSet<&ObjectRef>) -> miette::Result<bool> {
    let system = ["-n", "nodeway-system"];
    let agents = ["get", "pods", "-l", "app=nodeway-agent"];
    let pods = json(&[&system[..], &agents].concat()).into_diagnostic()?;
    for pod in items(&pods) {
        let name = text(pod, "/metadata/name");
        let status = ["-c", "agent", "--", "nodeway", "status", "-o", "json"];
        let status = [&system[..], &["exec", &name], &status].concat();
        // It ends with 1 while something is not in sync.
        let Ok(said) = kubectl(&status) else {
            return Ok(false);
        };
        let status: Value = serde_json::from_str(&said).into_diagnostic()?;
        let frontends = status.get("frontends").and_then(Value::as_array);
        let led = |service: &&ObjectRef| {
            let service = service.path();
            let is_led =
                |it: &Value| text(it, "/service") == service && text(it, "/state") == "active";
            frontends.into_iter().flatten().any(is_led)
        };
        if !services.iter().all(led) {
            return Ok(false);
        }
    }
    Ok(true)
}
