//! What all nodes say of a config, put together into the conditions of its status; and the end of what
//! nodes said that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use nodeway_core::condition::Overall;
use nodeway_core::object::{Change, EnvoyConfig, Kind, Object, ObjectRef, Objects};
use nodeway_core::selector::Labels;
use serde_json::{Value, json};

use super::events::Untold;
use super::{AGAIN, MANAGER, Operator, WriteError};
use crate::kube::config_status::{Stated, nodes, now, stated, together};
use crate::kube::{api_of, done, manager, resource, typed};

/// Between a change and its writing: nodes say the same one after the other.
const SETTLED: Duration = Duration::from_secs(1);

/// The configs whose conditions may be other than they say.
#[derive(Debug, Default)]
pub(super) struct Unsaid {
    nodes: BTreeMap<String, Option<Labels>>,
    configs: BTreeSet<ObjectRef>,
    due: Option<Duration>,
}

impl Unsaid {
    /// Takes what has changed in the cluster.
    pub(super) fn take(
        &mut self,
        changes: &[Change],
        restated: BTreeSet<ObjectRef>,
        objects: &Objects,
        now: Duration,
    ) {
        let mut of_nodes = false;
        for change in changes {
            match change {
                Change::Put(Object::Node(node)) => {
                    let name = node.metadata.name.clone().unwrap_or_default();
                    let labels = node.metadata.labels.clone();
                    let before = self.nodes.insert(name, labels.clone());
                    of_nodes |= before != Some(labels);
                }
                Change::Delete(reference) if reference.kind == Kind::Node => {
                    of_nodes |= self.nodes.remove(&reference.name).is_some();
                }
                Change::Put(object) if config_of(object).is_some() => {
                    self.configs.insert(object.reference());
                }
                _ => {}
            }
        }
        self.configs.extend(restated);
        if of_nodes {
            self.take_all(objects);
        }
        self.await_until(now + SETTLED);
    }

    /// Every config is looked at.
    pub(super) fn take_all(&mut self, objects: &Objects) {
        let all = objects.iter();
        let configs = all.filter(|(_, entry)| config_of(&entry.object).is_some());
        self.configs
            .extend(configs.map(|(reference, _)| reference.clone()));
    }

    /// What there is to write is written then at the latest.
    pub(super) fn await_until(&mut self, due: Duration) {
        if self.configs.is_empty() {
            self.due = None;
        } else if self.due.is_none() {
            self.due = Some(due);
        }
    }

    /// When they are to be written; none if there is nothing.
    pub(super) const fn due(&self) -> Option<Duration> {
        self.due
    }

    /// The conditions that a config shall say, by what its status says of nodes.
    fn conditions(&self, config: &EnvoyConfig, status: &Value) -> [Overall; 4] {
        let nodes = self.nodes.iter();
        let nodes = nodes.map(|(name, labels)| (name.as_str(), labels.as_ref()));
        together(config, nodes, status)
    }
}

fn config_of(object: &Object) -> Option<&EnvoyConfig> {
    match object {
        Object::CiliumEnvoyConfig(config) | Object::CiliumClusterwideEnvoyConfig(config) => {
            Some(config)
        }
        _ => None,
    }
}

