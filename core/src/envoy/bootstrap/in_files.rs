//! A bootstrap whose listeners and clusters stand in files beside it, which Envoy reads again when
//! another one is moved in their place: for an Envoy without an agent whose plan changes.

use serde_json::{Value, json};

use super::{Bootstrap, NOBODY, text};

/// A bootstrap and the two files that it names.
#[derive(Clone, Debug, PartialEq)]
pub struct InFiles {
    /// The bootstrap. It stays as it is when the plan changes, but for certificates.
    pub json: Value,
    /// All clusters. They go in before listeners do.
    pub clusters: Value,
    /// All listeners.
    pub listeners: Value,
}

impl Bootstrap {
    /// The same Envoy, with what changes in two files of those paths.
    #[must_use]
    pub fn in_files(mut self, clusters: &str, listeners: &str) -> InFiles {
        let mut take = |kind: &str| {
            let found = self.json.pointer_mut(&format!("/staticResources/{kind}"));
            let found = found.map(Value::take);
            match found {
                Some(Value::Array(all)) => all,
                _ => Vec::new(),
            }
        };
        let (of_listeners, of_clusters) = (take("listeners"), take("clusters"));
        // Whom certificates are asked of must be there from the beginning.
        let nobody = |it: &Value| text(it, "name") == NOBODY;
        let (stays, of_clusters) = of_clusters.into_iter().partition::<Vec<Value>, _>(nobody);
        let source = |path| json!({"resourceApiVersion": "V3", "pathConfigSource": {"path": path}});
        if let Some(fields) = self.json.as_object_mut() {
            let dynamic = json!({"cdsConfig": source(clusters), "ldsConfig": source(listeners)});
            fields.insert("dynamicResources".to_owned(), dynamic);
        }
        let resources = self.json.get_mut("staticResources");
        if let Some(fields) = resources.and_then(Value::as_object_mut) {
            fields.insert("clusters".to_owned(), stays.into());
            fields.remove("listeners");
        }
        InFiles {
            json: self.json,
            clusters: response("envoy.config.cluster.v3.Cluster", of_clusters),
            listeners: response("envoy.config.listener.v3.Listener", of_listeners),
        }
    }
}

/// The answer of a discovery service, which is what such a file holds.
fn response(kind: &str, mut resources: Vec<Value>) -> Value {
    for fields in resources.iter_mut().filter_map(Value::as_object_mut) {
        fields.insert(
            "@type".to_owned(),
            format!("type.googleapis.com/{kind}").into(),
        );
    }
    json!({"resources": resources})
}
