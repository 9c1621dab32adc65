//! The supervisor of a node's Envoy: starts generations, watches them, ends them.
//!
//! It is a process of its own, so that an agent's death is no Envoy's. Its own death is none either:
//! Envoy is in a process group of its own, and the next supervisor adopts it. Envoy runs without
//! hot restart, so that no two of them share memory, whatever they are called.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use nix::sys::signal::Signal;

use super::ending::{Seen, Step, step};
use super::record::{AGENT_SOCKET, GenerationError, Record, every};
use super::words::Words;
use super::{Bounds, Phase};
use crate::clock::Clock;
use crate::envoy::{Envoy, EnvoyError, EnvoyOptions};
use crate::netns::{NetNs, NetNsError};

/// How often is looked at what nobody tells of.
const LOOK: Duration = Duration::from_millis(50);
/// An Envoy that ran for that long before it crashed is started again at once.
const STEADY: Duration = Duration::from_secs(60);
/// An Envoy that does not answer holds up no other.
const ANSWER: Duration = Duration::from_millis(500);

/// What a supervisor is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisorOptions {
    /// Where agent and Envoys meet.
    pub run: PathBuf,
    /// The node.
    pub node: String,
    /// The program.
    pub program: PathBuf,
    /// Worker threads of each Envoy.
    pub concurrency: u16,
    /// Whether each request gets a line in the access log.
    pub access_log: bool,
    /// How long each step of an end waits for others.
    pub bounds: Bounds,
}

impl SupervisorOptions {
    /// What stands after `nodeway envoy`.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let seconds = |it: Duration| it.as_secs().to_string().into();
        let mut all: Vec<OsString> = vec!["--node".into(), (&self.node).into()];
        all.extend(["--run-dir".into(), (&self.run).into()]);
        all.extend(["--envoy".into(), (&self.program).into()]);
        all.extend(["--concurrency".into(), self.concurrency.to_string().into()]);
        if self.access_log {
            all.push("--access-log".into());
        }
        all.extend(["--handover".into(), seconds(self.bounds.handover)]);
        all.extend(["--drain".into(), seconds(self.bounds.drain)]);
        all
    }
}

/// What a supervisor may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Another generation in the place of the one that runs.
    Upgrade,
    /// The end of all of them, in peace.
    End,
    /// The end, now.
    EndNow,
    /// The end of the supervisor alone: its Envoys go on, for another to adopt.
    Leave,
}

