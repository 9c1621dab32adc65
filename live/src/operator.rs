//! The operator: Ingresses of a cluster become configs and Services there, and what nodes say of configs
//! becomes the conditions of their status.
//!
//! ```text
//!  watches ─┬► core::ingress::Operator ─► what is not there yet ─┬► server-side apply
//!           └► core::condition::overall ─► what is not said yet ─┘
//! ```
//!
//! Every one watches and plans; the one that holds the Lease writes. What is there as it should be is
//! not written again, so that a cluster in which nothing happens is left alone. While Cilium is in the
//! cluster nothing is written.

mod events;
mod figures;
mod overall;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams};
use nodeway_core::ingress::{self, Options};
use nodeway_core::object::{Change, Kind, Object, ObjectRef, Objects};
use nodeway_core::problem::{Code, Problem};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::cause::with_causes;
use crate::clock::Clock;
use crate::http::PortError;
use crate::kube::lease::{Leader, RENEWED};
use crate::kube::{
    Beside, BesideCilium, ClientError, Found, Lost, Watched, Wish, api_of, connect, list,
    refuse_beside_cilium, resource, typed,
};
use crate::stop::Stop;

use events::Untold;
use figures::{Figures, Health};
use overall::Unsaid;

/// Who owns the fields that are written.
const MANAGER: &str = "nodeway-operator";
/// The name of the Lease.
const LEASE: &str = "nodeway-operator";
/// Between two tries to write what was refused.
const AGAIN: Duration = Duration::from_secs(2);
/// An API server that has not answered by then is asked again, while the Lease still holds.
const ANSWERED: Duration = Duration::from_secs(4);

/// What an operator is told.
#[derive(Clone, Debug, Default)]
pub struct OperatorOptions {
    /// How Ingresses are read.
    pub ingress: Options,
    /// Which cluster; that of `KUBECONFIG`, or that this process is in, if absent.
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of the Lease.
    pub namespace: String,
    /// This one's name among others that wait.
    pub identity: String,
    /// The nodes that have an agent, by a selector of labels as `kubectl` takes it; all if absent.
    pub agents: Option<String>,
    /// Where metrics and health are served; none for nowhere.
    pub metrics: Option<SocketAddr>,
}

