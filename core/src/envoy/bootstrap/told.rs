//! The bootstrap of an Envoy that is told everything else by the node's agent, over xDS.
//!
//! It starts and waits when no agent is there yet, keeps what it has when the agent goes, and asks
//! again every second: an agent that comes back must not wait for Envoy's own half minute.

use serde_json::json;

use super::{Bootstrap, Settings};

/// The cluster that is the agent.
pub const AGENT: &str = "nodeway-agent";

/// Makes the bootstrap; `agent` is the path of the agent's Unix socket, `settings.node` the name
/// under which the agent knows this Envoy.
#[must_use]
pub fn told(settings: &Settings, agent: &str) -> Bootstrap {
    let ads = json!({"ads": {}, "resourceApiVersion": "V3"});
    let endpoint = json!({"endpoint": {"address": {"pipe": {"path": agent}}}});
    Bootstrap {
        sockets: Vec::new(),
        json: json!({
            "node": {"id": settings.node, "cluster": "nodeway"},
            "admin": {"address": {"pipe": {"path": settings.admin, "mode": 0o600}}},
            "dynamicResources": {
                "adsConfig": {
                    "apiType": "DELTA_GRPC",
                    "transportApiVersion": "V3",
                    "setNodeOnFirstMessageOnly": true,
                    "grpcServices": [{"envoyGrpc": {
                        "clusterName": AGENT,
                        "retryPolicy": {"retryBackOff": {"baseInterval": "0.1s", "maxInterval": "1s"}},
                    }}],
                },
                "cdsConfig": ads,
                "ldsConfig": ads,
            },
            "staticResources": {"clusters": [{
                "name": AGENT,
                "type": "STATIC",
                "connectTimeout": "1s",
                "loadAssignment": {"clusterName": AGENT, "endpoints": [{"lbEndpoints": [endpoint]}]},
                "typedExtensionProtocolOptions": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicitHttpConfig": {"http2ProtocolOptions": {
                            "connectionKeepalive": {"interval": "10s", "timeout": "5s"},
                        }},
                    },
                },
            }]},
        }),
    }
}
