//! A config's status as an API server has it: `nodes`, one entry a node, each written by that node's
//! agent, and `conditions`, what they say together, written by the operator.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use nodeway_core::condition::{Condition, ConditionType, NodeSays, Overall, overall};
use nodeway_core::object::EnvoyConfig;
use nodeway_core::selector::Labels;
use serde_json::{Value, json};

/// A condition as it is written.
pub(crate) struct Stated<'a> {
    about: ConditionType,
    status: &'static str,
    reason: &'a str,
    message: &'a str,
}

const fn status(holds: Option<bool>) -> &'static str {
    match holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    }
}

impl<'a> From<&'a Condition> for Stated<'a> {
    fn from(it: &'a Condition) -> Self {
        Self {
            about: it.about,
            status: status(Some(it.holds)),
            reason: &it.reason,
            message: &it.message,
        }
    }
}

impl<'a> From<&'a Overall> for Stated<'a> {
    fn from(it: &'a Overall) -> Self {
        Self {
            about: it.about,
            status: status(it.holds),
            reason: &it.reason,
            message: &it.message,
        }
    }
}

/// Now, as precisely as an API server keeps it.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default()
}

/// Conditions of a spec; those that hold as they did in what stood `before` do so since then.
pub(crate) fn stated<'a>(
    conditions: impl Iterator<Item = Stated<'a>>,
    generation: i64,
    before: Option<&Value>,
    now: Timestamp,
) -> Value {
    let before = before.and_then(|it| it["conditions"].as_array());
    let all = conditions.map(|it| {
        let about = it.about.to_string();
        let same = |old: &&Value| old["type"] == *about && old["status"] == it.status;
        let since = before.into_iter().flatten().find(same);
        let since = since.map(|old| old["lastTransitionTime"].clone());
        json!({
            "type": about,
            "status": it.status,
            "reason": it.reason,
            "message": it.message,
            "lastTransitionTime": since.unwrap_or_else(|| now.to_string().into()),
            "observedGeneration": generation,
        })
    });
    all.collect()
}

/// The nodes that say something of a config.
pub(crate) fn nodes(status: &Value) -> BTreeSet<&str> {
    let all = status["nodes"].as_array().into_iter().flatten();
    all.filter_map(|it| it["name"].as_str()).collect()
}

/// What the nodes that a config is for say of it together; each is named with its labels.
pub(crate) fn together<'a>(
    config: &EnvoyConfig,
    nodes: impl IntoIterator<Item = (&'a str, Option<&'a Labels>)>,
    status: &Value,
) -> [Overall; 4] {
    // A selector that is none is told on every node.
    let picked = nodes
        .into_iter()
        .filter(|(_, labels)| config.spec.picks(*labels).unwrap_or(true));
    let picked: Vec<&str> = picked.map(|(name, _)| name).collect();
    let generation = config.metadata.generation.unwrap_or_default();
    overall(&picked, generation, &said(status))
}

/// What the nodes say of a config.
pub(crate) fn said(status: &Value) -> Vec<NodeSays> {
    let all = status["nodes"].as_array().into_iter().flatten();
    all.filter_map(|it| {
        let conditions = it["conditions"].as_array()?;
        // A node's conditions are written together, and mean one spec.
        let generation = conditions.first()?["observedGeneration"].as_i64()?;
        Some(NodeSays {
            node: it["name"].as_str()?.to_owned(),
            generation,
            conditions: conditions.iter().filter_map(condition).collect(),
        })
    })
    .collect()
}

fn condition(it: &Value) -> Option<Condition> {
    let mut all = ConditionType::ALL.into_iter();
    let text = |field: &str| Some(it[field].as_str()?.to_owned());
    Some(Condition {
        about: all.find(|about| it["type"] == *about.to_string())?,
        holds: it["status"] == "True",
        reason: text("reason")?,
        message: text("message")?,
    })
}

#[cfg(test)]
mod tests {
    use nodeway_core::condition::conditions;
    use nodeway_core::object::{Kind, ObjectRef};

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let config = ObjectRef::new(Kind::CiliumEnvoyConfig, "shop", "web");
        let said_first = conditions(&config, [], &["a frontend".to_owned()]);
        let written = stated(said_first.iter().map(Stated::from), 3, None, now());
        let status = json!({"nodes": [{"name": "a", "conditions": written}]});
        let read = said(&status);
        assert_eq!(read[0].conditions, said_first);
        assert_eq!((&*read[0].node, read[0].generation), ("a", 3));
        assert_eq!(nodes(&status), ["a"].into());
    }

    #[test]
    fn what_nobody_has_said_yet_is_unknown() {
        let all = overall(&["a"], 1, &[]);
        let written = stated(all.iter().map(Stated::from), 1, None, now());
        let statuses = written.as_array().unwrap().iter().map(|it| &it["status"]);
        assert_eq!(
            statuses.collect::<Vec<_>>(),
            ["Unknown", "Unknown", "Unknown", "False"]
        );
    }
}
