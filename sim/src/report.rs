//! A fixture, run: its machines, a row for every request, and how many expectations held.

use std::collections::BTreeMap;

use nodeway_core::ingress::ClassVerdict;
use nodeway_core::object::{Kind, Object, ObjectRef, Provenance};
use nodeway_core::plan::{FrontendKind, PlannedFrontend};
use nodeway_core::problem::Problem;
use serde::Serialize;

use crate::cluster::AskError;
use crate::fixture::Fixture;
use crate::net::{CapturedInterface, TopologyError};
use crate::redirect::Redirect;
use crate::row::Row;
use crate::sim::{Sim, SimBuilder};
use crate::source::LoadErrors;

/// What came of a run. Its JSON form is documented in the book (`json.md`) and is stable.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The fixture's title.
    pub title: String,
    /// The redirect of the run.
    pub redirect: Redirect,
    /// The seed of the run.
    pub seed: u64,
    /// The nodes by name.
    pub nodes: Vec<NodeLine>,
    /// The hosts outside.
    pub outside: Vec<HostLine>,
    /// The Ingresses that are ours.
    pub ingresses: Vec<IngressLine>,
    /// Every request, in order.
    pub requests: Vec<Row>,
    /// How many expectations held.
    pub held: usize,
    /// How many there are.
    pub expectations: usize,
    /// What is wrong with the objects.
    pub problems: Vec<Problem>,
    /// Objects that could change an answer and are not simulated.
    pub not_simulated: Vec<String>,
    /// Every hop of every packet, a line each, if that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<String>,
    /// What every interface has seen, if that was asked for: files of their own, never JSON.
    #[serde(skip)]
    pub captures: Vec<CapturedInterface>,
}

/// A node.
#[derive(Clone, Debug, Serialize)]
pub struct NodeLine {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// The ports of its Envoy's listeners, by qualified name.
    pub listeners: BTreeMap<String, u16>,
    /// `namespace/name` of its pods.
    pub pods: Vec<String>,
}

/// A host outside.
#[derive(Clone, Debug, Serialize)]
pub struct HostLine {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<String>,
}

/// An Ingress of ours, with where it is reached.
#[derive(Clone, Debug, Serialize)]
pub struct IngressLine {
    /// `namespace/name`
    pub ingress: String,
    /// `namespace/name` of the Service that stands for it.
    pub service: String,
    /// Address and port from outside.
    pub address: Option<String>,
    /// Address and port in the cluster.
    pub cluster_address: Option<String>,
    /// The port of Envoy's listener, the same on every node unless it was taken.
    pub envoy_port: Option<u16>,
}

/// Why a fixture could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its manifests are wrong.
    #[error(transparent)]
    Load(#[from] LoadErrors),
    /// Its objects give no network.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// One of its requests cannot be sent.
    #[error("fixture.yaml: requests[{index}]: {error}")]
    Request {
        /// Which request.
        index: usize,
        /// What is wrong with it.
        error: AskError,
    },
}

/// How a fixture is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// In place of the fixture's redirect.
    pub redirect: Option<Redirect>,
    /// In place of the fixture's seed.
    pub seed: Option<u64>,
    /// Whether every hop of every packet is kept.
    pub trace: bool,
    /// Whether the bytes of every packet are kept for each interface.
    pub capture: bool,
}

/// Runs every request of a fixture, in order, on one cluster.
///
/// # Errors
/// When the fixture cannot be run at all. What does not come out as expected is no error.
pub fn run(fixture: &Fixture, options: RunOptions) -> Result<Report, RunError> {
    let mut builder: SimBuilder = Sim::from_fixture(fixture)?;
    if let Some(redirect) = options.redirect {
        builder = builder.redirect(redirect);
    }
    if let Some(seed) = options.seed {
        builder = builder.seed(seed);
    }
    if options.trace {
        builder = builder.trace_packets();
    }
    if options.capture {
        builder = builder.capture_packets();
    }
    let mut sim = builder.start()?;
    let redirect = sim.settings().redirect;
    let mut requests = Vec::new();
    for (index, spec) in fixture.requests.iter().enumerate() {
        let row = Row::of(spec, redirect, &mut sim)
            .map_err(|error| RunError::Request { index, error })?;
        requests.push(row);
    }
    let captures = sim.take_captures();
    Ok(Report {
        captures,
        ..Report::of(fixture, &sim, requests)
    })
}

