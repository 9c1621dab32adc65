//! Documents become objects: what each is by its kind, and where each was seen first.
//!
//! A list is its items. What could change an answer and is no object here is named, what could not
//! is counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::document::{Node, Tree};
use super::error::{Fault, SourceError};
use super::kind::{self, Role};
use super::mistake::{Mistake, mistake, mistyped, required, unknown_field};
use super::names::{check_names, namespace_and_name, title};
use super::path::{FieldPath, Step};
use super::{helm, rules, typed};
use crate::cilium_config::{self, CiliumConfig};
use crate::object::{Entry, Kind, Object, ObjectRef, Objects, Provenance, namespace_of};
use crate::policy::Policy;

/// What was read so far.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) objects: Objects,
    pub(super) errors: Vec<SourceError>,
    /// `StatefulSet default/db` and the namespace and name of the pods it would own.
    pod_makers: Vec<(String, String, String)>,
    /// Where each object was first seen.
    seen: BTreeMap<ObjectRef, (Arc<str>, u32)>,
}

impl Reader {
    /// The objects, unless something is wrong.
    pub(super) fn finish(mut self) -> Result<Objects, Vec<SourceError>> {
        if !self.errors.is_empty() {
            self.errors.sort();
            return Err(self.errors);
        }
        for (title, namespace, name) in std::mem::take(&mut self.pod_makers) {
            if !has_pod_of(&self.objects, &namespace, &name) {
                self.objects.not_simulated.push(title);
            }
        }
        self.objects.not_simulated.sort();
        self.objects.notes.sort();
        Ok(self.objects)
    }
}

/// Whether some pod is owned by that maker. Pods of a CronJob's Jobs and of a Deployment's
/// ReplicaSets bear the maker's name in front of their own.
fn has_pod_of(objects: &Objects, namespace: &str, name: &str) -> bool {
    objects.pods().any(|pod| {
        namespace_of(&pod.metadata) == namespace
            && pod
                .metadata
                .name
                .as_deref()
                .and_then(|pod| pod.strip_prefix(name))
                .is_some_and(|rest| rest.starts_with('-'))
    })
}

/// One document while it is read, and its place inside lists.
pub(super) struct Document<'r> {
    pub(super) reader: &'r mut Reader,
    pub(super) file: &'r Arc<str>,
    pub(super) base: Vec<Step>,
}

