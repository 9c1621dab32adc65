//! The kind cluster: Nodeway and what is loaded deployed into it, its nodes, and the client's namespace.
//!
//! A kind node is a container of this machine's Docker, so the network namespace of a pod can be
//! entered from here, and load generator and probe need no image.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodeway_live::kube::crds;
use nodeway_live::netns::{NetNs, NetNsError};
use nodeway_sim::Redirect;

use crate::kubectl::{ProgramError, apply, feed, items, json, kubectl, run, text};
use crate::load::event::pause;

/// What is deployed.
const NODEWAY: &str = include_str!("../../../../live/deploy/nodeway.yaml");
/// What is loaded.
const LOADED: &str = include_str!("../../../kind.d/load.yaml");
/// The Service that the operator makes of its Ingress.
const SERVICE: &str = "cilium-ingress-loaded";
const CLIENT: &str = "load-client";
const CONTROL: &str = "load-control";
const SYSTEM: &str = "nodeway-system";

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// What a rollout may take.
const ROLLOUT: &str = "--timeout=120s";
/// What anything else may take.
const WITHIN: Duration = Duration::from_secs(90);

/// Why the cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A program failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// It is somebody's cluster.
    #[error(
        "node {0} is not kind's: this rolls, drains and kills, and does so in a kind cluster alone"
    )]
    NotKind(String),
    /// Something that must be there is not.
    #[error("{0}")]
    Missing(String),
    /// Something that should come did not.
    #[error("{what} was not seen within {WITHIN:?}: {words}")]
    NotSeen {
        /// What was awaited.
        what: String,
        /// Why it is not so, by the last look.
        words: String,
    },
    /// The client's namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

/// What is deployed, and how.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// The image of Nodeway, which the nodes have.
    pub image: String,
    /// How agents lead.
    pub redirect: Redirect,
    /// How long connections of an Envoy that ends have, in seconds.
    pub drain: u16,
}

/// A cluster that is deployed to.
#[derive(Debug)]
pub struct Cluster {
    /// The client's network namespace.
    pub client: Arc<NetNs>,
    /// The Ingress's service address.
    pub to: SocketAddr,
    /// A pod to which nothing happens, and its port.
    pub control: SocketAddr,
    /// The node of a backend, and not of the client.
    pub other: String,
    nodes: usize,
    control_plane: String,
}

impl Deployment {
    /// The manifests of Nodeway and of what is loaded.
    fn manifests(&self) -> Result<(String, String), ClusterError> {
        let mut nodeway = NODEWAY.to_owned();
        let envoy = format!("args: [envoy, --drain, \"{}\"]", self.drain);
        let redirect = format!("--redirect, {}", self.redirect);
        let image = format!("image: {}", self.image);
        for (from, to) in [
            ("image: nodeway:dev", &image),
            ("--redirect, tc", &redirect),
            ("args: [envoy]", &envoy),
        ] {
            if !nodeway.contains(from) {
                let words = format!("live/deploy/nodeway.yaml has no `{from}` to be replaced");
                return Err(ClusterError::Missing(words));
            }
            nodeway = nodeway.replace(from, to);
        }
        Ok((nodeway, LOADED.replace("image: nodeway:dev", &image)))
    }

    /// Deploys, and waits until the client is answered.
    ///
    /// # Errors
    /// When something does not come up.
    pub fn deploy(&self, tell: &mut dyn FnMut(&str)) -> Result<Cluster, ClusterError> {
        is_kind()?;
        let (nodeway, loaded) = self.manifests()?;
        tell(&format!("deploying Nodeway, redirect {}", self.redirect));
        apply(&crds::yaml())?;
        // `ci/kind --keep` leaves it where agents were taken away.
        kubectl(&[
            "-n",
            SYSTEM,
            "delete",
            "daemonset",
            "nodeway-cleanup",
            "--ignore-not-found",
            "--cascade=foreground",
        ])?;
        apply(&nodeway)?;
        rolled_out(Some(SYSTEM), "deployment/nodeway-operator")?;
        rolled_out(Some(SYSTEM), "daemonset/nodeway-envoy")?;
        rolled_out(Some(SYSTEM), "daemonset/nodeway-agent")?;
        tell("deploying what is loaded");
        apply(&loaded)?;
        rolled_out(None, "deployment/loaded")?;
        let ready = "--for=condition=Ready";
        for pod in [CLIENT, CONTROL] {
            kubectl(&["wait", ROLLOUT, ready, &format!("pod/{pod}")])?;
        }
        let cluster = Cluster::find()?;
        cluster.settle()?;
        Ok(cluster)
    }
}