impl Operator {
    /// Says of each config what its nodes say, where it is said otherwise.
    pub(super) fn write_overall(&mut self) {
        if self.unsaid.due.is_none_or(|due| self.clock.now() < due) {
            return;
        }
        self.unsaid.due = None;
        for config in std::mem::take(&mut self.unsaid.configs) {
            let in_time = self.clock.now() < self.renew_at;
            let done = if in_time {
                self.write_conditions(&config)
            } else {
                Ok(false)
            };
            match done {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(object = %config, %error, "its status is refused; trying again");
                }
            }
            self.unsaid.configs.insert(config);
        }
        self.unsaid.await_until(self.clock.now() + AGAIN);
    }

    /// Whether all stands there.
    fn write_conditions(&mut self, reference: &ObjectRef) -> Result<bool, WriteError> {
        let store = self.watched.store();
        let entry = store.objects().get(reference);
        let Some(config) = entry.and_then(|it| config_of(&it.object)) else {
            return Ok(true);
        };
        let nothing = Value::Null;
        let status = store.status(reference).unwrap_or(&nothing);
        let mut body = json!({"metadata": {"name": reference.name, "uid": config.metadata.uid}});
        // What a node that is gone said goes when its writer says nothing.
        let known = |node: &&str| self.unsaid.nodes.contains_key(*node);
        for node in nodes(status).into_iter().filter(|it| !known(it)) {
            self.apply_status(reference, &body, &manager(node))?;
            tracing::info!(object = %reference, node, "what the node said is taken away, as the node is gone");
        }
        let all = self.unsaid.conditions(config, status);
        let generation = config.metadata.generation.unwrap_or_default();
        let wanted = stated(
            all.iter().map(Stated::from),
            generation,
            Some(status),
            now(),
        );
        if !says(status, &wanted) {
            if let Some(body) = body.as_object_mut() {
                body.insert("status".to_owned(), json!({"conditions": wanted}));
            }
            let untold = Untold::since(status, reference, &all);
            self.apply_status(reference, &body, MANAGER)?;
            self.untold.extend(untold);
        }
        Ok(true)
    }

    fn apply_status(
        &self,
        reference: &ObjectRef,
        body: &Value,
        manager: &str,
    ) -> Result<(), WriteError> {
        let api = api_of(&self.client, reference);
        let params = PatchParams::apply(manager).force();
        let body = typed(&resource(reference.kind), body.clone());
        let patch = Patch::Apply(&body);
        let patched = async {
            let patched = api.patch_status(&reference.name, &params, &patch).await;
            // One that is gone, or another by now, is told by the watch.
            done(patched.map(drop))
        };
        self.ask(reference.kind.name(), "status", patched).map(drop)
    }
}

/// Whether a status has these conditions, whatever others it has.
fn says(status: &Value, wanted: &Value) -> bool {
    let there = status["conditions"].as_array();
    let mut wanted = wanted.as_array().into_iter().flatten();
    wanted.all(|it| there.is_some_and(|there| there.contains(it)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Node;
    use nodeway_core::object::Provenance;

    use super::*;

    fn node(name: &str, pool: &str) -> Object {
        let mut node = Node::default();
        node.metadata.name = Some(name.to_owned());
        node.metadata.labels = Some([("pool".to_owned(), pool.to_owned())].into());
        Object::Node(Arc::new(node))
    }

    fn cluster() -> (Objects, ObjectRef) {
        let mut config = EnvoyConfig::default();
        config.metadata.name = Some("web".to_owned());
        let config = Object::CiliumEnvoyConfig(Arc::new(config));
        let reference = config.reference();
        let mut objects = Objects::default();
        let version = Arc::from("1");
        objects.insert(config, Provenance::Watched { version });
        (objects, reference)
    }

    const LATER: Duration = Duration::from_secs(100);

    #[test]
    fn a_node_that_comes_goes_or_has_other_labels_concerns_all_configs() {
        let (objects, config) = cluster();
        let mut unsaid = Unsaid::default();
        let gone = Change::Delete(ObjectRef::cluster(Kind::Node, "a"));
        for change in [
            Change::Put(node("a", "x")),
            Change::Put(node("a", "y")),
            gone,
        ] {
            unsaid.configs.clear();
            unsaid.take(&[change], BTreeSet::new(), &objects, LATER);
            assert_eq!(unsaid.configs, [config.clone()].into());
        }
    }

    #[test]
    fn what_else_changes_of_a_node_concerns_none() {
        let (objects, _) = cluster();
        let mut unsaid = Unsaid::default();
        unsaid.take(
            &[Change::Put(node("a", "x"))],
            BTreeSet::new(),
            &objects,
            LATER,
        );
        unsaid.configs.clear();
        unsaid.due = None;
        unsaid.take(
            &[Change::Put(node("a", "x"))],
            BTreeSet::new(),
            &objects,
            LATER,
        );
        assert!(unsaid.configs.is_empty());
        assert_eq!(unsaid.due(), None);
    }

    #[test]
    fn what_settles_is_not_put_off_by_what_comes_later() {
        let (objects, config) = cluster();
        let mut unsaid = Unsaid::default();
        for seconds in [10, 11] {
            let now = Duration::from_secs(seconds);
            unsaid.take(&[], [config.clone()].into(), &objects, now);
        }
        assert_eq!(unsaid.due(), Some(Duration::from_secs(10) + SETTLED));
    }

    #[test]
    fn conditions_of_others_are_nobodys_business() {
        let own = json!([{"type": "Accepted", "status": "True"}]);
        let both =
            json!({"conditions": [{"type": "Other"}, {"type": "Accepted", "status": "True"}]});
        assert!(says(&both, &own));
        assert!(!says(&json!({"conditions": [{"type": "Other"}]}), &own));
        assert!(!says(&Value::Null, &own));
    }
}