impl Document<'_> {
    pub(super) fn read(&mut self, node: Node) {
        if let Err(mistake) = self.try_read(&node) {
            self.report(&node, mistake);
        }
    }

    fn report(&mut self, node: &Node, mistake: Mistake) {
        self.report_of(node, title(node), mistake);
    }

    /// Of a document that is no object.
    pub(super) fn report_untitled(&mut self, node: &Node, mistake: Mistake) {
        self.report_of(node, None, mistake);
    }

    fn report_of(&mut self, node: &Node, object: Option<String>, mistake: Mistake) {
        self.reader.errors.push(SourceError {
            file: Arc::clone(self.file),
            place: node.find(&mistake.path.0).clone(),
            fault: mistake.fault,
            object,
            field: FieldPath(self.base.iter().chain(&mistake.path.0).cloned().collect())
                .to_string(),
            reason: mistake.reason,
            fix: mistake.fix,
            other: None,
        });
    }

    fn try_read(&mut self, node: &Node) -> Result<(), Mistake> {
        if !matches!(node.tree, Tree::Map(_)) {
            return Err(mistake(
                Fault::NotAnObject,
                &[],
                "this is no mapping, and a Kubernetes object is one",
                "write `apiVersion:`, `kind:` and `metadata:` at the beginning of lines, or take the document out",
            ));
        }
        let kind = required(node, "kind", "Service")?;
        let version = required(node, "apiVersion", "v1")?;
        match kind::role(version, kind) {
            Role::Read(_) | Role::MakesPods if helm::is_passing(node, kind) => {
                self.pass_over(format!("{kind} (a Helm hook)"));
                Ok(())
            }
            Role::Read(kind) => self.object(node, kind),
            Role::List { item } => self.list(node, version, item.as_deref()),
            Role::NotSimulated => {
                let title = title(node).unwrap_or_else(|| kind.to_owned());
                self.policy(node, kind, &title);
                self.reader.objects.not_simulated.push(title);
                Ok(())
            }
            Role::MakesPods => {
                let (namespace, name) = namespace_and_name(node);
                let title = title(node).unwrap_or_else(|| kind.to_owned());
                self.reader
                    .pod_makers
                    .push((title, namespace.to_owned(), name.to_owned()));
                Ok(())
            }
            Role::PassedOver => {
                self.cilium_config(node, kind);
                self.pass_over(kind.to_owned());
                Ok(())
            }
            Role::WrongVersion { want } => Err(mistake(
                Fault::ApiVersion,
                &["apiVersion"],
                &format!("no cluster serves a {kind} of `{version}` any more"),
                &format!("write it as `apiVersion: {want}`; its fields may have changed too"),
            )),
            Role::Misspelt(meant) => Err(mistake(
                Fault::NotAnObject,
                &["kind"],
                &format!("`{version}` has no kind `{kind}`"),
                &format!("write `kind: {meant}` if that is meant"),
            )),
        }
    }

    fn list(&mut self, node: &Node, version: &str, item_kind: Option<&str>) -> Result<(), Mistake> {
        let Some(items) = node.get("items") else {
            return Err(mistake(
                Fault::MissingField,
                &["items"],
                "a list has no `items`",
                "add `items:` with the objects, or `items: []`",
            ));
        };
        let items = match &items.tree {
            Tree::Seq(items) => items.clone(),
            Tree::Scalar(value) if value.is_null() => return Ok(()),
            _ => {
                return Err(mistake(
                    Fault::WrongType,
                    &["items"],
                    "`items` is no sequence",
                    "write each object as `- apiVersion: …`",
                ));
            }
        };
        for (index, mut item) in items.into_iter().enumerate() {
            // `kubectl get --raw` leaves out in items what the list's own kind says.
            if let Some(kind) = item_kind {
                item.fill("kind", kind);
                item.fill("apiVersion", version);
            }
            let base = [Step::Key("items".to_owned()), Step::Index(index)];
            let base = self.base.iter().cloned().chain(base).collect();
            Document {
                reader: self.reader,
                file: self.file,
                base,
            }
            .read(item);
        }
        Ok(())
    }

    fn object(&mut self, node: &Node, kind: Kind) -> Result<(), Mistake> {
        check_names(node, kind)?;
        let typed = typed::typed(kind, node.value()).map_err(mistyped)?;
        let from_cluster = is_from_cluster(node);
        for refused in rules::refused(&typed.object) {
            // A misspelt `pathType` is told once, as what it is.
            let misspelt = refused.fault == Fault::MissingField && !typed.unknown.is_empty();
            if !misspelt || matches!(typed.object, Object::Service(_)) {
                self.report(node, refused);
            }
        }
        for unknown in typed.unknown {
            if from_cluster {
                let title = title(node).unwrap_or_default();
                self.reader.objects.notes.push(format!(
                    "{title} {}: a field that Nodeway does not know, passed over",
                    unknown.path
                ));
            } else {
                self.report(node, unknown_field(unknown));
            }
        }
        self.insert(node, typed.object);
        Ok(())
    }

    fn pass_over(&mut self, kind: String) {
        *self.reader.objects.passed_over.entry(kind).or_default() += 1;
    }

    /// A policy is not simulated, but who it selects is told.
    fn policy(&mut self, node: &Node, kind: &str, title: &str) {
        let namespaced = match kind {
            "NetworkPolicy" | "CiliumNetworkPolicy" => true,
            "CiliumClusterwideNetworkPolicy" => false,
            _ => return,
        };
        let namespace = namespaced.then(|| namespace_and_name(node).0.to_owned());
        let mut policy = Policy::read(title.to_owned(), namespace, kind, &node.value());
        policy.file = Arc::clone(self.file);
        policy.line = node.place().line;
        self.reader.objects.policies.push(policy);
    }

    /// Of ConfigMaps only Cilium's own says something.
    fn cilium_config(&mut self, node: &Node, kind: &str) {
        let (namespace, name) = namespace_and_name(node);
        if kind != "ConfigMap" || name != cilium_config::NAME {
            return;
        }
        let data = match node.get("data").map(Node::value) {
            Some(serde_json::Value::Object(data)) => data,
            _ => return,
        };
        let text = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        let config = CiliumConfig {
            namespace: namespace.to_owned(),
            file: Arc::clone(self.file),
            line: node.place().line,
            data: data
                .into_iter()
                .map(|(key, value)| (key, text(value)))
                .collect(),
        };
        self.reader.objects.cilium_config.get_or_insert(config);
    }

    fn insert(&mut self, node: &Node, object: Object) {
        let reference = object.reference();
        let line = node.place().line;
        if let Some((file, first)) = self.reader.seen.get(&reference) {
            let other = (Arc::clone(file), *first);
            self.reader.errors.push(SourceError {
                file: Arc::clone(self.file),
                place: node.place().clone(),
                fault: Fault::Duplicate,
                object: Some(reference.to_string()),
                field: FieldPath(self.base.clone()).to_string(),
                reason: format!("the same object is already at {}:{}", other.0, other.1),
                fix: "take one of the two out, or give it another name".to_owned(),
                other: Some(other),
            });
            return;
        }
        self.reader
            .seen
            .insert(reference, (Arc::clone(self.file), line));
        let provenance = Provenance::Written {
            file: Arc::clone(self.file),
            line,
        };
        self.reader.objects.insert_entry(Entry {
            object,
            provenance,
            derived_fields: Vec::new(),
        });
    }
}

/// An object that a cluster gave out may have fields of an API newer than ours; a manifest may not.
pub(super) fn is_from_cluster(node: &Node) -> bool {
    let set = |node: Option<&Node>| {
        node.is_some_and(|node| match &node.tree {
            Tree::Scalar(value) => !value.is_null(),
            Tree::Seq(items) => !items.is_empty(),
            Tree::Map(entries) => !entries.is_empty(),
        })
    };
    let metadata = node.get("metadata");
    set(node.get("status"))
        || ["uid", "resourceVersion", "managedFields"]
            .iter()
            .any(|field| set(metadata.and_then(|metadata| metadata.get(field))))
}
