//! A fixture, run: its machines, a row for every request, and how many expectations held.

use std::collections::BTreeMap;

use nodeway_core::ingress::ClassVerdict;
use nodeway_core::netfilter::sidecar::OUTBOUND;
use nodeway_core::object::{Kind, Object, ObjectRef, Provenance};
use nodeway_core::plan::{FrontendKind, PlannedFrontend};
use nodeway_core::problem::Problem;
use nodeway_core::redirect::Redirect;
use serde::Serialize;

use crate::cluster::{AskError, Cluster as _};
use crate::fault::FaultError;
use crate::fixture::{Fixture, RequestSpec};
use crate::net::{CapturedInterface, TopologyError};
use crate::row::{Row, milliseconds};
use crate::sim::{Sim, SimBuilder, UnderWay};
use crate::source::LoadErrors;
use crate::time::Time;

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
    /// What faults did, in the order of time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultLine>,
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
    /// The ports of its Envoy's listeners, by qualified name; where each pod has an Envoy, its port
    /// for all that the pod sends.
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

/// Something that was broken on purpose, or mended.
#[derive(Clone, Debug, Serialize)]
pub struct FaultLine {
    /// Virtual milliseconds since the start.
    pub time_ms: f64,
    /// What happened.
    pub what: String,
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
    /// Somebody asks who cannot.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// A fixture cannot be written down.
    #[error("the fixture cannot be written as YAML: {0}")]
    Written(String),
    /// One of its requests cannot be sent.
    #[error("fixture.yaml: requests[{index}]: {error}")]
    Request {
        /// Which request.
        index: usize,
        /// What is wrong with it.
        error: AskError,
    },
    /// A request's time has passed before it could be sent.
    #[error(
        "fixture.yaml: requests[{index}].at: it is {now} already when the requests before it are over; make it later, or give those before it an `at` too"
    )]
    Late {
        /// Which request.
        index: usize,
        /// What the clock says.
        now: Time,
    },
    /// One of its faults cannot be.
    #[error("fixture.yaml: faults[{index}]: {error}")]
    Fault {
        /// Which fault.
        index: usize,
        /// What is wrong with it.
        error: FaultError,
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
    fixture.schedule(&mut sim)?;
    let requests = ask_all(fixture, &mut sim)?;
    let captures = sim.take_captures();
    Ok(Report {
        captures,
        ..Report::of(fixture, &sim, requests)
    })
}

/// Sends every request when its time comes, or when those before it are over.
fn ask_all(fixture: &Fixture, sim: &mut Sim) -> Result<Vec<Row>, RunError> {
    let redirect = sim.settings().redirect;
    let mut rows = Vec::new();
    let mut under_way: Vec<(usize, &RequestSpec, UnderWay)> = Vec::new();
    let row = |index, spec, outcome, sim: &Sim| {
        let row = Row::new(spec, redirect, outcome, &sim.known());
        row.map(|row| (index, row))
            .map_err(|error| RunError::Request { index, error })
    };
    for (index, spec) in fixture.requests.iter().enumerate() {
        match spec.at {
            Some(at) if at < sim.now() => {
                let now = sim.now();
                return Err(RunError::Late { index, now });
            }
            Some(at) => sim.run_until(at),
            None => {
                for (index, spec, request) in under_way.drain(..) {
                    let outcome = sim.finish(request);
                    rows.push(row(index, spec, outcome, sim)?);
                }
            }
        }
        let known = sim.not_applicable(&spec.from);
        if let Some(why) = known.map_err(|error| RunError::Request { index, error })? {
            rows.push((index, Row::not_applicable(spec, redirect, why)));
            continue;
        }
        match sim.send(&spec.from, spec.ask()) {
            Err(failed) => rows.push(row(index, spec, Err(failed), sim)?),
            Ok(request) if spec.at.is_some() => under_way.push((index, spec, request)),
            Ok(request) => {
                let outcome = sim.finish(request);
                rows.push(row(index, spec, outcome, sim)?);
            }
        }
    }
    for (index, spec, request) in under_way {
        let outcome = sim.finish(request);
        rows.push(row(index, spec, outcome, sim)?);
    }
    rows.sort_by_key(|(index, _)| *index);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

fn faults(sim: &Sim) -> Vec<FaultLine> {
    let happened = sim.happened().iter();
    happened
        .map(|(time, what)| FaultLine {
            time_ms: milliseconds(time.since_start()),
            what: what.clone(),
        })
        .collect()
}

impl Fixture {
    /// Puts the fixture's faults on a cluster's schedule.
    ///
    /// # Errors
    /// When one names nobody, or nothing that can break so.
    pub fn schedule(&self, sim: &mut Sim) -> Result<(), RunError> {
        for (index, spec) in self.faults.iter().enumerate() {
            sim.schedule(spec.at, spec.lasts, spec.fault())
                .map_err(|error| RunError::Fault { index, error })?;
        }
        Ok(())
    }
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
            faults: faults(sim),
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

/// The port that connections to a listener come in by: a pod's own Envoy has one for all.
fn reached_at(sim: &Sim, port: u16) -> u16 {
    match sim.settings().redirect {
        Redirect::Sidecar => OUTBOUND,
        _ => port,
    }
}

fn nodes(sim: &Sim) -> Vec<NodeLine> {
    let ports = |node: &str| {
        let plan = sim.plan(node);
        let listeners = plan.into_iter().flat_map(|plan| &plan.listeners);
        listeners
            .map(|(name, listener)| (name.to_string(), reached_at(sim, listener.port)))
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
        let port = |found: Option<(_, &PlannedFrontend)>| {
            found.map(|(_, one)| reached_at(sim, one.listener_port))
        };
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
