//! Removals that wait: what a removed listener's connections still need goes last, in the order in
//! which an agent must tell its Envoy. What comes anew meanwhile takes their place at once.

use std::collections::BTreeMap;

use super::{PlanDelta, ResourceName, Update};

/// Removals that wait.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Withheld(PlanDelta);

impl Withheld {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self(delta) = self;
        delta.listeners.is_empty()
            && delta.routes.is_empty()
            && delta.clusters.is_empty()
            && delta.endpoints.is_empty()
            && delta.secrets.is_empty()
    }

    /// Forgets the removal of what a change brings.
    pub fn yield_to(&mut self, delta: &PlanDelta) {
        forget(&mut self.0.listeners, &delta.listeners);
        forget(&mut self.0.routes, &delta.routes);
        forget(&mut self.0.clusters, &delta.clusters);
        forget(&mut self.0.endpoints, &delta.endpoints);
        forget(&mut self.0.secrets, &delta.secrets);
    }

    /// Takes the removals of what listeners need out of a change, not those of listeners.
    pub fn take_needs(&mut self, delta: &mut PlanDelta) {
        withhold(&mut self.0.routes, &mut delta.routes);
        withhold(&mut self.0.clusters, &mut delta.clusters);
        withhold(&mut self.0.endpoints, &mut delta.endpoints);
    }

    /// Takes every removal of a resource out of a change, those of listeners too.
    pub fn take_all(&mut self, delta: &mut PlanDelta) {
        withhold(&mut self.0.listeners, &mut delta.listeners);
        withhold(&mut self.0.secrets, &mut delta.secrets);
        self.take_needs(delta);
    }

    /// The listeners whose removal waits.
    pub fn listeners(&self) -> impl Iterator<Item = &ResourceName> {
        self.0.listeners.keys()
    }

    /// What has waited long enough.
    #[must_use]
    pub fn release(&mut self) -> PlanDelta {
        std::mem::take(&mut self.0)
    }
}

type Changes<T> = BTreeMap<ResourceName, Update<T>>;

fn forget<T>(held: &mut Changes<T>, changes: &Changes<T>) {
    held.retain(|name, _| !matches!(changes.get(name), Some(Update::Put(_))));
}

fn withhold<T>(held: &mut Changes<T>, changes: &mut Changes<T>) {
    changes.retain(|name, change| {
        let goes = matches!(change, Update::Remove);
        if goes {
            held.insert(name.clone(), Update::Remove);
        }
        !goes
    });
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::plan::PlannedEndpoints;

    fn delta(name: &str, endpoints: Update<()>) -> PlanDelta {
        let update = match endpoints {
            Update::Put(()) => Update::Put(PlannedEndpoints::default().into()),
            Update::Remove => Update::Remove,
        };
        PlanDelta {
            listeners: [(name.into(), Update::Remove)].into(),
            endpoints: [(name.into(), update)].into(),
            ..PlanDelta::default()
        }
    }

    fn gone<T>() -> Changes<T> {
        [("a".into(), Update::Remove)].into()
    }

    #[test]
    fn a_removal_waits_until_it_is_released() {
        let (mut withheld, mut change) = (Withheld::default(), delta("a", Update::Remove));
        withheld.take_needs(&mut change);
        assert_eq!((change.listeners.len(), change.endpoints.len()), (1, 0));
        withheld.take_all(&mut change);
        assert_eq!(change, PlanDelta::default());
        assert_eq!(withheld.listeners().count(), 1);
        assert_eq!(withheld.release(), delta("a", Update::Remove));
        assert!(withheld.is_empty());
    }

    #[rstest]
    #[case::a_listener(PlanDelta { listeners: gone(), ..PlanDelta::default() })]
    #[case::routes(PlanDelta { routes: gone(), ..PlanDelta::default() })]
    #[case::a_cluster(PlanDelta { clusters: gone(), ..PlanDelta::default() })]
    #[case::endpoints(PlanDelta { endpoints: gone(), ..PlanDelta::default() })]
    #[case::a_certificate(PlanDelta { secrets: gone(), ..PlanDelta::default() })]
    fn a_removal_of_any_kind_waits(#[case] removal: PlanDelta) {
        let (mut withheld, mut change) = (Withheld::default(), removal.clone());
        withheld.take_all(&mut change);
        assert!(!withheld.is_empty());
        assert_eq!(withheld.release(), removal);
    }

    #[test]
    fn what_comes_anew_is_not_removed_any_more() {
        let (mut withheld, mut change) = (Withheld::default(), delta("a", Update::Remove));
        withheld.take_needs(&mut change);
        withheld.yield_to(&delta("a", Update::Put(())));
        assert!(withheld.is_empty());
    }
}
