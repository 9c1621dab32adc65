//! Faults of a simulated cluster: each is injected, lasts, and is mended, on the schedule's clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use nodeway_core::object::{Change, Kind, Object, ObjectRef};
use nodeway_core::service;
use nodeway_core::trace::{FaultStep, Step};

use super::Sim;
use crate::asker::place;
use crate::cluster::Cluster as _;
use crate::fault::{Fault, FaultError};
use crate::net::{Place, Toward};
use crate::process::WayId;
use crate::time::Time;
use crate::world::World;

/// A fault that is in force; [`Sim::mend`] ends it.
#[derive(Debug)]
#[must_use = "it lasts until it is mended"]
pub struct Injected {
    undo: Undo,
    /// What is told when it is over.
    mended: String,
}

/// What ends a fault.
#[derive(Debug)]
enum Undo {
    Impair(Place, Toward),
    Heal(Place, Place),
    StartProxy(String),
    StartAgent(String),
    PowerOn(String),
    Change(Vec<Change>),
}

/// Something that will be done to the cluster.
#[derive(Debug)]
enum Due {
    Inject(Fault, Option<Duration>),
    Mend(Injected),
}

/// What is broken, what will be, and who is to hear of it.
#[derive(Debug, Default)]
pub(super) struct Faults {
    schedule: BTreeMap<(Time, u64), Due>,
    sequence: u64,
    /// The changes that a node's agent has missed while it is down.
    missed: BTreeMap<String, Vec<Change>>,
    /// Nodes whose proxy was started while nobody could give it resources.
    bare: BTreeSet<String>,
    under_way: BTreeSet<WayId>,
    happened: Vec<(Time, String)>,
}

impl Faults {
    pub(super) fn agent_is_down(&self, node: &str) -> bool {
        self.missed.contains_key(node)
    }

    pub(super) fn proxy_knows_nothing(&mut self, node: &str) {
        self.bare.insert(node.to_owned());
    }

    pub(super) fn under_way(&mut self, way: WayId) {
        self.under_way.insert(way);
    }

    pub(super) fn over(&mut self, way: WayId) {
        self.under_way.remove(&way);
    }

    fn put(&mut self, at: Time, due: Due) {
        self.sequence += 1;
        self.schedule.insert((at, self.sequence), due);
    }

    pub(super) fn next_at(&self) -> Option<Time> {
        self.schedule.first_key_value().map(|((at, _), _)| *at)
    }
}

impl Sim {
    /// Breaks something now, and tells every request under way.
    ///
    /// # Errors
    ///
    /// When it names nobody, or nothing that can break so; nothing has happened then.
    pub fn inject(&mut self, fault: &Fault) -> Result<Injected, FaultError> {
        let undo = self.strike(fault)?;
        self.tell_all(fault.to_string());
        Ok(Injected {
            undo,
            mended: fault.mended(),
        })
    }

    /// Ends a fault now, and tells every request under way.
    pub fn mend(&mut self, injected: Injected) {
        match injected.undo {
            // Places were found when the fault began, and stay.
            Undo::Impair(place, toward) => drop(self.world.impair(&place, toward, None)),
            Undo::Heal(a, b) => drop(self.world.partition(&a, &b, false)),
            Undo::StartProxy(of) => self.start_proxies(&of),
            Undo::StartAgent(node) => self.start_agent(&node),
            Undo::PowerOn(node) => self.power_on(&node),
            Undo::Change(changes) => changes.iter().for_each(|change| self.change(change)),
        }
        self.tell_all(injected.mended);
    }

    /// Breaks something when its time comes, and mends it after a while; without one, never.
    ///
    /// What happens at one time happens in the order in which it was scheduled, after all packets
    /// that arrive by then.
    ///
    /// # Errors
    ///
    /// When it names nobody, or nothing that can break so. What is only there later, or gone by
    /// then, is noticed when its time comes: it is told among [`Sim::happened`], and nothing breaks.
    pub fn schedule(
        &mut self,
        at: Time,
        lasts: Option<Duration>,
        fault: Fault,
    ) -> Result<(), FaultError> {
        self.find(&fault)?;
        self.faults.put(at, Due::Inject(fault, lasts));
        Ok(())
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.world.now()
    }

