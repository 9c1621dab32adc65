//! How an agent's status is put together, and asked for by another process.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nodeway_core::envoy::ResourceKind;
use nodeway_core::object::ObjectRef;
use nodeway_core::plan::NodePlan;
use nodeway_core::xds::ResourceState;
use serde::de::DeserializeOwned;

use super::served::{DECISIONS, SOCKET};
use super::status::{
    FrontendStatus, GenerationStatus, ResourceStatus, SourceStatus, Status, Unserved,
};
use super::{Agent, From, Watched};
use crate::envoy::Admin;
use crate::generation::Record;

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum AskStatusError {
    /// Nobody answers.
    #[error("no agent answers at {path}: {cause}", path = path.display())]
    Nobody {
        /// The socket.
        path: PathBuf,
        /// What the kernel, or the agent, said.
        cause: io::Error,
    },
    /// The answer is of another form.
    #[error("the agent at {path} answers in another form than this nodeway's: {cause}", path = path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
}

/// Asks the agent of a run directory how it stands.
///
/// # Errors
/// When none answers.
pub fn ask_status(run: &Path) -> Result<Status, AskStatusError> {
    ask(run, Admin::at(run, SOCKET), "/status")
}

/// Asks the agent of a run directory what its kernel's programs decide from now on, for that long.
/// None by a way of rules, where nobody decides that could tell.
///
/// # Errors
/// When none answers.
pub fn ask_decisions(run: &Path, seconds: u64) -> Result<Option<Watched>, AskStatusError> {
    let within = Duration::from_secs(seconds.saturating_add(10));
    let agent = Admin::at(run, SOCKET).within(within);
    ask(run, agent, &format!("{DECISIONS}?seconds={seconds}"))
}

fn ask<T: DeserializeOwned>(run: &Path, agent: Admin, what: &str) -> Result<T, AskStatusError> {
    let path = run.join(SOCKET);
    let answer = agent.get(what).map_err(|cause| AskStatusError::Nobody {
        path: path.clone(),
        cause,
    })?;
    serde_json::from_str(&answer).map_err(|cause| AskStatusError::Answer { path, cause })
}

impl Agent {
    /// All that the agent knows by itself, and the Envoys to be asked for the rest.
    pub(super) fn status(&self) -> (Status, Vec<Record>) {
        let plan = self.planner.plan();
        let mut status = Status {
            node: self.options.node.clone(),
            redirect: self.options.redirect.to_string(),
            source: self.source(),
            frontends: self.frontends(plan),
            unserved: self.unserved(plan),
            problems: self.problems(plan),
            datapath_error: self.datapath_error.clone(),
            cilium: self.cilium.iter().map(ToString::to_string).collect(),
            ..Status::default()
        };
        // Who looks there says it where they cannot be told.
        status.maps = self.redirect.map_ids().ok().flatten();
        if let Ok(Some(counters)) = self.redirect.counters() {
            status.counters = counters.by_hook();
        }
        let mut records = Vec::new();
        for seen in self.proxies.seen() {
            let generation = self.generation(seen.record, seen.connected);
            status.generations.push(generation);
            let resources = seen.resources.iter();
            let resources = resources.map(|it| self.resource(seen.record, it, seen.listens(it)));
            status.resources.extend(resources);
            records.push(seen.record.clone());
        }
        (status, records)
    }

    fn source(&self) -> SourceStatus {
        let absolute = |path: &PathBuf| std::path::absolute(path).ok();
        let (folder, kubeconfig) = match &self.options.from {
            From::Folder(folder) => (absolute(folder), None),
            From::Kube(kubeconfig) => (None, kubeconfig.as_ref().and_then(absolute)),
        };
        let ago = |at| {
            let ago = self.clock.now().saturating_sub(at);
            u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)
        };
        SourceStatus {
            name: self.options.from.to_string(),
            folder,
            kubeconfig,
            objects: self.source.objects().len(),
            read_ms_ago: ago(self.read_at),
            error: self.source_error.clone(),
            error_for_ms: self
                .source_error
                .as_ref()
                .map(|_| ago(self.source_error_at)),
        }
    }

    fn generation(&self, record: &Record, connected: bool) -> GenerationStatus {
        let led = self.steering.iter();
        GenerationStatus {
            id: record.id.clone(),
            phase: record.phase.to_string(),
            pid: Some(record.process.pid),
            connected,
            frontends: led.filter(|(_, led)| *led.generation == *record.id).count(),
            connections: None,
        }
    }

    /// How a resource of an Envoy stands.
    pub(super) fn resource(
        &self,
        record: &Record,
        state: &ResourceState,
        listening: Option<bool>,
    ) -> ResourceStatus {
        let key = (state.kind, state.name.to_string());
        let age = self.clock.now().saturating_sub(self.planned.since(&key));
        let version = |it: Option<nodeway_core::xds::Version>| it.map(|it| it.to_string());
        ResourceStatus {
            generation: record.id.clone(),
            kind: state.kind.to_string(),
            name: state.name.to_string(),
            object: object(self.planner.plan(), state).map(ToString::to_string),
            planned: version(state.planned),
            sent: version(state.sent),
            acknowledged: version(state.acknowledged),
            listening,
            serving: None,
            rejected: state.rejected.clone(),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn frontends(&self, plan: &NodePlan) -> Vec<FrontendStatus> {
        let all = self.steering.iter();
        all.map(|(key, led)| FrontendStatus {
            address: key.into(),
            service: plan.frontends.get(&key).map(|it| it.service.path()),
            listener: led.listener.to_string(),
            generation: led.generation.to_string(),
            port: led.port,
            state: led.life.state(),
        })
        .collect()
    }

    fn unserved(&self, plan: &NodePlan) -> Vec<Unserved> {
        let all = plan.frontends.iter();
        all.filter(|(key, _)| self.steering.get(**key).is_none())
            .map(|(key, planned)| Unserved {
                address: (*key).into(),
                service: planned.service.path(),
                listener: planned.listener.to_string(),
            })
            .collect()
    }

    fn problems(&self, plan: &NodePlan) -> BTreeSet<String> {
        let all = plan.problems.iter().chain(self.source.problems());
        let mut all: BTreeSet<String> = all.map(ToString::to_string).collect();
        all.extend(self.proxies.problems().iter().map(ToString::to_string));
        all
    }
}

/// The object that a resource comes from.
pub(super) fn object<'a>(plan: &'a NodePlan, state: &ResourceState) -> Option<&'a ObjectRef> {
    let name = &state.name;
    match state.kind {
        ResourceKind::Listener => plan.listeners.get(name).map(|it| &it.config),
        ResourceKind::RouteConfiguration => plan.routes.get(name).map(|it| &it.config),
        ResourceKind::Cluster => plan.clusters.get(name).map(|it| &it.config),
        ResourceKind::ClusterLoadAssignment => {
            plan.endpoints.get(name).and_then(|it| it.service.as_ref())
        }
        ResourceKind::Secret => plan.secrets.get(name).map(|it| &it.source),
    }
}
