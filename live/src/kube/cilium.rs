//! Cilium itself in a cluster: two that steer the same Services' packets would undo each other's work,
//! and two operators would write the same configs.
//!
//! It is found by what its charts of all versions put on what they install, whatever its names there.

use std::fmt;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

/// On its agent's DaemonSet.
const AGENT: &str = "k8s-app=cilium";
/// On its operator's Deployment.
const OPERATOR: &str = "io.cilium/app=operator";
/// On every kind that its operator has made known, and goes on to keep as it wants it.
const DEFINITION: &str = "io.cilium.k8s.crd.schema.version";
/// The kinds that are both its and ours.
const DEFINITIONS: [&str; 2] = [
    "ciliumenvoyconfigs.cilium.io",
    "ciliumclusterwideenvoyconfigs.cilium.io",
];

/// Something of Cilium's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    kind: &'static str,
    /// Empty for what has none.
    namespace: String,
    name: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        f.write_str(" ")?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// Why nothing is done in a cluster.
#[derive(Debug, thiserror::Error)]
pub enum BesideCilium {
    /// Cilium is there.
    #[error(
        "Cilium is in this cluster: {}; nothing of Nodeway acts beside it: take Cilium away first, or look only: `nodeway check kube`, explain and translate change nothing",
        list(.0)
    )]
    Runs(Vec<Found>),
    /// Nobody says whether it is.
    #[error(
        "whether Cilium is in this cluster is unknown: cannot list {kind}s: {source}; let this account list DaemonSets, Deployments and CustomResourceDefinitions"
    )]
    Unknown {
        /// What cannot be listed.
        kind: &'static str,
        /// What the API server said.
        source: Box<kube::Error>,
    },
}

fn list(found: &[Found]) -> String {
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// Refuses a cluster in which Cilium is.
///
/// # Errors
/// When it is there, or nobody says so.
pub(crate) async fn refuse_beside_cilium(client: &Client) -> Result<(), BesideCilium> {
    let agents = Api::<DaemonSet>::all(client.clone());
    let mut found = labelled(&agents, "DaemonSet", AGENT).await?;
    let operators = Api::<Deployment>::all(client.clone());
    found.extend(labelled(&operators, "Deployment", OPERATOR).await?);
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let definitions = labelled(&definitions, "CustomResourceDefinition", DEFINITION).await?;
    let shared = |it: &Found| DEFINITIONS.contains(&it.name.as_str());
    found.extend(definitions.into_iter().filter(shared));
    if found.is_empty() {
        Ok(())
    } else {
        Err(BesideCilium::Runs(found))
    }
}

async fn labelled<K>(
    api: &Api<K>,
    kind: &'static str,
    labels: &str,
) -> Result<Vec<Found>, BesideCilium>
where
    K: Resource + Clone + fmt::Debug + DeserializeOwned,
{
    let wanted = ListParams::default().labels(labels);
    // Their names are enough.
    let all = api.list_metadata(&wanted).await;
    let all = all.map_err(|source| BesideCilium::Unknown {
        kind,
        source: Box::new(source),
    })?;
    let all = all.items.into_iter().map(|it| Found {
        kind,
        namespace: it.namespace().unwrap_or_default(),
        name: it.name_any(),
    });
    Ok(all.collect())
}
