//! Requests that Envoys had, and what they did with them, as recorded and as simulated.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use nodeway_core::envoy::bootstrap::{AccessEntry, AccessKind};
use nodeway_core::plan::NodePlan;
use nodeway_core::recording::{LedFrontend, Recording};
use nodeway_core::trace::{ReplyStep, Step, Way};
use serde::Serialize;

use super::{MOST, note, who};
use crate::cluster::{Ask, Cause, Cluster as _};
use crate::sim::Sim;

/// A request that an Envoy had, however often, and what it did with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// The node of the Envoy.
    pub node: String,
    /// Who asked.
    pub from: String,
    /// The same as a request is asked with it: an address, or `node/NAME` for the node itself.
    pub asker: String,
    /// Whether by TLS.
    pub tls: bool,
    /// The address that was asked.
    pub to: SocketAddr,
    /// `GET`
    pub method: String,
    /// The host that was asked for.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// How often.
    pub times: u64,
    /// What Envoy did.
    pub recorded: Answered,
    /// What the simulated one does; none when it does not get the request.
    pub simulated: Option<Answered>,
    /// Why it does not get it.
    pub failure: Option<String>,
    /// The fields of the two that are not the same.
    pub parts: Vec<&'static str>,
}

impl Asked {
    /// Whether the two are the same.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.parts.is_empty()
    }
}

/// What an Envoy did with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Answered {
    /// The listener.
    pub listener: String,
    /// The filter chain's place in it; none for the default one.
    pub filter_chain: Option<usize>,
    /// The virtual host's and the route's place in the table; none where none matched.
    pub route: Option<(usize, usize)>,
    /// What that route matches.
    pub matches: Option<String>,
    /// The cluster; none where none was asked.
    pub cluster: Option<String>,
    /// The endpoint that answered; in the simulation all that could have.
    pub endpoints: Vec<SocketAddr>,
    /// Whether the answer was a backend's.
    pub by_backend: bool,
    /// HTTP status; none without an answer.
    pub status: Option<u16>,
    /// Why that, in Envoy's words; the simulation's are its own.
    pub details: Option<String>,
}

/// What is asked again: by whom, where, and for what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    asker: String,
    to: SocketAddr,
    tls: bool,
    method: String,
    host: String,
    path: String,
}

pub(super) fn replay(
    sim: &mut Sim,
    recordings: &[Recording],
    not_replayed: &mut Vec<String>,
) -> Vec<Asked> {
    let (mut all, mut too_many, mut no_http) = (Vec::new(), 0, 0);
    for recording in recordings {
        let node = &recording.header.node;
        let plan = sim.plan(node).cloned().unwrap_or_default();
        let mut asked: BTreeMap<Question, BTreeMap<Answered, u64>> = BTreeMap::new();
        for entry in &recording.requests {
            match Question::of(entry, recording) {
                Some(question) => {
                    let answers = asked.entry(question).or_default();
                    *answers.entry(Answered::recorded(entry, &plan)).or_default() += 1;
                }
                None => no_http += 1,
            }
        }
        for (number, (question, answers)) in asked.into_iter().enumerate() {
            if number >= MOST {
                too_many += answers.values().sum::<u64>();
                continue;
            }
            all.extend(one(sim, node, &question, answers));
        }
    }
    note(
        not_replayed,
        no_http,
        "requests or connections that are no HTTP to a frontend: what they carried is not recorded",
    );
    note(
        not_replayed,
        too_many,
        "requests: there are too many different ones",
    );
    all
}

/// Asks again, and compares with each answer that there was.
fn one(
    sim: &mut Sim,
    node: &str,
    question: &Question,
    answers: BTreeMap<Answered, u64>,
) -> Vec<Asked> {
    let (way, failure) = match sim.request(&question.asker, question.ask()) {
        Ok(reply) => (reply.way, None),
        Err(failed) => match failed.failure {
            Cause::Network(failure) => (failed.way, Some(failure.name().to_owned())),
            Cause::Ask(error) => (Way::default(), Some(error.to_string())),
        },
    };
    let simulated = Answered::simulated(&way, node);
    let from = match question.asker.parse() {
        Ok(address) => who(sim, SocketAddr::new(address, 0)),
        Err(_) => format!("Node {node}"),
    };
    let rows = answers.into_iter().map(|(recorded, times)| Asked {
        node: node.to_owned(),
        from: from.clone(),
        asker: question.asker.clone(),
        tls: question.tls,
        to: question.to,
        method: question.method.clone(),
        host: question.host.clone(),
        path: question.path.clone(),
        times,
        parts: parts(&recorded, simulated.as_ref()),
        recorded,
        simulated: simulated.clone(),
        failure: failure.clone(),
    });
    rows.collect()
}

