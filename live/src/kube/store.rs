//! The objects of a cluster as its watches tell them.
//!
//! It is pure: what is told goes in, changes come out. While a kind is listed anew, nothing of it goes;
//! what the whole list did not have goes at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nodeway_core::object::{Change, Kind, Object, ObjectRef, Objects, Provenance};
use nodeway_core::source::{self, Text};
use serde_json::Value;

/// How texts of an API server are named in errors.
const NAME: &str = "the API server";

/// What a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// A kind is listed anew from here on.
    Listing(Kind),
    /// It has an object, new or changed.
    Has(Kind, Value),
    /// All that it has of a kind has been told.
    Listed(Kind),
    /// An object is gone: its namespace, empty for none, and its name.
    Gone(Kind, String, String),
    /// A watch does not go on; the kind is listed anew when it can be.
    Broken(Kind, String),
}

/// The objects, and what is not as it should be with them.
#[derive(Debug, Default)]
pub struct Store {
    objects: Objects,
    /// The kinds that were listed as a whole.
    listed: BTreeSet<Kind>,
    /// What a list that is under way has told so far.
    listing: BTreeMap<Kind, BTreeSet<ObjectRef>>,
    /// Objects that say what cannot be read; what they said before stays.
    unread: BTreeMap<ObjectRef, String>,
    broken: BTreeMap<Kind, String>,
    /// What configs' status says, where that is watched.
    statuses: BTreeMap<ObjectRef, Value>,
    /// The configs whose status is another since somebody asked.
    restated: BTreeSet<ObjectRef>,
}

impl Store {
    /// Takes what a watch told, and says what has changed by that.
    pub fn take(&mut self, told: Told) -> Vec<Change> {
        match told {
            Told::Listing(kind) => {
                self.listing.insert(kind, BTreeSet::new());
                Vec::new()
            }
            Told::Has(kind, value) => self.put(kind, value).into_iter().collect(),
            Told::Listed(kind) => {
                self.broken.remove(&kind);
                self.listed.insert(kind);
                let seen = self.listing.remove(&kind).unwrap_or_default();
                let all = self.objects.iter().map(|(reference, _)| reference);
                let gone = all.filter(|it| it.kind == kind && !seen.contains(*it));
                let gone: Vec<ObjectRef> = gone.cloned().collect();
                self.unread
                    .retain(|it, _| it.kind != kind || seen.contains(it));
                gone.iter().filter_map(|it| self.remove(it)).collect()
            }
            Told::Gone(kind, namespace, name) => {
                let reference = reference(kind, &namespace, &name);
                self.unread.remove(&reference);
                self.remove(&reference).into_iter().collect()
            }
            Told::Broken(kind, why) => {
                self.broken.insert(kind, why);
                Vec::new()
            }
        }
    }

    /// The objects.
    #[must_use]
    pub const fn objects(&self) -> &Objects {
        &self.objects
    }

    /// What a config's status says; nothing where that is not watched.
    #[must_use]
    pub fn status(&self, config: &ObjectRef) -> Option<&Value> {
        self.statuses.get(config)
    }

    /// The configs whose status says something else since this was asked last.
    pub fn restated(&mut self) -> BTreeSet<ObjectRef> {
        std::mem::take(&mut self.restated)
    }

    /// Whether all of these kinds were listed as a whole.
    #[must_use]
    pub fn has_listed(&self, kinds: &[Kind]) -> bool {
        kinds.iter().all(|it| self.listed.contains(it))
    }

