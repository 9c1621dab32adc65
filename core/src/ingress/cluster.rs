//! The clusters of a config: one per service port, with its endpoints by EDS.
//!
//! The name has colons, which makes Cilium's agent put the config's name before it; the EDS name has
//! a slash and is left alone, so that several configs share one set of endpoints.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::duration::to_protobuf;
use super::model::{Backend, Model};
use super::options::Options;

/// The cluster's name in routes: `namespace:service:port`.
#[must_use]
pub fn name(backend: &Backend) -> String {
    format!("{}:{}:{}", backend.namespace, backend.name, backend.port)
}

/// The name under which its endpoints are fetched: `namespace/service:port`.
#[must_use]
pub fn endpoints_name(backend: &Backend) -> String {
    format!("{}/{}:{}", backend.namespace, backend.name, backend.port)
}

/// All clusters of a model, by name.
#[must_use]
pub fn clusters(model: &Model, options: &Options) -> Vec<Value> {
    let mut clusters = BTreeMap::new();
    // A service port that serves both ways needs the HTTP options, so those come last.
    for backend in model.passthrough_backends() {
        clusters.insert(name(backend), cluster(backend));
    }
    for backend in model.http_backends() {
        let mut cluster = cluster(backend);
        if let Value::Object(fields) = &mut cluster {
            fields.insert(
                "typedExtensionProtocolOptions".into(),
                http_options(options),
            );
        }
        clusters.insert(name(backend), cluster);
    }
    clusters.into_values().collect()
}

fn cluster(backend: &Backend) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name(backend),
        "type": "EDS",
        "edsClusterConfig": {"serviceName": endpoints_name(backend)},
        "outlierDetection": {"splitExternalLocalOriginErrors": true},
    })
}

/// Envoy speaks to the backend what the client spoke to Envoy.
fn http_options(options: &Options) -> Value {
    json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "commonHttpProtocolOptions": {"idleTimeout": to_protobuf(options.cluster_idle_timeout)},
            "useDownstreamProtocolConfig": {"http2ProtocolOptions": {}},
        }
    })
}
