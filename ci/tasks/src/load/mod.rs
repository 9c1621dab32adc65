//! What becomes of requests while the parts of a node are killed, replaced and changed.
//!
//! ```text
//!  hey, a fixed rate ─► client's pod ─► node: kernel, Envoy ─► pods        (a lab of processes)
//!       after a third of the time: an event ─► the node's agent, Envoy, supervisor, manifests
//! ```
//!
//! A row is one event by one redirect under one kind of load: how many requests were answered, how
//! many were not, and whether that is what the project promises. Where something is promised of
//! time, a probe with a connection of its own each few milliseconds says what a client saw when.

pub mod event;
pub mod hey;
pub mod probe;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nodeway_live::envoy::{self, NoEnvoy};
use nodeway_live::lab::name::{BadName, LabName};
use nodeway_live::lab::state::Labs;
use nodeway_live::lab::{Lab, LabError, LabOptions, Workers};
use nodeway_live::netns::{NetNs, NetNsError};
use nodeway_sim::{Fixture, LoadErrors, Place, Redirect, RunError};
use serde::Serialize;

use event::{Event, Happened};
use hey::{Connections, Hey, HeyError, Loaded};
use probe::{Probe, Seen};

/// Whose requests are led: the client's pod and its node.
const CLIENT: &str = "default/client";
/// The node of the client and of the Envoy that things happen to.
const NODE: &str = "node-1";
/// Connections at a time.
const WORKERS: u32 = 20;

/// What `ci/load` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Seconds of load for each event, once with kept and once with new connections.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(3..=600))]
    pub seconds: u16,
    /// Requests per second.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    pub rate: u32,
    /// By which redirects.
    #[arg(long, value_delimiter = ',', default_value = "tc,iptables")]
    pub redirect: Vec<Redirect>,
    /// What happens; all if absent.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub event: Vec<Event>,
    /// The program of Envoy; `$ENVOY` or the one on `PATH` if absent.
    #[arg(long, value_name = "FILE")]
    pub envoy: Option<PathBuf>,
    /// The program `nodeway`, whose agents and supervisors are killed.
    #[arg(long, value_name = "FILE", default_value = "target/release/nodeway")]
    pub nodeway: PathBuf,
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
    /// What was seen besides.
    pub happened: Happened,
    /// What a client saw that opens a connection each few milliseconds.
    pub probe: Seen,
    /// What is promised and was not kept; nothing if all was.
    pub broken: Vec<String>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No Envoy.
    #[error(transparent)]
    NoEnvoy(#[from] NoEnvoy),
    /// A name for the lab.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The fixture.
    #[error(transparent)]
    Fixture(#[from] LoadErrors),
    /// The lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A client cannot ask.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The load generator.
    #[error(transparent)]
    Hey(#[from] HeyError),
    /// The client's namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// A file.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    File {
        /// `copy`, `write`, `take away`
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something that must be there is not.
    #[error("{0}")]
    Missing(String),
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LoadError {
    let path = path.to_owned();
    move |source| LoadError::File {
        action,
        path,
        source,
    }
}

/// The name of this process's labs.
///
/// # Errors
/// Never: a number makes a name.
pub fn name() -> Result<LabName, BadName> {
    LabName::new(&format!("load-{}", std::process::id()))
}

/// Loads and breaks, one event after the other, and tells what it is at.
///
/// # Errors
/// When there is no lab or no load; what was made is gone then.
pub fn run(options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Vec<Row>, LoadError> {
    let events = match options.event.as_slice() {
        [] => Event::ALL.to_vec(),
        some => some.to_vec(),
    };
    let mut rows = Vec::new();
    for redirect in &options.redirect {
        tell(&format!("a lab, redirect {redirect}"));
        let mut bed = Bed::up(*redirect, options)?;
        for event in &events {
            for connections in Connections::ALL {
                tell(&format!(
                    "{redirect}, {}, {}",
                    connections.name(),
                    event.name()
                ));
                rows.push(bed.row(*event, connections, options)?);
            }
        }
    }
    Ok(rows)
}

/// A lab that is loaded, with a fixture of its own that may be changed.
pub struct Bed {
    lab: Lab,
    redirect: Redirect,
    client: Arc<NetNs>,
    folder: tempfile::TempDir,
}

impl Bed {
    fn up(redirect: Redirect, options: &Options) -> Result<Self, LoadError> {
        let folder = tempfile::tempdir().map_err(file("make", &std::env::temp_dir()))?;
        let bookinfo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bookinfo");
        copy(&bookinfo, folder.path())?;
        let fixture = Fixture::load(folder.path())?;
        let program = options.nodeway.canonicalize();
        let options = LabOptions {
            name: name()?,
            envoy: envoy::find(options.envoy.as_deref())?,
            labs: Labs::here(),
            workers: Workers::Processes(program.map_err(file("find", &options.nodeway))?),
        };
        let lab = Lab::up(&fixture, Some(redirect), options, &mut |_| {})?;
        let client = lab.machines().get(&Place::Pod(CLIENT.to_owned())).cloned();
        let missing = || LoadError::Missing(format!("bookinfo has no pod {CLIENT}"));
        Ok(Self {
            lab,
            redirect,
            client: client.ok_or_else(missing)?,
            folder,
        })
    }

    /// A manifest that the agents see as soon as it is there.
    #[must_use]
    pub fn manifest(&self, name: &str) -> PathBuf {
        self.folder.path().join("manifests").join(name)
    }

    fn row(
        &mut self,
        event: Event,
        connections: Connections,
        options: &Options,
    ) -> Result<Row, LoadError> {
        self.lab.settle(NODE)?;
        let to = self.address(event.service())?;
        let duration = Duration::from_secs(options.seconds.into());
        let probe = Probe::start(&self.client, to)?;
        let hey = Hey {
            rate: options.rate,
            workers: WORKERS,
            duration,
            connections,
        };
        let load = hey.start(&self.client, to)?;
        event::pause(duration / 3);
        let happened = event.happen(self, duration / 3)?;
        let loaded = load.wait()?;
        let probe = probe.end();
        Ok(Row {
            broken: event.broken(&loaded, &happened, &probe),
            event,
            redirect: self.redirect,
            connections,
            loaded,
            happened,
            probe,
        })
    }

    /// The ClusterIP and port of a Service.
    fn address(&self, (service, port): (&str, u16)) -> Result<SocketAddr, LoadError> {
        let objects = self.lab.model().objects();
        let found = objects.service("default", service);
        let spec = found.and_then(|it| it.spec.as_ref());
        let address = spec.and_then(|it| it.cluster_ip.as_ref()?.parse().ok());
        let missing = || LoadError::Missing(format!("Service default/{service} has no ClusterIP"));
        Ok(SocketAddr::new(address.ok_or_else(missing)?, port))
    }
}

/// Copies a folder, two levels deep: that is a fixture.
fn copy(from: &Path, to: &Path) -> Result<(), LoadError> {
    for entry in std::fs::read_dir(from).map_err(file("read", from))? {
        let entry = entry.map_err(file("read", from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            std::fs::create_dir(&target).map_err(file("make", &target))?;
            copy(&path, &target)?;
        } else {
            std::fs::copy(&path, &target).map_err(file("copy", &path))?;
        }
    }
    Ok(())
}
