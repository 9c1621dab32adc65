//! The resources of one kind on one stream: one response at a time, and what became of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::blame::{Blame, blame};
use super::entry::{Entry, Refusal, Target, Told, Turn};
use super::proxy::{Protocol, Revision};
use super::resources::{Served, Version};
use super::subscription::{Shift, Subscription, is_whole};
use crate::envoy::ResourceKind;
use crate::plan::ResourceName;

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

/// What a response holds.
pub(super) struct Content {
    pub(super) put: Vec<(ResourceName, Arc<Served>)>,
    pub(super) removed: Vec<ResourceName>,
    /// What differs from what the proxy has.
    pub(super) changes: Changes,
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

    // What the plan says.

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

    // What the proxy says.

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

    /// The whole list of names; `fresh` when the proxy has nothing of this kind.
    pub(super) fn ask_for(&mut self, names: &[String], fresh: bool) {
        let first = !self.subscription.asked;
        let shift = self.subscription.replace(self.kind, names);
        if first && fresh {
            self.entries
                .values_mut()
                .for_each(|entry| entry.told = Told::Absent);
        }
        let known = first && !fresh;
        self.owed |= first && self.subscription.wildcard;
        self.subscribed(shift, |_| if known { Told::Unknown } else { Told::Absent });
        if first {
            self.refresh_all();
        }
    }

    /// Names that come and go; with a stream's first question what the proxy has.
    pub(super) fn ask(
        &mut self,
        subscribe: &[String],
        unsubscribe: &[String],
        initial: &BTreeMap<String, String>,
    ) {
        let first = !self.subscription.asked;
        let shift = self.subscription.change(self.kind, subscribe, unsubscribe);
        if first {
            for name in initial.keys() {
                self.entries
                    .entry(name.as_str().into())
                    .or_insert_with(|| Entry {
                        since: Some(0),
                        ..Entry::unplanned(Told::Unknown)
                    });
            }
            for (name, entry) in &mut self.entries {
                entry.told = told(entry, initial.get(&**name).map(String::as_str));
            }
        }
        let known: BTreeSet<ResourceName> = if first {
            initial.keys().map(|name| name.as_str().into()).collect()
        } else {
            BTreeSet::new()
        };
        // A proxy that has something was answered before.
        self.owed |= first && self.subscription.wildcard && initial.is_empty();
        self.subscribed(shift, |name| {
            if known.contains(name) {
                Told::Unknown
            } else {
                Told::Absent
            }
        });
        if first {
            self.refresh_all();
        }
    }

