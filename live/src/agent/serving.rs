//! What an Envoy says it has in force: the versions in its `config_dump`.

use std::collections::BTreeMap;

use nodeway_core::envoy::ResourceKind;
use serde_json::Value;

use crate::generation::Record;

/// Versions by kind and name.
pub(super) type Versions = BTreeMap<(ResourceKind, String), String>;

/// Asks it; nothing when it does not answer.
pub(super) fn versions(record: &Record) -> Versions {
    let dump = record.admin().get("/config_dump?include_eds");
    let dump = dump.ok().and_then(|text| serde_json::from_str(&text).ok());
    dump.map(|dump: Value| read(&dump)).unwrap_or_default()
}

/// Where a dump has what: the list, where its items have their version, and their name.
const PLACES: [(ResourceKind, &str, &str, &str); 5] = [
    (
        ResourceKind::Listener,
        "dynamic_listeners",
        "/active_state/version_info",
        "/name",
    ),
    (
        ResourceKind::Cluster,
        "dynamic_active_clusters",
        "/version_info",
        "/cluster/name",
    ),
    (
        ResourceKind::RouteConfiguration,
        "dynamic_route_configs",
        "/version_info",
        "/route_config/name",
    ),
    (
        ResourceKind::ClusterLoadAssignment,
        "dynamic_endpoint_configs",
        "/version_info",
        "/endpoint_config/cluster_name",
    ),
    (
        ResourceKind::Secret,
        "dynamic_active_secrets",
        "/version_info",
        "/name",
    ),
];

fn read(dump: &Value) -> Versions {
    let mut versions = Versions::new();
    let configs = dump.get("configs").and_then(Value::as_array);
    for config in configs.into_iter().flatten() {
        for (kind, list, version, name) in PLACES {
            let items = config.get(list).and_then(Value::as_array);
            versions.extend(items.into_iter().flatten().filter_map(|item| {
                let name = item.pointer(name)?.as_str()?.to_owned();
                let version = item.pointer(version).and_then(Value::as_str);
                Some(((kind, name), version.unwrap_or_default().to_owned()))
            }));
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_listener_that_warms_is_not_in_force() {
        let dump = json!({"configs": [
            {"@type": "…ListenersConfigDump", "dynamic_listeners": [
                {"name": "a", "active_state": {"version_info": "1"}, "warming_state": {"version_info": "2"}},
                {"name": "b", "warming_state": {"version_info": "2"}},
            ]},
            {"@type": "…ClustersConfigDump", "dynamic_active_clusters": [
                {"version_info": "3", "cluster": {"name": "a"}},
            ]},
        ]});
        let versions = read(&dump);
        assert_eq!(versions[&(ResourceKind::Listener, "a".to_owned())], "1");
        assert_eq!(versions[&(ResourceKind::Listener, "b".to_owned())], "");
        assert_eq!(versions[&(ResourceKind::Cluster, "a".to_owned())], "3");
    }
}
