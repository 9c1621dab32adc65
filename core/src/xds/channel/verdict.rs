//! What a proxy says to a response: that it took it, or that something in it is bad, and what that was.

use std::collections::{BTreeMap, BTreeSet};

use super::{Changes, Channel};
use crate::plan::ResourceName;
use crate::xds::blame::{Blame, blame};
use crate::xds::entry::{Refusal, Target, Told};
use crate::xds::resources::{Served, Version};

impl Channel {
    /// The proxy took the response of that number; what it then has.
    pub(in crate::xds) fn acknowledge(&mut self, nonce: u64) -> Changes {
        let Some(flight) = self.flight.take_if(|flight| flight.nonce == nonce) else {
            return Changes::new();
        };
        for (name, content) in &flight.changes {
            if let Some(entry) = self.entries.get_mut(name) {
                // Its bytes say it, and that nobody is behind them.
                let is_blank = content.as_ref().is_some_and(|served| {
                    let blank = Served::blank(self.kind, name);
                    served.object.is_none() && blank.is_some_and(|it| it.version == served.version)
                });
                entry.took(content.clone(), is_blank);
                if flight.again.contains(name) {
                    (entry.told, entry.doubt) = (Told::Unknown, true);
                }
            }
            self.refresh(name);
        }
        flight.changes
    }

    /// The proxy refused something in the response of that number, and took the rest.
    pub(in crate::xds) fn refuse(&mut self, nonce: u64, words: &str) {
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
                None => entry.took(None, false),
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
                let named: BTreeSet<&ResourceName> = guilty.iter().map(|(name, _)| name).collect();
                let rest = puts.keys().filter(|name| !named.contains(name));
                let rest: Vec<ResourceName> = rest.cloned().collect();
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

    /// The next group to try, of those that are still as they were refused.
    pub(super) fn trial(&mut self) -> Option<BTreeSet<ResourceName>> {
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
}
