//! Listeners that are gone while connections stand that came by them.
//!
//! Envoy serves such connections on. What they need goes last: routes, clusters and endpoints that
//! a change takes away with their listener are held until the last of them has ended, in the order
//! in which an agent must tell its Envoy. What comes anew meanwhile takes their place at once.

use nodeway_core::plan::{PlanDelta, ResourceName, Update};

use super::NodeProxy;
use super::downstream::Stage;

impl NodeProxy {
    /// Takes resources over, as an Envoy takes them from xDS. Sockets follow at the next wake;
    /// connections that stand keep the listener they came in by, and what it needs.
    pub fn apply(&mut self, delta: &PlanDelta) {
        self.told = true;
        self.held.yield_to(delta);
        let removed = |name: &ResourceName| {
            let change = delta.listeners.get(name);
            matches!(change, Some(Update::Remove))
        };
        if self.listeners_in_use().any(removed) {
            let mut delta = delta.clone();
            self.held.take_needs(&mut delta);
            self.resources.apply(&delta);
        } else {
            self.resources.apply(delta);
        }
    }

    /// Lets go of what was held once no connection needs it.
    pub(super) fn release(&mut self) {
        let gone = |name: &ResourceName| !self.resources.listeners.contains_key(name);
        if !self.held.is_empty() && !self.listeners_in_use().any(gone) {
            let delta = self.held.release();
            self.resources.apply(&delta);
        }
    }

    /// The listeners that connections came by.
    fn listeners_in_use(&self) -> impl Iterator<Item = &ResourceName> {
        let downstreams = self.downstreams.values();
        downstreams.filter_map(|downstream| match &downstream.stage {
            Stage::Opening(entry) => Some(&entry.name),
            Stage::Http(session) => Some(&session.arrival.listener.listener),
            // These have their endpoint, or need none any more.
            Stage::Tcp(_) | Stage::Ending(_) | Stage::Gone => None,
        })
    }
}
