//! The operator: changes to Ingresses in, changes to configs and Services out.
//!
//! A dedicated Ingress is translated alone, so the cost of its change does not grow with the
//! cluster. Shared ones have one config together, which is written anew when one of them changes.
//! What is already there as it should be gives no change.

mod held;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::claims;
use super::class::{ClassVerdict, DEFAULT_CLASS_ANNOTATION, is_default};
use super::mode::Mode;
use super::model::Model;
use super::names::Names;
use super::options::Options;
use super::service;
use super::translate::config;
use crate::object::{Change, EnvoyConfig, Kind, Object, ObjectRef};
use crate::problem::{Code, Problem, Severity};
use held::Held;

/// Keeps the configs and Services of a cluster's Ingresses.
#[derive(Clone, Debug)]
pub struct Operator {
    options: Options,
    class: Option<Arc<IngressClass>>,
    secrets: BTreeSet<ObjectRef>,
    ingresses: BTreeMap<ObjectRef, Held>,
    /// What must be there.
    wanted: BTreeMap<ObjectRef, Object>,
    /// What is there of the kinds and names that we make.
    there: BTreeMap<ObjectRef, Object>,
    /// Which Ingress an object of that name would be made for.
    made_for: BTreeMap<ObjectRef, ObjectRef>,
    shared_problems: Vec<Problem>,
}

