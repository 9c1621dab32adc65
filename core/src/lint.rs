//! What is probably not meant, though nothing is refused: looked for only when somebody asks.
//!
//! A plan's problems are found on every change on every node, so they must be cheap and are about
//! what a node lacks. Lints read whole configs again and compare them; `nodeway check` runs them.

mod config;
mod route;

use std::collections::BTreeSet;

use crate::object::{Kind, Objects, Provenance};
use crate::problem::{Code, Problem};

use config::Config;

/// All lints over all objects.
#[must_use]
pub fn lint(objects: &Objects) -> BTreeSet<Problem> {
    let configs = Config::all(objects);
    let mut found = BTreeSet::new();
    for config in &configs {
        found.extend(route::unreachable(config));
    }
    found
        .into_iter()
        .map(|problem| blame(problem, objects))
        .collect()
}

/// A config that the operator makes of an Ingress is nothing that a user edits: the Ingress is.
fn blame(mut problem: Problem, objects: &Objects) -> Problem {
    let Some(Provenance::Derived { from, .. }) =
        objects.get(&problem.object).map(|entry| &entry.provenance)
    else {
        return problem;
    };
    if from.kind == Kind::Ingress && *from != problem.object {
        let made = std::mem::replace(&mut problem.object, from.clone());
        problem.reason = format!(
            "{} ({} of the {made} that is made of it)",
            problem.reason, problem.field
        );
        problem.field = "spec".to_owned();
        if problem.code == Code::UnreachableRoute {
            "narrow the earlier path, or take this one out".clone_into(&mut problem.fix);
        }
    }
    problem
}
