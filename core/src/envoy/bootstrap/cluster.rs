//! A cluster with its endpoints written in.

use serde_json::{Value, json};

use super::{address, as_json};
use crate::plan::{NodePlan, PlannedCluster};
use crate::proxy::Discovery;

/// A planned cluster; one by EDS gets the plan's endpoints, which may be none at all.
pub(super) fn written(planned: &PlannedCluster, plan: &NodePlan) -> Value {
    let mut cluster = as_json(&planned.message).unwrap_or_default();
    let model = &planned.model;
    if model.discovery != Discovery::Eds {
        return cluster;
    }
    let Some(fields) = cluster.as_object_mut() else {
        return cluster;
    };
    let found = plan.endpoints.get(model.endpoints.as_str());
    let endpoints: Vec<Value> = found
        .iter()
        .flat_map(|found| &found.endpoints)
        .map(|it| json!({"endpoint": {"address": address(it.address)}}))
        .collect();
    fields.remove("edsClusterConfig");
    fields.insert("type".to_owned(), json!("STATIC"));
    let localities = if endpoints.is_empty() {
        json!([])
    } else {
        json!([{"lbEndpoints": endpoints}])
    };
    let assignment = json!({"clusterName": model.endpoints, "endpoints": localities});
    fields.insert("loadAssignment".to_owned(), assignment);
    cluster
}

/// A cluster that nobody is behind.
pub(super) fn empty(name: &str) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "loadAssignment": {"clusterName": name},
        // It is for gRPC alone.
        "typedExtensionProtocolOptions": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicitHttpConfig": {"http2ProtocolOptions": {}},
            },
        },
    })
}
