//! A cluster's API server as the source of objects, and what writes to it.
//!
//! ```text
//!  watches, one a kind ─► trimmed ─► Store ─► changes ─► the agent's plan
//!  the agent's findings ─► Conditions: a node's entry in each config's status
//!  what all nodes say of a config ─► live::operator: the conditions of its status
//!  Ingresses and Services ─► core::ingress ─► live::operator: what is not there yet, and nothing else
//! ```
//!
//! A watch that breaks changes nothing: only a whole new list takes objects away. What cannot be read
//! of an object is told with its name, and what it said before stays in force.

mod cilium;
mod client;
mod conditions;
pub(crate) mod config_status;
pub mod crds;
pub(crate) mod lease;
mod listed;
mod store;
mod told;
mod trimmed;
mod watch;

pub(crate) use cilium::{Beside, list, refuse_beside_cilium};
pub use cilium::{BesideCilium, Found};
pub(crate) use client::connect;
pub use client::{ClientError, client};
pub(crate) use conditions::{Conditions, Said, done, manager};
pub use listed::{ListError, listed};
pub use store::{Store, Told};
pub use told::{ToldCondition, ToldConfig, ToldNode, told};
pub use watch::{Lost, Watched, Wish};
pub(crate) use watch::{resource, typed};

use kube::Client;
use kube::api::{Api, DynamicObject};
use nodeway_core::object::ObjectRef;

/// Where an object is written.
pub(crate) fn api_of(client: &Client, object: &ObjectRef) -> Api<DynamicObject> {
    let resource = resource(object.kind);
    if object.kind.namespaced() {
        Api::namespaced_with(client.clone(), &object.namespace, &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    }
}
