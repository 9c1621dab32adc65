//! What one node must have: changes to objects in, changes to a [`NodePlan`] out.
//!
//! A plan is what the agent of a node keeps true: listeners and their ports, the resources of the
//! node's Envoy, the frontends whose packets the hook leads to a listener, and the problems found
//! on the way. The simulator applies it to its hooks and its proxy, the agent to BPF maps and xDS.

mod claims;
mod delta;
mod finding;
mod ledger;
mod parsed;
mod planner;
mod problems;
mod secret;
mod settle;
mod tenant;
#[cfg(test)]
mod tests;
mod withheld;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use prost_reflect::DynamicMessage;

use crate::envoy;
use crate::object::{ObjectRef, Objects};
use crate::problem::Problem;
use crate::proxy;

pub use crate::endpoint::{PlannedEndpoint, PlannedEndpoints};
pub use crate::frontend::{FrontendKey, FrontendKind, Ranges};
pub use ledger::{FIRST_PORT, LAST_PORT, Ledger};
pub use planner::Planner;
pub use secret::{NoCertificate, PlannedSecret};
pub use withheld::Withheld;

/// The plan of one node for all objects of a cluster: a [`Planner`] fed with everything.
#[must_use]
pub fn plan(objects: &Objects, node: &str, ledger: Ledger) -> NodePlan {
    Planner::with_objects(objects, node, ledger).plan().clone()
}

/// An Envoy resource's qualified name (`default/cilium-ingress-default-basic-ingress/listener`).
pub type ResourceName = Arc<str>;

/// Everything one node must have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodePlan {
    /// Listeners by name, each with its port.
    pub listeners: BTreeMap<ResourceName, Arc<PlannedListener>>,
    /// RouteConfigurations that listeners fetch by RDS.
    pub routes: BTreeMap<ResourceName, Arc<PlannedRoutes>>,
    /// Clusters by name.
    pub clusters: BTreeMap<ResourceName, Arc<PlannedCluster>>,
    /// Endpoints by EDS service name. A service without endpoints has an *empty* entry.
    pub endpoints: BTreeMap<ResourceName, Arc<PlannedEndpoints>>,
    /// Certificates that listeners name, by SDS name. One that is missing has no entry.
    pub secrets: BTreeMap<ResourceName, Arc<PlannedSecret>>,
    /// Addresses whose packets are led to a listener.
    pub frontends: BTreeMap<FrontendKey, PlannedFrontend>,
    /// What is wrong with the objects behind this plan.
    pub problems: BTreeSet<Problem>,
}

/// A service port whose packets are led to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFrontend {
    /// Which of the service's addresses this is.
    pub kind: FrontendKind,
    /// The listener's qualified name.
    pub listener: ResourceName,
    /// The listener's port on loopback, host byte order.
    pub listener_port: u16,
    /// The Service.
    pub service: ObjectRef,
    /// The Service's port number (not the NodePort).
    pub service_port: u16,
    /// The config that claims it.
    pub config: ObjectRef,
    /// Who may come by it; none if everybody may.
    pub ranges: Option<Ranges>,
}

impl NodePlan {
    /// The plan as the own proxy of a client has it: without the frontends whose source ranges have
    /// none of the client's addresses. What it sends there goes on as it is.
    #[must_use]
    pub fn of_client(&self, addresses: &[IpAddr]) -> Self {
        let mut plan = self.clone();
        plan.frontends
            .retain(|_, it| it.ranges.is_none() || addresses.iter().any(|own| it.admits(*own)));
        plan
    }
}

impl PlannedFrontend {
    /// Whether who has that address may come by it.
    #[must_use]
    pub fn admits(&self, source: IpAddr) -> bool {
        let ranges = self.ranges.as_ref();
        ranges.is_none_or(|all| all.iter().any(|range| range.contains(&source)))
    }
}

/// A listener of the node's Envoy.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedListener {
    /// Its port on 127.0.0.1 and ::1, from the ledger; or that of an address of its own.
    pub port: u16,
    /// Whether the config gives it an address of its own, which it keeps.
    pub own_address: bool,
    /// What the model reads of it.
    pub model: Arc<proxy::Listener>,
    /// The completed message that a real Envoy gets.
    pub message: DynamicMessage,
    /// The config it stands in.
    pub config: ObjectRef,
}

impl PlannedListener {
    /// The message for an Envoy that has it on another port of the ledger's: every generation of a
    /// node's Envoy has ports of its own.
    #[must_use]
    pub fn on_port(&self, port: u16) -> DynamicMessage {
        let mut message = self.message.clone();
        if !self.own_address {
            envoy::rebind(&mut message, port);
        }
        message
    }
}

/// A RouteConfiguration of the node's Envoy.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedRoutes {
    /// What the model reads of it.
    pub model: Arc<proxy::RouteTable>,
    /// The completed message that a real Envoy gets.
    pub message: DynamicMessage,
    /// The config it stands in.
    pub config: ObjectRef,
}

/// A cluster of the node's Envoy.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedCluster {
    /// What the model reads of it.
    pub model: Arc<proxy::Cluster>,
    /// The completed message that a real Envoy gets.
    pub message: DynamicMessage,
    /// The config it stands in.
    pub config: ObjectRef,
}

/// A new value, or none any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update<T> {
    /// New or changed.
    Put(T),
    /// Gone.
    Remove,
}

/// What changed in a plan. Applying all deltas in order gives the plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanDelta {
    /// Listeners that changed.
    pub listeners: BTreeMap<ResourceName, Update<Arc<PlannedListener>>>,
    /// RouteConfigurations that changed.
    pub routes: BTreeMap<ResourceName, Update<Arc<PlannedRoutes>>>,
    /// Clusters that changed.
    pub clusters: BTreeMap<ResourceName, Update<Arc<PlannedCluster>>>,
    /// Endpoints that changed.
    pub endpoints: BTreeMap<ResourceName, Update<Arc<PlannedEndpoints>>>,
    /// Certificates that changed.
    pub secrets: BTreeMap<ResourceName, Update<Arc<PlannedSecret>>>,
    /// Frontends that changed.
    pub frontends: BTreeMap<FrontendKey, Update<PlannedFrontend>>,
    /// Problems that appeared.
    pub problems_found: BTreeSet<Problem>,
    /// Problems that went away.
    pub problems_gone: BTreeSet<Problem>,
}