    /// What is wrong, in one line; nothing if nothing is.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let broken = self.broken.iter();
        let broken = broken.map(|(kind, why)| format!("watching {}: {why}", kind.name()));
        let unread = self.unread.values().cloned();
        let all: Vec<String> = broken.chain(unread).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn put(&mut self, kind: Kind, mut value: Value) -> Option<Change> {
        let of = |field: &str| {
            let found = value.pointer(&format!("/metadata/{field}"));
            found.and_then(Value::as_str).unwrap_or_default()
        };
        let reference = reference(kind, of("namespace"), of("name"));
        let version = Arc::from(of("resourceVersion"));
        // It changes with what is written into a status, and nothing hangs on that.
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
        }
        if let Some(seen) = self.listing.get_mut(&kind) {
            seen.insert(reference.clone());
        }
        if is_config(kind) {
            let status = value.as_object_mut().and_then(|it| it.remove("status"));
            self.restate(&reference, status);
        }
        match read(&value) {
            Ok(object) => {
                self.unread.remove(&reference);
                let provenance = Provenance::Watched { version };
                let before = self.objects.insert(object.clone(), provenance);
                // Of an object that is listed again mostly nothing has changed.
                let same = before.is_some_and(|before| before.object == object);
                (!same).then_some(Change::Put(object))
            }
            Err(why) => {
                tracing::warn!(object = %reference, %why, "cannot be read; what it said before stays");
                self.unread.insert(reference, why);
                None
            }
        }
    }

    /// No plan hangs on it, and so it is no change of an object.
    fn restate(&mut self, config: &ObjectRef, status: Option<Value>) {
        if self.statuses.get(config) == status.as_ref() {
            return;
        }
        match status {
            Some(status) => self.statuses.insert(config.clone(), status),
            None => self.statuses.remove(config),
        };
        self.restated.insert(config.clone());
    }

    fn remove(&mut self, reference: &ObjectRef) -> Option<Change> {
        self.statuses.remove(reference);
        let removed = self.objects.remove(reference);
        removed.map(|_| Change::Delete(reference.clone()))
    }
}

/// Whether objects of this kind say what became of them on each node.
pub(super) const fn is_config(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::CiliumEnvoyConfig | Kind::CiliumClusterwideEnvoyConfig
    )
}

fn reference(kind: Kind, namespace: &str, name: &str) -> ObjectRef {
    if kind.namespaced() {
        ObjectRef::new(kind, namespace, name)
    } else {
        ObjectRef::cluster(kind, name)
    }
}

