//! What an agent says of configs, written into their status: its own node's entry, and no other's.
//!
//! Nothing is written that stands there already: what stood there when the agent began is asked for
//! once. What is in motion is written when it has settled.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Patch, PatchParams};
use nodeway_core::condition::Condition;
use nodeway_core::object::ObjectRef;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::watch::{Receiver, Sender, channel};

use super::config_status::{Stated, now, stated};
use super::{api_of, resource, typed};
use crate::cause::with_causes;
use crate::clock::Clock;

/// How often what is said may change.
const EVERY: Duration = Duration::from_secs(1);
/// Between a change and its writing: a frontend arms, an Envoy acknowledges.
const SETTLED: Duration = Duration::from_secs(1);
/// Between two tries to write what was refused.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest name that an API server takes for who writes, in bytes.
const LONGEST_MANAGER: usize = 128;

/// What is said of one config.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Said {
    /// Which object of its name is meant.
    pub(crate) uid: Option<String>,
    /// Which of its specs.
    pub(crate) generation: Option<i64>,
    /// None for a config that is for other nodes.
    pub(crate) conditions: Option<[Condition; 4]>,
}

type All = BTreeMap<ObjectRef, Said>;

/// Writes what is said of configs.
pub(crate) struct Conditions {
    sender: Sender<All>,
    clock: Clock,
    next: Cell<Duration>,
}

impl Conditions {
    /// Begins to write for a node, as long as this lives.
    pub(crate) fn begin(runtime: &Handle, client: Client, node: &str) -> Self {
        let (sender, said) = channel(All::new());
        let writer = Writer {
            client,
            node: node.to_owned(),
            written: BTreeMap::new(),
            error: None,
        };
        runtime.spawn(writer.follow(said));
        Self {
            sender,
            clock: Clock::start(),
            next: Cell::new(Duration::ZERO),
        }
    }

    /// Whether it is time to say something again.
    pub(crate) fn is_due(&self) -> bool {
        let now = self.clock.now();
        let due = now >= self.next.get();
        if due {
            self.next.set(now + EVERY);
        }
        due
    }

    /// Says all there is to say.
    pub(crate) fn say(&self, all: All) {
        self.sender.send_if_modified(|said| {
            let differs = *said != all;
            if differs {
                *said = all;
            }
            differs
        });
    }
}

struct Writer {
    client: Client,
    node: String,
    /// The node's entries as they stand there, none for none, with the objects' uids.
    written: BTreeMap<ObjectRef, (Option<String>, Option<Value>)>,
    error: Option<String>,
}

