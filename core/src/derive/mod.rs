//! What controllers would add to what a user wrote: nodes, pods, addresses, endpoint slices.
//!
//! A manifest has no status and no address; a request needs both. They are derived here as a
//! cluster's controllers would, one after the other: [`node`], [`deployment`], [`pod`]
//! (scheduler and kubelet), [`service`] (API server and load balancer), [`mod@slice`] (EndpointSlice
//! controller). Everything derived is marked as such and nothing that is there is overwritten:
//! a recording of a cluster has all of it, so nothing is derived from one.

mod deployment;
mod node;
mod pod;
mod pool;
mod service;
mod slice;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::object::{Entry, Object, ObjectRef, Objects, Provenance};

/// What to derive where nothing says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeriveOptions {
    /// The nodes of a cluster of which no Node is written.
    pub nodes: Vec<String>,
    /// Whether pods and nodes get an IPv6 address too, and Services may.
    pub ipv6: bool,
    /// Whether a Service that says nothing of families gets both.
    pub dual_stack: bool,
}

impl Default for DeriveOptions {
    fn default() -> Self {
        Self {
            nodes: vec!["node-1".to_owned(), "node-2".to_owned()],
            ipv6: true,
            dual_stack: false,
        }
    }
}

/// Adds what controllers would add.
#[must_use]
pub fn derive(mut objects: Objects, options: &DeriveOptions) -> Objects {
    node::derive(&mut objects, options);
    deployment::derive(&mut objects);
    pod::derive(&mut objects, options);
    service::derive(&mut objects, options);
    slice::derive(&mut objects, options);
    objects
}

/// Puts objects in that an operator makes of others (an Ingress's Service and config), unless the
/// cluster already has them: what was dumped wins.
pub fn insert_missing(
    objects: &mut Objects,
    made: Vec<Object>,
    from: &ObjectRef,
    by: &'static str,
) {
    for object in made {
        if objects.get(&object.reference()).is_none() {
            objects.insert(
                object,
                Provenance::Derived {
                    from: from.clone(),
                    by,
                },
            );
        }
    }
}

/// Whether a cluster gave the object out: its controllers have spoken, absence means absence.
fn is_recorded(metadata: &ObjectMeta) -> bool {
    metadata.uid.is_some() || metadata.resource_version.is_some()
}

fn name_of(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// Changes every object of one kind in the order of names, noting which fields were derived.
/// `pick` says which kind; `change` is not called for what it returns none for.
fn change_each<T: Clone>(
    objects: &mut Objects,
    pick: fn(&mut Object) -> Option<&mut Arc<T>>,
    mut change: impl FnMut(&mut T) -> Vec<&'static str>,
) {
    let entries: Vec<Entry> = objects
        .iter()
        .map(|(_, entry)| entry.clone())
        .filter_map(|mut entry| pick(&mut entry.object).is_some().then_some(entry))
        .collect();
    for mut entry in entries {
        let Some(object) = pick(&mut entry.object) else {
            continue;
        };
        let fields = change(Arc::make_mut(object));
        if fields.is_empty() {
            continue;
        }
        // Of an object that is derived as a whole, every field is.
        if !matches!(entry.provenance, Provenance::Derived { .. }) {
            entry.derived_fields.extend(fields);
            entry.derived_fields.sort_unstable();
            entry.derived_fields.dedup();
        }
        objects.insert_entry(entry);
    }
}
