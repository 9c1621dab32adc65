//! A resource as it is served: its bytes, a version that is their hash, and whose it is.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use prost_reflect::DynamicMessage;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::assignment::{assignment, no_endpoints, no_routes};
use super::encode::{Encoded, encode};
use crate::envoy::{ResourceKind, served};
use crate::object::ObjectRef;
use crate::plan::{NodePlan, PlanDelta, ResourceName, Update};

/// The hash of a resource's bytes: the same content has the same version, in every process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    fn of(bytes: &[u8]) -> Self {
        let hash = Sha256::digest(bytes);
        Self(
            hash.iter()
                .take(8)
                .fold(0, |version, byte| (version << 8) | u64::from(*byte)),
        )
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Version {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A resource as it is served.
#[derive(Clone, PartialEq, Eq)]
pub struct Served {
    /// Its message; a secret's holds a private key.
    pub bytes: Bytes,
    /// The hash of these bytes.
    pub version: Version,
    /// The object that a user would edit, when one is behind it.
    pub object: Option<ObjectRef>,
    /// What Envoy fetches by name because of it: a listener's route configurations, a cluster's
    /// endpoints.
    pub needs: Vec<ResourceName>,
}

/// Says nothing of the bytes: they may hold a private key.
impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served")
            .field("version", &self.version)
            .field("object", &self.object)
            .finish_non_exhaustive()
    }
}

impl Served {
    /// A resource that needs nothing.
    #[must_use]
    pub fn new(bytes: Bytes, object: Option<ObjectRef>) -> Self {
        Self {
            version: Version::of(&bytes),
            bytes,
            object,
            needs: Vec::new(),
        }
    }

    /// A planned message.
    #[must_use]
    pub fn of(message: &DynamicMessage, object: &ObjectRef) -> Self {
        let Encoded { bytes, needs } = encode(message);
        Self {
            needs,
            ..Self::new(bytes, Some(object.clone()))
        }
    }

    /// The answer for a name that nobody has planned, where there is one that says so.
    pub(super) fn blank(kind: ResourceKind, name: &str) -> Option<Self> {
        let bytes = match kind {
            ResourceKind::ClusterLoadAssignment => no_endpoints(name),
            ResourceKind::RouteConfiguration => no_routes(name),
            ResourceKind::Listener | ResourceKind::Cluster | ResourceKind::Secret => return None,
        };
        Some(Self::new(bytes, None))
    }
}

/// What changed of that which a proxy shall have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceDelta {
    /// By kind and name.
    pub changes: BTreeMap<(ResourceKind, ResourceName), Update<Arc<Served>>>,
}

impl ResourceDelta {
    /// The resources of a plan's delta. Only what stands in it is encoded.
    #[must_use]
    pub fn of(delta: &PlanDelta) -> Self {
        let mut made = Self::default();
        made.add(ResourceKind::Listener, &delta.listeners, |_, it| {
            Some(Served::of(&served(it), &it.config))
        });
        made.add(ResourceKind::RouteConfiguration, &delta.routes, |_, it| {
            Some(Served::of(&it.message, &it.config))
        });
        made.add(ResourceKind::Cluster, &delta.clusters, |_, it| {
            Some(Served::of(&it.message, &it.config))
        });
        let kind = ResourceKind::ClusterLoadAssignment;
        made.add(kind, &delta.endpoints, |name, it| {
            Some(Served::new(assignment(name, it), it.service.clone()))
        });
        // A Secret without a certificate is as one that is not there.
        made.add(ResourceKind::Secret, &delta.secrets, |_, it| {
            Some(Served::of(it.message.as_ref()?, &it.source))
        });
        made
    }

    /// All resources of a plan.
    #[must_use]
    pub fn all(plan: &NodePlan) -> Self {
        Self::of(&plan.as_delta())
    }

    fn add<T>(
        &mut self,
        kind: ResourceKind,
        updates: &BTreeMap<ResourceName, Update<Arc<T>>>,
        serve: impl Fn(&str, &T) -> Option<Served>,
    ) {
        for (name, update) in updates {
            let served = match update {
                Update::Put(planned) => serve(name, planned),
                Update::Remove => None,
            };
            let update = served.map_or(Update::Remove, |served| Update::Put(Arc::new(served)));
            self.changes.insert((kind, Arc::clone(name)), update);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derive::{DeriveOptions, derive};
    use crate::plan::{Ledger, plan};
    use crate::source::{Text, read};

    fn shop() -> NodePlan {
        let text = Text::new("shop.yaml", include_str!("../plan/shop.yaml"));
        let objects = derive(read(&[text]).unwrap(), &DeriveOptions::default());
        plan(&objects, "node-1", Ledger::default())
    }

    #[test]
    fn a_plan_is_served_whole_and_each_resource_knows_its_object() {
        let delta = ResourceDelta::all(&shop());
        let shown: Vec<String> = delta
            .changes
            .iter()
            .map(|((kind, name), update)| match update {
                Update::Put(served) => {
                    let object = served.object.as_ref().map(ToString::to_string);
                    format!(
                        "{kind} {name} of {} needs {:?}",
                        object.unwrap_or_default(),
                        served.needs
                    )
                }
                Update::Remove => format!("{kind} {name} is gone"),
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"));
    }

    #[test]
    fn the_same_plan_has_the_same_versions_each_time() {
        assert_eq!(ResourceDelta::all(&shop()), ResourceDelta::all(&shop()));
    }

    #[test]
    fn what_is_served_never_shows_its_bytes() {
        let served = Served::new("-----BEGIN PRIVATE KEY-----".into(), None);
        assert!(!format!("{served:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_version_is_read_as_it_is_written() {
        let version = Version::of(b"anything");
        assert_eq!(version.to_string().parse(), Ok(version));
        assert_eq!(version.to_string().len(), 16);
    }
}
