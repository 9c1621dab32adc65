//! Clusters that two configs define under one name and not alike: on a node there is only one.

use std::collections::BTreeSet;

use crate::object::{ObjectRef, Objects};
use crate::plan::NodePlan;
use crate::problem::{Code, Problem, Severity};

use super::config::Config;

/// Clusters that a node's plan takes from another config, which defines them otherwise.
pub(super) fn defined_twice<'p>(
    configs: &[Config<'_>],
    objects: &Objects,
    plans: impl Iterator<Item = (&'p str, &'p NodePlan)>,
) -> BTreeSet<Problem> {
    let mut found = BTreeSet::new();
    for (node, plan) in plans {
        let labels = objects
            .node("", node)
            .and_then(|node| node.metadata.labels.as_ref());
        let here = configs
            .iter()
            .filter(|config| config.source.spec.picks(labels) == Ok(true));
        for config in here {
            let clusters = config.resources.iter().enumerate();
            found.extend(clusters.filter_map(|(index, read)| {
                let (name, message) = read.cluster.as_ref()?;
                let winner = plan.clusters.get(name.as_str())?;
                let other = winner.config != config.reference && winner.message != *message;
                other.then(|| problem(config, index, name, &winner.config))
            }));
        }
    }
    found
}

fn problem(config: &Config<'_>, index: usize, name: &str, winner: &ObjectRef) -> Problem {
    Problem {
        code: Code::ClusterDefinedTwice,
        severity: Severity::Warning,
        object: config.reference.clone(),
        field: format!("spec.resources[{index}]"),
        reason: format!(
            "{winner} defines the cluster `{name}` too, and not alike; a node has one of a name, and that config is older or comes first by name"
        ),
        fix: "give it a name of its own, or make both alike".to_owned(),
    }
}
