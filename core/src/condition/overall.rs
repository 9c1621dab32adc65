//! What all nodes together say of a config: one condition of the many that each has said.
//!
//! What is bad on one node is bad, and nodes that say the same are told once.

use std::collections::BTreeSet;

use super::{Condition, ConditionType, PENDING, told};

/// The reason where a config is for no node.
const NO_NODE: &str = "NoNode";
/// The nodes that one message names.
const MOST_NODES: usize = 3;

/// What one node says of a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSays {
    /// The node.
    pub node: String,
    /// Which of the config's specs it means.
    pub generation: i64,
    /// What it says; what is missing it does not say.
    pub conditions: Vec<Condition>,
}

/// One condition of a config over all nodes that it applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overall {
    /// What it is about.
    pub about: ConditionType,
    /// Whether it holds; none if no node has said so yet.
    pub holds: Option<bool>,
    /// Why, in one word.
    pub reason: String,
    /// Why, in sentences, with the nodes that say so; empty if there is nothing to say.
    pub message: String,
}

impl Overall {
    /// Whether something is wrong that does not come right by itself.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let bad = self.holds.is_some_and(|holds| self.about.is_bad(holds));
        bad && self.reason != PENDING && self.reason != NO_NODE
    }
}

/// The conditions of a config over these nodes, by what each of them says of its present spec. What
/// is bad on one node is bad; `Programmed` holds when every node says so.
#[must_use]
pub fn overall(nodes: &[&str], generation: i64, said: &[NodeSays]) -> [Overall; 4] {
    let meant: BTreeSet<&str> = nodes.iter().copied().collect();
    let current = said
        .iter()
        .filter(|it| it.generation >= generation && meant.contains(it.node.as_str()));
    let current: Vec<&NodeSays> = current.collect();
    let spoke: BTreeSet<&str> = current.iter().map(|it| it.node.as_str()).collect();
    let silent = nodes.iter().copied().filter(|node| !spoke.contains(node));
    let silent: Vec<&str> = silent.collect();
    ConditionType::ALL.map(|about| {
        if nodes.is_empty() {
            let programmed = about == ConditionType::Programmed;
            return Overall {
                about,
                holds: programmed.then_some(false),
                reason: NO_NODE.to_owned(),
                message: "the config is for none of the cluster's nodes".to_owned(),
            };
        }
        let conditions = current.iter().filter_map(|it| {
            let mut conditions = it.conditions.iter();
            let found = conditions.find(|condition| condition.about == about);
            found.map(|condition| (it.node.as_str(), condition))
        });
        of_all(about, &conditions.collect::<Vec<_>>(), &silent)
    })
}

fn of_all(about: ConditionType, said: &[(&str, &Condition)], silent: &[&str]) -> Overall {
    let (bad, good): (Vec<_>, Vec<_>) = said.iter().partition(|(_, it)| about.is_bad(it.holds));
    // What does not come by itself stands first.
    let worst = bad.iter().find(|(_, it)| it.reason != PENDING);
    let worst = worst.or_else(|| bad.first()).map(|(_, it)| it);
    let awaits = about == ConditionType::Programmed || said.is_empty();
    let awaits = awaits && !silent.is_empty();
    let (holds, reason) = match (worst, awaits) {
        (Some(worst), _) => (Some(worst.holds), worst.reason.clone()),
        (None, true) => {
            let unknown = about != ConditionType::Programmed;
            ((!unknown).then_some(false), PENDING.to_owned())
        }
        (None, false) => {
            let holds = about != ConditionType::Conflicted;
            (Some(holds), about.unbothered().to_owned())
        }
    };
    // Nodes that say the same are told once.
    let told_of = if bad.is_empty() { &good } else { &bad };
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (node, condition) in told_of.iter().filter(|(_, it)| !it.message.is_empty()) {
        let known = groups
            .iter_mut()
            .find(|(text, _)| *text == condition.message);
        match known {
            Some((_, nodes)) => nodes.push(node),
            None => groups.push((&condition.message, vec![node])),
        }
    }
    let mut texts: Vec<String> = groups
        .iter()
        .map(|(text, nodes)| format!("{}: {text}", some(nodes)))
        .collect();
    if awaits {
        texts.push(format!("{}: nothing said of this spec yet", some(silent)));
    }
    Overall {
        about,
        holds,
        reason,
        message: told(texts.into_iter()),
    }
}

