//! The problems of a plan, by what they were found at: so that one look anew replaces the last.

use std::collections::{BTreeMap, BTreeSet};

use crate::object::ObjectRef;
use crate::problem::Problem;

use super::parsed::Reference;
use super::{FrontendKey, NodePlan, PlanDelta};

/// What was looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// A config by itself.
    Config(ObjectRef),
    /// What a config says about a Service.
    Service(ObjectRef, ObjectRef),
    /// What resources of some config name.
    Reference(Reference),
    /// A frontend's claimants.
    Frontend(FrontendKey),
}

/// Problems by subject. One problem may be found at several: it is gone when none has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    by_subject: BTreeMap<Subject, BTreeSet<Problem>>,
    counts: BTreeMap<Problem, usize>,
}

impl Findings {
    /// Replaces what was found at a subject.
    pub(super) fn set(
        &mut self,
        subject: Subject,
        found: BTreeSet<Problem>,
        plan: &mut NodePlan,
        delta: &mut PlanDelta,
    ) {
        for problem in &found {
            let count = self.counts.entry(problem.clone()).or_default();
            *count += 1;
            if *count == 1 {
                plan.problems.insert(problem.clone());
                if !delta.problems_gone.remove(problem) {
                    delta.problems_found.insert(problem.clone());
                }
            }
        }
        let before = if found.is_empty() {
            self.by_subject.remove(&subject)
        } else {
            self.by_subject.insert(subject, found)
        };
        for problem in before.unwrap_or_default() {
            let Some(count) = self.counts.get_mut(&problem) else {
                continue;
            };
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&problem);
                plan.problems.remove(&problem);
                if !delta.problems_found.remove(&problem) {
                    delta.problems_gone.insert(problem);
                }
            }
        }
    }
}
