//! A whole cluster in one process, with a virtual clock: one seed gives one run, byte for byte.
//!
//! A test asks, looks at the answer, and breaks something:
//!
//! ```
//! use nodeway_sim::{Cluster, Failure, Redirect, Sim};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/bookinfo");
//! let mut cluster = Sim::load(fixture)?.redirect(Redirect::Tc).seed(7).start()?;
//! let details = "http://cilium-ingress-basic-ingress/details/0";
//!
//! // A pod asks for a Service of an Ingress, and the Envoy of its own node answers in its name.
//! let reply = cluster.get("default/client", details)?;
//! assert_eq!(reply.status, 200);
//! assert_eq!(reply.service, "details");
//! assert_eq!(reply.route.as_deref(), Some("path_separated_prefix /details"));
//! assert_eq!(reply.client_saw.unwrap(), "Service default/cilium-ingress-basic-ingress:80");
//! assert_eq!(reply.proxy_saw.unwrap(), "Pod default/client");
//! assert_eq!(reply.backend_saw.unwrap(), "Node node-1");
//!
//! // Without that Envoy nobody listens. Printed, the failure shows the whole way up to there.
//! cluster.crash_proxy("node-1")?;
//! let failed = cluster.get("default/client", details).unwrap_err();
//! assert_eq!(failed.failure, Failure::ConnectionRefused);
//! # Ok(())
//! # }
//! ```
//!
//! What breaks meanwhile is a [`Fault`], now or on a schedule, and what a redirect declares for it a
//! [`Fate`]:
//!
//! ```
//! use nodeway_sim::{Ask, Cluster, Fault, Sim};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/faults/switched-on");
//! let mut cluster = Sim::load(fixture)?.start()?;
//! let partition = cluster.inject(&Fault::Partition {
//!     between: ["node/node-1".to_owned(), "node/node-2".to_owned()],
//! })?;
//! let request = cluster.send("default/client", Ask::get("http://shop/"))?;
//! cluster.run_for(std::time::Duration::from_millis(500));
//! cluster.mend(partition);
//! assert_eq!(cluster.finish(request)?.status, 200);
//! # Ok(())
//! # }
//! ```
//!
//! A test that fails while it holds a [`Sim`] prints the way of the last request, the seed and the
//! command that shows it again. Whole fixtures are run with [`run()`]; what they expect stands in
//! their `fixture.yaml` ([`Fixture`]). A body that takes `&mut impl Cluster` runs on any cluster.
//! Put a packet decision of your own under test with [`SimBuilder::with_datapath`], a program of
//! your own into a pod with [`Process`].

mod asker;
mod assembly;
mod backend;
mod check;
mod chosen;
mod client;
mod cluster;
mod dumped;
mod envoy;
mod fault;
mod fixture;
pub mod http;
mod names;
mod net;
mod process;
mod proxies;
pub mod replay;
mod reply;
mod report;
mod row;
mod seed;
mod served;
mod sim;
mod source;
mod target;
mod time;
mod visit;
mod workload;
mod world;

pub use assembly::Options;
pub use backend::{Backend, Tls, Writing, write_page};
pub use check::{Checked, check};
pub use chosen::ChosenBy;
pub use client::{Answer, Client, Outcome};
pub use cluster::{Ask, AskError, Cause, Cluster, Failed, Family, tell};
pub use envoy::{Counters, NodeProxy};
pub use fault::{Fault, FaultError};
pub use fixture::{
    Expect, FaultSpec, Fixture, IngressSpec, Made, Moment, Nodes, RequestSpec, What, fixture_of,
};
pub use net::{
    CapturedInterface, CapturedPacket, Datapath, Happening, Hop, HostSpec, Impairment, LinkSpec,
    NodeKernel, NodeSpec, NodewayDatapath, NotAShare, Place, PodSpec, ServiceEntry, ServiceTable,
    Settings, Share, SimSocket, StackId, Topology, TopologyError, Toward, hook_name,
};
/// Objects, plans and traces, which stand in this crate's interface.
#[doc(no_inline)]
pub use nodeway_core;
pub use nodeway_core::backend::Identity;
pub use nodeway_core::redirect::{Fate, Fates, Missing, Redirect, UnknownRedirect};
pub use nodeway_core::trace::{Failure, Way};
pub use process::{
    CallError, ListenSocketId, Os, Process, SocketError, SocketEvent, SocketId, TimerId, WayId,
};
pub use reply::{Reply, Seen, Shown, Who};
pub use report::{FaultLine, HostLine, IngressLine, NodeLine, Report, RunError, RunOptions, run};
pub use row::Row;
pub use seed::{Random, Seed};
pub use sim::{AnsweredBy, Errand, Injected, Reachable, ServedBy, Sim, SimBuilder, UnderWay};
pub use source::{LoadError, LoadErrors, Source};
pub use target::Target;
pub use time::Time;
pub use visit::{Asked, Visit, VisitOutcome};
pub use world::{NoSuchNode, NoSuchPlace, ProcessId, World};

/// What the package says of itself holds.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
