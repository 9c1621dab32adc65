//! What is planned, sent, acknowledged and refused: for `nodeway status`, and for who switches
//! frontends.

use std::fmt;

use serde::Serialize;

use super::entry::Entry;
use super::proxy::{Protocol, Revision};
use super::resources::Version;
use crate::envoy::ResourceKind;
use crate::object::ObjectRef;
use crate::plan::ResourceName;
use crate::problem::{Code, Problem, Severity};

/// How much of a proxy's words stands in a problem, in bytes.
const MOST_WORDS: usize = 1000;

/// A proxy as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProxyState {
    /// How it talks; none when it is not connected.
    pub stream: Option<Protocol>,
    /// How often it connected so far.
    pub streams: u64,
    /// The last change of the plan.
    pub revision: Revision,
    /// Its resources, by kind and name.
    pub resources: Vec<ResourceState>,
}

/// One resource of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResourceState {
    /// What it is.
    #[serde(serialize_with = "shown")]
    pub kind: ResourceKind,
    /// Its name.
    #[serde(serialize_with = "shown")]
    pub name: ResourceName,
    /// The version that the plan has; none when it is to go, or was only asked for.
    pub planned: Option<Version>,
    /// The version that was sent last on this stream.
    pub sent: Option<Version>,
    /// The planned version that the proxy acknowledged last, on this stream or an earlier one; none
    /// when it has started anew since and has nothing.
    pub acknowledged: Option<Version>,
    /// Why the proxy refuses the planned version, in its own words.
    pub rejected: Option<String>,
}

impl ResourceState {
    pub(super) fn of(kind: ResourceKind, name: &ResourceName, entry: &Entry) -> Self {
        Self {
            kind,
            name: name.clone(),
            planned: entry.planned.as_ref().map(|it| it.version),
            sent: entry.sent,
            acknowledged: entry.acknowledged,
            rejected: entry.verdict().map(|it| it.words.clone()),
        }
    }

    /// Whether the proxy has acknowledged what is planned.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.planned.is_some() && self.planned == self.acknowledged
    }
}

/// A version that a proxy refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// What it is.
    #[serde(serialize_with = "shown")]
    pub kind: ResourceKind,
    /// Its name.
    #[serde(serialize_with = "shown")]
    pub name: ResourceName,
    /// The version that is refused.
    pub version: Version,
    /// The version with which the proxy goes on; none when it goes without.
    pub serving: Option<Version>,
    /// The object that it comes from, when one is behind it.
    pub object: Option<ObjectRef>,
    /// The proxy's own words.
    pub words: String,
}

impl Rejection {
    pub(super) fn of(kind: ResourceKind, name: &ResourceName, entry: &Entry) -> Option<Self> {
        let planned = entry.planned.as_ref()?;
        Some(Self {
            kind,
            name: name.clone(),
            version: planned.version,
            serving: entry.best().map(|it| it.version),
            object: planned.object.clone(),
            words: entry.verdict()?.words.clone(),
        })
    }

    /// What the user of the object is told; none when no object is behind it.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        let words: Vec<&str> = self.words.split_whitespace().collect();
        let mut words = words.join(" ");
        if words.len() > MOST_WORDS {
            words.truncate(words.floor_char_boundary(MOST_WORDS));
            words.push('…');
        }
        let effect = match self.serving {
            Some(_) => "it goes on with the last version that it took",
            None => "it goes on without",
        };
        Some(Problem {
            code: Code::RefusedByEnvoy,
            severity: Severity::Error,
            object: self.object.clone()?,
            field: String::new(),
            reason: format!(
                "Envoy refuses the {} `{}` in these words: {words}; {effect}",
                self.kind, self.name
            ),
            fix: "change what Envoy's words name".to_owned(),
        })
    }
}

fn shown<T: fmt::Display, S: serde::Serializer>(it: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(it)
}
