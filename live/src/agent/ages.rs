//! Since when each resource is planned as it is.

use std::collections::BTreeMap;
use std::time::Duration;

use nodeway_core::envoy::ResourceKind;
use nodeway_core::plan::{PlanDelta, ResourceName, Update};

/// A resource's kind and name.
type Key = (ResourceKind, String);

/// Moments by resource, on the agent's clock.
#[derive(Debug, Default)]
pub(super) struct Ages(BTreeMap<Key, Duration>);

impl Ages {
    /// Takes in what has changed just now.
    pub(super) fn take(&mut self, delta: &PlanDelta, now: Duration) {
        self.of(ResourceKind::Listener, &delta.listeners, now);
        self.of(ResourceKind::RouteConfiguration, &delta.routes, now);
        self.of(ResourceKind::Cluster, &delta.clusters, now);
        self.of(ResourceKind::ClusterLoadAssignment, &delta.endpoints, now);
        self.of(ResourceKind::Secret, &delta.secrets, now);
    }

    fn of<T>(
        &mut self,
        kind: ResourceKind,
        updates: &BTreeMap<ResourceName, Update<T>>,
        now: Duration,
    ) {
        for (name, update) in updates {
            let key = (kind, name.to_string());
            match update {
                Update::Put(_) => self.0.insert(key, now),
                Update::Remove => self.0.remove(&key),
            };
        }
    }

    /// Since when it is planned as it is; now and always when it is not.
    pub(super) fn since(&self, key: &Key) -> Duration {
        self.0.get(key).copied().unwrap_or_default()
    }
}
