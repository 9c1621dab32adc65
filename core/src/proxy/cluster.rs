//! A cluster: where its endpoints come from and how they are reached.

use std::time::Duration;

use prost_reflect::DynamicMessage;

use super::{LoadAssignment, ReadError};
use crate::envoy::{Fields, Unread, validate};

/// A cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The name under which its endpoints are fetched: `eds_cluster_config.service_name`, or the name.
    pub endpoints: String,
    /// `connect_timeout`, by default five seconds.
    pub connect_timeout: Duration,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// `lb_policy` (`ROUND_ROBIN`).
    pub lb_policy: String,
    /// Whether connections to endpoints are TLS.
    pub tls: bool,
    /// Fields that are set and not modelled.
    pub not_simulated: Vec<String>,
}

/// Where a cluster's endpoints come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Discovery {
    /// By EDS, under [`Cluster::endpoints`].
    Eds,
    /// Written in the cluster.
    Static(LoadAssignment),
    /// By a name server, or in another way that is not modelled: the type's name.
    Other(String),
}

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Cluster {
    /// Reads a cluster.
    ///
    /// # Errors
    ///
    /// What Envoy would refuse.
    pub fn read(message: &DynamicMessage) -> Result<Self, ReadError> {
        validate(message)?;
        let unread = Unread::default();
        let mut cluster = Self::read_fields(&Fields::new(message, "", &unread))?;
        cluster.not_simulated = unread.paths();
        Ok(cluster)
    }

    fn read_fields(fields: &Fields<'_>) -> Result<Self, ReadError> {
        let name = fields.text("name");
        fields.skip("alt_stat_name");
        let mut endpoints = name.clone();
        if let Some(eds) = fields.message("eds_cluster_config") {
            // Where EDS is served from: the agent, however it is written.
            eds.skip("eds_config");
            let service = eds.text("service_name");
            if !service.is_empty() {
                endpoints = service;
            }
        }
        let custom = fields
            .message("cluster_type")
            .map(|custom| custom.text("name"));
        let kind = custom.unwrap_or_else(|| fields.choice("type"));
        let inline = fields.message("load_assignment");
        let inline = inline
            .map(|fields| LoadAssignment::read_fields(&fields))
            .transpose()?;
        let discovery = match (kind.as_str(), inline) {
            ("EDS", Some(_)) => {
                let reason =
                    "an EDS cluster has no load_assignment of its own; remove it or use STATIC";
                return Err(ReadError::new(fields.path_of("load_assignment"), reason));
            }
            ("EDS", None) => Discovery::Eds,
            ("STATIC", inline) => Discovery::Static(inline.unwrap_or_default()),
            (other, _) => Discovery::Other(other.to_owned()),
        };
        let tls = fields.message("transport_socket").is_some_and(|socket| {
            let raw = socket
                .any("typed_config")
                .is_some_and(|config| config.message_name().ends_with("RawBuffer"));
            socket.skip("name");
            !raw
        });
        Ok(Self {
            endpoints,
            connect_timeout: fields
                .duration("connect_timeout")
                .unwrap_or(DEFAULT_CONNECT_TIMEOUT),
            discovery,
            lb_policy: fields.choice("lb_policy"),
            tls,
            not_simulated: Vec::new(),
            name,
        })
    }
}
