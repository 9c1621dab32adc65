//! One request of a report: what was asked, what came of it, and what was expected.
//!
//! The JSON form is documented in the book (`json.md`) and is stable: later commands reuse it.

use std::time::Duration;

use nodeway_core::redirect::Redirect;
use nodeway_core::source::Known;
use nodeway_core::trace::{FrontendStep, Stage, Step, Taken, Way, stages};
use serde::Serialize;

use crate::check::{Checked, check};
use crate::cluster::{AskError, Cause, Cluster, Failed};
use crate::fixture::RequestSpec;
use crate::reply::{Reply, Seen, Shown};
use crate::time::Time;

/// One request and what came of it. Absent values are null, never left out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// The request's name in its fixture; empty if it has none.
    pub name: String,
    /// Who asked, as the fixture says it.
    pub client: String,
    /// HTTP method.
    pub method: String,
    /// What was asked for.
    pub url: String,
    /// The `host` header, when it is not the URL's host.
    pub host: Option<String>,
    /// The connection that it shares with others of that name; null for one of its own.
    pub connection: Option<String>,
    /// When it was asked, in milliseconds of virtual time; null where its fixture says no time.
    pub at_ms: Option<f64>,
    /// How packets come to a listener in this run.
    pub redirect: Redirect,
    /// Whether the redirect is one for this client. It is not by `sidecar` for a node or a host
    /// outside, which have no sidecar: then nothing was asked, and nothing is expected.
    pub applicable: bool,
    /// Whether this request went through a listener.
    pub redirected: bool,
    /// Why not, or why the redirect is none for this client; null if it did.
    pub reason: Option<String>,
    /// The node whose Envoy served it, or on which the Envoy of a pod did.
    pub proxy_node: Option<String>,
    /// `namespace/name` of the client's pod, where its own Envoy served it; null for a node's Envoy.
    pub proxy_pod: Option<String>,
    /// The listener's qualified name.
    pub listener: Option<String>,
    /// What the route matches.
    pub route: Option<String>,
    /// The cluster's qualified name.
    pub cluster: Option<String>,
    /// The endpoint's address and port.
    pub endpoint: Option<String>,
    /// `namespace/name` of the Service whose endpoint answered.
    pub service: Option<String>,
    /// `namespace/name` of the pod that answered.
    pub pod: Option<String>,
    /// The node of that pod.
    pub node: Option<String>,
    /// HTTP status; null without an answer.
    pub status: Option<u16>,
    /// Why there is no answer; null with one.
    pub failure: Option<&'static str>,
    /// The peer on the client's socket.
    pub client_saw: Option<Seen>,
    /// The peer on the proxy's downstream socket; null without a proxy.
    pub proxy_saw: Option<Seen>,
    /// The peer on the backend's socket; null when no backend said so.
    pub backend_saw: Option<Seen>,
    /// What the client was shown in the TLS handshake; null for plain text.
    pub tls: Option<Shown>,
    /// Proxies that the request passed.
    pub proxies: usize,
    /// TCP connections that it took: the client's, and each proxy's to whom it passed the request on.
    pub connections: usize,
    /// Links that the request crossed on its way to whoever answered: see [`Way::hops`].
    pub hops: usize,
    /// Milliseconds from asking to the last byte; virtual ones in a simulation.
    pub time_ms: f64,
    /// What was expected, and whether it held.
    pub expectations: Vec<Checked>,
    /// Every step.
    #[serde(skip)]
    pub way: Way,
}

impl Row {
    /// Sends a request and makes the row of what came of it.
    ///
    /// # Errors
    /// When the request cannot even be sent.
    pub fn of(
        spec: &RequestSpec,
        redirect: Redirect,
        cluster: &mut impl Cluster,
    ) -> Result<Self, AskError> {
        if let Some(why) = cluster.not_applicable(&spec.from)? {
            return Ok(Self::not_applicable(spec, redirect, why));
        }
        let outcome = cluster.request(&spec.from, spec.ask());
        Self::new(spec, redirect, outcome, &cluster.known())
    }