/// Why there is no Envoy.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// It does not start.
    #[error(transparent)]
    Envoy(#[from] EnvoyError),
    /// Its record.
    #[error(transparent)]
    Record(#[from] GenerationError),
    /// The node's namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

/// The supervisor of one node's Envoy.
pub struct Supervisor {
    options: SupervisorOptions,
    netns: NetNs,
    clock: Clock,
    /// In the order in which they were begun.
    all: Vec<Supervised>,
    /// When the next may be started, after a crash.
    again: Option<Duration>,
    delays: ExponentialBackoff,
    ending: bool,
}

/// A generation that is looked after.
struct Supervised {
    record: Record,
    envoy: Envoy,
    words: Words,
    /// Since when it is in its phase.
    since: Duration,
}

impl Supervisor {
    /// Adopts the Envoy that an earlier supervisor of this run directory left, or starts one, in
    /// the network namespace of the calling thread.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(options: SupervisorOptions) -> Result<Self, SupervisorError> {
        let mut own = Self {
            netns: NetNs::current()?,
            clock: Clock::start(),
            all: Vec::new(),
            again: None,
            delays: delays(),
            ending: false,
            options,
        };
        own.adopt()?;
        if own.running().is_none() {
            own.begin()?;
        }
        Ok(own)
    }

    /// Looks after them until the end that is ordered.
    pub fn run(mut self, orders: &Receiver<Order>) {
        loop {
            match orders.recv_timeout(LOOK) {
                Ok(Order::Upgrade) if !self.ending => self.upgrade(),
                Ok(Order::Upgrade) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => self.retire_all(),
                Ok(Order::EndNow) => {
                    while let Some(last) = self.all.pop() {
                        self.end(last, None);
                    }
                    return;
                }
                Ok(Order::Leave) => return,
            }
            self.look();
            if self.ending && self.all.is_empty() {
                return;
            }
        }
    }

    /// Takes over those that nobody looks after, and clears away what is left of those that are
    /// gone.
    fn adopt(&mut self) -> Result<(), SupervisorError> {
        for mut record in every(&self.options.run)? {
            if record.node != self.options.node || record.supervisor.lives() {
                continue;
            }
            if !record.process.lives() {
                record.remove()?;
                continue;
            }
            tracing::info!(generation = record.id, pid = record.process.pid, "adopted");
            record.supervisor = crate::process::Process::own();
            record.write()?;
            let folder = record.folder();
            let envoy = Envoy::adopt_process(&folder, &record.node, record.process);
            self.all.push(Supervised {
                words: Words::from_now(&record.log()),
                since: self.clock.now(),
                envoy,
                record,
            });
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), SupervisorError> {
        let (id, folder) = Record::claim(&self.options.run)?;
        let options = EnvoyOptions {
            concurrency: self.options.concurrency,
            access_log: self.options.access_log,
            drain: self.options.bounds.drain,
            ..EnvoyOptions::new(self.options.program.clone(), folder.clone(), id.clone())
        };
        // From its own folder: a Unix socket's path has 107 bytes at most.
        let agent = format!("../../{AGENT_SOCKET}");
        let envoy = Envoy::start_told(&self.netns, &agent, &options)?.leave();
        let process = envoy.process();
        let run = &self.options.run;
        let record = Record::new(run, id, &self.options.node, process, &self.options.program);
        record.write()?;
        tracing::info!(generation = record.id, pid = process.pid, "started");
        self.all.push(Supervised {
            words: Words::of(&record.log()),
            since: self.clock.now(),
            envoy,
            record,
        });
        Ok(())
    }

    /// A new one beside the one that runs; that one retires. Without a new one it stays.
    fn upgrade(&mut self) {
        match self.begin() {
            Ok(()) => {
                let older = self.all.len().saturating_sub(1);
                for index in 0..older {
                    self.retire(index);
                }
            }
            Err(error) => tracing::error!(%error, "no new Envoy; the old one stays"),
        }
    }

    fn retire_all(&mut self) {
        if !self.ending {
            // Who pressed Ctrl-C waits for it, and shall know for what.
            let Bounds { handover, drain } = self.options.bounds;
            tracing::info!(
                ?handover,
                ?drain,
                "to end: first the agent leads frontends elsewhere, then connections end, each \
                 within its bound; the same signal once more ends it at once"
            );
        }
        self.ending = true;
        for index in 0..self.all.len() {
            self.retire(index);
        }
    }

    fn retire(&mut self, index: usize) {
        if let Some(it) = self.all.get_mut(index)
            && it.record.phase == Phase::Running
        {
            it.enter(Phase::Retiring, self.clock.now());
        }
    }

    fn look(&mut self) {
        let now = self.clock.now();
        let mut next = Vec::new();
        for mut it in std::mem::take(&mut self.all) {
            it.words.pass_on(&it.record.id);
            if !it.envoy.lives() {
                self.gone(it, now);
                continue;
            }
            match step(it.record.phase, &it.seen(now), &self.options.bounds) {
                Step::Wait => next.push(it),
                Step::Drain => {
                    it.drain(now);
                    next.push(it);
                }
                Step::End { cut } => self.end(it, cut),
            }
        }
        self.all = next;
        if self.again.is_some_and(|at| at <= now) && !self.ending {
            self.again = None;
            if let Err(error) = self.begin() {
                tracing::error!(%error, "Envoy does not start");
                self.try_again(now);
            }
        }
    }

    /// One has ended by itself. If it was the one that runs, another takes its place.
    fn gone(&mut self, it: Supervised, now: Duration) {
        let ran = now.saturating_sub(it.since);
        let words = it.envoy.words();
        tracing::error!(
            generation = it.record.id,
            words,
            "Envoy has ended by itself"
        );
        clear(&it.record);
        if it.record.phase == Phase::Running && !self.ending {
            if ran >= STEADY {
                self.delays = delays();
            }
            self.try_again(now);
        }
    }

    fn try_again(&mut self, now: Duration) {
        let delay = self.delays.next().unwrap_or(STEADY);
        tracing::info!(after = ?delay, "another Envoy");
        self.again = Some(now + delay);
    }

    fn end(&self, it: Supervised, cut: Option<u64>) {
        let cut = cut.or_else(|| it.record.admin().within(ANSWER).connections().ok());
        tracing::info!(generation = it.record.id, cut, "ended");
        it.envoy.process().signal(Signal::SIGTERM);
        let record = it.record;
        if let Err(error) = it.envoy.stop() {
            tracing::warn!(%error, generation = record.id, "something of it stays");
        }
        clear(&record);
    }

    fn running(&self) -> Option<&Supervised> {
        let mut all = self.all.iter();
        all.find(|it| it.record.phase == Phase::Running)
    }
}

impl Supervised {
    fn seen(&self, now: Duration) -> Seen {
        let draining = self.record.phase == Phase::Draining;
        let connections = || self.record.admin().within(ANSWER).connections().ok();
        Seen {
            age: now.saturating_sub(self.since),
            unled: self.record.is_unled(),
            connections: draining.then(connections).flatten(),
        }
    }

    fn drain(&mut self, now: Duration) {
        let asked = self
            .record
            .admin()
            .post("/drain_listeners?graceful&skip_exit");
        if let Err(error) = asked {
            tracing::warn!(%error, generation = self.record.id, "it cannot be asked to drain");
        }
        self.enter(Phase::Draining, now);
    }

    fn enter(&mut self, phase: Phase, now: Duration) {
        tracing::info!(generation = self.record.id, %phase, "goes on");
        self.record.phase = phase;
        self.since = now;
        if let Err(error) = self.record.write() {
            tracing::error!(%error, generation = self.record.id, "the agent cannot be told");
        }
    }
}

fn clear(record: &Record) {
    if let Err(error) = record.remove() {
        tracing::warn!(%error, generation = record.id, "something of it stays");
    }
}

/// From a fifth of a second to ten seconds.
fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .without_max_times()
        .build()
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