impl Operator {
    /// An operator of an empty cluster.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            class: None,
            secrets: BTreeSet::new(),
            ingresses: BTreeMap::new(),
            wanted: BTreeMap::new(),
            there: BTreeMap::new(),
            made_for: BTreeMap::new(),
            shared_problems: Vec::new(),
        }
    }

    /// Takes one change and gives those that follow from it, in the order of their references.
    pub fn apply(&mut self, change: &Change) -> Vec<Change> {
        self.apply_all(std::iter::once(change))
    }

    /// Takes several changes at once: what all shared Ingresses have together is written once.
    pub fn apply_all<'a>(&mut self, changes: impl IntoIterator<Item = &'a Change>) -> Vec<Change> {
        let mut touched = Touched::default();
        for change in changes {
            match change {
                Change::Put(object) => self.put(object, &mut touched),
                Change::Delete(reference) => self.delete(reference, &mut touched),
            }
        }
        if touched.shared {
            self.write_shared(&mut touched);
        }
        let changes = self.settle(&touched.objects);
        for name in touched.forgotten {
            self.made_for.remove(&name);
        }
        changes
    }

    /// What is wrong with the Ingresses, each problem once.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems: BTreeSet<Problem> = self.shared_problems.iter().cloned().collect();
        for (reference, held) in &self.ingresses {
            problems.extend(held.problems.iter().cloned());
            if held.mode.is_some() {
                problems.extend(self.missing_secrets(reference, held));
            }
        }
        problems.extend(self.class_problem());
        problems.into_iter().collect()
    }

    /// Why an Ingress is ours or not.
    #[must_use]
    pub fn verdict(&self, ingress: &ObjectRef) -> Option<&ClassVerdict> {
        self.ingresses.get(ingress).map(|held| &held.verdict)
    }

    /// What an Ingress that is ours asks for.
    #[must_use]
    pub fn model(&self, ingress: &ObjectRef) -> Option<&Model> {
        self.ingresses
            .get(ingress)
            .filter(|held| held.mode.is_some())
            .map(|held| &held.ingested.model)
    }

    /// The Service through which clients reach an Ingress that is ours, as it is there.
    #[must_use]
    pub fn service(&self, ingress: &ObjectRef) -> Option<&Arc<Service>> {
        let names = match self.ingresses.get(ingress)?.mode? {
            Mode::Dedicated => Names::dedicated(&ingress.namespace, &ingress.name),
            Mode::Shared => Names::shared(&self.options),
        };
        match self.there.get(&ObjectRef::new(
            Kind::Service,
            names.namespace,
            names.service,
        ))? {
            Object::Service(service) => Some(service),
            _ => None,
        }
    }

    /// The addresses and names that an Ingress has: those that its Service was given.
    #[must_use]
    pub fn addresses(&self, ingress: &ObjectRef) -> Vec<String> {
        let given = self.given(ingress).iter();
        given
            .filter_map(|given| given.ip.clone().or_else(|| given.hostname.clone()))
            .collect()
    }

    fn given(&self, ingress: &ObjectRef) -> &[LoadBalancerIngress] {
        let status = self.service(ingress).and_then(|it| it.status.as_ref());
        let given = status.and_then(|it| it.load_balancer.as_ref()?.ingress.as_deref());
        given.unwrap_or_default()
    }

    /// Our Ingresses whose status says other addresses than they have, with those that it must say.
    pub fn unsaid(&self) -> impl Iterator<Item = (ObjectRef, &[LoadBalancerIngress])> {
        let ours = self
            .ingresses
            .iter()
            .filter(|(_, held)| held.mode.is_some());
        ours.filter(|(ingress, held)| self.addresses(ingress) != said(&held.ingress))
            .map(|(ingress, _)| (ingress.clone(), self.given(ingress)))
    }

    /// An object that must be there, without what others added to it.
    #[must_use]
    pub fn wanted(&self, reference: &ObjectRef) -> Option<&Object> {
        self.wanted.get(reference)
    }

    /// The objects that must be there.
    pub fn wanted_objects(&self) -> impl Iterator<Item = &ObjectRef> {
        self.wanted.keys()
    }

    /// The objects that must be there, as they are with what others added.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.wanted
            .keys()
            .filter_map(|reference| self.there.get(reference))
    }

    fn put(&mut self, object: &Object, touched: &mut Touched) {
        match object {
            Object::Ingress(ingress) => self.put_ingress(ingress, touched),
            Object::IngressClass(class)
                if class.metadata.name.as_deref() == Some(&self.options.class) =>
            {
                self.class = Some(Arc::clone(class));
                self.class_changed(touched);
            }
            Object::Secret(_) => {
                self.secrets.insert(object.reference());
            }
            Object::Service(_) | Object::CiliumEnvoyConfig(_) | Object::EndpointSlice(_) => {
                let reference = object.reference();
                if self.could_be_ours(&reference) {
                    self.there.insert(reference.clone(), object.clone());
                    touched.objects.insert(reference);
                }
            }
            _ => {}
        }
    }

    fn delete(&mut self, reference: &ObjectRef, touched: &mut Touched) {
        match reference.kind {
            Kind::Ingress => self.delete_ingress(reference, touched),
            Kind::IngressClass if reference.name == self.options.class => {
                self.class = None;
                self.class_changed(touched);
            }
            Kind::Secret => {
                self.secrets.remove(reference);
            }
            _ => {
                if self.there.remove(reference).is_some() {
                    touched.objects.insert(reference.clone());
                }
            }
        }
    }

    fn could_be_ours(&self, reference: &ObjectRef) -> bool {
        reference.name.starts_with("cilium-ingress")
            || reference.name == self.options.shared_service_name
    }

    /// Our class is or is not the default any more: that concerns those who name none.
    fn class_changed(&mut self, touched: &mut Touched) {
        let undecided: Vec<_> = self
            .ingresses
            .values()
            .filter(|held| {
                matches!(
                    held.verdict,
                    ClassVerdict::OursByDefault | ClassVerdict::NoClass
                )
            })
            .map(|held| Arc::clone(&held.ingress))
            .collect();
        for ingress in undecided {
            self.put_ingress(&ingress, touched);
        }
    }

    fn put_ingress(&mut self, ingress: &Arc<Ingress>, touched: &mut Touched) {
        let reference = super::reference(ingress);
        let before = self.ingresses.get(&reference);
        let was_shared = before.is_some_and(|held| held.mode == Some(Mode::Shared));
        if before
            .is_some_and(|held| held.ingress == *ingress && held.verdict == self.look_at(ingress))
        {
            return;
        }
        let (held, dedicated) = self.read(&reference, ingress);
        let deleting = ingress.metadata.deletion_timestamp.is_some();
        touched.shared |= was_shared || held.mode == Some(Mode::Shared);
        for name in made_names(&reference) {
            touched.forgotten.remove(&name);
            self.made_for.insert(name.clone(), reference.clone());
            // While an Ingress is being deleted its objects stay as they are.
            if !deleting {
                self.wanted.remove(&name);
                touched.objects.insert(name);
            }
        }
        self.wanted.extend(
            dedicated
                .into_iter()
                .map(|object| (object.reference(), object)),
        );
        self.ingresses.insert(reference, held);
    }

    fn delete_ingress(&mut self, reference: &ObjectRef, touched: &mut Touched) {
        let Some(held) = self.ingresses.remove(reference) else {
            return;
        };
        touched.shared |= held.mode == Some(Mode::Shared);
        for name in made_names(reference) {
            self.wanted.remove(&name);
            touched.forgotten.insert(name.clone());
            touched.objects.insert(name);
        }
    }

    /// Writes the config that all shared Ingresses have together.
    fn write_shared(&mut self, touched: &mut Touched) {
        // Cilium sorts by `namespace/name` as one text, and the first of two routes has its time-out.
        let mut shared: Vec<(&ObjectRef, &Held)> = self
            .ingresses
            .iter()
            .filter(|(_, held)| held.mode == Some(Mode::Shared))
            .collect();
        shared.sort_by_cached_key(|(reference, _)| reference.path());
        let mut model = Model::default();
        for (_, held) in &shared {
            model.http.extend(held.ingested.model.http.iter().cloned());
            model
                .tls_passthrough
                .extend(held.ingested.model.tls_passthrough.iter().cloned());
        }
        let mut problems = claims::between(
            shared
                .iter()
                .map(|(reference, held)| (*reference, &held.ingested.claims[..])),
        );
        problems.extend(claims::server_names(
            shared
                .iter()
                .map(|(reference, held)| (*reference, &held.ingested)),
        ));
        let names = Names::shared(&self.options);
        let reference = shared_config(&names);
        if model.is_empty() {
            self.wanted.remove(&reference);
        } else {
            let config = config(&model, &names, &self.options);
            self.wanted.insert(
                reference.clone(),
                Object::CiliumEnvoyConfig(Arc::new(config)),
            );
        }
        self.shared_problems = problems;
        touched.objects.insert(reference);
    }

    /// Makes what is there what must be there, for these objects.
    fn settle(&mut self, touched: &BTreeSet<ObjectRef>) -> Vec<Change> {
        let mut changes = Vec::new();
        for reference in touched {
            let there = self.there.get(reference);
            match self.wanted.get(reference) {
                Some(wanted) => {
                    let merged =
                        there.map_or_else(|| wanted.clone(), |there| merged(there, wanted));
                    if there != Some(&merged) {
                        self.there.insert(reference.clone(), merged.clone());
                        changes.push(Change::Put(merged));
                    }
                }
                None if there.is_some() && self.is_left_over(reference) => {
                    self.there.remove(reference);
                    changes.push(Change::Delete(reference.clone()));
                }
                None => {}
            }
        }
        changes
    }

    /// Whether an object that nobody wants is one that was made for an Ingress we know or knew.
    fn is_left_over(&self, reference: &ObjectRef) -> bool {
        if *reference == shared_config(&Names::shared(&self.options)) {
            return true;
        }
        let Some(ingress) = self.made_for.get(reference) else {
            return false;
        };
        self.ingresses
            .get(ingress)
            .is_none_or(|held| held.ingress.metadata.deletion_timestamp.is_none())
    }

    fn class_problem(&self) -> Option<Problem> {
        let class = self
            .class
            .as_ref()
            .filter(|class| is_default(class).is_none())?;
        Some(Problem {
            code: Code::BadAnnotation,
            severity: Severity::Warning,
            object: ObjectRef::cluster(
                Kind::IngressClass,
                class.metadata.name.clone().unwrap_or_default(),
            ),
            field: format!("metadata.annotations[{DEFAULT_CLASS_ANNOTATION}]"),
            reason: "the value is no boolean, so the class is not the default".into(),
            fix: "set it to `true` or `false`".into(),
        })
    }
}