    /// The row of what came of a request.
    ///
    /// # Errors
    /// When the request could not even be sent.
    pub fn new(
        spec: &RequestSpec,
        redirect: Redirect,
        outcome: Result<Reply, Box<Failed>>,
        known: &Known,
    ) -> Result<Self, AskError> {
        let mut row = Self::asked(spec, redirect);
        let expected = spec.expected(redirect);
        row.expectations = check(&expected, outcome.as_ref().map_err(AsRef::as_ref));
        match outcome {
            Ok(reply) => row.answered(reply),
            Err(failed) => row.failed(*failed)?,
        }
        (row.proxies, row.connections) = passed(&row.way);
        row.hops = row.way.hops;
        let in_table = frontend(&row.way).is_some_and(FrontendStep::leads);
        row.redirected = row.listener.is_some() || in_table;
        if !row.redirected {
            row.reason = why_not(&stages(&row.way, known));
        }
        Ok(row)
    }

    /// The row of a request whose client the redirect is none for, and why.
    #[must_use]
    pub fn not_applicable(spec: &RequestSpec, redirect: Redirect, why: String) -> Self {
        Self {
            applicable: false,
            reason: Some(why),
            ..Self::asked(spec, redirect)
        }
    }

    /// What is asked, before anything came of it.
    fn asked(spec: &RequestSpec, redirect: Redirect) -> Self {
        Self {
            name: spec.name.clone(),
            client: spec.from.clone(),
            method: spec.method.clone(),
            url: spec.to.clone(),
            host: spec.headers.get("host").cloned(),
            connection: spec.connection.clone(),
            at_ms: spec.at.map(|at| milliseconds(at - Time::ZERO)),
            redirect,
            applicable: true,
            ..Self::default()
        }
    }

    fn failed(&mut self, failed: Failed) -> Result<(), AskError> {
        let failure = match failed.failure {
            Cause::Ask(error) => return Err(error),
            Cause::Network(failure) => failure,
        };
        self.failure = Some(failure.name());
        self.proxy_node = failed.proxy_node;
        self.proxy_pod = failed.proxy_pod;
        self.client_saw = failed.client_saw;
        self.time_ms = milliseconds(failed.took);
        self.way = failed.way;
        Ok(())
    }

    fn answered(&mut self, reply: Reply) {
        self.proxy_node = reply.proxy_node;
        self.proxy_pod = reply.proxy_pod;
        self.listener = reply.listener.map(|name| name.to_string());
        self.route = reply.route;
        self.cluster = reply.cluster.map(|name| name.to_string());
        self.endpoint = reply.endpoint.map(|endpoint| endpoint.to_string());
        self.service = reply.service.0.map(|service| service.path());
        self.pod = reply.pod.0.map(|pod| pod.path());
        self.node = reply.node;
        self.status = Some(reply.status);
        self.client_saw = reply.client_saw;
        self.proxy_saw = reply.proxy_saw;
        self.backend_saw = reply.backend_saw;
        self.tls = reply.tls;
        self.time_ms = milliseconds(reply.took);
        self.way = reply.way;
    }

    /// Whether all that was expected came true.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.expectations.iter().all(|checked| checked.held)
    }
}

/// How many proxies a way passed, and how many connections it took.
fn passed(way: &Way) -> (usize, usize) {
    let count = |of: fn(&Step) -> bool| way.steps.iter().filter(|(_, step)| of(step)).count();
    let of_nodes = count(|step| matches!(step, Step::Listener(it) if it.pod.is_none()));
    let of_pods = count(|step| matches!(step, Step::Sidecar(_)));
    let to_endpoints = count(|step| matches!(step, Step::Endpoint(it) if it.chosen.is_some()));
    let passed_on = count(|step| matches!(step, Step::Sidecar(it) if it.taken != Taken::Listened));
    // A name is resolved for a new connection alone; without a step after it none was begun.
    let named = count(|step| matches!(step, Step::Name(_)));
    let begun = count(|step| !matches!(step, Step::Name(_) | Step::Reply(_) | Step::Fault(_)));
    (
        of_nodes + of_pods,
        named.min(begun) + to_endpoints + passed_on,
    )
}

/// Why nothing was redirected: the name was none, or the address is no frontend.
fn why_not(stages: &[Stage]) -> Option<String> {
    let said = |name: &str| stages.iter().find(|stage| stage.stage == name);
    let Some(stage) = said("frontend").or_else(|| said("name")) else {
        return Some("its connection stood before".to_owned());
    };
    Some(if stage.because.is_empty() {
        stage.decided.clone()
    } else {
        stage.because.clone()
    })
}

/// The look-up in a frontend table on a way, if it came to one.
fn frontend(way: &Way) -> Option<&FrontendStep> {
    way.steps.iter().find_map(|(_, step)| match step {
        Step::Frontend(step) => Some(step),
        _ => None,
    })
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    // To the microsecond: the same number on every machine, and short to read.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
