//! One entry of `spec.resources`: its kind, its name and its message.

use std::fmt;

use prost_reflect::{DynamicMessage, ReflectMessage};

/// The resources that a config can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// `envoy.config.listener.v3.Listener`
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`
    RouteConfiguration,
    /// `envoy.config.cluster.v3.Cluster`
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`
    ClusterLoadAssignment,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`
    Secret,
}

impl ResourceKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Listener,
        Self::RouteConfiguration,
        Self::Cluster,
        Self::ClusterLoadAssignment,
        Self::Secret,
    ];

    /// The full name of its message.
    #[must_use]
    pub fn message_name(self) -> &'static str {
        match self {
            Self::Listener => "envoy.config.listener.v3.Listener",
            Self::RouteConfiguration => "envoy.config.route.v3.RouteConfiguration",
            Self::Cluster => "envoy.config.cluster.v3.Cluster",
            Self::ClusterLoadAssignment => "envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Secret => "envoy.extensions.transport_sockets.tls.v3.Secret",
        }
    }

    /// The field that names it, as manifests spell it.
    #[must_use]
    pub fn name_field(self) -> &'static str {
        match self {
            Self::ClusterLoadAssignment => "clusterName",
            Self::Listener | Self::RouteConfiguration | Self::Cluster | Self::Secret => "name",
        }
    }

    /// The kind whose message has this full name.
    #[must_use]
    pub fn of(message_name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.message_name() == message_name)
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listener => "Listener",
            Self::RouteConfiguration => "RouteConfiguration",
            Self::Cluster => "Cluster",
            Self::ClusterLoadAssignment => "ClusterLoadAssignment",
            Self::Secret => "Secret",
        })
    }
}

/// One Envoy resource of a config.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// What it is.
    pub kind: ResourceKind,
    /// Its name; qualified after [`complete`](super::complete).
    pub name: String,
    /// The message as a real Envoy gets it.
    pub message: DynamicMessage,
}

impl Resource {
    /// Takes a message as a resource, when it is of one of the kinds.
    #[must_use]
    pub fn of(message: DynamicMessage) -> Option<Self> {
        let kind = ResourceKind::of(message.descriptor().full_name())?;
        let name = name_of(kind, &message).unwrap_or_default();
        Some(Self {
            kind,
            name,
            message,
        })
    }

    /// Renames it, in the message too.
    pub(super) fn refresh_name(&mut self) {
        if let Some(name) = name_of(self.kind, &self.message) {
            self.name = name;
        }
    }
}

fn name_of(kind: ResourceKind, message: &DynamicMessage) -> Option<String> {
    let descriptor = message.descriptor();
    let field = descriptor.get_field_by_json_name(kind.name_field())?;
    Some(message.get_field(&field).as_str()?.to_owned())
}
