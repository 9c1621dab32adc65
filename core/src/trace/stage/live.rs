//! What the stages of nodes that were looked at rest on: their kernels' tables, rules and the dumps of
//! their Envoys, in the place of plans.

use super::Stage;
use crate::in_force::InForce;
use crate::trace::Step;

/// Names evidence as a way goes on.
pub(super) struct Live<'a> {
    in_force: &'a [InForce],
    /// The dump of the Envoy that has the request.
    dump: Option<&'a str>,
}

impl<'a> Live<'a> {
    pub(super) const fn new(in_force: &'a [InForce]) -> Self {
        Self {
            in_force,
            dump: None,
        }
    }

    /// Puts what a step rests on first, before the objects that it comes from.
    pub(super) fn rest_on(&mut self, step: &Step, stages: &mut [Stage]) {
        let evidence_of = |step| self.in_force.iter().find_map(|it| it.evidence_of(step));
        let evidence = match step {
            // What follows is in the same dump.
            Step::Listener(_) => {
                self.dump = evidence_of(step);
                self.dump
            }
            Step::FilterChain(_)
            | Step::Route(_)
            | Step::Cluster(_)
            | Step::Endpoint(_)
            | Step::Handshake(_) => self.dump,
            _ => evidence_of(step),
        };
        let Some(evidence) = evidence else { return };
        for stage in stages.iter_mut() {
            stage
                .evidence
                .retain(|it| it != "planned" && it != "rules" && !it.starts_with("simulated"));
            stage.evidence.insert(0, evidence.to_owned());
        }
        if let (Step::Frontend(step), Some(first)) = (step, stages.first_mut()) {
            let here = self.in_force.iter().filter(|it| it.node == step.node);
            let notes = here.flat_map(|it| it.notes_on(step.address));
            first.notes.extend(notes.map(str::to_owned));
        }
    }
}
