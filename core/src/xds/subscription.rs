//! What a proxy has asked for, of one kind, on the stream that it has.

use std::collections::BTreeSet;

use crate::envoy::ResourceKind;
use crate::plan::ResourceName;

/// All, or those of some names.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// Whether anything was asked on this stream.
    pub(super) asked: bool,
    pub(super) wildcard: bool,
    names: BTreeSet<ResourceName>,
}

/// What came and went by a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shift {
    pub(super) added: Vec<ResourceName>,
    pub(super) dropped: Vec<ResourceName>,
}

const ALL: &str = "*";

/// Whether a response of the state-of-the-world protocol has all resources of a kind, so that one
/// that is not in it is gone; and whether a proxy that names none wants all.
pub(super) fn is_whole(kind: ResourceKind) -> bool {
    matches!(kind, ResourceKind::Listener | ResourceKind::Cluster)
}

impl Subscription {
    pub(super) fn has(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// The whole list of names, as the state-of-the-world protocol has it.
    pub(super) fn replace(&mut self, kind: ResourceKind, names: &[String]) -> Shift {
        let new: BTreeSet<ResourceName> = names
            .iter()
            .filter(|name| *name != ALL)
            .map(|name| name.as_str().into())
            .collect();
        let explicit = names.iter().any(|name| name == ALL);
        // By names that were never any, all listeners or clusters are meant.
        let implied = names.is_empty() && is_whole(kind) && self.names.is_empty();
        self.wildcard = explicit || implied && (self.wildcard || !self.asked);
        self.asked = true;
        let shift = Shift {
            added: new.difference(&self.names).cloned().collect(),
            dropped: self.names.difference(&new).cloned().collect(),
        };
        self.names = new;
        shift
    }

    /// What is added and taken away, as the incremental protocol has it. A name that is asked for
    /// again counts as added: the proxy wants it once more.
    pub(super) fn change(
        &mut self,
        kind: ResourceKind,
        subscribe: &[String],
        unsubscribe: &[String],
    ) -> Shift {
        let mut shift = Shift::default();
        if !self.asked && subscribe.is_empty() && is_whole(kind) {
            self.wildcard = true;
        }
        self.asked = true;
        for name in subscribe {
            if name == ALL {
                self.wildcard = true;
            } else {
                let name: ResourceName = name.as_str().into();
                self.names.insert(name.clone());
                shift.added.push(name);
            }
        }
        for name in unsubscribe {
            if name == ALL {
                self.wildcard = false;
            } else if self.names.remove(name.as_str()) {
                shift.dropped.push(name.as_str().into());
            }
        }
        shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn no_name_means_all_listeners_and_no_endpoints() {
        let mut listeners = Subscription::default();
        listeners.replace(ResourceKind::Listener, &[]);
        listeners.replace(ResourceKind::Listener, &[]);
        assert!(listeners.has("a"));
        let mut endpoints = Subscription::default();
        endpoints.replace(ResourceKind::ClusterLoadAssignment, &[]);
        assert!(!endpoints.has("a"));
    }

    #[test]
    fn no_name_after_names_means_none() {
        let mut listeners = Subscription::default();
        listeners.replace(ResourceKind::Listener, &names(&["a"]));
        assert!(!listeners.has("b"));
        let shift = listeners.replace(ResourceKind::Listener, &[]);
        assert_eq!(shift.dropped, ["a".into()]);
        assert!(!listeners.has("a"));
    }

    #[test]
    fn a_name_that_is_asked_for_again_is_wanted_again() {
        let mut endpoints = Subscription::default();
        let kind = ResourceKind::ClusterLoadAssignment;
        endpoints.change(kind, &names(&["a"]), &[]);
        let again = endpoints.change(kind, &names(&["a"]), &names(&["b"]));
        assert_eq!(again.added, ["a".into()]);
        assert!(again.dropped.is_empty());
    }
}
