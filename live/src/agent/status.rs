//! What an agent says of itself: what is planned, told, acknowledged, listening and serving, and
//! whether all of that is one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use nodeway_core::datapath::FrontendState;
use nodeway_core::frontend::{FrontendKey, state_name};
use serde::{Deserialize, Serialize};

use crate::bpf::MapIds;

/// A node's agent at one moment. The same JSON is `nodeway status -o json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The node.
    pub node: String,
    /// How its frontends' packets are led.
    pub redirect: String,
    /// Where the objects come from.
    pub source: SourceStatus,
    /// The Envoys that run, the newest last.
    pub generations: Vec<GenerationStatus>,
    /// What they are told.
    pub resources: Vec<ResourceStatus>,
    /// What leads to them.
    pub frontends: Vec<FrontendStatus>,
    /// Frontends that the plan has and that lead nowhere, since no Envoy has their listener.
    pub unserved: Vec<Unserved>,
    /// The maps that its programs look into; none for a way of rules.
    #[serde(default)]
    pub maps: Option<MapIds>,
    /// How often each hook gave each reason; empty for a way of rules.
    pub counters: BTreeMap<String, BTreeMap<String, u64>>,
    /// What is wrong with the objects, also in Envoy's eyes.
    pub problems: BTreeSet<String>,
    /// Why the kernel does not have what it should; it is tried again.
    pub datapath_error: Option<String>,
    /// What of Cilium's has come into the cluster since the agent began.
    #[serde(default)]
    pub cilium: Vec<String>,
}

/// The objects' source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// As it was named.
    pub name: String,
    /// The folder, wherever one asks from; none if it is an API server.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// The kubeconfig that names the API server; none if it is found in another way.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
    /// How many objects there are.
    pub objects: usize,
    /// When it was last read without an error, in milliseconds before this status.
    pub read_ms_ago: u64,
    /// Why what stands there now cannot be taken; what stood there before is in force.
    pub error: Option<String>,
    /// For how long that is so, in milliseconds.
    #[serde(default)]
    pub error_for_ms: Option<u64>,
}

impl SourceStatus {
    /// For how long the source cannot be taken, in whole seconds; none if it can.
    #[must_use]
    pub fn lost_for(&self) -> Option<u64> {
        let for_ms = self.error.as_ref().and(self.error_for_ms)?;
        Some(for_ms / 1000)
    }
}

/// One Envoy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerationStatus {
    /// Its name.
    pub id: String,
    /// Where it stands (`serving`, `draining`).
    pub phase: String,
    /// Its process.
    pub pid: Option<u32>,
    /// Whether it talks to this agent.
    pub connected: bool,
    /// How many frontends lead to it.
    pub frontends: usize,
    /// Connections of clients, by its own word; none when it does not say.
    pub connections: Option<u64>,
}

/// One resource of one Envoy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceStatus {
    /// The Envoy.
    pub generation: String,
    /// `Listener`, `RouteConfiguration`, `Cluster`, `ClusterLoadAssignment`, `Secret`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The object that it comes from.
    pub object: Option<String>,
    /// The version that is planned; none when it is to go.
    pub planned: Option<String>,
    /// The version that was sent last.
    pub sent: Option<String>,
    /// The version that was acknowledged last.
    pub acknowledged: Option<String>,
    /// Whether its sockets listen; only a listener has some.
    pub listening: Option<bool>,
    /// The version that Envoy says it has in force; none if it has none, or does not say.
    pub serving: Option<String>,
    /// Why Envoy refuses what is planned, in its own words.
    pub rejected: Option<String>,
    /// For how long the planned version is planned, in milliseconds.
    pub age_ms: u64,
}

impl ResourceStatus {
    /// Whether Envoy asks for it: it fetches listeners and clusters unasked, and all else by the
    /// names that those have.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        self.sent.is_some() || matches!(&*self.kind, "Listener" | "Cluster")
    }

    /// Whether Envoy asks for it by its name, and no object makes it: it is told that there is
    /// nothing in it.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        self.planned.is_none() && self.acknowledged.is_none()
    }

    /// Whether it is planned no more, and Envoy keeps it for connections of a listener that drains:
    /// it lets go of it by itself.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        let fetched_unasked = matches!(&*self.kind, "Listener" | "Cluster");
        self.planned.is_none() && self.acknowledged.is_some() && !fetched_unasked
    }

    /// Whether it is still to come without anybody's doing. What Envoy refuses is an answer, and
    /// what no object makes nobody gives.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        !self.is_in_sync() && self.rejected.is_none() && !self.is_missing()
    }

    /// Whether Envoy has what is planned, as far as it asks for it.
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        if self.is_draining() {
            return true;
        }
        if !self.is_asked_for() {
            return self.rejected.is_none();
        }
        self.rejected.is_none()
            && self.planned.is_some()
            && self.planned == self.acknowledged
            && self.listening != Some(false)
    }
}

