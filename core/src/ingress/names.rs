//! What the config and the Service of an Ingress are called.

use super::options::Options;
use super::shortener::{DNS_LABEL, shorten};

/// The names of what is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The namespace of the config and the Service.
    pub namespace: String,
    /// The config's name.
    pub config: String,
    /// The Service's name.
    pub service: String,
}

impl Names {
    /// Those of an Ingress with an address of its own.
    #[must_use]
    pub fn dedicated(namespace: &str, ingress: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            config: shorten(&format!("cilium-ingress-{namespace}-{ingress}"), DNS_LABEL),
            service: shorten(&format!("cilium-ingress-{ingress}"), DNS_LABEL),
        }
    }

    /// Those that all shared Ingresses have in common.
    #[must_use]
    pub fn shared(options: &Options) -> Self {
        Self {
            namespace: options.cilium_namespace.clone(),
            config: options.shared_service_name.clone(),
            service: options.shared_service_name.clone(),
        }
    }
}