/// One object, by the rules for texts.
fn read(value: &Value) -> Result<Object, String> {
    let objects = source::read(&[Text::new(NAME, value.to_string())]).map_err(|errors| {
        let all = errors.iter().map(|it| {
            let object = it.object.as_ref().map(ToString::to_string);
            let object = object.unwrap_or_default();
            format!("{object}: {}: {}; {}", it.field, it.reason, it.fix)
        });
        all.collect::<Vec<_>>().join("; ")
    })?;
    let one = objects.iter().next().map(|(_, entry)| entry.object.clone());
    one.ok_or_else(|| "it is of no kind that is read".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, port: u16) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "7"},
            "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": port}]},
        })
    }

    fn has(name: &str, port: u16) -> Told {
        Told::Has(Kind::Service, service(name, port))
    }

    /// What comes of it, as `+name` and `-name`.
    fn take(store: &mut Store, told: impl IntoIterator<Item = Told>) -> Vec<String> {
        let changes = told.into_iter().flat_map(|it| store.take(it));
        let changes = changes.map(|change| match change {
            Change::Put(object) => format!("+{}", object.reference().name),
            Change::Delete(reference) => format!("-{}", reference.name),
        });
        changes.collect()
    }

    fn listed(names: &[&str]) -> Vec<Told> {
        let all = names.iter().map(|name| has(name, 80));
        let begin = [Told::Listing(Kind::Service)].into_iter();
        begin
            .chain(all)
            .chain([Told::Listed(Kind::Service)])
            .collect()
    }

    #[test]
    fn a_list_is_whole_at_its_end() {
        let mut store = Store::default();
        assert_eq!(
            take(&mut store, [Told::Listing(Kind::Service), has("a", 80)]),
            ["+a"]
        );
        assert!(!store.has_listed(&[Kind::Service]));
        assert_eq!(take(&mut store, [Told::Listed(Kind::Service)]), [""; 0]);
        assert!(store.has_listed(&[Kind::Service]));
    }

    #[test]
    fn what_a_new_list_does_not_have_goes_at_its_end_and_not_before() {
        let mut store = Store::default();
        take(&mut store, listed(&["a", "b"]));
        let begun = [Told::Listing(Kind::Service), has("b", 80), has("c", 80)];
        assert_eq!(take(&mut store, begun), ["+c"]);
        assert_eq!(take(&mut store, [Told::Listed(Kind::Service)]), ["-a"]);
    }

    #[test]
    fn what_is_told_again_is_no_change() {
        let mut store = Store::default();
        take(&mut store, listed(&["a"]));
        assert_eq!(take(&mut store, listed(&["a"])), [""; 0]);
        assert_eq!(take(&mut store, [has("a", 81)]), ["+a"]);
    }

    #[test]
    fn what_is_told_with_another_version_alone_is_no_change() {
        let mut store = Store::default();
        take(&mut store, listed(&["a"]));
        let mut again = service("a", 80);
        again["metadata"]["resourceVersion"] = json!("8");
        assert_eq!(take(&mut store, [Told::Has(Kind::Service, again)]), [""; 0]);
        let (_, entry) = store.objects().iter().next().unwrap();
        assert_eq!(entry.provenance.to_string(), "the API server, version 8");
    }

    #[test]
    fn what_a_configs_status_says_is_kept_beside_it_and_is_no_change_of_it() {
        let mut store = Store::default();
        let config = |status: Value| {
            let config = json!({
                "apiVersion": "cilium.io/v2", "kind": "CiliumEnvoyConfig",
                "metadata": {"name": "web", "namespace": "default"}, "spec": {}, "status": status,
            });
            Told::Has(Kind::CiliumEnvoyConfig, config)
        };
        let reference = ObjectRef::new(Kind::CiliumEnvoyConfig, "default", "web");
        assert_eq!(take(&mut store, [config(json!({"nodes": []}))]), ["+web"]);
        assert_eq!(store.restated(), [reference.clone()].into());
        let said = json!({"nodes": [{"name": "a"}]});
        assert_eq!(take(&mut store, [config(said.clone())]), [""; 0]);
        assert_eq!(store.status(&reference), Some(&said));
        assert_eq!(store.restated(), [reference].into());
        assert_eq!(take(&mut store, [config(said)]), [""; 0]);
        assert_eq!(store.restated(), [].into());
    }

    #[test]
    fn a_watch_that_breaks_changes_nothing_and_is_told_until_all_is_listed_anew() {
        let mut store = Store::default();
        take(&mut store, listed(&["a"]));
        let broken = Told::Broken(Kind::Service, "connection refused".to_owned());
        assert_eq!(take(&mut store, [broken]), [""; 0]);
        assert_eq!(
            store.error().unwrap(),
            "watching Service: connection refused"
        );
        // What is known by then may be long gone.
        take(&mut store, [Told::Listing(Kind::Service), has("a", 80)]);
        assert!(store.error().is_some());
        take(&mut store, [Told::Listed(Kind::Service)]);
        assert_eq!((store.error(), store.objects().len()), (None, 1));
    }

    #[test]
    fn an_object_that_cannot_be_read_is_told_and_stays_as_it_was() {
        let mut store = Store::default();
        take(&mut store, listed(&["a"]));
        let mut bad = service("a", 80);
        bad["spec"]["ports"] = json!("none");
        assert_eq!(take(&mut store, [Told::Has(Kind::Service, bad)]), [""; 0]);
        let error = store.error().unwrap();
        assert!(
            error.contains("Service default/a") && error.contains("spec.ports"),
            "{error}"
        );
        assert_eq!(store.objects().len(), 1);
        assert_eq!(
            take(
                &mut store,
                [Told::Gone(
                    Kind::Service,
                    "default".to_owned(),
                    "a".to_owned()
                )]
            ),
            ["-a"]
        );
        assert_eq!(store.error(), None);
    }
}
