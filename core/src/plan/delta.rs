//! A plan takes deltas in, and is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{FrontendKey, NodePlan, PlanDelta, PlannedFrontend, Update};

impl PlanDelta {
    /// Both changes as one, this one first.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.listeners.extend(next.listeners);
        self.routes.extend(next.routes);
        self.clusters.extend(next.clusters);
        self.endpoints.extend(next.endpoints);
        self.secrets.extend(next.secrets);
        self.frontends.extend(next.frontends);
        let found = &self.problems_found;
        let gone = next.problems_gone.iter().filter(|it| !found.contains(*it));
        let gone: Vec<_> = gone.cloned().collect();
        let gone_before = &self.problems_gone;
        let new = next
            .problems_found
            .iter()
            .filter(|it| !gone_before.contains(*it));
        let new: Vec<_> = new.cloned().collect();
        self.problems_found
            .retain(|it| !next.problems_gone.contains(it));
        self.problems_gone
            .retain(|it| !next.problems_found.contains(it));
        self.problems_found.extend(new);
        self.problems_gone.extend(gone);
        self
    }
}

impl NodePlan {
    /// Takes a delta in.
    pub fn apply(&mut self, delta: &PlanDelta) {
        update(&mut self.listeners, &delta.listeners);
        update(&mut self.routes, &delta.routes);
        update(&mut self.clusters, &delta.clusters);
        update(&mut self.endpoints, &delta.endpoints);
        update(&mut self.secrets, &delta.secrets);
        update(&mut self.frontends, &delta.frontends);
        self.problems
            .retain(|problem| !delta.problems_gone.contains(problem));
        self.problems.extend(delta.problems_found.iter().cloned());
    }

    /// The delta that makes this plan out of an empty one: what a proxy that starts is given.
    #[must_use]
    pub fn as_delta(&self) -> PlanDelta {
        PlanDelta {
            listeners: all(&self.listeners),
            routes: all(&self.routes),
            clusters: all(&self.clusters),
            endpoints: all(&self.endpoints),
            secrets: all(&self.secrets),
            frontends: all(&self.frontends),
            problems_found: self.problems.clone(),
            problems_gone: BTreeSet::new(),
        }
    }

    /// Where packets to that address are led; none if they are not.
    #[must_use]
    pub fn frontend(&self, address: IpAddr, port: u16) -> Option<&PlannedFrontend> {
        self.frontends.get(&FrontendKey { address, port })
    }
}

fn all<K: Ord + Clone, V: Clone>(values: &BTreeMap<K, V>) -> BTreeMap<K, Update<V>> {
    let put = |(key, value): (&K, &V)| (key.clone(), Update::Put(value.clone()));
    values.iter().map(put).collect()
}

fn update<K: Ord + Clone, V: Clone>(values: &mut BTreeMap<K, V>, updates: &BTreeMap<K, Update<V>>) {
    for (key, update) in updates {
        match update {
            Update::Put(value) => {
                values.insert(key.clone(), value.clone());
            }
            Update::Remove => {
                values.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::object::{Kind, ObjectRef};
    use crate::problem::{Code, Problem, Severity};

    fn problem(field: &str) -> Problem {
        Problem {
            code: Code::Unsupported,
            severity: Severity::Warning,
            object: ObjectRef::new(Kind::Ingress, "default", "shop"),
            field: field.to_owned(),
            reason: String::new(),
            fix: String::new(),
        }
    }

    fn delta(found: &[&str], gone: &[&str]) -> PlanDelta {
        let all = |fields: &[&str]| fields.iter().map(|it| problem(it)).collect();
        PlanDelta {
            problems_found: all(found),
            problems_gone: all(gone),
            ..PlanDelta::default()
        }
    }

    #[rstest]
    #[case::found(delta(&["a"], &[]), delta(&[], &[]), delta(&["a"], &[]))]
    #[case::found_later(delta(&[], &[]), delta(&["a"], &[]), delta(&["a"], &[]))]
    #[case::gone(delta(&[], &["a"]), delta(&[], &[]), delta(&[], &["a"]))]
    #[case::gone_later(delta(&[], &[]), delta(&[], &["a"]), delta(&[], &["a"]))]
    #[case::found_and_gone(delta(&["a", "b"], &[]), delta(&[], &["a"]), delta(&["b"], &[]))]
    #[case::gone_and_found(delta(&[], &["a", "b"]), delta(&["a"], &[]), delta(&[], &["b"]))]
    fn problems_of_two_changes_are_told_as_of_one(
        #[case] first: PlanDelta,
        #[case] second: PlanDelta,
        #[case] both: PlanDelta,
    ) {
        assert_eq!(first.then(second), both);
    }

    #[test]
    fn a_plan_has_the_problems_that_were_found_and_are_not_gone() {
        let mut plan = NodePlan::default();
        plan.apply(&delta(&["a", "b"], &[]));
        plan.apply(&delta(&["c"], &["a"]));
        assert_eq!(plan.problems, [problem("b"), problem("c")].into());
    }
}