/// Some nodes of many.
fn some(nodes: &[&str]) -> String {
    let more = nodes.len().saturating_sub(MOST_NODES);
    let some: Vec<&str> = nodes.iter().copied().take(MOST_NODES).collect();
    match more {
        0 => some.join(", "),
        more => format!("{} and {more} more", some.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::conditions;
    use super::super::tests::{config, finding};
    use super::*;
    use crate::problem::{Code, Problem, Severity};

    /// What a node says: an error of that code, or what it awaits.
    fn says(node: &str, generation: i64, code: Option<Code>, awaited: &[String]) -> NodeSays {
        let findings: Vec<Problem> = code
            .map(|code| finding(code, Severity::Error))
            .into_iter()
            .collect();
        NodeSays {
            node: node.to_owned(),
            generation,
            conditions: conditions(&config(), &findings, awaited).to_vec(),
        }
    }

    fn overall_of(nodes: &[&str], said: &[NodeSays]) -> String {
        let all = overall(nodes, 2, said).map(|it| {
            let holds = match it.holds {
                Some(true) => "+",
                Some(false) => "-",
                None => "?",
            };
            format!("{holds}{}", it.reason)
        });
        all.join(" ")
    }

    #[rstest]
    #[case::all_have_it(
        &["a", "b"], &[says("a", 2, None, &[]), says("b", 2, None, &[])],
        "+Accepted +ResolvedRefs -NoConflict +Programmed"
    )]
    #[case::one_is_silent(
        &["a", "b"], &[says("a", 2, None, &[])],
        "+Accepted +ResolvedRefs -NoConflict -Pending"
    )]
    #[case::one_means_an_older_spec(
        &["a", "b"], &[says("a", 2, None, &[]), says("b", 1, None, &[])],
        "+Accepted +ResolvedRefs -NoConflict -Pending"
    )]
    #[case::nobody_has_said_anything(&["a"], &[], "?Pending ?Pending ?Pending -Pending")]
    #[case::it_is_for_no_node(&[], &[says("a", 2, None, &[])], "?NoNode ?NoNode ?NoNode -NoNode")]
    #[case::a_node_that_it_is_not_for_does_not_count(
        &["a"], &[says("a", 2, None, &[]), says("z", 2, Some(Code::RefusedByEnvoy), &[])],
        "+Accepted +ResolvedRefs -NoConflict +Programmed"
    )]
    #[case::one_conflict_is_one(
        &["a", "b"], &[says("a", 2, None, &[]), says("b", 2, Some(Code::FrontendClaimedTwice), &[])],
        "+Accepted +ResolvedRefs +FrontendClaimedTwice +Programmed"
    )]
    #[case::a_refusal_comes_before_what_is_awaited(
        &["a", "b"],
        &[says("a", 2, None, &["a frontend".to_owned()]), says("b", 2, Some(Code::RefusedByEnvoy), &[])],
        "+Accepted +ResolvedRefs -NoConflict -RefusedByEnvoy"
    )]
    fn what_is_bad_on_one_node_is_bad_and_all_must_have_it(
        #[case] nodes: &[&str],
        #[case] said: &[NodeSays],
        #[case] want: &str,
    ) {
        assert_eq!(overall_of(nodes, said), want);
    }

    #[test]
    fn nodes_that_say_the_same_are_told_together_and_many_by_their_number() {
        let nodes = ["a", "b", "c", "d", "e"];
        let mut said: Vec<NodeSays> = nodes
            .iter()
            .map(|node| says(node, 2, Some(Code::RefusedByEnvoy), &[]))
            .collect();
        said.pop();
        let [.., programmed] = overall(&nodes, 2, &said);
        assert_eq!(
            programmed.message,
            "a, b, c and 1 more: NW0028 spec.services[0]: it is not there; write it\n\
             e: nothing said of this spec yet"
        );
    }
}
