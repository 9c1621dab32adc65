//! What a cluster's configs say of themselves, node by node: listed once, for whoever looks.

use std::path::Path;

use kube::Client;
use nodeway_core::condition::{Condition, NodeSays, Overall};
use nodeway_core::object::{EnvoyConfig, Kind, ObjectRef};
use nodeway_core::selector::Labels;
use serde::Serialize;
use serde_json::Value;

use super::config_status::{said, together};
use super::connect;
use super::listed::{ListError, Untold, items};
use super::watch::resource;

/// A config, and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToldConfig {
    /// The config.
    #[serde(serialize_with = "in_words")]
    pub config: ObjectRef,
    /// Over all nodes that it is for.
    pub conditions: Vec<ToldCondition>,
    /// Node by node, as their agents wrote it.
    pub nodes: Vec<ToldNode>,
}

/// What one node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToldNode {
    /// The node.
    pub node: String,
    /// Whether it means the config's present spec.
    pub current: bool,
    /// What it says.
    pub conditions: Vec<ToldCondition>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToldCondition {
    /// `Accepted`, `ResolvedRefs`, `Conflicted` or `Programmed`.
    #[serde(rename = "type")]
    pub about: String,
    /// Whether it holds; none if nobody has said.
    pub holds: Option<bool>,
    /// Whether that is bad.
    pub bad: bool,
    /// Why, in one word.
    pub reason: String,
    /// Why, in sentences.
    pub message: String,
}

fn in_words<S: serde::Serializer>(config: &ObjectRef, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(config)
}

impl From<Overall> for ToldCondition {
    fn from(it: Overall) -> Self {
        Self {
            about: it.about.to_string(),
            holds: it.holds,
            bad: it.holds.is_none_or(|holds| it.about.is_bad(holds)),
            reason: it.reason,
            message: it.message,
        }
    }
}

impl From<Condition> for ToldCondition {
    fn from(it: Condition) -> Self {
        Self {
            about: it.about.to_string(),
            holds: Some(it.holds),
            bad: it.about.is_bad(it.holds),
            reason: it.reason,
            message: it.message,
        }
    }
}

impl ToldConfig {
    /// Whether nothing is wrong with it on any node that it is for.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.conditions.iter().all(|it| !it.bad)
    }
}

/// What the configs of a cluster say. Only lists are asked for.
///
/// # Errors
/// When a kind cannot be listed. One that the cluster does not know has no objects.
pub fn told(kubeconfig: Option<&Path>) -> Result<Vec<ToldConfig>, ListError> {
    let (client, runtime) = connect(kubeconfig)?;
    runtime.block_on(async {
        match of_all(&client).await {
            Ok(told) => Ok(told),
            Err(untold) => Err(untold.by(kubeconfig).await),
        }
    })
}

async fn of_all(client: &Client) -> Result<Vec<ToldConfig>, Untold> {
    let nodes = all(client, Kind::Node).await?;
    let nodes: Vec<(String, Option<Labels>)> = nodes.iter().map(named).collect();
    let mut told = Vec::new();
    for kind in [Kind::CiliumEnvoyConfig, Kind::CiliumClusterwideEnvoyConfig] {
        for object in all(client, kind).await? {
            told.push(of(kind, &object, &nodes));
        }
    }
    Ok(told)
}

async fn all(client: &Client, kind: Kind) -> Result<Vec<Value>, Untold> {
    items(client, &resource(kind), None).await
}

fn named(node: &Value) -> (String, Option<Labels>) {
    let metadata = &node["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default().to_owned();
    (
        name,
        serde_json::from_value(metadata["labels"].clone()).ok(),
    )
}

fn of(kind: Kind, object: &Value, nodes: &[(String, Option<Labels>)]) -> ToldConfig {
    let text = |field: &str| {
        let found = object.pointer(&format!("/metadata/{field}"));
        found.and_then(Value::as_str).unwrap_or_default()
    };
    // One that cannot be read is for every node, and what they say of it is told.
    let config: EnvoyConfig = serde_json::from_value(object.clone()).unwrap_or_default();
    let status = &object["status"];
    let nodes = nodes.iter();
    let nodes = nodes.map(|(name, labels)| (name.as_str(), labels.as_ref()));
    let generation = config.metadata.generation.unwrap_or_default();
    ToldConfig {
        config: ObjectRef::new(kind, text("namespace"), text("name")),
        conditions: together(&config, nodes, status)
            .into_iter()
            .map(ToldCondition::from)
            .collect(),
        nodes: said(status)
            .into_iter()
            .map(|it| of_node(it, generation))
            .collect(),
    }
}

fn of_node(said: NodeSays, generation: i64) -> ToldNode {
    ToldNode {
        node: said.node,
        current: said.generation >= generation,
        conditions: said
            .conditions
            .into_iter()
            .map(ToldCondition::from)
            .collect(),
    }
}
