//! What becomes of requests while a kind cluster's parts are rolled, drained and restarted.
//!
//! ```text
//!  hey, a fixed rate; a probe each 10 ms; kept connections   (in the client pod's network namespace)
//!       ─► the Ingress's service address ─► node: kernel, Envoy ─► backends on two nodes
//!  after some seconds: an event, through kubectl and docker; some seconds after its end: the count
//! ```
//!
//! A row is one event under one kind of load. The load ends when the event has, so that a rollout
//! is covered however long it takes.

pub mod cluster;
pub mod event;
pub mod held;

use std::time::Duration;

use nodeway_live::netns::NetNsError;
use nodeway_sim::Redirect;
use serde::Serialize;

use crate::load::event::pause;
use crate::load::hey::{Connections, Hey, HeyError, Loaded};
use crate::load::probe::{Probe, Seen};
use cluster::{Cluster, ClusterError, Deployment};
use event::Event;
use held::{Held, Holding};

/// Connections of the load generator at a time.
const WORKERS: u32 = 20;
/// A probe that has no answer by then has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// The load ends before that in any case.
const AT_MOST: Duration = Duration::from_secs(600);

/// What `ci/kind-load` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What happens; all if absent.
    #[arg(value_enum, value_name = "EVENT")]
    pub events: Vec<Event>,
    /// Seconds of load before an event, and after its end.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=60))]
    pub seconds: u16,
    /// Requests per second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(20..=20_000))]
    pub rate: u32,
    /// By which redirect.
    #[arg(long, default_value = "tc")]
    pub redirect: Redirect,
    /// Seconds that connections of an Envoy have that ends.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=60))]
    pub drain: u16,
    /// The image of Nodeway that the nodes have.
    #[arg(long, default_value = "nodeway:dev")]
    pub image: String,
}

/// One event under one kind of load.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What happened.
    pub event: Event,
    /// By which redirect.
    pub redirect: Redirect,
    /// Under which load.
    pub connections: Connections,
    /// What the load generator counted.
    pub loaded: Loaded,
    /// What became of kept connections.
    pub held: Holding,
    /// What a client saw that opens a connection each few milliseconds.
    pub probe: Seen,
    /// What the same client saw of a pod that it asks past Nodeway and to which nothing happens: how
    /// late an answer can be on this machine.
    pub control: Seen,
    /// How long the event took, in milliseconds.
    pub took_ms: u64,
    /// What is promised and was not kept; nothing if all was.
    pub broken: Vec<String>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum KindLoadError {
    /// No cluster is named.
    #[error(
        "KUBECONFIG names no cluster; `ci/kind-load` makes one by `ci/kind`, or: ci/kind --keep"
    )]
    NoCluster,
    /// A way that no agent has.
    #[error("--redirect {0}: an agent leads by tc, sk-lookup or iptables")]
    NoSuchWay(Redirect),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The load generator.
    #[error(transparent)]
    Hey(#[from] HeyError),
    /// The client's namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

/// Deploys, loads and breaks, one event after the other, and tells what it is at.
///
/// # Errors
/// When there is no cluster or no load.
pub fn run(options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Vec<Row>, KindLoadError> {
    if std::env::var_os("KUBECONFIG").is_none() {
        return Err(KindLoadError::NoCluster);
    }
    if options.redirect == Redirect::Sidecar {
        return Err(KindLoadError::NoSuchWay(options.redirect));
    }
    let deployment = Deployment {
        image: options.image.clone(),
        redirect: options.redirect,
        drain: options.drain,
    };
    let cluster = deployment.deploy(tell)?;
    let events = match options.events.as_slice() {
        [] => &Event::ALL,
        some => some,
    };
    let mut rows = Vec::new();
    for event in events {
        for connections in Connections::ALL {
            tell(&format!("{}, {}", event.name(), connections.name()));
            rows.push(row(&cluster, *event, connections, options)?);
        }
    }
    Ok(rows)
}

fn row(
    cluster: &Cluster,
    event: Event,
    connections: Connections,
    options: &Options,
) -> Result<Row, KindLoadError> {
    cluster.settle()?;
    let around = Duration::from_secs(options.seconds.into());
    let hey = Hey {
        rate: options.rate,
        workers: WORKERS,
        duration: AT_MOST,
        connections,
    };
    let probe = Probe::patient(&cluster.client, cluster.to, PATIENCE)?;
    let control = Probe::patient(&cluster.client, cluster.control, PATIENCE)?;
    let held = Held::start(&cluster.client, cluster.to)?;
    let load = hey.start(&cluster.client, cluster.to)?;
    pause(around);
    let took = event.happen(cluster)?;
    pause(around);
    let loaded = load.end()?;
    let (held, probe, control) = (held.end(), probe.end(), control.end());
    Ok(Row {
        broken: event.broken(&loaded, &held, &probe),
        event,
        redirect: options.redirect,
        connections,
        loaded,
        held,
        probe,
        control,
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    })
}
