//! Kubernetes objects as Nodeway knows them: a closed set of kinds, each with where it came from.
//!
//! Types of Kubernetes' own API are those of `k8s-openapi`; Cilium's two are [`EnvoyConfig`], because
//! no crate has them. An [`Objects`] is a cluster's state: a sorted map, so that its order never
//! depends on the order of files.

mod envoy_config;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

pub use envoy_config::{BackendService, EnvoyConfig, EnvoyConfigSpec, ServiceListener};

use crate::cilium_config::CiliumConfig;
use crate::policy::Policy;

/// The kinds that can change an answer and that Nodeway reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Kind {
    /// `v1` Node
    Node,
    /// `networking.k8s.io/v1` IngressClass
    IngressClass,
    /// `networking.k8s.io/v1` Ingress
    Ingress,
    /// `v1` Service
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice
    EndpointSlice,
    /// `apps/v1` Deployment
    Deployment,
    /// `v1` Pod
    Pod,
    /// `v1` Secret
    Secret,
    /// `cilium.io/v2` CiliumEnvoyConfig
    CiliumEnvoyConfig,
    /// `cilium.io/v2` CiliumClusterwideEnvoyConfig
    CiliumClusterwideEnvoyConfig,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Node,
        Self::IngressClass,
        Self::Ingress,
        Self::Service,
        Self::EndpointSlice,
        Self::Deployment,
        Self::Pod,
        Self::Secret,
        Self::CiliumEnvoyConfig,
        Self::CiliumClusterwideEnvoyConfig,
    ];

    /// The kind's name as a manifest spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::IngressClass => "IngressClass",
            Self::Ingress => "Ingress",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Deployment => "Deployment",
            Self::Pod => "Pod",
            Self::Secret => "Secret",
            Self::CiliumEnvoyConfig => "CiliumEnvoyConfig",
            Self::CiliumClusterwideEnvoyConfig => "CiliumClusterwideEnvoyConfig",
        }
    }

    /// Whether objects of this kind live in a namespace.
    #[must_use]
    pub fn namespaced(self) -> bool {
        !matches!(
            self,
            Self::Node | Self::IngressClass | Self::CiliumClusterwideEnvoyConfig
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which object: kind, namespace and name. Sorted by kind, then namespace, then name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// The object's kind.
    pub kind: Kind,
    /// Empty for a kind without namespaces.
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
}

impl ObjectRef {
    /// Names a namespaced object.
    #[must_use]
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Names the object of that kind that has this `metadata`.
    #[must_use]
    pub fn of(kind: Kind, metadata: &ObjectMeta) -> Self {
        let namespace = if kind.namespaced() {
            namespace_of(metadata)
        } else {
            ""
        };
        Self::new(
            kind,
            namespace,
            metadata.name.as_deref().unwrap_or_default(),
        )
    }

    /// Names an object of a kind without namespaces.
    #[must_use]
    pub fn cluster(kind: Kind, name: impl Into<String>) -> Self {
        Self::new(kind, "", name)
    }

    /// `namespace/name`, or the bare name of an object without a namespace.
    #[must_use]
    pub fn path(&self) -> String {
        if self.namespace.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.path())
    }
}

impl Serialize for ObjectRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where an object of a namespaced kind is that names no namespace, as for kubectl.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The namespace of an object of a namespaced kind.
#[must_use]
pub fn namespace_of(metadata: &ObjectMeta) -> &str {
    or_default(metadata.namespace.as_deref().unwrap_or_default())
}

/// A namespace as it is written, or what stands for none.
fn or_default(namespace: &str) -> &str {
    match namespace {
        "" => DEFAULT_NAMESPACE,
        namespace => namespace,
    }
}

/// One object of the closed set.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Object {
    Node(Arc<Node>),
    IngressClass(Arc<IngressClass>),
    Ingress(Arc<Ingress>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Deployment(Arc<Deployment>),
    Pod(Arc<Pod>),
    Secret(Arc<Secret>),
    CiliumEnvoyConfig(Arc<EnvoyConfig>),
    CiliumClusterwideEnvoyConfig(Arc<EnvoyConfig>),
}

impl Object {
    /// The object's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Node(_) => Kind::Node,
            Self::IngressClass(_) => Kind::IngressClass,
            Self::Ingress(_) => Kind::Ingress,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Deployment(_) => Kind::Deployment,
            Self::Pod(_) => Kind::Pod,
            Self::Secret(_) => Kind::Secret,
            Self::CiliumEnvoyConfig(_) => Kind::CiliumEnvoyConfig,
            Self::CiliumClusterwideEnvoyConfig(_) => Kind::CiliumClusterwideEnvoyConfig,
        }
    }

    /// The object's `metadata`.
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Node(o) => &o.metadata,
            Self::IngressClass(o) => &o.metadata,
            Self::Ingress(o) => &o.metadata,
            Self::Service(o) => &o.metadata,
            Self::EndpointSlice(o) => &o.metadata,
            Self::Deployment(o) => &o.metadata,
            Self::Pod(o) => &o.metadata,
            Self::Secret(o) => &o.metadata,
            Self::CiliumEnvoyConfig(o) | Self::CiliumClusterwideEnvoyConfig(o) => &o.metadata,
        }
    }

    /// The object's reference.
    #[must_use]
    pub fn reference(&self) -> ObjectRef {
        ObjectRef::of(self.kind(), self.metadata())
    }
}

