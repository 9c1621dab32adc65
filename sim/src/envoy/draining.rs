//! Listeners that are gone while connections stand that came by them.
//!
//! Envoy serves such connections on. What they need goes last: routes, clusters and endpoints that
//! a change takes away with their listener are held until the last of them has ended, in the order
//! in which an agent must tell its Envoy. What comes anew meanwhile takes their place at once.

use std::collections::BTreeMap;

use nodeway_core::plan::{PlanDelta, ResourceName, Update};

use super::NodeProxy;
use super::downstream::Stage;

/// Removals that wait.
#[derive(Default)]
pub(super) struct Held(PlanDelta);

impl Held {
    fn is_empty(&self) -> bool {
        let Self(delta) = self;
        delta.routes.is_empty() && delta.clusters.is_empty() && delta.endpoints.is_empty()
    }

    /// Forgets the removal of what a change brings.
    fn yield_to(&mut self, delta: &PlanDelta) {
        forget(&mut self.0.routes, &delta.routes);
        forget(&mut self.0.clusters, &delta.clusters);
        forget(&mut self.0.endpoints, &delta.endpoints);
    }

    /// Takes the removals out of a change.
    fn take(&mut self, delta: &mut PlanDelta) {
        withhold(&mut self.0.routes, &mut delta.routes);
        withhold(&mut self.0.clusters, &mut delta.clusters);
        withhold(&mut self.0.endpoints, &mut delta.endpoints);
    }
}

type Changes<T> = BTreeMap<ResourceName, Update<T>>;

fn forget<T>(held: &mut Changes<T>, changes: &Changes<T>) {
    held.retain(|name, _| !matches!(changes.get(name), Some(Update::Put(_))));
}

fn withhold<T>(held: &mut Changes<T>, changes: &mut Changes<T>) {
    changes.retain(|name, change| {
        let goes = matches!(change, Update::Remove);
        if goes {
            held.insert(name.clone(), Update::Remove);
        }
        !goes
    });
}

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
            self.held.take(&mut delta);
            self.resources.apply(&delta);
        } else {
            self.resources.apply(delta);
        }
    }

    /// Lets go of what was held once no connection needs it.
    pub(super) fn release(&mut self) {
        let gone = |name: &ResourceName| !self.resources.listeners.contains_key(name);
        if !self.held.is_empty() && !self.listeners_in_use().any(gone) {
            let Held(delta) = std::mem::take(&mut self.held);
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