/// Why there is no operator.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Nobody to ask.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The cluster is another's.
    #[error(transparent)]
    BesideCilium(#[from] BesideCilium),
    /// Not all was listed.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// Metrics and health.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// Why something is not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    /// The API server says why.
    #[error("{}", with_causes(.0))]
    Refused(#[from] kube::Error),
    /// It says nothing.
    #[error("no answer within {ANSWERED:?}")]
    Late,
}

enum Event {
    Told,
    Stop,
}

/// How often an operator wrote, since it began.
#[derive(Clone, Debug, Default)]
pub struct Writes(Arc<AtomicU64>);

impl Writes {
    /// How often.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The operator of a cluster.
pub struct Operator {
    runtime: Runtime,
    client: Client,
    watched: Watched,
    model: ingress::Operator,
    leader: Leader,
    leads: bool,
    /// What must be written: a put, or a deletion.
    waiting: BTreeMap<ObjectRef, Change>,
    /// Whether an Ingress may not say yet what addresses it has.
    addresses_wait: bool,
    problems: BTreeSet<Problem>,
    unsaid: Unsaid,
    untold: BTreeSet<Untold>,
    identity: String,
    beside: Beside,
    /// What of Cilium's is there.
    cilium: Vec<Found>,
    clock: Clock,
    /// When the Lease is renewed next; nothing is written later than that.
    renew_at: Duration,
    events: Receiver<Event>,
    sender: Sender<Event>,
    writes: Writes,
    figures: Figures,
}

impl Operator {
    /// Lists what there is; nothing is written before [`Operator::run`].
    ///
    /// # Errors
    /// When there is no API server, or it does not tell in time.
    pub fn start(options: OperatorOptions) -> Result<Self, OperatorError> {
        let (client, runtime) = connect(options.kubeconfig.as_deref())?;
        runtime.block_on(refuse_beside_cilium(&client))?;
        let (sender, events) = channel();
        let told = sender.clone();
        let wake = move || {
            // It has ended.
            let _ = told.send(Event::Told);
        };
        let clock = Clock::start();
        let figures = Figures::new(clock);
        if let Some(address) = options.metrics {
            figures.serve(&runtime, address)?;
        }
        let beside = Beside::follow(runtime.handle(), &client, wake.clone());
        let wishes = Wish::of_operator(options.agents.as_deref());
        let watched = Watched::begin(runtime.handle(), &client, wishes, wake)?;
        let leader = Leader::new(client.clone(), &options.namespace, LEASE, &options.identity);
        let mut operator = Self {
            leader,
            leads: false,
            waiting: BTreeMap::new(),
            addresses_wait: false,
            problems: BTreeSet::new(),
            unsaid: Unsaid::default(),
            untold: BTreeSet::new(),
            identity: options.identity,
            beside,
            cilium: Vec::new(),
            clock,
            renew_at: Duration::ZERO,
            figures,
            model: ingress::Operator::new(options.ingress),
            writes: Writes::default(),
            runtime,
            client,
            events,
            sender,
            watched,
        };
        let all = Objects::default().changes_to(operator.watched.store().objects());
        operator.take(&all);
        operator.tell();
        Ok(operator)
    }

    /// What ends it from elsewhere. What it wrote stays.
    #[must_use]
    pub fn stop(&self) -> Stop {
        Stop::by(&self.sender, || Event::Stop)
    }

    /// How often it writes.
    #[must_use]
    pub fn writes(&self) -> Writes {
        self.writes.clone()
    }

    /// Runs until it is stopped.
    pub fn run(mut self) {
        loop {
            let now = self.clock.now();
            if now >= self.renew_at {
                self.hold();
                self.renew_at = now + RENEWED;
            }
            self.look_for_cilium();
            if self.may_write() {
                self.write();
                self.write_overall();
                self.tell_events();
            }
            self.tell();
            let first = self.events.recv_timeout(self.pause()).ok();
            let events: Vec<Event> = first.into_iter().chain(self.events.try_iter()).collect();
            if events.iter().any(|it| matches!(it, Event::Stop)) {
                if self.leads {
                    let released = self.leader.release();
                    let released = async { tokio::time::timeout(ANSWERED, released).await };
                    // The next one waits then until it has run out.
                    let _ = self.runtime.block_on(released);
                }
                self.runtime.shutdown_background();
                return;
            }
            let changes = self.watched.take();
            self.take(&changes);
        }
    }

    fn may_write(&self) -> bool {
        self.leads && self.cilium.is_empty()
    }

    /// Until something is to be done that nobody tells of.
    fn pause(&self) -> Duration {
        let now = self.clock.now();
        let mut until = self.renew_at;
        if self.may_write() {
            if !self.waiting.is_empty() || self.addresses_wait {
                until = until.min(now + AGAIN);
            }
            until = self.unsaid.due().map_or(until, |due| until.min(due));
        }
        until.saturating_sub(now)
    }

    fn hold(&mut self) {
        let held = self.leader.hold();
        let held = async { tokio::time::timeout(ANSWERED, held).await };
        let held = self.runtime.block_on(held);
        let held = held.map_or(Err(WriteError::Late), |it| it.map_err(WriteError::from));
        let leads = held.unwrap_or_else(|error| {
            self.figures.failed("lease");
            tracing::error!(%error, "the Lease cannot be had; nothing is written");
            false
        });
        if leads != self.leads {
            tracing::info!(leads, "the Lease");
            self.figures.lease_changed();
        }
        if leads && !self.leads {
            // What waited while another had it may have been done or undone by that one.
            self.unsaid.take_all(self.watched.store().objects());
            self.unsaid.await_until(self.clock.now());
            self.untold = self.problems.iter().filter_map(Untold::of).collect();
        }
        self.leads = leads;
    }

    /// Two operators would write the same objects: this one stops, and goes on when it is alone.
    fn look_for_cilium(&mut self) {
        let found = self.beside.found();
        if found == self.cilium {
            return;
        }
        if found.is_empty() {
            tracing::info!("Cilium has left the cluster; writing again");
        } else {
            let found = list(&found);
            tracing::error!(%found, "Cilium has come into the cluster: nothing is written; take one of both away");
        }
        self.cilium = found;
    }

    /// Tells whoever asks how it stands.
    fn tell(&self) {
        for kind in [Kind::CiliumEnvoyConfig, Kind::Service] {
            let wanted = self.model.wanted_objects().filter(|it| it.kind == kind);
            let waiting = self.waiting.keys().filter(|it| it.kind == kind);
            self.figures.objects(kind, wanted.count(), waiting.count());
        }
        self.figures.turned(Health {
            leads: self.leads,
            follows: self.watched.store().error().is_none(),
            cilium: self.cilium.len(),
            problems: self.problems.len(),
            ..Health::default()
        });
    }

    /// Takes changes of the cluster, and notes what follows from them.
    fn take(&mut self, changes: &[Change]) {
        let restated = self.watched.restated();
        let objects = self.watched.store().objects();
        self.unsaid
            .take(changes, restated, objects, self.clock.now());
        if changes.is_empty() {
            return;
        }
        // What is told of an object is newer than what waits to be written of it: another may have
        // written it meanwhile.
        for change in changes {
            let object = of(change);
            self.addresses_wait |= matches!(object.kind, Kind::Service | Kind::Ingress);
            self.waiting.remove(&object);
        }
        for change in self.model.apply_all(changes) {
            self.waiting.insert(of(&change), change);
        }
        // Secrets are the agents' to read, and theirs to miss.
        let problems = self.model.problems().into_iter();
        let problems = problems.filter(|it| it.code != Code::MissingSecret);
        let problems: BTreeSet<Problem> = problems.collect();
        for problem in problems.difference(&self.problems) {
            tracing::warn!(%problem, "found");
            // Whoever has the Lease tells it.
            self.untold
                .extend(Untold::of(problem).filter(|_| self.leads));
        }
        self.problems = problems;
    }

    /// Writes what waits; what is refused waits on.
    fn write(&mut self) {
        for (reference, change) in std::mem::take(&mut self.waiting) {
            // Later the Lease may be another's.
            if self.clock.now() >= self.renew_at {
                self.waiting.insert(reference, change);
                continue;
            }
            let done = match (&change, self.model.wanted(&reference)) {
                (Change::Delete(_), None) => self.delete(&reference),
                (_, Some(wanted)) => {
                    let wanted = wanted.clone();
                    self.put(&reference, &wanted)
                }
                (Change::Put(_), None) => continue,
            };
            match done {
                Ok(()) => tracing::info!(object = %reference, "written"),
                Err(error) => {
                    tracing::error!(object = %reference, %error, "refused; trying again");
                    self.waiting.insert(reference, change);
                }
            }
        }
        if self.addresses_wait {
            self.addresses_wait = !self.write_addresses();
        }
    }

    fn put(&self, reference: &ObjectRef, wanted: &Object) -> Result<(), WriteError> {
        let api = api_of(&self.client, reference);
        let params = PatchParams::apply(MANAGER).force();
        let body = applied(reference, wanted);
        let patch = Patch::Apply(&body);
        let patched = api.patch(&reference.name, &params, &patch);
        self.ask(reference.kind.name(), "apply", patched).map(drop)
    }

    fn delete(&self, reference: &ObjectRef) -> Result<(), WriteError> {
        const MISSING: u16 = 404;
        let api = api_of(&self.client, reference);
        let params = DeleteParams::default();
        let deleted = async {
            match api.delete(&reference.name, &params).await {
                Err(kube::Error::Api(status)) if status.code == MISSING => Ok(()),
                done => done.map(drop),
            }
        };
        self.ask(reference.kind.name(), "delete", deleted)
    }

    /// Whether every Ingress says the addresses that its Service was given.
    fn write_addresses(&self) -> bool {
        let mut all = true;
        for (ingress, given) in self.model.unsaid() {
            if self.clock.now() >= self.renew_at {
                return false;
            }
            let api = api_of(&self.client, &ingress);
            let body = json!({"status": {"loadBalancer": {"ingress": given}}});
            let (params, patch) = (PatchParams::default(), Patch::Merge(&body));
            let patched = api.patch_status(&ingress.name, &params, &patch);
            if let Err(error) = self.ask(ingress.kind.name(), "status", patched) {
                tracing::error!(object = %ingress, %error, "its status is refused; trying again");
                all = false;
            }
        }
        all
    }

    /// Asks for one write, and counts it.
    fn ask<T>(
        &self,
        kind: &'static str,
        operation: &'static str,
        asked: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, WriteError> {
        self.writes.0.fetch_add(1, Ordering::Relaxed);
        let answered = async { tokio::time::timeout(ANSWERED, asked).await };
        let answered = self.runtime.block_on(answered);
        let answered = answered.map_or(Err(WriteError::Late), |it| it.map_err(WriteError::from));
        self.figures.wrote(kind, operation, answered.is_ok());
        answered
    }
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator")
            .field("leads", &self.leads)
            .finish_non_exhaustive()
    }
}

fn of(change: &Change) -> ObjectRef {
    match change {
        Change::Put(object) => object.reference(),
        Change::Delete(reference) => reference.clone(),
    }
}

/// An object as it is applied: with what is wanted of it, and nothing else.
fn applied(reference: &ObjectRef, object: &Object) -> Value {
    let body = match object {
        Object::Service(it) => serde_json::to_value(it.as_ref()),
        Object::EndpointSlice(it) => serde_json::to_value(it.as_ref()),
        Object::CiliumEnvoyConfig(it) => Ok(json!({"metadata": it.metadata, "spec": it.spec})),
        // The operator makes no others.
        _ => Ok(Value::Null),
    };
    typed(&resource(reference.kind), body.unwrap_or_default())
}
