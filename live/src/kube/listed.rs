//! A cluster as it is at one moment, for commands that only look: it is listed, and nothing is
//! watched or written. So it may be anybody's cluster, also one of Cilium's.

use std::path::Path;

use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use nodeway_core::source::Text;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::trimmed::trim;
use super::watch::Wish;
use super::{ClientError, client, typed};

/// Why a cluster cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Nobody to ask.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A thread to ask from.
    #[error("cannot start to ask the API server: {0}")]
    Thread(#[from] std::io::Error),
    /// A kind is not told.
    #[error("cannot list {kind}s of all namespaces: {source}")]
    Kind {
        /// The kind.
        kind: &'static str,
        /// What the API server said.
        source: Box<kube::Error>,
    },
}

/// What changes an answer of a cluster's, one text a kind, as `kubectl get -A -o json` prints it.
/// Only lists are asked for.
///
/// # Errors
/// When a kind cannot be listed. One that the cluster does not know has no objects.
pub fn listed(kubeconfig: Option<&Path>) -> Result<Vec<Text>, ListError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = client(kubeconfig).await?;
        let mut texts = Vec::new();
        for wish in Wish::of_whoever_looks() {
            let items = items(&client, &wish).await?;
            let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
            let name = format!("kube/{}", wish.resource().plural);
            // Lines, so that what is wrong has a place.
            let content = serde_json::to_string_pretty(&list).unwrap_or_default();
            texts.push(Text::new(name, content));
        }
        Ok(texts)
    })
}

async fn items(client: &Client, wish: &Wish) -> Result<Vec<Value>, ListError> {
    const UNKNOWN: u16 = 404;
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &wish.resource());
    let mut wanted = ListParams::default();
    if let Some(fields) = &wish.fields {
        wanted = wanted.fields(fields);
    }
    let all = match api.list(&wanted).await {
        Ok(all) => all.items,
        Err(kube::Error::Api(status)) if status.code == UNKNOWN => Vec::new(),
        Err(source) => {
            let (kind, source) = (wish.kind.name(), Box::new(source));
            return Err(ListError::Kind { kind, source });
        }
    };
    let all = all.into_iter().map(|object| {
        let mut value = serde_json::to_value(object).unwrap_or_default();
        trim(wish.kind, &mut value);
        typed(wish.kind, value)
    });
    Ok(all.collect())
}
