//! Steps as people read them: a stage with what was decided, why, on what evidence, who lost, and
//! where the way stops, which field of which object to change.
//!
//! One text for the simulator and for a real node: both only fill [`Step`]s.

mod dump;
mod envoy;
mod live;
mod network;

use live::Live;
use nodeway_datapath::Reason;
use serde::Serialize;

use super::{Step, Way};
use crate::in_force::InForce;
use crate::object::{Kind, ObjectRef, Objects, Provenance};
use crate::proxy::Lost;
use crate::source::Known;

/// One stage of a request's way, in words. Its JSON form is part of the documented schema.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// `name`, `frontend`, `hook`, `verdict`, `rule`, `translation`, `sidecar`, `listener`,
    /// `filter chain`, `handshake`, `virtual host`, `route`, `cluster`, `endpoint`, `fault` or `reply`.
    pub stage: &'static str,
    /// What was decided.
    pub decided: String,
    /// Why; empty where the decision is the reason.
    pub because: String,
    /// What the decision rests on: `object` with a file and line, `derived`, `planned` or `simulated`;
    /// of a node that was looked at, `map`, `ipset`, `rules` and `config_dump`.
    pub evidence: Vec<String>,
    /// Candidates that were not taken, and why.
    pub lost: Vec<Loser>,
    /// What is not simulated and may change the answer here: policies that select the pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The way ends here without what was asked for: what to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
}

/// A candidate that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loser {
    /// Its name or what it matches.
    pub candidate: String,
    /// Why it was not taken.
    pub why: String,
}

/// Where the way stops, and what would let it go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stop {
    /// The object to change.
    pub object: String,
    /// The field of that object.
    pub field: String,
    /// What to change it to.
    pub fix: String,
}

impl Stage {
    fn new(stage: &'static str, decided: impl Into<String>) -> Self {
        Self {
            stage,
            decided: decided.into(),
            because: String::new(),
            evidence: Vec::new(),
            lost: Vec::new(),
            notes: Vec::new(),
            stop: None,
        }
    }

    fn because(mut self, because: impl Into<String>) -> Self {
        self.because = because.into();
        self
    }

    fn evidence(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(evidence);
        self
    }

    fn lost<'a>(mut self, lost: impl IntoIterator<Item = &'a Lost>) -> Self {
        self.lost.extend(lost.into_iter().map(|lost| Loser {
            candidate: lost.candidate.to_string(),
            why: lost.why.to_string(),
        }));
        self
    }

    fn notes(mut self, notes: Vec<String>) -> Self {
        self.notes.extend(notes);
        self
    }

    fn stop(mut self, object: &ObjectRef, field: &str, fix: impl Into<String>) -> Self {
        self.stop = Some(Stop {
            object: object.to_string(),
            field: field.to_owned(),
            fix: fix.into(),
        });
        self
    }
}

/// Puts a way into words. `known` is of the cluster that it was taken in: evidence and causes come from it.
///
/// The proxy's own connection to the endpoint passes hooks too. That it is no frontend is what
/// everybody expects, so it is left out; if it were one, the request would go round in circles, and
/// that is told.
#[must_use]
pub fn stages(way: &Way, known: &Known) -> Vec<Stage> {
    stages_in_force(way, known, &[])
}

/// The same where nodes did what is in force there: their stages name what they rest on.
#[must_use]
pub fn stages_in_force(way: &Way, known: &Known, in_force: &[InForce]) -> Vec<Stage> {
    let none = Objects::default();
    let (objects, dump) = match known {
        Known::Objects(objects) => (&**objects, None),
        Known::Dump(dump) => (&none, Some(&**dump)),
    };
    let mut live = Live::new(in_force);
    let mut words = Words {
        objects,
        routed: None,
        captured: false,
    };
    let mut proxied = false;
    let mut stages = Vec::new();
    for (_, step) in &way.steps {
        proxied |= matches!(step, Step::Listener(_));
        match step {
            Step::Route(step) => words.routed = Some(&step.table),
            Step::Sidecar(_) => words.captured = true,
            _ => {}
        }
        let expected = match step {
            Step::Frontend(step) => step.frontend.is_none(),
            Step::Verdict(step) => step.reason == Reason::NotAFrontend,
            _ => false,
        };
        if proxied && expected {
            continue;
        }
        let mut found = match dump {
            Some(dump) => words.of_dump(dump, step),
            None => words.step(step),
        };
        live.rest_on(step, &mut found);
        for stage in found {
            // A packet that comes again is looked up again.
            let again = dump.is_some() && stages.last() == Some(&stage);
            if !again {
                stages.push(stage);
            }
        }
    }
    stages
}

struct Words<'a> {
    objects: &'a Objects,
    /// The route table that the request went through last: it names the clusters that follow.
    routed: Option<&'a str>,
    /// Whether a pod's own proxy had it: who has no listener for it then passes it on.
    captured: bool,
}

impl Words<'_> {
    fn step(&self, step: &Step) -> Vec<Stage> {
        match step {
            Step::Name(step) => vec![self.name(step)],
            Step::Frontend(step) => vec![self.frontend(step)],
            Step::Verdict(step) => network::verdict(step),
            Step::Rule(step) => vec![network::rule(step)],
            Step::Translation(step) => vec![self.translation(step)],
            Step::Sidecar(step) => vec![network::sidecar(step)],
            Step::Listener(step) => vec![envoy::listener(step)],
            Step::FilterChain(step) => vec![self.filter_chain(step)],
            Step::Handshake(step) => vec![self.handshake(step)],
            Step::Route(step) => self.route(step),
            Step::Cluster(step) => vec![self.cluster(step)],
            Step::Endpoint(step) => vec![self.endpoint(step)],
            Step::Fault(step) => vec![network::fault(step)],
            Step::Reply(step) => vec![self.reply(step)],
        }
    }

    /// Where an object stands: its file and line, or what it was derived from.
    fn source(&self, object: &ObjectRef) -> Vec<String> {
        let Some(entry) = self.objects.get(object) else {
            return Vec::new();
        };
        let mut evidence = vec![match &entry.provenance {
            Provenance::Written { .. } | Provenance::Watched { .. } => {
                format!("object {object} ({})", entry.provenance)
            }
            Provenance::Derived { .. } => format!("{object}, {}", entry.provenance),
        }];
        if !entry.derived_fields.is_empty() {
            evidence.push(format!("derived: {}", entry.derived_fields.join(", ")));
        }
        evidence
    }

    /// The policies that select a pod: what they do to the request is not simulated.
    fn policies(&self, pod: Option<&ObjectRef>) -> Vec<String> {
        let pod = pod.filter(|pod| pod.kind == Kind::Pod);
        let pod = pod.and_then(|pod| self.objects.pod(&pod.namespace, &pod.name));
        let Some(pod) = pod else { return Vec::new() };
        let policies = self.objects.policies.iter();
        policies
            .filter_map(|policy| {
                let effect = policy.effect_on(pod)?;
                Some(format!(
                    "not simulated: {} ({}:{}) selects the pod, {effect}",
                    policy.title, policy.file, policy.line
                ))
            })
            .collect()
    }

    /// The object that a user would edit: the Ingress behind a generated config, else the object itself.
    fn cause(&self, object: &ObjectRef) -> ObjectRef {
        match self.objects.get(object).map(|entry| &entry.provenance) {
            Some(Provenance::Derived { from, .. }) => from.clone(),
            _ => object.clone(),
        }
    }
}
