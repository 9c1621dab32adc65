//! A cluster as it is at one moment, for commands that only look: it is listed, and nothing is
//! watched or written. So it may be anybody's cluster, also one of Cilium's.

use std::path::Path;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use nodeway_core::object::Kind;
use nodeway_core::source::Text;
use serde_json::{Value, json};

use super::client::server;
use super::trimmed::trim;
use super::watch::Wish;
use super::{ClientError, connect, typed};
use crate::cause::with_causes;

/// Why a cluster cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Nobody to ask.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A kind is not told.
    #[error("cannot list objects of kind {kind} in all namespaces: {said}")]
    Kind {
        /// The kind.
        kind: String,
        /// What the API server said.
        said: String,
    },
    /// It tells nothing.
    #[error("the API server {server} gives no answer: {said}")]
    NoAnswer {
        /// Where it should be.
        server: String,
        /// What came instead.
        said: String,
    },
}

/// Why objects of a kind are not told.
pub(super) enum Untold {
    /// By the API server's word.
    Kind(ListError),
    /// It said none.
    NoAnswer(String),
}

impl Untold {
    /// With the API server's address, where the reason is that it gives no answer.
    pub(super) async fn by(self, kubeconfig: Option<&Path>) -> ListError {
        match self {
            Self::Kind(error) => error,
            Self::NoAnswer(said) => ListError::NoAnswer {
                server: server(kubeconfig).await,
                said,
            },
        }
    }
}

/// What changes an answer of a cluster's, one text a kind, as `kubectl get -A -o json` prints it.
/// Only lists are asked for.
///
/// # Errors
/// When a kind cannot be listed. One that the cluster does not know has no objects.
pub fn listed(kubeconfig: Option<&Path>) -> Result<Vec<Text>, ListError> {
    let (client, runtime) = connect(kubeconfig)?;
    runtime.block_on(async {
        let mut texts = Vec::new();
        for (resource, fields, kind) in wanted() {
            let items = match items(&client, &resource, fields).await {
                Ok(items) => items.into_iter(),
                Err(untold) => return Err(untold.by(kubeconfig).await),
            };
            let items = items.map(|mut item| {
                if let Some(kind) = kind {
                    trim(kind, &mut item);
                }
                typed(&resource, item)
            });
            let items: Vec<Value> = items.collect();
            let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
            let name = format!("kube/{}", resource.plural);
            // Lines, so that what is wrong has a place.
            let content = serde_json::to_string_pretty(&list).unwrap_or_default();
            texts.push(Text::new(name, content));
        }
        Ok(texts)
    })
}

/// Each kind, which objects of it, and by which rules they are trimmed.
fn wanted() -> Vec<(ApiResource, Option<String>, Option<Kind>)> {
    let resource = |group, version, kind, plural| {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    };
    let simulated = Wish::of_whoever_looks().into_iter();
    let mut all: Vec<_> = simulated
        .map(|it| (it.resource(), it.fields.clone(), Some(it.kind)))
        .collect();
    // They are not simulated, and may change the answer: it names them.
    for (group, version, kind, plural) in [
        (
            "networking.k8s.io",
            "v1",
            "NetworkPolicy",
            "networkpolicies",
        ),
        (
            "cilium.io",
            "v2",
            "CiliumNetworkPolicy",
            "ciliumnetworkpolicies",
        ),
        (
            "cilium.io",
            "v2",
            "CiliumClusterwideNetworkPolicy",
            "ciliumclusterwidenetworkpolicies",
        ),
    ] {
        all.push((resource(group, version, kind, plural), None, None));
    }
    // How Cilium was told to lead packets.
    let settings = resource("", "v1", "ConfigMap", "configmaps");
    all.push((
        settings,
        Some("metadata.name=cilium-config".to_owned()),
        None,
    ));
    all
}

pub(super) async fn items(
    client: &Client,
    resource: &ApiResource,
    fields: Option<String>,
) -> Result<Vec<Value>, Untold> {
    const UNKNOWN: u16 = 404;
    let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
    let wanted = ListParams {
        field_selector: fields,
        ..ListParams::default()
    };
    let all = match api.list(&wanted).await {
        Ok(all) => all.items,
        Err(kube::Error::Api(status)) if status.code == UNKNOWN => Vec::new(),
        Err(error @ kube::Error::Service(_)) => return Err(Untold::NoAnswer(with_causes(&error))),
        Err(error) => {
            let (kind, said) = (resource.kind.clone(), with_causes(&error));
            return Err(Untold::Kind(ListError::Kind { kind, said }));
        }
    };
    let all = all.into_iter().map(serde_json::to_value);
    Ok(all.filter_map(Result::ok).collect())
}
