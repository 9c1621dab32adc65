//! What an Envoy says it has in force: the versions in its `config_dump`.

use std::collections::BTreeMap;
use std::time::Duration;

use nodeway_core::envoy::ResourceKind;
use serde_json::Value;

use super::status::Status;
use crate::generation::Record;

/// An Envoy that is about to end may answer nothing: a status does not wait for it.
const WITHIN: Duration = Duration::from_secs(1);

/// What it says of a resource that it has in force.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Serving {
    /// Its version.
    Version(String),
    /// Some version: it does not say which, as with endpoints.
    Some,
}

/// By kind, as it is printed, and name.
type Versions = BTreeMap<(String, String), Serving>;

/// Puts into a status what its Envoys say themselves. One that does not answer says nothing. This
/// waits for them, so it is none of the agent's own business.
pub(super) fn ask(status: &mut Status, records: &[Record]) {
    for record in records {
        let connections = record.admin().within(WITHIN).connections().ok();
        let mut generations = status.generations.iter_mut();
        if let Some(generation) = generations.find(|it| it.id == record.id) {
            generation.connections = connections;
        }
        let versions = versions(record);
        let resources = status.resources.iter_mut();
        for resource in resources.filter(|it| it.generation == record.id) {
            let key = (resource.kind.clone(), resource.name.clone());
            resource.serving = versions.get(&key).and_then(|it| match it {
                Serving::Version(version) => Some(version.clone()),
                // It is there, and so in the version that was acknowledged.
                Serving::Some => resource.acknowledged.clone(),
            });
        }
    }
}

fn versions(record: &Record) -> Versions {
    let dump = record
        .admin()
        .within(WITHIN)
        .get("/config_dump?include_eds");
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
                let version = match (kind, item.pointer(version).and_then(Value::as_str)) {
                    (_, Some(version)) if !version.is_empty() => {
                        Serving::Version(version.to_owned())
                    }
                    (ResourceKind::ClusterLoadAssignment, _) => Serving::Some,
                    _ => return None,
                };
                Some(((kind.to_string(), name), version))
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
            {"@type": "…EndpointsConfigDump", "dynamic_endpoint_configs": [
                {"endpoint_config": {"cluster_name": "e"}},
            ]},
        ]});
        let version = |it: &str| Serving::Version(it.to_owned());
        let wanted = [
            (("Listener".to_owned(), "a".to_owned()), version("1")),
            (("Cluster".to_owned(), "a".to_owned()), version("3")),
            (
                ("ClusterLoadAssignment".to_owned(), "e".to_owned()),
                Serving::Some,
            ),
        ];
        assert_eq!(read(&dump), wanted.into());
    }
}
