//! Who asks an API server: by the pod's service account in a cluster, else by a kubeconfig.

use std::io;
use std::path::{Path, PathBuf};

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use tokio::runtime::{Builder, Runtime};

use crate::cause::with_causes;

/// Why nobody can ask.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing says where an API server is.
    #[error(
        "no API server is known here: {0}; name a kubeconfig with --kubeconfig, or run in a pod with a service account"
    )]
    NoConfig(String),
    /// The file says it in another way.
    #[error("{path} is no kubeconfig: {said}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        said: String,
    },
    /// No thread to ask from.
    #[error("cannot start the threads that ask an API server: {0}")]
    Threads(io::Error),
    /// What says it makes no client.
    #[error("the kubeconfig makes no client: {0}")]
    Client(String),
}

/// A client of the cluster that a kubeconfig names; without one, that of `KUBECONFIG`, or that this
/// process is in.
///
/// # Errors
/// When nothing says where an API server is.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let config = config(kubeconfig).await?;
    // Who waits for its first answer knows whose.
    tracing::info!(server = %config.cluster_url, "asks the API server");
    Client::try_from(config).map_err(|error| ClientError::Client(with_causes(&error)))
}

/// Where the API server is that [`client`] asks, for messages.
pub(super) async fn server(kubeconfig: Option<&Path>) -> String {
    match config(kubeconfig).await {
        Ok(config) => config.cluster_url.to_string(),
        // It could be read a moment ago.
        Err(error) => error.to_string(),
    }
}

async fn config(kubeconfig: Option<&Path>) -> Result<Config, ClientError> {
    let Some(path) = kubeconfig else {
        let config = Config::infer().await;
        return config.map_err(|error| ClientError::NoConfig(with_causes(&error)));
    };
    let failed = |error: KubeconfigError| ClientError::File {
        path: path.to_owned(),
        said: with_causes(&error),
    };
    let file = Kubeconfig::read_from(path).map_err(failed)?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(file, &options).await;
    config.map_err(failed)
}

/// The same, and what it runs on.
///
/// # Errors
/// As [`client`].
pub(crate) fn connect(kubeconfig: Option<&Path>) -> Result<(Client, Runtime), ClientError> {
    let mut runtime = Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(ClientError::Threads)?;
    let client = runtime.block_on(client(kubeconfig))?;
    Ok((client, runtime))
}
