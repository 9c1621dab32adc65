//! The resources of one kind on one stream: one response at a time, and what became of it.

mod content;
mod question;
mod verdict;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::entry::{Entry, Target, Told, Turn};
use super::proxy::{Protocol, Revision};
use super::resources::{Served, Version};
use super::subscription::{Subscription, is_whole};
use crate::envoy::ResourceKind;
use crate::plan::ResourceName;

pub(super) use content::Content;

/// What a response changes: new versions, and removals.
pub(super) type Changes = BTreeMap<ResourceName, Option<Arc<Served>>>;

/// A response that was sent and not answered yet.
#[derive(Debug)]
struct Flight {
    nonce: u64,
    changes: Changes,
    /// Those of the changes that are new, and not what was acknowledged before.
    new: BTreeSet<ResourceName>,
    /// What has to be sent again although it is acknowledged.
    again: BTreeSet<ResourceName>,
}

/// What must wait: changes that came with or after the first of those that they wait for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gate {
    /// New versions from here on wait.
    pub(super) puts: Option<Revision>,
    /// Removals from here on wait.
    pub(super) removals: Option<Revision>,
    /// New versions up to here wait no longer.
    pub(super) lifted: Option<Revision>,
}

impl Gate {
    fn holds(&self, entry: &Entry, turn: Turn) -> bool {
        let from = match turn {
            Turn::Put if Some(entry.since.unwrap_or_default()) <= self.lifted => return false,
            Turn::Put => self.puts,
            Turn::Removal => self.removals,
        };
        from.is_some_and(|from| from <= entry.changed)
    }
}

/// The resources of one kind.
#[derive(Debug)]
pub(super) struct Channel {
    kind: ResourceKind,
    protocol: Protocol,
    entries: BTreeMap<ResourceName, Entry>,
    subscription: Subscription,
    /// How many planned resources of another kind need one by name.
    needed: BTreeMap<ResourceName, usize>,
    /// What the proxy will ask for, because it took what needs it.
    expected: BTreeSet<ResourceName>,
    /// Subscribed, and not what the proxy has.
    pending: BTreeSet<ResourceName>,
    /// What others wait for, the oldest first.
    puts: BTreeSet<(Revision, ResourceName)>,
    removals: BTreeSet<(Revision, ResourceName)>,
    /// Whether a stream's first question is still to be answered, be it by nothing.
    owed: bool,
    flight: Option<Flight>,
    /// The number of the last response on this stream.
    latest: u64,
    /// Groups of which one was refused, to be tried one by one.
    trials: VecDeque<Vec<(ResourceName, Version)>>,
    /// Whose planned version is refused.
    rejected: BTreeSet<ResourceName>,
}

impl Channel {
    pub(super) fn new(kind: ResourceKind) -> Self {
        Self {
            kind,
            protocol: Protocol::StateOfTheWorld,
            entries: BTreeMap::new(),
            subscription: Subscription::default(),
            needed: BTreeMap::new(),
            expected: BTreeSet::new(),
            pending: BTreeSet::new(),
            puts: BTreeSet::new(),
            removals: BTreeSet::new(),
            owed: false,
            flight: None,
            latest: 0,
            trials: VecDeque::new(),
            rejected: BTreeSet::new(),
        }
    }

    pub(super) fn entries(&self) -> &BTreeMap<ResourceName, Entry> {
        &self.entries
    }

    pub(super) fn rejected(&self) -> &BTreeSet<ResourceName> {
        &self.rejected
    }

    /// Whether all was said and answered.
    pub(super) fn is_settled(&self) -> bool {
        let asked = self.subscription.asked || !is_whole(self.kind);
        let late = !self.puts.is_empty() || !self.removals.is_empty();
        asked && !late && self.pending.is_empty() && self.flight.is_none() && !self.owed
    }

    /// Whether a number is that of the last response.
    pub(super) fn is_latest(&self, nonce: Option<&u64>) -> bool {
        nonce == Some(&self.latest)
    }

    /// The first change that is not acknowledged, of those that a proxy can acknowledge.
    pub(super) fn first(&self, turn: Turn) -> Option<Revision> {
        let late = match turn {
            Turn::Put => &self.puts,
            Turn::Removal => &self.removals,
        };
        late.first().map(|(since, _)| *since)
    }

    /// The first change that is held back.
    pub(super) fn held(&self, gate: &Gate) -> Option<Revision> {
        let held = self.pending.iter().filter_map(|name| {
            let entry = self.entries.get(name)?;
            let held = self.turn(name, entry) == Turn::Put && gate.holds(entry, Turn::Put);
            held.then_some(entry.since.unwrap_or_default())
        });
        held.min()
    }

    /// The plan changed a resource; what was planned before.
    pub(super) fn plan(
        &mut self,
        name: &ResourceName,
        served: Option<Arc<Served>>,
        revision: Revision,
    ) -> Option<Arc<Served>> {
        if served.is_none() && !self.entries.contains_key(name) {
            return None;
        }
        let told = if self.subscription.asked {
            Told::Absent
        } else {
            Told::Unknown
        };
        let entry = self
            .entries
            .entry(name.clone())
            .or_insert_with(|| Entry::unplanned(told));
        let before = entry.planned.clone();
        let version = |it: &Option<Arc<Served>>| it.as_ref().map(|it| it.version);
        if version(&before) == version(&served) {
            // The same bytes can have become another object's.
            entry.planned = served;
        } else {
            entry.plan(served, revision);
        }
        self.refresh(name);
        before
    }