impl fmt::Display for ResourceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at {}", self.kind, self.name, self.generation)
    }
}

/// What nothing of a plan has without: an Envoy, and a kernel that takes it.
pub(super) fn awaited_everywhere(connected: bool, datapath_error: Option<&str>) -> Vec<String> {
    let mut all = Vec::new();
    if !connected {
        all.push("no Envoy talks to the agent".to_owned());
    }
    all.extend(datapath_error.map(|error| format!("the kernel does not have all of it: {error}")));
    all
}

/// One frontend that leads somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendStatus {
    /// Its address and port.
    pub address: SocketAddr,
    /// The Service; none when the plan has it no more.
    pub service: Option<String>,
    /// The listener.
    pub listener: String,
    /// The Envoy.
    pub generation: String,
    /// The listener's port there.
    pub port: u16,
    /// `arming`, `active`, `draining`
    #[serde(with = "state_name")]
    pub state: FrontendState,
}

/// A frontend that waits for its listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unserved {
    /// Its address and port.
    pub address: SocketAddr,
    /// The Service.
    pub service: String,
    /// The listener that no Envoy has.
    pub listener: String,
}

impl Status {
    /// What is still to come without anybody's doing, one line each: answers of Envoys, sockets, the
    /// kernel. What an Envoy refuses is an answer, and so nothing that depends on it is awaited.
    #[must_use]
    pub fn awaited(&self) -> Vec<String> {
        let connected = self.generations.iter().any(|it| it.connected);
        let mut all = awaited_everywhere(connected, self.datapath_error.as_deref());
        let resources = self.resources.iter().filter(|it| it.is_awaited());
        all.extend(resources.map(ToString::to_string));
        let is_refused = |listener: &str| {
            let mut resources = self.resources.iter();
            resources
                .any(|it| it.kind == "Listener" && it.name == listener && it.rejected.is_some())
        };
        for it in self.unserved.iter().filter(|it| !is_refused(&it.listener)) {
            all.push(format!("frontend {} to {}", it.address, it.listener));
        }
        let is_active = |it: &&FrontendStatus| it.state == FrontendState::Active;
        for it in self.frontends.iter().filter(|it| !is_active(it)) {
            all.push(format!("frontend {} is {}", it.address, it.state.name()));
        }
        all
    }

    /// Where a frontend leads; none if it does not.
    #[must_use]
    pub fn frontend(&self, key: FrontendKey) -> Option<&FrontendStatus> {
        let address = SocketAddr::from(key);
        self.frontends.iter().find(|it| it.address == address)
    }

