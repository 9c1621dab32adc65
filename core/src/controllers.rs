//! What a cluster's controllers make of the objects that a user has: the ingress operator's configs
//! and Services, and everything that [`crate::derive`] adds.
//!
//! Objects come complete from an API server; those of files are completed here, and when some of
//! them change, so does what was made out of them.

use std::sync::Arc;

use crate::derive::{self, DeriveOptions};
use crate::ingress;
use crate::object::{Change, Kind, Object, ObjectRef, Objects, Provenance};
use crate::problem::Problem;

/// How controllers do their work.
#[derive(Clone, Debug, Default)]
pub struct Controllers {
    /// What the operator is told.
    pub ingress: ingress::Options,
    /// What is derived where nothing is written.
    pub derive: DeriveOptions,
}

/// Why objects cannot change like that: what is taken away is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {0} to delete")]
pub struct NoSuchObject(pub ObjectRef);

impl Controllers {
    /// Adds what operator and controllers would. What is there already stays as it is. The problems
    /// are those of Ingresses.
    #[must_use]
    pub fn complete(&self, mut objects: Objects) -> (Objects, Vec<Problem>) {
        let made = ingress::translate(&objects, &self.ingress);
        let services = made
            .services
            .into_iter()
            .map(|service| Object::Service(service.into()));
        let configs = made
            .configs
            .into_iter()
            .map(|config| Object::CiliumEnvoyConfig(config.into()));
        for object in services.chain(configs).collect::<Vec<_>>() {
            let from = owner(&object, &objects);
            derive::insert_missing(&mut objects, vec![object], &from, "ingress operator");
        }
        (derive::derive(objects, &self.derive), made.problems)
    }

    /// What becomes of complete objects when some change: the changes themselves, and what operator
    /// and controllers make of them.
    ///
    /// # Errors
    /// When an object is deleted that is not there.
    pub fn consequences(
        &self,
        objects: &Objects,
        changes: &[Change],
    ) -> Result<Vec<Change>, NoSuchObject> {
        let mut next = objects.clone();
        for change in changes {
            let reference = match change {
                Change::Put(object) => {
                    let file = Arc::from("a change");
                    next.insert(object.clone(), Provenance::Written { file, line: 1 });
                    object.reference()
                }
                Change::Delete(reference) => {
                    let gone = next.remove(reference);
                    gone.ok_or_else(|| NoSuchObject(reference.clone()))?;
                    reference.clone()
                }
            };
            forget_made_of(&mut next, &reference);
        }
        let (next, _) = self.complete(next);
        Ok(objects.changes_to(&next))
    }
}

/// What was made out of an object is made anew; an endpoint is made out of more than it names.
fn forget_made_of(objects: &mut Objects, reference: &ObjectRef) {
    let stale: Vec<ObjectRef> = objects
        .iter()
        .filter(|(made, entry)| match &entry.provenance {
            Provenance::Derived { from, .. } => {
                from == reference || made.kind == Kind::EndpointSlice
            }
            Provenance::Written { .. } | Provenance::Watched { .. } => false,
        })
        .map(|(made, _)| made.clone())
        .collect();
    for made in &stale {
        objects.remove(made);
    }
}

/// The Ingress behind a generated object: the one it is named after, or the first of a shared one.
fn owner(object: &Object, objects: &Objects) -> ObjectRef {
    let made = object.reference();
    let mut ingresses = objects
        .ingresses()
        .map(|one| Object::Ingress(one.clone()).reference());
    let mut shared = None;
    ingresses
        .find(|ingress| {
            shared.get_or_insert_with(|| ingress.clone());
            let names = ingress::names::Names::dedicated(&ingress.namespace, &ingress.name);
            names.namespace == made.namespace && [names.config, names.service].contains(&made.name)
        })
        .or(shared)
        .unwrap_or(made)
}
