//! Endpoints as Envoy's `ClusterLoadAssignment`, and the two answers that say "none".
//!
//! Endpoints change far more often than all else, so their message is written as it stands here
//! and not by reflection; a test holds the numbers of its fields against Envoy's descriptors.

use bytes::Bytes;
use prost::Message;

use crate::plan::PlannedEndpoints;

/// `envoy.config.endpoint.v3.ClusterLoadAssignment`
#[derive(Clone, PartialEq, Message)]
struct ClusterLoadAssignment {
    #[prost(string, tag = "1")]
    cluster_name: String,
    #[prost(message, repeated, tag = "2")]
    endpoints: Vec<LocalityLbEndpoints>,
}

#[derive(Clone, PartialEq, Message)]
struct LocalityLbEndpoints {
    #[prost(message, repeated, tag = "2")]
    lb_endpoints: Vec<LbEndpoint>,
}

#[derive(Clone, PartialEq, Message)]
struct LbEndpoint {
    #[prost(message, optional, tag = "1")]
    endpoint: Option<Endpoint>,
}

#[derive(Clone, PartialEq, Message)]
struct Endpoint {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
}

/// `envoy.config.core.v3.Address`
#[derive(Clone, PartialEq, Message)]
struct Address {
    #[prost(message, optional, tag = "1")]
    socket_address: Option<SocketAddress>,
}

#[derive(Clone, PartialEq, Message)]
struct SocketAddress {
    #[prost(string, tag = "2")]
    address: String,
    #[prost(uint32, tag = "3")]
    port_value: u32,
}

/// `envoy.config.route.v3.RouteConfiguration` without a route.
#[derive(Clone, PartialEq, Message)]
struct RouteConfiguration {
    #[prost(string, tag = "1")]
    name: String,
}

/// The endpoints of one EDS service name; an empty set is an empty assignment.
pub(super) fn assignment(name: &str, planned: &PlannedEndpoints) -> Bytes {
    let one = |address: std::net::SocketAddr| LbEndpoint {
        endpoint: Some(Endpoint {
            address: Some(Address {
                socket_address: Some(SocketAddress {
                    address: address.ip().to_string(),
                    port_value: address.port().into(),
                }),
            }),
        }),
    };
    let all: Vec<LbEndpoint> = planned.endpoints.iter().map(|it| one(it.address)).collect();
    let localities = (!all.is_empty()).then_some(LocalityLbEndpoints { lb_endpoints: all });
    let message = ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: localities.into_iter().collect(),
    };
    message.encode_to_vec().into()
}

/// No endpoints under that name: requests get 503.
pub(super) fn no_endpoints(name: &str) -> Bytes {
    assignment(name, &PlannedEndpoints::default())
}

/// No routes under that name: requests get 404.
pub(super) fn no_routes(name: &str) -> Bytes {
    let name = name.to_owned();
    RouteConfiguration { name }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use prost_reflect::DynamicMessage;

    use super::*;
    use crate::envoy::{ResourceKind, pool};
    use crate::plan::PlannedEndpoint;

    fn read(kind: ResourceKind, bytes: Bytes) -> serde_json::Value {
        let descriptor = pool().get_message_by_name(kind.message_name()).unwrap();
        serde_json::to_value(DynamicMessage::decode(descriptor, bytes).unwrap()).unwrap()
    }

    #[test]
    fn endpoints_are_what_envoys_descriptors_read() {
        let endpoint = |address: &str| PlannedEndpoint {
            address: address.parse().unwrap(),
            pod: None,
            node: None,
        };
        let planned = PlannedEndpoints {
            endpoints: vec![endpoint("10.0.0.1:80"), endpoint("[fd00::1]:8080")],
            ..PlannedEndpoints::default()
        };
        let at = |address, port| serde_json::json!({"endpoint": {"address": {"socketAddress": {"address": address, "portValue": port}}}});
        assert_eq!(
            read(
                ResourceKind::ClusterLoadAssignment,
                assignment("a/b:80", &planned)
            ),
            serde_json::json!({
                "clusterName": "a/b:80",
                "endpoints": [{"lbEndpoints": [at("10.0.0.1", 80), at("fd00::1", 8080)]}],
            })
        );
    }

    #[test]
    fn none_is_said_with_a_name_and_nothing_else() {
        assert_eq!(
            read(ResourceKind::ClusterLoadAssignment, no_endpoints("a/b")),
            serde_json::json!({"clusterName": "a/b"})
        );
        assert_eq!(
            read(ResourceKind::RouteConfiguration, no_routes("a/b")),
            serde_json::json!({"name": "a/b"})
        );
    }
}
