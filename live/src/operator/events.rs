//! Kubernetes Events on objects of which something is refused, so that `kubectl describe` shows it: one
//! for each thing that is wrong with each spec of an object.
//!
//! Their names follow from what they say. So another operator, or this one after a restart, does not
//! tell a thing again.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use nodeway_core::condition::Overall;
use nodeway_core::object::ObjectRef;
use nodeway_core::problem::{Problem, Severity};
use serde_json::Value;

use super::{MANAGER, Operator};
use crate::kube::resource;

/// The longest message that an API server takes, in bytes.
const LONGEST: usize = 1024;
/// The longest name of an object, in bytes.
const LONGEST_NAME: usize = 253;

/// Something to be told of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Untold {
    object: ObjectRef,
    reason: String,
    message: String,
}

impl Untold {
    /// An error; warnings are told where one asks for them.
    pub(super) fn of(problem: &Problem) -> Option<Self> {
        let field = if problem.field.is_empty() { "" } else { " " };
        (problem.severity == Severity::Error).then(|| Self {
            object: problem.object.clone(),
            reason: format!("{:?}", problem.code),
            message: format!(
                "{}{field}{}: {}; {}",
                problem.code, problem.field, problem.reason, problem.fix
            ),
        })
    }

    /// The conditions of a config that are bad since a status.
    pub(super) fn since(status: &Value, config: &ObjectRef, all: &[Overall]) -> BTreeSet<Self> {
        let there = status["conditions"].as_array();
        let is_told = |it: &Overall| {
            let mut there = there.into_iter().flatten();
            let about = it.about.to_string();
            there.any(|old| {
                old["type"] == about && old["reason"] == it.reason && old["message"] == it.message
            })
        };
        all.iter()
            .filter(|it| it.is_refusal() && !is_told(it))
            .map(|it| Self {
                object: config.clone(),
                reason: it.reason.clone(),
                message: it.message.clone(),
            })
            .collect()
    }

    fn name(&self, uid: &str, generation: Option<i64>) -> String {
        let mut hasher = DefaultHasher::new();
        (uid, generation, &self.reason, &self.message).hash(&mut hasher);
        let hash = format!(".{:016x}", hasher.finish());
        let mut name = self.object.name.clone();
        name.truncate(LONGEST_NAME - hash.len());
        name + &hash
    }

    fn event(&self, metadata: &ObjectMeta, instance: &str, now: Timestamp) -> Event {
        let uid = metadata.uid.clone().unwrap_or_default();
        let resource = resource(self.object.kind);
        let namespace = Some(self.object.namespace.clone()).filter(|it| !it.is_empty());
        let mut message = self.message.clone();
        message.truncate(message.floor_char_boundary(LONGEST));
        Event {
            metadata: ObjectMeta {
                name: Some(self.name(&uid, metadata.generation)),
                // Those of objects without a namespace stand there.
                namespace: Some(namespace.clone().unwrap_or_else(|| "default".to_owned())),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(resource.api_version),
                kind: Some(resource.kind),
                namespace,
                name: Some(self.object.name.clone()),
                uid: Some(uid),
                ..ObjectReference::default()
            },
            type_: Some("Warning".to_owned()),
            reason: Some(self.reason.clone()),
            message: Some(message),
            action: Some("Checked".to_owned()),
            reporting_component: Some(MANAGER.to_owned()),
            reporting_instance: Some(instance.to_owned()),
            event_time: Some(MicroTime(now)),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Event::default()
        }
    }
}

impl Operator {
    /// Tells what is to be told, each thing once: nothing hangs on an Event.
    pub(super) fn tell_events(&mut self) {
        for untold in std::mem::take(&mut self.untold) {
            if self.clock.now() >= self.renew_at {
                self.untold.insert(untold);
                continue;
            }
            let objects = self.watched.store().objects();
            let Some(entry) = objects.get(&untold.object) else {
                continue;
            };
            let event = untold.event(entry.object.metadata(), &self.identity, Timestamp::now());
            let namespace = event.metadata.namespace.clone().unwrap_or_default();
            let api = Api::<Event>::namespaced(self.client.clone(), &namespace);
            let params = PostParams::default();
            let created = async {
                const CONFLICT: u16 = 409;
                match api.create(&params, &event).await {
                    Err(kube::Error::Api(status)) if status.code == CONFLICT => Ok(()),
                    done => done.map(drop),
                }
            };
            if let Err(error) = self.ask("Event", "create", created) {
                tracing::warn!(object = %untold.object, %error, "an Event is refused");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nodeway_core::condition::overall;
    use nodeway_core::object::Kind;
    use nodeway_core::problem::Code;
    use serde_json::json;

    use super::*;

    fn problem(severity: Severity) -> Problem {
        Problem {
            code: Code::BadPath,
            severity,
            object: ObjectRef::new(Kind::Ingress, "shop", "web"),
            field: "spec.rules[0]".to_owned(),
            reason: "it is none".to_owned(),
            fix: "write one".to_owned(),
        }
    }

    #[test]
    fn an_event_says_what_is_wrong_and_has_a_name_that_follows_from_it() {
        let untold = Untold::of(&problem(Severity::Error)).unwrap();
        let metadata = ObjectMeta {
            uid: Some("7".to_owned()),
            generation: Some(2),
            ..ObjectMeta::default()
        };
        let event = untold.event(&metadata, "one", Timestamp::UNIX_EPOCH);
        let again = untold.event(&metadata, "two", Timestamp::UNIX_EPOCH);
        assert_eq!(event.metadata, again.metadata);
        assert_eq!(event.reason.as_deref(), Some("BadPath"));
        let message = event.message.unwrap();
        assert!(
            message.ends_with(" spec.rules[0]: it is none; write one"),
            "{message}"
        );
        let later = ObjectMeta {
            generation: Some(3),
            ..metadata
        };
        let later = untold.event(&later, "one", Timestamp::UNIX_EPOCH);
        assert_ne!(event.metadata.name, later.metadata.name, "another spec");
    }

    #[test]
    fn a_warning_is_no_event() {
        assert_eq!(Untold::of(&problem(Severity::Warning)), None);
    }

    #[test]
    fn what_is_awaited_is_no_event_and_what_is_told_is_not_told_again() {
        let config = ObjectRef::new(Kind::CiliumEnvoyConfig, "shop", "web");
        let mut all = overall(&["a"], 1, &[]);
        assert_eq!(Untold::since(&Value::Null, &config, &all), [].into());
        let [.., programmed] = &mut all;
        programmed.reason = "RefusedByEnvoy".to_owned();
        programmed.message = "a: no".to_owned();
        let told = Untold::since(&Value::Null, &config, &all);
        assert_eq!(told.len(), 1);
        let there = json!({"conditions": [
            {"type": "Programmed", "reason": "RefusedByEnvoy", "message": "a: no"},
        ]});
        assert_eq!(Untold::since(&there, &config, &all), [].into());
    }
}
