//! The next response: what is in it, and what is kept back.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Changes, Channel, Flight, Gate};
use crate::plan::ResourceName;
use crate::xds::entry::{Target, Told};
use crate::xds::proxy::Protocol;
use crate::xds::resources::Served;
use crate::xds::subscription::is_whole;

/// What a response holds.
pub(in crate::xds) struct Content {
    pub(in crate::xds) put: Vec<(ResourceName, Arc<Served>)>,
    pub(in crate::xds) removed: Vec<ResourceName>,
    /// What differs from what the proxy has.
    pub(in crate::xds) changes: Changes,
}

impl Channel {
    /// The next response, if there is one and it may be sent.
    pub(in crate::xds) fn next(&mut self, gate: &Gate, nonce: u64) -> Option<Content> {
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
        let content = self.content(&chosen, true);
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
        let content = self.content(&chosen, false)?;
        Some((chosen, content))
    }

    fn content(&self, chosen: &BTreeSet<ResourceName>, trial: bool) -> Option<Content> {
        let whole = is_whole(self.kind) && self.protocol == Protocol::StateOfTheWorld;
        if whole {
            self.whole(chosen, trial)
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
    fn whole(&self, chosen: &BTreeSet<ResourceName>, trial: bool) -> Option<Content> {
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
                    // It is tried after these.
                    Target::Put(_) if trial && entry.doubt => {}
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
}
