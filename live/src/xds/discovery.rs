//! The messages of `envoy.service.discovery.v3`, as far as an aggregated stream has them.
//!
//! They are few and their numbers never change; a real Envoy reads and writes them in
//! `tests/xds.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;
use nodeway_core::envoy::ResourceKind;
use nodeway_core::xds::{self, Asked, Protocol};
use prost::Message;

/// `envoy.config.core.v3.Node`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

/// `google.rpc.Status`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Refusal {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
}

/// `envoy.service.discovery.v3.DiscoveryRequest`
#[derive(Clone, PartialEq, Message)]
pub(super) struct DiscoveryRequest {
    #[prost(string, tag = "1")]
    pub(super) version_info: String,
    #[prost(message, optional, tag = "2")]
    pub(super) node: Option<Node>,
    #[prost(string, repeated, tag = "3")]
    pub(super) resource_names: Vec<String>,
    #[prost(string, tag = "4")]
    pub(super) type_url: String,
    #[prost(string, tag = "5")]
    pub(super) response_nonce: String,
    #[prost(message, optional, tag = "6")]
    pub(super) error_detail: Option<Refusal>,
}

/// `envoy.service.discovery.v3.DiscoveryResponse`
#[derive(Clone, PartialEq, Message)]
pub(super) struct DiscoveryResponse {
    #[prost(string, tag = "1")]
    pub(super) version_info: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) resources: Vec<Any>,
    #[prost(string, tag = "4")]
    pub(super) type_url: String,
    #[prost(string, tag = "5")]
    pub(super) nonce: String,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`
#[derive(Clone, PartialEq, Message)]
pub(super) struct DeltaDiscoveryRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) node: Option<Node>,
    #[prost(string, tag = "2")]
    pub(super) type_url: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) resource_names_subscribe: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub(super) resource_names_unsubscribe: Vec<String>,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(super) initial_resource_versions: BTreeMap<String, String>,
    #[prost(string, tag = "6")]
    pub(super) response_nonce: String,
    #[prost(message, optional, tag = "7")]
    pub(super) error_detail: Option<Refusal>,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`
#[derive(Clone, PartialEq, Message)]
pub(super) struct DeltaDiscoveryResponse {
    #[prost(string, tag = "1")]
    pub(super) system_version_info: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) resources: Vec<Resource>,
    #[prost(string, tag = "4")]
    pub(super) type_url: String,
    #[prost(string, tag = "5")]
    pub(super) nonce: String,
    #[prost(string, repeated, tag = "6")]
    pub(super) removed_resources: Vec<String>,
}

/// `envoy.service.discovery.v3.Resource`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(string, tag = "1")]
    pub(super) version: String,
    #[prost(message, optional, tag = "2")]
    pub(super) resource: Option<Any>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
}

/// A way to talk: its messages, and how they are read and written.
pub(super) trait Talk: Send + Sync + 'static {
    /// What the proxy says.
    type Request: Message + Default + Send + Sync + 'static;
    /// What it is told.
    type Response: Message + Send + Sync + 'static;
    const PROTOCOL: Protocol;

    /// The id of the node, which the first request of a stream has.
    fn node(request: &Self::Request) -> Option<&str>;

    /// What the proxy says; an unknown type's URL when it asks for what is never served.
    fn read(request: Self::Request) -> Result<xds::Request, String>;

    fn write(response: xds::Response) -> Self::Response;
}

/// `StreamAggregatedResources`
pub(super) struct StateOfTheWorld;

impl Talk for StateOfTheWorld {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const PROTOCOL: Protocol = Protocol::StateOfTheWorld;

    fn node(request: &DiscoveryRequest) -> Option<&str> {
        request.node.as_ref().map(|node| node.id.as_str())
    }

    fn read(request: DiscoveryRequest) -> Result<xds::Request, String> {
        Ok(xds::Request {
            kind: kind(request.type_url)?,
            nonce: present(request.response_nonce),
            error: request.error_detail.map(|it| it.message),
            asked: Asked::Names {
                names: request.resource_names,
                fresh: request.version_info.is_empty(),
            },
        })
    }

    fn write(response: xds::Response) -> DiscoveryResponse {
        let type_url = type_url(response.kind);
        let any = |value: Bytes| Any {
            type_url: type_url.clone(),
            value,
        };
        DiscoveryResponse {
            version_info: response.revision.to_string(),
            resources: response
                .put
                .iter()
                .map(|(_, served)| any(served.bytes.clone()))
                .collect(),
            nonce: response.nonce,
            type_url,
        }
    }
}

/// `DeltaAggregatedResources`
pub(super) struct Incremental;

impl Talk for Incremental {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    const PROTOCOL: Protocol = Protocol::Incremental;

    fn node(request: &DeltaDiscoveryRequest) -> Option<&str> {
        request.node.as_ref().map(|node| node.id.as_str())
    }

    fn read(request: DeltaDiscoveryRequest) -> Result<xds::Request, String> {
        Ok(xds::Request {
            kind: kind(request.type_url)?,
            nonce: present(request.response_nonce),
            error: request.error_detail.map(|it| it.message),
            asked: Asked::Change {
                subscribe: request.resource_names_subscribe,
                unsubscribe: request.resource_names_unsubscribe,
                initial: request.initial_resource_versions,
            },
        })
    }

    fn write(response: xds::Response) -> DeltaDiscoveryResponse {
        let type_url = type_url(response.kind);
        let resource = |(name, served): &(_, std::sync::Arc<xds::Served>)| Resource {
            version: served.version.to_string(),
            resource: Some(Any {
                type_url: type_url.clone(),
                value: served.bytes.clone(),
            }),
            name: name_of(name),
        };
        DeltaDiscoveryResponse {
            system_version_info: response.revision.to_string(),
            resources: response.put.iter().map(resource).collect(),
            removed_resources: response.removed.iter().map(name_of).collect(),
            nonce: response.nonce,
            type_url,
        }
    }
}

fn name_of(name: &nodeway_core::plan::ResourceName) -> String {
    name.to_string()
}

fn present(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

const URL: &str = "type.googleapis.com/";

fn type_url(kind: ResourceKind) -> String {
    format!("{URL}{}", kind.message_name())
}

fn kind(type_url: String) -> Result<ResourceKind, String> {
    let name = type_url.strip_prefix(URL);
    name.and_then(ResourceKind::of).ok_or(type_url)
}
