//! Text that a user has becomes objects: manifests, Helm output, `kubectl get -o yaml`, as they are.
//!
//! text → [documents](document) → lists unrolled → [what its kind means](kind) → [an object of its
//! type](typed). Every mistake of every file is told at once, with file, line, field and fix.
//! Kinds that cannot change an answer are counted, kinds that could are named: neither is an error.
//! Core does no I/O: whoever calls has read the files.

mod document;
#[cfg(test)]
mod dump_tests;
mod error;
mod fields;
mod helm;
mod kind;
mod known;
mod names;
mod path;
mod rules;
#[cfg(test)]
mod tests;
mod typed;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use error::{Fault, Place, SourceError};
pub use known::Known;

use crate::cilium_config::{self, CiliumConfig};
use crate::config_dump::{self, ConfigDump};
use crate::object::{Entry, Kind, Object, ObjectRef, Objects, Provenance};
use crate::policy::Policy;
use document::{Node, Tree};
use kind::Role;
use names::{check_names, namespace_and_name, title};
use path::FieldPath;
use typed::{Mistyped, Unknown};

/// One text and the name under which a user knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The file as the user named it, `-` for standard input.
    pub name: Arc<str>,
    /// Its content.
    pub content: String,
}

impl Text {
    /// A text under a name.
    pub fn new(name: impl Into<Arc<str>>, content: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            content: content.into(),
        }
    }
}

/// Reads texts into what is known of a cluster: its objects, or of a dump alone what its Envoy has.
///
/// # Errors
///
/// Every mistake of every text, sorted by file and line.
pub fn read_any(texts: &[Text]) -> Result<Known, Vec<SourceError>> {
    match texts {
        [text] if ConfigDump::is_one(&text.content) => {
            let dump = config_dump::read(text).map_err(|error| vec![*error])?;
            Ok(Known::Dump(Arc::new(dump)))
        }
        _ => read(texts).map(Known::from),
    }
}

/// Reads texts into the state of a cluster.
///
/// # Errors
///
/// Every mistake of every text, sorted by file and line. An Envoy's dump is one: it has no objects.
pub fn read(texts: &[Text]) -> Result<Objects, Vec<SourceError>> {
    let mut reader = Reader::default();
    for text in texts {
        if let Some(error) = helm::words_around(text) {
            reader.errors.push(error);
            continue;
        }
        if ConfigDump::is_one(&text.content) {
            reader.errors.push(dump_among(text, texts.len()));
            continue;
        }
        let (documents, errors) = document::documents(text);
        reader.errors.extend(errors);
        for node in documents {
            Document {
                reader: &mut reader,
                file: &text.name,
                base: Vec::new(),
            }
            .read(node);
        }
    }
    reader.finish()
}

/// Reads texts as bare values, a document each, of whatever kind: for who rewrites them.
///
/// # Errors
///
/// Every mistake of syntax, sorted by file and line.
pub fn values(texts: &[Text]) -> Result<Vec<serde_json::Value>, Vec<SourceError>> {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for text in texts {
        if let Some(error) = helm::words_around(text) {
            errors.push(error);
            continue;
        }
        let (documents, mistakes) = document::documents(text);
        values.extend(documents.iter().map(Node::value));
        errors.extend(mistakes);
    }
    errors.sort();
    if errors.is_empty() {
        Ok(values)
    } else {
        Err(errors)
    }
}

/// Reads a text of one document as a type of the caller's own, as strictly as an object: a fixture.
///
/// # Errors
///
/// Every mistake, sorted by line: syntax, wrong types, fields that the type does not have.
pub fn read_one<T>(text: &Text) -> Result<T, Vec<SourceError>>
where
    T: for<'de> serde::Deserialize<'de>,
{
    let (documents, errors) = document::documents(text);
    let mut reader = Reader {
        errors,
        ..Reader::default()
    };
    let mut documents = documents.into_iter();
    let read = documents.next().and_then(|node| {
        let mut document = Document {
            reader: &mut reader,
            file: &text.name,
            base: Vec::new(),
        };
        if !matches!(node.tree, Tree::Map(_)) {
            let reason = "this is no mapping of fields";
            document.report_untitled(
                &node,
                mistake(
                    Fault::WrongType,
                    &[],
                    reason,
                    "write `field: value`, one a line",
                ),
            );
            return None;
        }
        match typed::read_as(node.value()) {
            Ok((read, unknown)) => {
                for unknown in unknown {
                    document.report_untitled(&node, unknown_field(unknown));
                }
                Some(read)
            }
            Err(mut wrong) => {
                for unknown in std::mem::take(&mut wrong.unknown) {
                    document.report_untitled(&node, unknown_field(unknown));
                }
                document.report_untitled(&node, mistyped(wrong));
                None
            }
        }
    });
    let place = documents.next().map(|node| node.place().clone());
    if read.is_none() && reader.errors.is_empty() || place.is_some() {
        let (reason, fix) = match place {
            Some(_) => ("a second document", "take it out: this file has one"),
            None => ("the file is empty", "write its fields"),
        };
        reader.errors.push(SourceError {
            file: Arc::clone(&text.name),
            place: place.unwrap_or(Place {
                line: 1,
                ..Place::default()
            }),
            fault: Fault::NotAnObject,
            object: None,
            field: String::new(),
            reason: reason.to_owned(),
            fix: fix.to_owned(),
            other: None,
        });
    }
    reader.errors.sort();
    match read {
        Some(read) if reader.errors.is_empty() => Ok(read),
        _ => Err(reader.errors),
    }
}

