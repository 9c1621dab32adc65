//! The operator: Ingresses of a cluster become configs and Services there.
//!
//! ```text
//!  watches ─► core::ingress::Operator ─► what is not there yet ─► server-side apply
//! ```
//!
//! Every one watches and plans; the one that holds the Lease writes. What is there as it should be is
//! not written again, so that a cluster in which nothing happens is left alone.

use std::collections::{BTreeMap, BTreeSet};
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

use crate::kube::lease::{Leader, RENEWED};
use crate::kube::{
    BesideCilium, ClientError, Lost, Watched, Wish, api_of, connect, refuse_beside_cilium,
    resource, typed,
};

/// Who owns the fields that are written.
const MANAGER: &str = "nodeway-operator";
/// The name of the Lease.
const LEASE: &str = "nodeway-operator";
/// Between two tries to write what was refused.
const AGAIN: Duration = Duration::from_secs(2);

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
}

enum Event {
    Told,
    Stop,
}

/// Ends an operator from elsewhere.
#[derive(Clone, Debug)]
pub struct Stop(Sender<Event>);

impl Stop {
    /// Ends it. What it wrote stays.
    pub fn now(&self) {
        // It has ended by itself.
        let _ = self.0.send(Event::Stop);
    }
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
    events: Receiver<Event>,
    sender: Sender<Event>,
    writes: Writes,
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
        let watched = Watched::begin(runtime.handle(), &client, Wish::of_operator(), wake)?;
        let leader = Leader::new(client.clone(), &options.namespace, LEASE, &options.identity);
        let mut operator = Self {
            leader,
            leads: false,
            waiting: BTreeMap::new(),
            addresses_wait: false,
            problems: BTreeSet::new(),
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
        Ok(operator)
    }

    /// What ends it from elsewhere.
    #[must_use]
    pub fn stop(&self) -> Stop {
        Stop(self.sender.clone())
    }

    /// How often it writes.
    #[must_use]
    pub fn writes(&self) -> Writes {
        self.writes.clone()
    }

    /// Runs until it is stopped.
    pub fn run(mut self) {
        let mut until_renewed = Duration::ZERO;
        loop {
            if until_renewed.is_zero() {
                self.hold();
                until_renewed = RENEWED;
            }
            if self.leads {
                self.write();
            }
            let nothing_waits = self.waiting.is_empty() && !self.addresses_wait;
            let pause = if nothing_waits || !self.leads {
                until_renewed
            } else {
                AGAIN.min(until_renewed)
            };
            let clock = crate::clock::Clock::start();
            let first = self.events.recv_timeout(pause).ok();
            until_renewed = until_renewed.saturating_sub(clock.now());
            let events: Vec<Event> = first.into_iter().chain(self.events.try_iter()).collect();
            if events.iter().any(|it| matches!(it, Event::Stop)) {
                if self.leads {
                    self.runtime.block_on(self.leader.release());
                }
                self.runtime.shutdown_background();
                return;
            }
            let changes = self.watched.take();
            self.take(&changes);
        }
    }

    fn hold(&mut self) {
        let held = self.runtime.block_on(self.leader.hold());
        let leads = held.unwrap_or_else(|error| {
            tracing::error!(%error, "the Lease cannot be had; nothing is written");
            false
        });
        if leads != self.leads {
            tracing::info!(leads, "the Lease");
        }
        self.leads = leads;
    }

    /// Takes changes of the cluster, and notes what follows from them.
    fn take(&mut self, changes: &[Change]) {
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
        }
        self.problems = problems;
    }

    /// Writes what waits; what is refused waits on.
    fn write(&mut self) {
        for (reference, change) in std::mem::take(&mut self.waiting) {
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

    fn put(&self, reference: &ObjectRef, wanted: &Object) -> Result<(), kube::Error> {
        let api = api_of(&self.client, reference);
        let params = PatchParams::apply(MANAGER).force();
        let body = applied(reference, wanted);
        self.count();
        let patch = Patch::Apply(&body);
        let patched = api.patch(&reference.name, &params, &patch);
        self.runtime.block_on(patched).map(drop)
    }

    fn delete(&self, reference: &ObjectRef) -> Result<(), kube::Error> {
        const MISSING: u16 = 404;
        let api = api_of(&self.client, reference);
        self.count();
        let params = DeleteParams::default();
        let deleted = api.delete(&reference.name, &params);
        match self.runtime.block_on(deleted) {
            Err(kube::Error::Api(status)) if status.code == MISSING => Ok(()),
            done => done.map(drop),
        }
    }

    /// Whether every Ingress says the addresses that its Service was given.
    fn write_addresses(&self) -> bool {
        let mut all = true;
        for (ingress, given) in self.model.unsaid() {
            let api = api_of(&self.client, &ingress);
            let body = json!({"status": {"loadBalancer": {"ingress": given}}});
            self.count();
            let (params, patch) = (PatchParams::default(), Patch::Merge(&body));
            let patched = api.patch_status(&ingress.name, &params, &patch);
            if let Err(error) = self.runtime.block_on(patched) {
                tracing::error!(object = %ingress, %error, "its status is refused; trying again");
                all = false;
            }
        }
        all
    }

    fn count(&self) {
        self.writes.0.fetch_add(1, Ordering::Relaxed);
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