    /// Lets the cluster run up to that time.
    pub fn run_until(&mut self, at: Time) {
        self.advance(at, |_| false);
    }

    /// Lets the cluster run for a while.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now() + time);
    }

    /// What faults did so far, each with its time.
    #[must_use]
    pub fn happened(&self) -> &[(Time, String)] {
        &self.faults.happened
    }

    /// Lets time go on up to `limit`, or until `stop` says so; faults happen when they are due.
    pub(super) fn advance(&mut self, limit: Time, stop: impl Fn(&World) -> bool) {
        loop {
            let due = self.faults.next_at().filter(|at| *at <= limit);
            let until = due.unwrap_or(limit);
            if self.world.run_until(until, &stop) || due.is_none() {
                return;
            }
            if let Some((_, due)) = self.faults.schedule.pop_first() {
                self.fall_due(due);
            }
        }
    }

    fn fall_due(&mut self, due: Due) {
        match due {
            Due::Mend(injected) => self.mend(injected),
            Due::Inject(fault, lasts) => match (self.inject(&fault), lasts) {
                (Ok(injected), Some(lasts)) => {
                    let at = self.world.now() + lasts;
                    self.faults.put(at, Due::Mend(injected));
                }
                (Ok(_), None) => {}
                (Err(error), _) => self.tell_all(format!("nothing breaks: {error}")),
            },
        }
    }

    /// Every request under way, and whoever asks later, is told.
    fn tell_all(&mut self, what: String) {
        for way in self.faults.under_way.clone() {
            let what = what.clone();
            let step = Step::Fault(FaultStep::Happened { what });
            self.world.note(way, step);
        }
        self.faults.happened.push((self.world.now(), what));
    }

    /// Whether a fault names what is there.
    fn find(&self, fault: &Fault) -> Result<(), FaultError> {
        match fault {
            Fault::Link { of, .. } => self.place_of(of).map(drop),
            Fault::Partition { between } => self.machines(between).map(drop),
            Fault::Proxy { node } => Ok(self.proxies_of(node).map(drop)?),
            Fault::Agent { node } | Fault::Node { node } => self.known_node(node),
            Fault::Endpoints { service, pods } => self.leaving(service, pods).map(drop),
            Fault::Objects { changes, .. } => self.consequences(changes).map(drop),
        }
    }

    fn strike(&mut self, fault: &Fault) -> Result<Undo, FaultError> {
        Ok(match fault {
            Fault::Link {
                of,
                toward,
                impairment,
            } => {
                let place = self.place_of(of)?;
                // The place was found.
                let _ = self.world.impair(&place, *toward, Some(*impairment));
                Undo::Impair(place, *toward)
            }
            Fault::Partition { between } => {
                let [a, b] = self.machines(between)?;
                let _ = self.world.partition(&a, &b, true);
                Undo::Heal(a, b)
            }
            Fault::Proxy { node } => {
                self.crash_proxy(node)?;
                Undo::StartProxy(node.clone())
            }
            Fault::Agent { node } => {
                self.known_node(node)?;
                self.faults.missed.entry(node.clone()).or_default();
                Undo::StartAgent(node.clone())
            }
            Fault::Node { node } => {
                self.known_node(node)?;
                self.power_off(node);
                Undo::PowerOn(node.clone())
            }
            Fault::Endpoints { service, pods } => {
                let changes = self.leaving(service, pods)?;
                Undo::Change(self.change_back(&changes))
            }
            Fault::Objects { changes, .. } => {
                let changes = self.consequences(changes)?;
                Undo::Change(self.change_back(&changes))
            }
        })
    }

    fn place_of(&self, name: &str) -> Result<Place, FaultError> {
        Ok(place(name, &self.objects, &self.topology)?)
    }

    fn machines(&self, between: &[String; 2]) -> Result<[Place; 2], FaultError> {
        let [a, b] = between;
        let machine = |name: &String| match self.place_of(name)? {
            Place::Pod(_) => Err(FaultError::NotAMachine(name.clone())),
            place => Ok(place),
        };
        let pair = [machine(a)?, machine(b)?];
        if pair[0] == pair[1] {
            return Err(FaultError::Itself(a.clone()));
        }
        Ok(pair)
    }

    fn known_node(&self, node: &str) -> Result<(), FaultError> {
        match self.planners.contains_key(node) {
            true => Ok(()),
            false => Err(self.unknown_node(node).into()),
        }
    }

    /// Makes changes, and says what takes them back.
    fn change_back(&mut self, changes: &[Change]) -> Vec<Change> {
        let mut back = Vec::new();
        for change in changes {
            let reference = match change {
                Change::Put(object) => object.reference(),
                Change::Delete(reference) => reference.clone(),
            };
            back.push(match self.objects.get(&reference) {
                Some(entry) => Change::Put(entry.object.clone()),
                None => Change::Delete(reference),
            });
            self.change(change);
        }
        back.reverse();
        back
    }

    /// The slices of a Service without the endpoints of some pods, or of all.
    fn leaving(&self, service: &ObjectRef, pods: &[String]) -> Result<Vec<Change>, FaultError> {
        let slices: Vec<&Arc<EndpointSlice>> = self
            .objects
            .endpoint_slices()
            .filter(|slice| service::of_slice(slice).as_ref() == Some(service))
            .collect();
        if slices.is_empty() {
            return Err(FaultError::NoEndpoints(service.clone()));
        }
        let has: BTreeSet<&str> = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter().flatten())
            .filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.as_deref())
            .collect();
        if let Some(pod) = pods.iter().find(|pod| !has.contains(pod.as_str())) {
            return Err(FaultError::NoSuchEndpoint {
                service: service.clone(),
                pod: pod.clone(),
                has: has.into_iter().map(str::to_owned).collect(),
            });
        }
        let without = |slice: &Arc<EndpointSlice>| {
            let mut slice = EndpointSlice::clone(slice);
            if let Some(endpoints) = &mut slice.endpoints {
                endpoints.retain(|endpoint| {
                    let target = endpoint.target_ref.as_ref();
                    let pod = target.and_then(|target| target.name.as_ref());
                    !pods.is_empty() && pod.is_none_or(|pod| !pods.contains(pod))
                });
            }
            Change::Put(Object::EndpointSlice(Arc::new(slice)))
        };
        Ok(slices.into_iter().map(without).collect())
    }

    /// What becomes of the cluster when objects change, if its machines stay those that they are.
    fn consequences(&self, changes: &[Change]) -> Result<Vec<Change>, FaultError> {
        let all = self
            .options
            .controllers
            .consequences(&self.objects, changes)?;
        let machine = |object: &Object| matches!(object.kind(), Kind::Pod | Kind::Node);
        for change in &all {
            if let Change::Put(object) = change
                && machine(object)
                && self.objects.get(&object.reference()).is_none()
            {
                return Err(FaultError::NewMachine(object.reference()));
            }
        }
        Ok(all)
    }

    /// Tells a node's agent of a change, now or when it is back.
    pub(super) fn tell_agent(&mut self, node: &str, change: &Change) {
        if let Some(missed) = self.faults.missed.get_mut(node) {
            missed.push(change.clone());
        } else if let Some(planner) = self.planners.get_mut(node) {
            let delta = planner.apply(change.clone());
            self.apply(node, &delta);
        }
    }

    fn start_agent(&mut self, node: &str) {
        let missed = self.faults.missed.remove(node).unwrap_or_default();
        if self.faults.bare.remove(node)
            && let Some(planner) = self.planners.get(node)
        {
            let all = planner.plan().as_delta();
            self.tell_proxy(node, &all);
        }
        for change in &missed {
            self.tell_agent(node, change);
        }
    }

    fn power_off(&mut self, node: &str) {
        // The node was found.
        let _ = self.world.power_off(node);
        self.faults.missed.entry(node.to_owned()).or_default();
    }

    fn power_on(&mut self, node: &str) {
        let _ = self.world.power_on(node);
        let missed = self.faults.missed.remove(node).unwrap_or_default();
        self.faults.bare.remove(node);
        if let Some(planner) = self.planners.get_mut(node) {
            for change in missed {
                planner.apply(change);
            }
        }
        let services = crate::assembly::services(&self.objects);
        let _ = self.world.translate_services(Some(node), services);
        self.start_programs(Some(node));
        self.start_proxies(node);
    }
}