/// A dump where objects are read.
fn dump_among(text: &Text, texts: usize) -> SourceError {
    let (reason, fix) = if texts > 1 {
        (
            "Envoy's config_dump stands beside other texts",
            "name the dump alone: it has all that is needed",
        )
    } else {
        (
            "this is Envoy's config_dump, and objects are needed here",
            "name manifests; a dump is for `nodeway explain`",
        )
    };
    SourceError {
        file: Arc::clone(&text.name),
        place: Place {
            line: 1,
            ..Place::default()
        },
        fault: Fault::NotAnObject,
        object: None,
        field: String::new(),
        reason: reason.to_owned(),
        fix: fix.to_owned(),
        other: None,
    }
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    objects: Objects,
    errors: Vec<SourceError>,
    /// `StatefulSet default/db` and the namespace and name of the pods it would own.
    pod_makers: Vec<(String, String, String)>,
    /// Where each object was first seen.
    seen: BTreeMap<ObjectRef, (Arc<str>, u32)>,
}

impl Reader {
    fn finish(mut self) -> Result<Objects, Vec<SourceError>> {
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
        pod.metadata.namespace.as_deref().unwrap_or("default") == namespace
            && pod
                .metadata
                .name
                .as_deref()
                .and_then(|pod| pod.strip_prefix(name))
                .is_some_and(|rest| rest.starts_with('-'))
    })
}

/// One document while it is read, and its place inside lists.
struct Document<'r> {
    reader: &'r mut Reader,
    file: &'r Arc<str>,
    base: Vec<path::Step>,
}

/// A mistake before it has its place.
struct Mistake {
    fault: Fault,
    path: FieldPath,
    reason: String,
    fix: String,
}

impl Document<'_> {
    fn read(&mut self, node: Node) {
        if let Err(mistake) = self.try_read(&node) {
            self.report(&node, mistake);
        }
    }

    fn report(&mut self, node: &Node, mistake: Mistake) {
        self.report_of(node, title(node), mistake);
    }

    /// Of a document that is no object.
    fn report_untitled(&mut self, node: &Node, mistake: Mistake) {
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
            let base = [
                path::Step::Key("items".to_owned()),
                path::Step::Index(index),
            ];
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

fn mistake(fault: Fault, path: &[&str], reason: &str, fix: &str) -> Mistake {
    Mistake {
        fault,
        path: FieldPath::keys(path),
        reason: reason.to_owned(),
        fix: fix.to_owned(),
    }
}

fn required<'n>(node: &'n Node, field: &str, example: &str) -> Result<&'n str, Mistake> {
    node.text(field)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| {
            let fault = if field == "kind" {
                Fault::NotAnObject
            } else {
                Fault::ApiVersion
            };
            mistake(
                fault,
                &[field],
                &format!("the document has no `{field}`"),
                &format!("add `{field}`, for example `{field}: {example}`"),
            )
        })
}

/// An object that a cluster gave out may have fields of an API newer than ours; a manifest may not.
fn is_from_cluster(node: &Node) -> bool {
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

fn mistyped(mistyped: Mistyped) -> Mistake {
    let reason = document::one_line(&mistyped.reason);
    let (fault, fix) = match reason.strip_prefix("missing field ") {
        Some(field) => (Fault::MissingField, format!("add {field}")),
        None => (
            Fault::WrongType,
            "write a value of that type; quote what must be text".to_owned(),
        ),
    };
    Mistake {
        fault,
        path: mistyped.path,
        reason,
        fix,
    }
}

fn unknown_field(unknown: Unknown) -> Mistake {
    let key = unknown.path.key().unwrap_or_default();
    Mistake {
        fault: Fault::UnknownField,
        reason: format!("there is no field `{key}` here"),
        fix: unknown.did_you_mean.map_or_else(
            || "take it out, or put it where it belongs".to_owned(),
            |meant| format!("did you mean `{meant}`? Field names are case-sensitive"),
        ),
        path: unknown.path,
    }
}