impl Report {
    /// The report of a run on the machines of that cluster.
    #[must_use]
    pub fn of(fixture: &Fixture, sim: &Sim, requests: Vec<Row>) -> Self {
        let checked = || requests.iter().flat_map(|row| &row.expectations);
        Self {
            title: fixture.title.clone(),
            redirect: sim.settings().redirect,
            seed: sim.settings().seed.0,
            nodes: nodes(sim),
            outside: outside(sim),
            ingresses: ingresses(sim),
            held: checked().filter(|checked| checked.held).count(),
            expectations: checked().count(),
            problems: sim.problems(),
            not_simulated: sim.objects().not_simulated.clone(),
            hops: sim.hops().iter().map(ToString::to_string).collect(),
            captures: Vec::new(),
            requests,
        }
    }
}

fn nodes(sim: &Sim) -> Vec<NodeLine> {
    let ports = |node: &str| {
        let plan = sim.plan(node);
        let listeners = plan.into_iter().flat_map(|plan| &plan.listeners);
        listeners
            .map(|(name, listener)| (name.to_string(), listener.port))
            .collect()
    };
    let nodes = sim.topology().nodes.iter();
    nodes
        .map(|node| NodeLine {
            name: node.name.clone(),
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            listeners: ports(&node.name),
            pods: node.pods.iter().map(|pod| pod.name.clone()).collect(),
        })
        .collect()
}

fn outside(sim: &Sim) -> Vec<HostLine> {
    let hosts = sim.topology().outside.iter();
    hosts
        .map(|host| HostLine {
            name: host.name.clone(),
            addresses: host.addresses.iter().map(ToString::to_string).collect(),
        })
        .collect()
}

/// Each Ingress of ours with the Service that was made for it.
fn ingresses(sim: &Sim) -> Vec<IngressLine> {
    let class = nodeway_core::ingress::Options::default().class;
    let ours = sim.objects().ingresses().filter(|ingress| {
        let by_class = sim.objects().ingress_class("", &class);
        ClassVerdict::of(ingress, &class, by_class.map(AsRef::as_ref)).is_ours()
    });
    ours.map(|ingress| {
        let reference = Object::Ingress(ingress.clone()).reference();
        let service = service_of(sim, &reference);
        let frontends = |kind: FrontendKind| {
            sim.plans()
                .flat_map(|(_, plan)| &plan.frontends)
                .find(|(_, frontend)| {
                    frontend.kind == kind && Some(&frontend.service) == service.as_ref()
                })
        };
        let port = |found: Option<(_, &PlannedFrontend)>| found.map(|(_, one)| one.listener_port);
        IngressLine {
            ingress: reference.path(),
            address: frontends(FrontendKind::LoadBalancer).map(|(key, _)| key.to_string()),
            cluster_address: frontends(FrontendKind::ClusterIp).map(|(key, _)| key.to_string()),
            envoy_port: port(frontends(FrontendKind::ClusterIp)),
            service: service.as_ref().map(ObjectRef::path).unwrap_or_default(),
        }
    })
    .collect()
}

/// The Service that was made for an Ingress, or the shared one.
fn service_of(sim: &Sim, ingress: &ObjectRef) -> Option<ObjectRef> {
    let made = sim.objects().iter().find(|(reference, entry)| {
        reference.kind == Kind::Service
            && matches!(&entry.provenance, Provenance::Derived { from, .. } if from == ingress)
    });
    let by_name = ObjectRef::new(
        Kind::Service,
        &ingress.namespace,
        format!("cilium-ingress-{}", ingress.name),
    );
    let shared = sim
        .plans()
        .flat_map(|(_, plan)| plan.frontends.values())
        .next();
    made.map(|(reference, _)| reference.clone())
        .or_else(|| sim.objects().get(&by_name).map(|_| by_name))
        .or_else(|| shared.map(|frontend| frontend.service.clone()))
}