    /// One more or one fewer planned resource needs that name.
    pub(super) fn need(&mut self, name: &ResourceName, more: bool) {
        let count = self.needed.entry(name.clone()).or_default();
        *count = if more {
            *count + 1
        } else {
            count.saturating_sub(1)
        };
        if *count == 0 {
            self.needed.remove(name);
            self.expected.remove(name);
        }
        self.refresh(name);
    }

    /// A stream begins.
    pub(super) fn begin(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.subscription = Subscription::default();
        self.expected.clear();
        self.pending.clear();
        self.puts.clear();
        self.removals.clear();
        self.owed = false;
        for name in self
            .flight
            .take()
            .iter()
            .flat_map(|flight| flight.changes.keys())
        {
            if let Some(entry) = self.entries.get_mut(name) {
                entry.doubt = true;
            }
        }
        self.latest = 0;
        self.trials.clear();
        let whole = is_whole(self.kind);
        // What is to go, and was not acknowledged as gone, may still be there.
        self.entries.retain(|_, entry| {
            entry.planned.is_some() || whole && (entry.good.is_some() || entry.doubt)
        });
        self.entries.values_mut().for_each(Entry::forget);
    }

    /// Has a resource sent again, because what needs it was changed.
    pub(super) fn again(&mut self, name: &ResourceName, revision: Revision) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        entry.doubt = true;
        if !self.subscription.has(name) {
            return;
        }
        entry.told = Told::Unknown;
        entry.since = Some(entry.since.map_or(revision, |since| since.min(revision)));
        if let Some(flight) = self
            .flight
            .as_mut()
            .filter(|it| it.changes.contains_key(name))
        {
            flight.again.insert(name.clone());
        }
        self.refresh(name);
    }

    /// The proxy has what needs that name: it will ask for it, and others wait until it has it.
    pub(super) fn expect(&mut self, name: &ResourceName) {
        if self.subscription.has(name) || !self.needed.contains_key(name) {
            return;
        }
        if let Some(entry) = self.entries.get_mut(name) {
            entry.since.get_or_insert(entry.changed);
            self.expected.insert(name.clone());
        }
        self.refresh(name);
    }

    fn target(&self, name: &str, entry: &Entry) -> Target {
        if let Some(best) = entry.best() {
            return Target::Put(Arc::clone(best));
        }
        let Some(blank) = Served::blank(self.kind, name) else {
            return Target::Gone;
        };
        // A listener that goes keeps its routes while its connections drain.
        let wanted = entry.planned.is_some()
            || self.needed.contains_key(name)
            || entry.told == Told::Absent
            || entry.has(&blank);
        if wanted && entry.refusal_of(blank.version).is_none() {
            Target::Put(Arc::new(blank))
        } else {
            Target::Leave
        }
    }

    /// Whether the proxy has another thing than it shall have, and can be told so.
    fn differs(&self, name: &str, entry: &Entry) -> bool {
        match self.target(name, entry) {
            Target::Leave => false,
            Target::Put(served) => !entry.has(&served),
            Target::Gone => {
                let sayable = is_whole(self.kind) || self.protocol == Protocol::Incremental;
                sayable && entry.told != Told::Absent
            }
        }
    }

    fn turn(&self, name: &str, entry: &Entry) -> Turn {
        match self.target(name, entry) {
            Target::Gone => Turn::Removal,
            Target::Put(_) | Target::Leave => Turn::Put,
        }
    }

    fn refresh_all(&mut self) {
        let names: Vec<ResourceName> = self.entries.keys().cloned().collect();
        names.iter().for_each(|name| self.refresh(name));
    }

    /// Puts a resource where it belongs after a change to it.
    fn refresh(&mut self, name: &ResourceName) {
        let Some(entry) = self.entries.get(name) else {
            return;
        };
        let subscribed = self.subscription.has(name);
        let differs = subscribed && self.differs(name, entry);
        let flies = self
            .flight
            .as_ref()
            .is_some_and(|it| it.changes.contains_key(name));
        let settled = subscribed && !differs && !flies;
        let since = entry.since.or_else(|| differs.then_some(entry.changed));
        let since = since.filter(|_| !settled);
        let relevant = subscribed || self.expected.contains(name);
        let turn = self.turn(name, entry);
        let place = since.filter(|_| relevant).map(|since| (turn, since));
        let refused = entry.verdict().is_some();
        let vacant = entry.planned.is_none()
            && !flies
            && !differs
            && match is_whole(self.kind) {
                true => self.subscription.asked && entry.told == Told::Absent,
                false => !subscribed,
            };
        let before = entry.place;
        if let Some((turn, since)) = before.filter(|_| before != place) {
            self.late(turn).remove(&(since, name.clone()));
        }
        if let Some((turn, since)) = place.filter(|_| before != place) {
            self.late(turn).insert((since, name.clone()));
        }
        mark(&mut self.pending, name, differs);
        mark(&mut self.rejected, name, refused);
        if vacant {
            self.entries.remove(name);
        } else if let Some(entry) = self.entries.get_mut(name) {
            (entry.since, entry.place) = (since, place);
        }
    }

    fn late(&mut self, turn: Turn) -> &mut BTreeSet<(Revision, ResourceName)> {
        match turn {
            Turn::Put => &mut self.puts,
            Turn::Removal => &mut self.removals,
        }
    }
}

fn mark(set: &mut BTreeSet<ResourceName>, name: &ResourceName, there: bool) {
    if !there {
        set.remove(name);
    } else if !set.contains(name) {
        set.insert(name.clone());
    }
}