impl Cluster {
    fn find() -> Result<Self, ClusterError> {
        let address = until("the Ingress's Service", || {
            let service = json(&["get", "service", SERVICE])?;
            let address = text(&service, "/spec/clusterIP").parse();
            address.map_err(|error| ClusterError::Missing(format!("its address: {error}")))
        })?;
        let names = |label: &str| -> Result<Vec<String>, ClusterError> {
            let nodes = json(&["get", "nodes", "-l", label])?;
            Ok(items(&nodes).map(|it| text(it, "/metadata/name")).collect())
        };
        let workers = names("!node-role.kubernetes.io/control-plane")?;
        let masters = names("node-role.kubernetes.io/control-plane")?;
        let pod = |name: &str| -> Result<(String, IpAddr), ClusterError> {
            let pod = json(&["get", "pod", name])?;
            let address = text(&pod, "/status/podIP").parse();
            let missing = |error| ClusterError::Missing(format!("the address of {name}: {error}"));
            Ok((text(&pod, "/spec/nodeName"), address.map_err(missing)?))
        };
        let (home, from) = pod(CLIENT)?;
        let (_, control) = pod(CONTROL)?;
        let other = workers.iter().find(|it| **it != home);
        let missing = |what: &str| ClusterError::Missing(format!("the cluster has no {what}"));
        Ok(Self {
            client: Arc::new(namespace(&home, from)?),
            to: SocketAddr::new(address, 80),
            control: SocketAddr::new(control, 9080),
            other: other
                .cloned()
                .ok_or_else(|| missing("second worker; ci/kind makes two"))?,
            nodes: workers.len() + masters.len(),
            control_plane: masters
                .into_iter()
                .next()
                .ok_or_else(|| missing("node of its control plane"))?,
        })
    }

    /// Waits until all is in its place: backends on both workers, agents in sync, no Envoy that ends.
    ///
    /// # Errors
    /// When that does not come.
    pub fn settle(&self) -> Result<(), ClusterError> {
        if self.backends()?.len() < 2 {
            self.roll_backends()?;
        }
        rolled_out(Some(SYSTEM), "daemonset/nodeway-agent")?;
        self.envoys_alone()?;
        self.in_sync()
    }

    /// The nodes that have a backend.
    fn backends(&self) -> Result<BTreeSet<String>, ClusterError> {
        let pods = json(&["get", "pods", "-l", "app=loaded"])?;
        Ok(items(&pods).map(|it| text(it, "/spec/nodeName")).collect())
    }

    /// Replaces the backends, and waits until the old ones are gone.
    ///
    /// # Errors
    /// When they don't.
    pub fn roll_backends(&self) -> Result<(), ClusterError> {
        kubectl(&["rollout", "restart", "deployment/loaded"])?;
        rolled_out(None, "deployment/loaded")?;
        self.pods_are(None, "app=loaded", 2)
    }

    /// Replaces every agent.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn roll_agents(&self) -> Result<(), ClusterError> {
        kubectl(&[
            "-n",
            SYSTEM,
            "rollout",
            "restart",
            "daemonset/nodeway-agent",
        ])?;
        rolled_out(Some(SYSTEM), "daemonset/nodeway-agent")?;
        self.in_sync()
    }

    /// Replaces every Envoy, and waits until the old ones are gone.
    ///
    /// # Errors
    /// When they don't.
    pub fn roll_envoys(&self) -> Result<(), ClusterError> {
        kubectl(&[
            "-n",
            SYSTEM,
            "rollout",
            "restart",
            "daemonset/nodeway-envoy",
        ])?;
        rolled_out(Some(SYSTEM), "daemonset/nodeway-envoy")?;
        self.envoys_alone()
    }

    /// Takes the backends and the operator off the other worker.
    ///
    /// # Errors
    /// When they don't go, or don't come up elsewhere.
    pub fn drain(&self) -> Result<(), ClusterError> {
        // Pods that belong to nobody would not come again.
        let pods = "--pod-selector=app in (loaded, nodeway-operator)";
        kubectl(&["drain", &self.other, pods, ROLLOUT])?;
        rolled_out(None, "deployment/loaded")?;
        self.pods_are(None, "app=loaded", 2)
    }

    /// Lets pods come to the other worker again.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn uncordon(&self) -> Result<(), ClusterError> {
        kubectl(&["uncordon", &self.other])?;
        Ok(())
    }

    /// Kills the API server; kubelet starts another. Waits until that one is ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart_api_server(&self) -> Result<(), ClusterError> {
        let on_node = |script: &str| {
            run(
                "docker",
                &["exec", &self.control_plane, "sh", "-ec", script],
                "",
            )
        };
        let find = "for it in /proc/[0-9]*; do \
             [ \"$(cat $it/comm 2>/dev/null)\" != kube-apiserver ] || echo ${it#/proc/}; done";
        let before = on_node(find)?;
        on_node(&format!("kill -KILL {}", before.trim()))?;
        until("another API server", || {
            let now = on_node(find)?;
            if now.trim().is_empty() || now == before {
                return Err(ClusterError::Missing("none runs".to_owned()));
            }
            Ok(kubectl(&[
                "get",
                "--raw",
                "/readyz",
                "--request-timeout=2s",
            ])?)
        })?;
        Ok(())
    }

    /// Waits until each agent says that its node has what is planned.
    ///
    /// # Errors
    /// When one doesn't.
    pub fn in_sync(&self) -> Result<(), ClusterError> {
        until("every agent in sync", || {
            let agents = json(&["-n", SYSTEM, "get", "pods", "-l", "app=nodeway-agent"])?;
            for agent in items(&agents) {
                let pod = text(agent, "/metadata/name");
                let inside = ["-c", "agent", "--", "nodeway", "status"];
                kubectl(&[&["-n", SYSTEM, "exec", &pod], inside.as_slice()].concat())?;
            }
            Ok(())
        })
    }

    fn envoys_alone(&self) -> Result<(), ClusterError> {
        self.pods_are(Some(SYSTEM), "app=nodeway-envoy", self.nodes)
    }

    /// Waits until there are so many pods, those that end included.
    fn pods_are(
        &self,
        namespace: Option<&str>,
        label: &str,
        count: usize,
    ) -> Result<(), ClusterError> {
        let namespace = namespace.unwrap_or("default");
        until(&format!("{count} pods of {label} alone"), || {
            let pods = json(&["-n", namespace, "get", "pods", "-l", label])?;
            let names: Vec<_> = items(&pods).map(|it| text(it, "/metadata/name")).collect();
            if names.len() == count {
                return Ok(());
            }
            Err(ClusterError::Missing(names.join(", ")))
        })
    }
}