    fn subscribed(&mut self, shift: Shift, told: impl Fn(&str) -> Told) {
        for name in shift.added {
            self.expected.remove(&name);
            let told = told(&name);
            let entry = self
                .entries
                .entry(name.clone())
                .or_insert_with(|| Entry::unplanned(told.clone()));
            if told == Told::Absent {
                entry.told = told;
            }
            self.refresh(&name);
        }
        for name in shift.dropped {
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.told = Told::Absent;
            }
            self.refresh(&name);
        }
    }

    /// The proxy took the response of that number; what it then has.
    pub(super) fn acknowledge(&mut self, nonce: u64) -> Changes {
        let Some(flight) = self.flight.take_if(|flight| flight.nonce == nonce) else {
            return Changes::new();
        };
        for (name, content) in &flight.changes {
            if let Some(entry) = self.entries.get_mut(name) {
                entry.took(content.clone());
                if flight.again.contains(name) {
                    (entry.told, entry.doubt) = (Told::Unknown, true);
                }
            }
            self.refresh(name);
        }
        flight.changes
    }

    /// The proxy refused something in the response of that number, and took the rest.
    pub(super) fn refuse(&mut self, nonce: u64, words: &str) {
        let Some(flight) = self.flight.take_if(|flight| flight.nonce == nonce) else {
            return;
        };
        let mut puts: BTreeMap<ResourceName, Version> = BTreeMap::new();
        for (name, content) in &flight.changes {
            let Some(entry) = self.entries.get_mut(name) else {
                continue;
            };
            match content {
                Some(served) => {
                    puts.insert(name.clone(), served.version);
                }
                // There is nothing in a removal to refuse.
                None => entry.took(None),
            }
        }
        // What the proxy took once is in doubt only when there is nothing else.
        if puts.keys().any(|name| flight.new.contains(name)) {
            puts.retain(|name, _| flight.new.contains(name));
        }
        let changed: Vec<ResourceName> = puts.keys().cloned().collect();
        if !changed.is_empty() {
            self.judge(&puts, blame(&changed, words));
        }
        for name in flight.changes.keys() {
            self.refresh(name);
        }
    }

    fn judge(&mut self, puts: &BTreeMap<ResourceName, Version>, blame: Blame) {
        let version = |name: ResourceName| {
            let version = *puts.get(&name)?;
            Some((name, version))
        };
        let (guilty, groups) = match blame {
            Blame::Refused(guilty) => {
                let named = |name: &ResourceName| guilty.iter().any(|(it, _)| it == name);
                let rest: Vec<_> = puts.keys().filter(|name| !named(name)).cloned().collect();
                // While others are tried, they are tried among them.
                let rest = (!self.trials.is_empty() && !rest.is_empty()).then_some(rest);
                (guilty, rest.into_iter().collect())
            }
            Blame::Unclear(groups) => (Vec::new(), groups),
        };
        for group in groups.into_iter().rev() {
            let group = group.into_iter().filter_map(version).collect();
            self.trials.push_front(group);
        }
        let guilty: BTreeMap<ResourceName, String> = guilty.into_iter().collect();
        for (name, version) in puts {
            let Some(entry) = self.entries.get_mut(name) else {
                continue;
            };
            if let Some(words) = guilty.get(name) {
                let (version, words) = (*version, words.clone());
                entry.refused.push(Refusal { version, words });
            }
            // It may have been taken nonetheless; only an acknowledgement says what is there.
            (entry.told, entry.doubt) = (Told::Unknown, true);
        }
    }

    // What is said to the proxy.

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

    /// The next response, if there is one and it may be sent.
    pub(super) fn next(&mut self, gate: &Gate, nonce: u64) -> Option<Content> {
        if self.flight.is_some() || !self.subscription.asked {
            return None;
        }
        let (chosen, content) = self.tried().or_else(|| self.free(gate))?;
        for (name, content) in &content.changes {
            if let Some(entry) = self.entries.get_mut(name) {
                entry.sent = content.as_ref().map(|served| served.version);
                entry.unsent = None;
            }
        }
        (self.owed, self.latest) = (false, nonce);
        let changes = content.changes.clone();
        self.flight = Some(Flight {
            nonce,
            changes,
            new: chosen,
            again: BTreeSet::new(),
        });
        Some(content)
    }

    /// A response with the next group to try.
    fn tried(&mut self) -> Option<(BTreeSet<ResourceName>, Content)> {
        let chosen = self.trial()?;
        let content = self.content(&chosen);
        if content.is_none() {
            // They are found once more when all can be told.
            self.trials.clear();
        }
        Some((chosen, content?))
    }

    /// A response with all that does not wait.
    fn free(&self, gate: &Gate) -> Option<(BTreeSet<ResourceName>, Content)> {
        let free = |name: &&ResourceName| {
            let entry = self.entries.get(*name);
            entry.is_some_and(|entry| !gate.holds(entry, self.turn(name, entry)))
        };
        let chosen: BTreeSet<_> = self.pending.iter().filter(free).cloned().collect();
        let answers = self.owed && self.pending.is_empty();
        if chosen.is_empty() && !answers {
            return None;
        }
        let content = self.content(&chosen)?;
        Some((chosen, content))
    }

    /// The next group to try, of those that are still as they were refused.
    fn trial(&mut self) -> Option<BTreeSet<ResourceName>> {
        while let Some(group) = self.trials.pop_front() {
            let stands = |(name, version): (ResourceName, Version)| {
                let entry = self.entries.get(&name)?;
                let same =
                    matches!(self.target(&name, entry), Target::Put(it) if it.version == version);
                (same && self.pending.contains(&name)).then_some(name)
            };
            let group: BTreeSet<ResourceName> = group.into_iter().filter_map(stands).collect();
            if !group.is_empty() {
                return Some(group);
            }
        }
        None
    }

    fn content(&self, chosen: &BTreeSet<ResourceName>) -> Option<Content> {
        let whole = is_whole(self.kind) && self.protocol == Protocol::StateOfTheWorld;
        if whole {
            self.whole(chosen)
        } else {
            Some(self.part(chosen))
        }
    }

    fn part(&self, chosen: &BTreeSet<ResourceName>) -> Content {
        let mut content = Content {
            put: Vec::new(),
            removed: Vec::new(),
            changes: Changes::new(),
        };
        for name in chosen {
            let Some(entry) = self.entries.get(name) else {
                continue;
            };
            match self.target(name, entry) {
                Target::Put(served) => {
                    content
                        .changes
                        .insert(name.clone(), Some(Arc::clone(&served)));
                    content.put.push((name.clone(), served));
                }
                Target::Gone => {
                    content.changes.insert(name.clone(), None);
                    content.removed.push(name.clone());
                }
                Target::Leave => {}
            }
        }
        content
    }

    /// All that the proxy shall have after this response; none as long as it would take something
    /// away whose new version waits.
    fn whole(&self, chosen: &BTreeSet<ResourceName>) -> Option<Content> {
        let mut content = self.part(chosen);
        for (name, entry) in &self.entries {
            if chosen.contains(name) || !self.subscription.has(name) {
                continue;
            }
            if let Some(kept) = entry.kept() {
                if entry.told == Told::Unknown {
                    content.changes.insert(name.clone(), Some(Arc::clone(kept)));
                }
                content.put.push((name.clone(), Arc::clone(kept)));
            } else if entry.told == Told::Unknown {
                match self.target(name, entry) {
                    // It comes when it is tried.
                    Target::Put(_) if entry.doubt => {}
                    Target::Put(_) => return None,
                    Target::Gone | Target::Leave => {
                        content.changes.insert(name.clone(), None);
                    }
                }
            }
        }
        content.put.sort_by(|one, other| one.0.cmp(&other.0));
        Some(content)
    }

    // How it is kept.

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

/// What a proxy that says which version it has is known to have.
fn told(entry: &mut Entry, version: Option<&str>) -> Told {
    // What was taken of a refused response is not among the versions that it states.
    if entry.doubt {
        return Told::Unknown;
    }
    let Some(version) = version else {
        return Told::Absent;
    };
    let Ok(version) = version.parse::<Version>() else {
        return Told::Unknown;
    };
    let known = [&entry.planned, &entry.good];
    let known = known.into_iter().flatten().find(|it| it.version == version);
    match known.cloned() {
        Some(served) => {
            entry.good = Some(Arc::clone(&served));
            Told::Has(served)
        }
        None => Told::Unknown,
    }
}