/// Where what was recorded is not what is simulated.
fn parts(recorded: &Answered, simulated: Option<&Answered>) -> Vec<&'static str> {
    let Some(simulated) = simulated else {
        return vec!["listener"];
    };
    let endpoints = recorded.endpoints.iter();
    let known = endpoints.clone().all(|it| simulated.endpoints.contains(it));
    let fields = [
        ("listener", recorded.listener == simulated.listener),
        (
            "filter_chain",
            recorded.filter_chain == simulated.filter_chain,
        ),
        ("route", recorded.route == simulated.route),
        ("cluster", recorded.cluster == simulated.cluster),
        ("endpoints", known),
        ("by_backend", recorded.by_backend == simulated.by_backend),
        // A backend's status is that of the program in its pod.
        (
            "status",
            recorded.by_backend || recorded.status == simulated.status,
        ),
    ];
    let parted = fields.into_iter().filter(|(_, same)| !same);
    parted.map(|(field, _)| field).collect()
}

impl Question {
    /// None of what was no HTTP. A call of the node's own that was led by its connect hook came to the
    /// listener's own address: it is asked again at a frontend that leads there.
    fn of(entry: &AccessEntry, recording: &Recording) -> Option<Self> {
        let host = entry.authority.clone();
        let (mut asker, mut to) = (entry.peer.ip().to_string(), entry.destination);
        if entry.peer.ip().is_loopback() {
            asker = format!("node/{}", recording.header.node);
        }
        if to.ip().is_loopback() {
            let mut frontends = recording.led.frontends.iter();
            let led = |it: &&LedFrontend| {
                it.listener_port == to.port() && it.address.is_ipv4() == to.is_ipv4()
            };
            to = frontends.find(led)?.address;
        }
        Some(Self {
            asker,
            to,
            tls: entry.server_name.is_some(),
            method: entry.method.clone()?,
            host: host.unwrap_or_else(|| entry.destination.to_string()),
            path: entry.path.clone()?,
        })
        .filter(|_| entry.kind == AccessKind::Request)
    }

    fn ask(&self) -> Ask {
        let scheme = if self.tls { "https" } else { "http" };
        let url = format!("{scheme}://{}{}", self.to, self.path);
        Ask::get(url)
            .method(&self.method)
            .header("host", &self.host)
    }
}

impl Answered {
    fn recorded(entry: &AccessEntry, plan: &NodePlan) -> Self {
        let matched = entry.matched(plan);
        let by_backend = entry.details.as_deref() == Some("via_upstream");
        Self {
            listener: entry.listener.clone(),
            filter_chain: entry.filter_chain,
            route: entry.route,
            matches: matched.map(|it| it.route.matches.description.to_string()),
            cluster: entry.cluster.clone(),
            endpoints: entry.endpoint.into_iter().collect(),
            by_backend,
            status: entry.status,
            details: entry.details.clone(),
        }
    }

    /// What the node's proxy did on a way; none if it did not get it.
    fn simulated(way: &Way, node: &str) -> Option<Self> {
        let mut found: Option<Self> = None;
        for (_, step) in &way.steps {
            if let Step::Listener(step) = step
                && *step.node == *node
            {
                found = Some(Self {
                    listener: step.listener.to_string(),
                    ..Self::default()
                });
            }
            if let Some(answered) = &mut found {
                answered.take(step);
            }
        }
        found
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::FilterChain(step) => self.filter_chain = step.choice.chosen,
            Step::Route(step) => {
                let Some(choice) = &step.choice else { return };
                let host = choice.virtual_host.as_ref();
                let route = choice.route.as_ref();
                self.route = host.zip(route).map(|(host, it)| (host.index, it.index));
                self.matches = route.map(|it| it.description.to_string());
            }
            Step::Cluster(step) => self.cluster = Some(step.cluster.to_string()),
            Step::Endpoint(step) => {
                self.endpoints = step.candidates.iter().map(|it| it.address).collect();
            }
            Step::Reply(ReplyStep::Backend { status, .. } | ReplyStep::Endpoint { status, .. }) => {
                (self.by_backend, self.status) = (true, Some(*status));
            }
            Step::Reply(ReplyStep::Proxy { status, why, .. }) => {
                (self.status, self.details) = (Some(*status), Some(why.clone()));
            }
            _ => {}
        }
    }
}
