//! One resource: what is planned, what the proxy was told, what it took and what it refused.

use std::sync::Arc;

use super::proxy::Revision;
use super::resources::{Served, Version};

/// What the proxy has on the other end of the stream, as far as it said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It may have any version or none: a new stream, or a refused response.
    Unknown,
    /// It has none.
    Absent,
    /// It acknowledged this one.
    Has(Arc<Served>),
}

/// What the proxy shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// What it has, whatever that is.
    Leave,
    /// None.
    Gone,
    /// This one.
    Put(Arc<Served>),
}

/// A version that the proxy refused.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) version: Version,
    /// The proxy's own words.
    pub(super) words: String,
}

/// One resource.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) planned: Option<Arc<Served>>,
    /// When the plan last changed it.
    pub(super) changed: Revision,
    /// The first change that the proxy has not taken yet; none when it is up to date.
    pub(super) since: Option<Revision>,
    /// The first change since it was sent last.
    pub(super) unsent: Option<Revision>,
    pub(super) told: Told,
    /// The last version that was sent on this stream.
    pub(super) sent: Option<Version>,
    /// The last planned version that was acknowledged, on whichever stream: to come back to.
    pub(super) good: Option<Arc<Served>>,
    /// The planned version that the proxy acknowledged last, as long as it may have it.
    pub(super) acknowledged: Option<Version>,
    /// Whether what is there is unsure whatever the proxy states: a version that was not
    /// acknowledged, or a cluster's endpoints that it waits for.
    pub(super) doubt: bool,
    /// What was refused since the plan last changed it.
    pub(super) refused: Vec<Refusal>,
    /// Where it stands among those that others wait for.
    pub(super) place: Option<(Turn, Revision)>,
}

/// Whether a change makes or breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Put,
    Removal,
}

impl Entry {
    /// A resource of which the proxy has none, and that nobody planned.
    pub(super) fn unplanned(told: Told) -> Self {
        Self {
            planned: None,
            changed: 0,
            since: None,
            unsent: None,
            told,
            sent: None,
            good: None,
            acknowledged: None,
            doubt: false,
            refused: Vec::new(),
            place: None,
        }
    }

    pub(super) fn refusal_of(&self, version: Version) -> Option<&Refusal> {
        self.refused.iter().find(|it| it.version == version)
    }

    /// Why the planned version is not what the proxy has.
    pub(super) fn verdict(&self) -> Option<&Refusal> {
        self.refusal_of(self.planned.as_ref()?.version)
    }

    /// The newest version of the plan that was not refused.
    pub(super) fn best(&self) -> Option<&Arc<Served>> {
        let planned = self.planned.as_ref()?;
        [Some(planned), self.good.as_ref()]
            .into_iter()
            .flatten()
            .find(|served| self.refusal_of(served.version).is_none())
    }

    /// What the proxy can go on with while a change waits.
    pub(super) fn kept(&self) -> Option<&Arc<Served>> {
        match &self.told {
            Told::Has(served) => Some(served),
            Told::Absent => None,
            Told::Unknown => self
                .good
                .as_ref()
                .filter(|good| self.refusal_of(good.version).is_none()),
        }
    }

    pub(super) fn has(&self, served: &Served) -> bool {
        matches!(&self.told, Told::Has(told) if told.version == served.version)
    }

    /// The plan says another thing.
    pub(super) fn plan(&mut self, served: Option<Arc<Served>>, revision: Revision) {
        self.planned = served;
        self.changed = revision;
        self.since.get_or_insert(revision);
        self.unsent.get_or_insert(revision);
        self.refused.clear();
    }

    /// The proxy took it. An answer that says "none" is nothing to come back to.
    pub(super) fn took(&mut self, content: Option<Arc<Served>>, is_blank: bool) {
        self.doubt = false;
        match content {
            Some(served) => {
                if !is_blank {
                    self.good = Some(Arc::clone(&served));
                }
                self.acknowledged = (!is_blank).then_some(served.version);
                self.told = Told::Has(served);
            }
            None => {
                self.good = None;
                self.lost();
            }
        }
        // What came after that is later than what was waited for.
        if self.since.is_some() {
            self.since = self.unsent.or(Some(self.changed));
        }
    }

    /// The proxy has it no longer.
    pub(super) fn lost(&mut self) {
        self.told = Told::Absent;
        self.acknowledged = None;
    }

    /// A stream begins: nothing is known of its other end.
    pub(super) fn forget(&mut self) {
        self.told = Told::Unknown;
        self.sent = None;
        self.since = Some(0);
        self.place = None;
    }
}