/// Takes away what was loaded, and lets every node take pods again.
pub fn leave() {
    if is_kind().is_err() {
        return;
    }
    // What is not there any more is what is wanted; the cluster itself may be gone.
    let _ = kubectl(&["uncordon", "--selector=kubernetes.io/hostname"]);
    let _ = feed(
        &["delete", "--ignore-not-found", "--timeout=30s", "-f", "-"],
        LOADED,
    );
}

/// Whether the cluster is kind's: nothing is done to another, whatever `KUBECONFIG` names.
///
/// # Errors
/// When a node is no container of kind's, or the API server does not answer.
fn is_kind() -> Result<(), ClusterError> {
    let nodes = json(&["get", "nodes"])?;
    let mut others =
        items(&nodes).filter(|it| !text(it, "/spec/providerID").starts_with("kind://"));
    match others.next() {
        None => Ok(()),
        Some(other) => Err(ClusterError::NotKind(text(other, "/metadata/name"))),
    }
}

/// The network namespace of the client: the one on its node that has its address. No tool of the
/// container runtime is asked: node images differ in which they have.
fn namespace(node: &str, address: IpAddr) -> Result<NetNs, ClusterError> {
    let pid = run(
        "docker",
        &["inspect", "--format", "{{.State.Pid}}", node],
        "",
    )?;
    let folder = Path::new("/proc").join(pid.trim()).join("root/run/netns");
    let missing = |why: String| {
        ClusterError::Missing(format!("{} of {CLIENT} on {node}: {why}", folder.display()))
    };
    let names = std::fs::read_dir(&folder).map_err(|error| missing(error.to_string()))?;
    for name in names {
        let name = name.map_err(|error| missing(error.to_string()))?;
        let namespace = NetNs::at(&name.path())?;
        // One may be ending.
        let has = namespace.run(|| UdpSocket::bind((address, 0)).is_ok());
        if has.unwrap_or_default() {
            return Ok(namespace);
        }
    }
    Err(missing(format!("no namespace has {address}")))
}

fn rolled_out(namespace: Option<&str>, what: &str) -> Result<(), ClusterError> {
    let namespace = namespace.unwrap_or("default");
    kubectl(&["-n", namespace, "rollout", "status", ROLLOUT, what])?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a cluster takes real time")]
fn until<T>(what: &str, is: impl Fn() -> Result<T, ClusterError>) -> Result<T, ClusterError> {
    let begun = Instant::now();
    loop {
        match is() {
            Ok(found) => return Ok(found),
            Err(error) if begun.elapsed() > WITHIN => {
                return Err(ClusterError::NotSeen {
                    what: what.to_owned(),
                    words: error.to_string(),
                });
            }
            Err(_) => pause(LOOK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deployed_has_the_image_the_way_and_the_drain() {
        let deployment = Deployment {
            image: "nodeway:mine".to_owned(),
            redirect: Redirect::Iptables,
            drain: 7,
        };
        let (nodeway, loaded) = deployment.manifests().unwrap();
        assert!(nodeway.contains("--redirect, iptables"));
        assert!(nodeway.contains(r#"args: [envoy, --drain, "7"]"#));
        assert!(![nodeway, loaded].concat().contains("image: nodeway:dev"));
    }
}
