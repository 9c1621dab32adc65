//! An Ingress becomes a `CiliumEnvoyConfig` and a Service: the half of Cilium's operator.
//!
//! An Ingress says: requests for this host and this path go to that Service. Kubernetes does
//! nothing with it; a controller must. This one does it in four steps, each a file:
//!
//! 1. [`class`]: is the Ingress ours? Its annotation, its field and the default class say so.
//! 2. [`ingest`]: its rules become a [`model`], one listener per host. What is wrong is left out
//!    and said so ([`path`], [`hostname`], [`annotations`]).
//! 3. [`mod@translate`]: the model becomes Envoy resources: a [`listener`], its [`route_table`]s and
//!    its [`cluster`]s. A [`dialect`] chooses which Cilium's form they have ([`legacy`] is 1.11's).
//! 4. [`service`]: an Ingress with an address of its own gets a Service whose packets are led to
//!    that listener; all *shared* ones have one together ([`claims`] finds who is in whose way).
//!
//! [`Operator`] does this step by step as a cluster changes; [`translate()`] does it at once. They are
//! the same code, and a test holds that the order of changes does not matter.

pub mod annotations;
pub mod claims;
pub mod class;
pub mod cluster;
pub mod dialect;
pub mod duration;
pub mod hostname;
pub mod ingest;
pub mod legacy;
pub mod listener;
pub mod mode;
pub mod model;
pub mod names;
pub mod operator;
pub mod options;
pub mod path;
pub mod route_table;
pub mod service;
pub mod shortener;
pub mod translate;

#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;

pub use self::class::ClassVerdict;
pub use self::dialect::Dialect;
pub use self::mode::Mode;
pub use self::operator::Operator;
pub use self::options::{HostNetwork, Options};
use crate::object::{Change, EnvoyConfig, Kind, ObjectRef, Objects};
use crate::problem::Problem;

/// What a cluster's Ingresses become.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    /// One config per dedicated Ingress and one for all shared ones, by namespace and name.
    pub configs: Vec<EnvoyConfig>,
    /// One Service per dedicated Ingress. One that the cluster already has keeps its addresses.
    pub services: Vec<Service>,
    /// Endpoints that nobody has, if [`Options::placeholder_endpoints`] asks for them.
    pub endpoint_slices: Vec<EndpointSlice>,
    /// What is wrong with the Ingresses.
    pub problems: Vec<Problem>,
}

/// Translates all Ingresses of a cluster.
#[must_use]
pub fn translate(objects: &Objects, options: &Options) -> Translation {
    let mut operator = Operator::new(options.clone());
    let changes: Vec<Change> = objects
        .iter()
        .map(|(_, entry)| Change::Put(entry.object.clone()))
        .collect();
    operator.apply_all(&changes);
    let (configs, services, endpoint_slices) = operator::by_kind(&operator);
    Translation {
        configs,
        services,
        endpoint_slices,
        problems: operator.problems(),
    }
}

/// The reference of an Ingress.
fn reference(ingress: &Ingress) -> ObjectRef {
    ObjectRef::of(Kind::Ingress, &ingress.metadata)
}
