//! What a proxy asks for: names, and with a stream's first question what it has already.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Channel;
use crate::xds::entry::{Entry, Told};
use crate::xds::resources::Version;
use crate::xds::subscription::Shift;

impl Channel {
    /// The whole list of names; `fresh` when the proxy has nothing of this kind.
    pub(in crate::xds) fn ask_for(&mut self, names: &[String], fresh: bool) {
        let first = !self.subscription.asked;
        let shift = self.subscription.replace(self.kind, names);
        if first && fresh {
            self.entries.values_mut().for_each(Entry::lost);
        }
        let known = first && !fresh;
        self.owed |= first && self.subscription.wildcard;
        self.subscribed(shift, |_| if known { Told::Unknown } else { Told::Absent });
        if first {
            self.refresh_all();
        }
    }

    /// Names that come and go; with a stream's first question what the proxy has.
    pub(in crate::xds) fn ask(
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
                match stated(entry, initial.get(&**name).map(String::as_str)) {
                    Told::Absent => entry.lost(),
                    Told::Unknown => entry.told = Told::Unknown,
                    // The plan may have it only now.
                    Told::Has(served) => {
                        entry.good = Some(Arc::clone(&served));
                        entry.acknowledged = Some(served.version);
                        entry.told = Told::Has(served);
                    }
                }
            }
        }
        // A proxy that has something was answered before.
        self.owed |= first && self.subscription.wildcard && initial.is_empty();
        self.subscribed(shift, |name| {
            if first && initial.contains_key(name) {
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
                entry.lost();
            }
            self.refresh(&name);
        }
        for name in shift.dropped {
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.lost();
            }
            self.refresh(&name);
        }
    }
}

/// What a proxy that states a version is known to have.
fn stated(entry: &Entry, version: Option<&str>) -> Told {
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
    let mut known = [&entry.planned, &entry.good].into_iter().flatten();
    let known = known.find(|it| it.version == version);
    known.map_or(Told::Unknown, |served| Told::Has(Arc::clone(served)))
}
