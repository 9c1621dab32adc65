//! A ClusterLoadAssignment: endpoints written in a config.

use std::net::{IpAddr, SocketAddr};

use prost_reflect::DynamicMessage;

use super::ReadError;
use crate::envoy::{Fields, Unread, validate};

/// Endpoints of one name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadAssignment {
    /// The name under which clusters fetch it.
    pub cluster_name: String,
    /// Its endpoints in order.
    pub endpoints: Vec<Endpoint>,
    /// Fields that are set and not modelled.
    pub not_simulated: Vec<String>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: SocketAddr,
    /// Its share among the endpoints of its locality.
    pub weight: u32,
    /// The priority of its locality; 0 is tried first.
    pub priority: u32,
    /// Whether `health_status` keeps it from being chosen.
    pub unhealthy: bool,
}

impl LoadAssignment {
    /// Reads a ClusterLoadAssignment.
    ///
    /// # Errors
    ///
    /// What Envoy would refuse.
    pub fn read(message: &DynamicMessage) -> Result<Self, ReadError> {
        validate(message)?;
        let unread = Unread::default();
        let mut read = Self::read_fields(&Fields::new(message, "", &unread))?;
        read.not_simulated = unread.paths();
        Ok(read)
    }

    pub(super) fn read_fields(fields: &Fields<'_>) -> Result<Self, ReadError> {
        let mut endpoints = Vec::new();
        for locality in fields.messages("endpoints") {
            let priority = locality.number("priority");
            for endpoint in locality.messages("lb_endpoints") {
                let weight = endpoint.opt_number("load_balancing_weight").unwrap_or(1);
                let health = endpoint.choice("health_status");
                let unhealthy = matches!(health.as_str(), "UNHEALTHY" | "DRAINING" | "TIMEOUT");
                let Some(host) = endpoint.message("endpoint") else {
                    continue;
                };
                let Some(address) = host.message("address") else {
                    continue;
                };
                if let Some(address) = read_address(&address)? {
                    endpoints.push(Endpoint {
                        address,
                        weight,
                        priority,
                        unhealthy,
                    });
                }
            }
        }
        Ok(Self {
            cluster_name: fields.text("cluster_name"),
            endpoints,
            not_simulated: Vec::new(),
        })
    }
}

/// Reads a `core.v3.Address` that is an IP address and a port. Other kinds stay unread.
pub(super) fn read_address(fields: &Fields<'_>) -> Result<Option<SocketAddr>, ReadError> {
    if fields.which("address").as_deref() != Some("socket_address") {
        return Ok(None);
    }
    let Some(socket) = fields.message("socket_address") else {
        return Ok(None);
    };
    let text = socket.text("address");
    let address: IpAddr = text.parse().map_err(|_| {
        ReadError::new(
            socket.path_of("address"),
            format!("`{text}` is no IP address"),
        )
    })?;
    let port = u16::try_from(socket.number("port_value")).unwrap_or_default();
    Ok(Some(SocketAddr::new(address, port)))
}
