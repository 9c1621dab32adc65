//! What is probably not meant, though nothing is refused: looked for only when somebody asks.
//!
//! A plan's problems are found on every change on every node, so they must be cheap and are about
//! what a node lacks. Lints read whole configs again and compare them; `nodeway check` runs them.

mod cluster;
mod config;
mod node;
mod reach;
mod route;
mod size;

use std::collections::BTreeSet;

use crate::object::{Kind, Objects, Provenance};
use crate::plan::NodePlan;
use crate::problem::{Code, Problem};

use config::Config;

/// All lints over all objects and the plans that nodes make of them, each with its node's name.
#[must_use]
pub fn lint<'p>(
    objects: &Objects,
    plans: impl Iterator<Item = (&'p str, &'p NodePlan)>,
) -> BTreeSet<Problem> {
    let configs = Config::all(objects);
    let mut found = cluster::defined_twice(&configs, objects, plans);
    found.extend(size::too_large(objects));
    for config in &configs {
        found.extend(route::unreachable(config));
        found.extend(reach::without_effect(config));
        found.extend(node::picks_none(config, objects));
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
        let field = std::mem::replace(&mut problem.field, "spec".to_owned());
        let part = if field.is_empty() {
            String::new()
        } else {
            format!("{field} of ")
        };
        problem.reason = format!("{} ({part}the {made} that is made of it)", problem.reason);
        if problem.code == Code::UnreachableRoute {
            "narrow the earlier path, or take this one out".clone_into(&mut problem.fix);
        }
    }
    problem
}

#[cfg(test)]
mod tests;