impl Writer {
    async fn follow(mut self, mut said: Receiver<All>) {
        while said.changed().await.is_ok() {
            tokio::time::sleep(SETTLED).await;
            loop {
                let all = said.borrow_and_update().clone();
                if self.write_all(&all).await {
                    break;
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Whether all stands there now.
    async fn write_all(&mut self, all: &All) -> bool {
        self.written.retain(|config, _| all.contains_key(config));
        let mut first = None;
        for (config, said) in all {
            if let Err(error) = self.write(config, said).await {
                first.get_or_insert_with(|| format!("{config}: {}", with_causes(&error)));
            }
        }
        if let Some(error) = first.as_ref().filter(|it| self.error.as_ref() != Some(*it)) {
            tracing::error!(%error, "a config's status cannot be written; trying again");
        }
        self.error = first;
        self.error.is_none()
    }

    async fn write(&mut self, config: &ObjectRef, said: &Said) -> Result<(), kube::Error> {
        let api = api_of(&self.client, config);
        let known = self.written.get(config).filter(|(uid, _)| *uid == said.uid);
        let known = match known {
            Some((_, entry)) => entry.clone(),
            None => match api.get_opt(&config.name).await? {
                Some(there) if there.metadata.uid == said.uid => entry_of(&there.data, &self.node),
                // Another has taken its place: the watch tells.
                _ => return Ok(()),
            },
        };
        let conditions = said.conditions.as_ref();
        let wanted =
            conditions.map(|it| entry(&self.node, it, said.generation, known.as_ref(), now()));
        if wanted != known {
            let mut body = json!({"metadata": {"name": config.name, "uid": said.uid}});
            // What is no longer said by who said it goes away. An empty status would be refused.
            if let (Some(entry), Some(body)) = (&wanted, body.as_object_mut()) {
                body.insert("status".to_owned(), json!({"nodes": [entry]}));
            }
            let body = typed(&resource(config.kind), body);
            let params = PatchParams::apply(&manager(&self.node)).force();
            let patch = Patch::Apply(&body);
            let patched = api.patch_status(&config.name, &params, &patch).await;
            if !done(patched.map(drop))? {
                return Ok(());
            }
        }
        self.written
            .insert(config.clone(), (said.uid.clone(), wanted));
        Ok(())
    }
}

/// Whether it was written; not so if the object is gone, or is another: the watch tells.
pub(crate) fn done(written: Result<(), kube::Error>) -> Result<bool, kube::Error> {
    const MISSING: u16 = 404;
    const CONFLICT: u16 = 409;
    match written {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if [MISSING, CONFLICT].contains(&status.code) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Who owns a node's entry.
pub(crate) fn manager(node: &str) -> String {
    let mut manager = format!("nodeway-agent-{node}");
    manager.truncate(manager.floor_char_boundary(LONGEST_MANAGER));
    manager
}

/// A node's entry of an object.
fn entry_of(object: &Value, node: &str) -> Option<Value> {
    let nodes = object.pointer("/status/nodes")?.as_array()?;
    nodes.iter().find(|it| it["name"] == node).cloned()
}

/// A node's entry; conditions that hold as before do so since then.
fn entry(
    node: &str,
    conditions: &[Condition; 4],
    generation: Option<i64>,
    before: Option<&Value>,
    now: Timestamp,
) -> Value {
    let all = conditions.iter().map(Stated::from);
    // An API server counts the specs of all of these kinds.
    let conditions = stated(all, generation.unwrap_or_default(), before, now);
    json!({"name": node, "conditions": conditions})
}

#[cfg(test)]
mod tests {
    use nodeway_core::condition::conditions;
    use nodeway_core::object::Kind;

    use super::*;

    fn said(awaited: &[String]) -> [Condition; 4] {
        let config = ObjectRef::new(Kind::CiliumEnvoyConfig, "shop", "web");
        conditions(&config, [], awaited)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_holds_as_before_does_so_since_then() {
        let first = entry("n", &said(&[]), Some(1), None, at(10));
        let again = entry("n", &said(&[]), Some(1), Some(&first), at(20));
        assert_eq!(again, first);
        let pending = said(&["a listener".to_owned()]);
        let pending = entry("n", &pending, Some(1), Some(&first), at(20));
        let since = |index: usize| pending["conditions"][index]["lastTransitionTime"].clone();
        assert_eq!(
            (since(0), since(3)),
            ("1970-01-01T00:00:10Z".into(), "1970-01-01T00:00:20Z".into())
        );
    }

    #[test]
    fn of_all_entries_the_nodes_own_is_taken() {
        let object = json!({"status": {"nodes": [{"name": "a", "x": 1}, {"name": "b", "x": 2}]}});
        assert_eq!(entry_of(&object, "b"), Some(json!({"name": "b", "x": 2})));
        assert_eq!(entry_of(&object, "c"), None);
        assert_eq!(entry_of(&json!({}), "a"), None);
    }

    #[test]
    fn who_writes_has_a_name_that_an_api_server_takes() {
        assert_eq!(manager("node-1"), "nodeway-agent-node-1");
        assert_eq!(manager(&"n".repeat(253)).len(), LONGEST_MANAGER);
    }
}