/// The addresses and names that the status of an Ingress says.
fn said(ingress: &Ingress) -> Vec<String> {
    let status = ingress.status.as_ref();
    let said = status.and_then(|it| it.load_balancer.as_ref()?.ingress.as_deref());
    let said = said.unwrap_or_default().iter();
    said.filter_map(|said| said.ip.clone().or_else(|| said.hostname.clone()))
        .collect()
}

/// What a batch of changes concerns.
#[derive(Default)]
struct Touched {
    objects: BTreeSet<ObjectRef>,
    /// Objects of Ingresses that are gone.
    forgotten: BTreeSet<ObjectRef>,
    shared: bool,
}

/// The reference of the config that all shared Ingresses have together.
fn shared_config(names: &Names) -> ObjectRef {
    ObjectRef::new(Kind::CiliumEnvoyConfig, &names.namespace, &names.config)
}

/// The references of everything that is made for a dedicated Ingress.
fn made_names(ingress: &ObjectRef) -> [ObjectRef; 3] {
    let names = Names::dedicated(&ingress.namespace, &ingress.name);
    [
        ObjectRef::new(Kind::CiliumEnvoyConfig, &names.namespace, names.config),
        ObjectRef::new(Kind::Service, &names.namespace, &names.service),
        ObjectRef::new(Kind::EndpointSlice, &names.namespace, names.service),
    ]
}

fn merged(there: &Object, wanted: &Object) -> Object {
    match (there, wanted) {
        (Object::Service(there), Object::Service(wanted)) => {
            Object::Service(keep(there, service::merged(there, wanted)))
        }
        (Object::CiliumEnvoyConfig(there), Object::CiliumEnvoyConfig(wanted)) => {
            Object::CiliumEnvoyConfig(keep(there, service::merged_config(there, wanted)))
        }
        (Object::EndpointSlice(there), Object::EndpointSlice(wanted)) => {
            Object::EndpointSlice(keep(there, service::merged_endpoints(there, wanted)))
        }
        _ => wanted.clone(),
    }
}

/// The old value's place if the new one is equal.
fn keep<T: PartialEq>(old: &Arc<T>, new: T) -> Arc<T> {
    if **old == new {
        Arc::clone(old)
    } else {
        Arc::new(new)
    }
}

/// The objects of an operator by kind.
pub(super) fn by_kind(operator: &Operator) -> (Vec<EnvoyConfig>, Vec<Service>, Vec<EndpointSlice>) {
    let (mut configs, mut services, mut slices) = (Vec::new(), Vec::new(), Vec::new());
    for object in operator.objects() {
        match object {
            Object::CiliumEnvoyConfig(config) => configs.push(EnvoyConfig::clone(config)),
            Object::Service(service) => services.push(Service::clone(service)),
            Object::EndpointSlice(slice) => slices.push(EndpointSlice::clone(slice)),
            _ => {}
        }
    }
    (configs, services, slices)
}