/// Where an object came from; `explain` shows it as evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// A user wrote it (or a cluster dumped it): file and line of its document.
    Written {
        /// The file as the user named it, `-` for standard input.
        file: Arc<str>,
        /// 1-based line where the object begins.
        line: u32,
    },
    /// A cluster's API server has it.
    Watched {
        /// Its `metadata.resourceVersion`.
        version: Arc<str>,
    },
    /// A controller would have made it from another object.
    Derived {
        /// The object it follows from.
        from: ObjectRef,
        /// The controller that would do it, in its own name (`deployment controller`).
        by: &'static str,
    },
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written { file, line } => write!(f, "{file}:{line}"),
            Self::Watched { version } => write!(f, "the API server, version {version}"),
            Self::Derived { from, by } => write!(f, "derived from {from} as the {by} would"),
        }
    }
}

/// An object and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The object itself.
    pub object: Object,
    /// Where it came from.
    pub provenance: Provenance,
    /// Fields that a controller would have filled in and that were derived here
    /// (`spec.clusterIP`, `status.podIP`), in field order.
    pub derived_fields: Vec<&'static str>,
}

/// The state of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    entries: BTreeMap<ObjectRef, Entry>,
    /// Kinds that cannot change an answer, with how many objects of each were passed over.
    pub passed_over: BTreeMap<String, usize>,
    /// Objects that could change an answer and are not simulated (`NetworkPolicy default/deny`).
    pub not_simulated: Vec<String>,
    /// Fields of a cluster's objects that are newer than the API that Nodeway reads.
    pub notes: Vec<String>,
    /// Network policies: not simulated, but whom they select is told.
    pub policies: Vec<Policy>,
    /// What the cluster's Cilium is told, when the source has it.
    pub cilium_config: Option<CiliumConfig>,
}

impl Objects {
    /// Puts an object in, or in the place of the one of that name, which is returned.
    pub fn insert(&mut self, object: Object, provenance: Provenance) -> Option<Entry> {
        let entry = Entry {
            object,
            provenance,
            derived_fields: Vec::new(),
        };
        self.entries.insert(entry.object.reference(), entry)
    }

    /// Puts an entry in as it is.
    pub fn insert_entry(&mut self, entry: Entry) -> Option<Entry> {
        self.entries.insert(entry.object.reference(), entry)
    }

    /// Takes an object out.
    pub fn remove(&mut self, reference: &ObjectRef) -> Option<Entry> {
        self.entries.remove(reference)
    }

    /// The entry of that name.
    #[must_use]
    pub fn get(&self, reference: &ObjectRef) -> Option<&Entry> {
        self.entries.get(reference)
    }

    /// What makes other objects out of these: new and changed ones in the order of references, then
    /// those that are gone.
    #[must_use]
    pub fn changes_to(&self, next: &Self) -> Vec<Change> {
        let put = next.iter().filter_map(|(reference, entry)| {
            let now = self.get(reference).map(|it| &it.object);
            (now != Some(&entry.object)).then(|| Change::Put(entry.object.clone()))
        });
        let gone = self.entries.keys();
        let gone = gone.filter(|reference| next.get(reference).is_none());
        put.chain(gone.cloned().map(Change::Delete)).collect()
    }

    /// All entries, sorted by reference.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectRef, &Entry)> {
        self.entries.iter()
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// One accessor per kind: the object of that name, and all of them in name order.
macro_rules! kinds {
    ($($one:ident, $all:ident, $variant:ident, $type:ty;)*) => {
        impl Objects {
            $(
                #[doc = concat!("The ", stringify!($variant), " of that namespace (empty for none) and name.")]
                #[must_use]
                pub fn $one(&self, namespace: &str, name: &str) -> Option<&Arc<$type>> {
                    match &self.get(&ObjectRef::new(Kind::$variant, namespace, name))?.object {
                        Object::$variant(object) => Some(object),
                        _ => None,
                    }
                }

                #[doc = concat!("Every ", stringify!($variant), ", by namespace and name.")]
                pub fn $all(&self) -> impl Iterator<Item = &Arc<$type>> {
                    self.entries.values().filter_map(|entry| match &entry.object {
                        Object::$variant(object) => Some(object),
                        _ => None,
                    })
                }
            )*
        }
    };
}

kinds! {
    node, nodes, Node, Node;
    ingress_class, ingress_classes, IngressClass, IngressClass;
    ingress, ingresses, Ingress, Ingress;
    service, services, Service, Service;
    endpoint_slice, endpoint_slices, EndpointSlice, EndpointSlice;
    deployment, deployments, Deployment, Deployment;
    pod, pods, Pod, Pod;
    secret, secrets, Secret, Secret;
    envoy_config, envoy_configs, CiliumEnvoyConfig, EnvoyConfig;
    clusterwide_envoy_config, clusterwide_envoy_configs, CiliumClusterwideEnvoyConfig, EnvoyConfig;
}

/// A change to the state of a cluster: what watchers deliver, what planners consume.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is new or has changed.
    Put(Object),
    /// The object is gone.
    Delete(ObjectRef),
}