    /// What is not as it should be, one line each; nothing when all is in sync.
    #[must_use]
    pub fn out_of_sync(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(error) = &self.source.error {
            let since = self.source.lost_for();
            let since = since.map(|it| format!(" for {it} s")).unwrap_or_default();
            all.push(format!("the source cannot be taken{since}: {error}"));
        }
        let kernel = self.datapath_error.iter();
        all.extend(kernel.map(|error| format!("the kernel does not have all of it: {error}")));
        if !self.cilium.is_empty() {
            all.push(format!(
                "Cilium has come into the cluster ({}): both lead packets now; take one of them away",
                self.cilium.join(", ")
            ));
        }
        if !self.generations.iter().any(|it| it.connected) {
            all.push("no Envoy talks to this agent; start one with `nodeway envoy`".to_owned());
        }
        for it in self.resources.iter().filter(|it| !it.is_in_sync()) {
            let state = match (&it.rejected, &it.planned, &it.sent, &it.acknowledged) {
                (Some(words), ..) => format!("refused by Envoy: {words}"),
                _ if it.is_missing() => "Envoy asks for it, and no object makes it".to_owned(),
                (_, None, ..) => "to be taken away".to_owned(),
                (_, planned, sent, _) if planned != sent => "not sent yet".to_owned(),
                (_, planned, _, acknowledged) if planned != acknowledged => {
                    "sent and not acknowledged".to_owned()
                }
                _ => "acknowledged and not listening".to_owned(),
            };
            all.push(format!("{it}: {state}"));
        }
        for it in &self.unserved {
            all.push(format!(
                "frontend {} of {}: no Envoy has its listener {}; its packets go on past it",
                it.address, it.service, it.listener
            ));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn healthy() -> Status {
        let version = Some("01".to_owned());
        Status {
            generations: vec![GenerationStatus {
                id: "g1".to_owned(),
                connected: true,
                ..GenerationStatus::default()
            }],
            resources: vec![ResourceStatus {
                generation: "g1".to_owned(),
                kind: "Listener".to_owned(),
                name: "web".to_owned(),
                object: None,
                planned: version.clone(),
                sent: version.clone(),
                acknowledged: version.clone(),
                listening: Some(true),
                serving: version,
                rejected: None,
                age_ms: 0,
            }],
            ..Status::default()
        }
    }

    #[test]
    fn what_is_planned_acknowledged_and_listening_is_in_sync() {
        assert_eq!(healthy().out_of_sync(), Vec::<String>::new());
    }

    #[test]
    fn routes_that_a_draining_listener_keeps_are_no_disorder() {
        let mut status = healthy();
        let mut routes = status.resources[0].clone();
        (routes.kind, routes.planned) = ("RouteConfiguration".to_owned(), None);
        routes.listening = None;
        status.resources.push(routes);
        assert_eq!(status.out_of_sync(), Vec::<String>::new());
        assert_eq!(status.awaited(), Vec::<String>::new());
    }

    #[test]
    fn what_no_envoy_asks_for_needs_no_answer() {
        let mut status = healthy();
        let resource = &mut status.resources[0];
        resource.kind = "ClusterLoadAssignment".to_owned();
        (resource.sent, resource.acknowledged, resource.listening) = (None, None, None);
        assert_eq!(status.out_of_sync(), Vec::<String>::new());
    }

    #[rstest]
    #[case::an_answer(|it: &mut Status| it.resources[0].acknowledged = None, 1)]
    #[case::a_socket(|it: &mut Status| it.resources[0].listening = Some(false), 1)]
    #[case::envoy_itself(|it: &mut Status| it.generations[0].connected = false, 1)]
    #[case::nothing(|_: &mut Status| {}, 0)]
    #[case::no_change_of_a_refused_one(|it: &mut Status| {
        it.resources[0].rejected = Some("bad".to_owned());
        it.unserved.push(Unserved {
            address: SocketAddr::from(([10, 96, 0, 1], 80)),
            service: "default/web".to_owned(),
            listener: "web".to_owned(),
        });
    }, 0)]
    #[case::nothing_that_no_object_makes(|it: &mut Status| {
        let resource = &mut it.resources[0];
        (resource.planned, resource.acknowledged) = (None, None);
    }, 0)]
    fn what_comes_by_itself_is_awaited(
        #[case] change: impl FnOnce(&mut Status),
        #[case] awaited: usize,
    ) {
        let mut status = healthy();
        change(&mut status);
        assert_eq!(status.awaited().len(), awaited, "{:?}", status.awaited());
    }

    #[rstest]
    #[case::source(|it: &mut Status| it.source.error = Some("a.yaml: oh".to_owned()), "a.yaml: oh")]
    #[case::source_since_when(|it: &mut Status| {
        it.source.error = Some("refused".to_owned());
        it.source.error_for_ms = Some(12_345);
    }, "the source cannot be taken for 12 s: refused")]
    #[case::kernel(|it: &mut Status| it.datapath_error = Some("full".to_owned()), "full")]
    #[case::cilium(|it: &mut Status| it.cilium.push("DaemonSet kube-system/cilium".to_owned()), "DaemonSet kube-system/cilium")]
    #[case::nobody(|it: &mut Status| it.generations.clear(), "no Envoy")]
    #[case::refused(|it: &mut Status| it.resources[0].rejected = Some("bad".to_owned()), "refused by Envoy: bad")]
    #[case::not_sent(|it: &mut Status| it.resources[0].planned = Some("02".to_owned()), "not sent yet")]
    #[case::not_acknowledged(|it: &mut Status| it.resources[0].acknowledged = None, "not acknowledged")]
    #[case::not_listening(|it: &mut Status| it.resources[0].listening = Some(false), "not listening")]
    #[case::missing(|it: &mut Status| {
        let resource = &mut it.resources[0];
        (resource.planned, resource.acknowledged) = (None, None);
    }, "no object makes it")]
    #[case::to_go(|it: &mut Status| it.resources[0].planned = None, "to be taken away")]
    fn everything_else_is_told(#[case] change: impl FnOnce(&mut Status), #[case] told: &str) {
        let mut status = healthy();
        change(&mut status);
        let all = status.out_of_sync();
        assert!(all.len() == 1 && all[0].contains(told), "{all:?}");
    }
}
