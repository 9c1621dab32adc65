//! Cilium's two kinds: which services' packets are led to which listener, and the Envoy resources
//! that are behind it.
//!
//! They are written as Cilium's CRDs have them; what they mean is decided by [`crate::plan`].

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};

use super::{Kind, ObjectRef, or_default};
use crate::selector::{BadSelector, Labels, selects};

/// `CiliumEnvoyConfig` and `CiliumClusterwideEnvoyConfig`: the same spec, with and without a namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyConfig {
    /// `metadata`; its namespace is empty for the clusterwide kind.
    pub metadata: ObjectMeta,
    /// `spec`
    pub spec: EnvoyConfigSpec,
}

/// What a `CiliumEnvoyConfig` asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyConfigSpec {
    /// Services whose packets are led to a listener of this config.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceListener>,
    /// Services whose endpoints are given to Envoy, without any redirect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backend_services: Vec<BackendService>,
    /// Envoy resources as protobuf JSON with `@type`.
    #[serde(default)]
    pub resources: Vec<serde_json::Value>,
    /// The nodes on which the config applies; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
}

impl EnvoyConfigSpec {
    /// Whether the config is for a node with these labels: for every node without a selector.
    ///
    /// # Errors
    /// When its selector is none: then it is for no node.
    pub fn picks(&self, labels: Option<&Labels>) -> Result<bool, BadSelector> {
        let selector = self.node_selector.as_ref();
        selector.map_or(Ok(true), |it| selects(it, labels))
    }
}

/// One entry of `spec.services`: a frontend that is led to a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceListener {
    /// The Service's name.
    pub name: String,
    /// The Service's namespace. A namespaced config may only name its own; empty means that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The listener's name in this config; empty means its first one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener: String,
    /// The Service's ports that are led there; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

impl ServiceListener {
    /// The Service that an entry of that config means: one of the config's own namespace, whatever
    /// the entry says; for a clusterwide one, where no namespace is said, of `default`.
    #[must_use]
    pub fn service(&self, config: &ObjectRef) -> ObjectRef {
        let namespace = match config.namespace.as_str() {
            "" => or_default(&self.namespace),
            own => own,
        };
        ObjectRef::new(Kind::Service, namespace, &self.name)
    }
}

/// One entry of `spec.backendServices`: a service whose endpoints Envoy must know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendService {
    /// The Service's name.
    pub name: String,
    /// The Service's namespace; empty means the config's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Port numbers or port names, as text; empty means all.
    #[serde(default, rename = "number", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
}

impl BackendService {
    /// The Service that an entry of that config means; where no namespace is said, one of the
    /// config's own, and for a clusterwide one of `default`.
    #[must_use]
    pub fn service(&self, config: &ObjectRef) -> ObjectRef {
        let namespace = match self.namespace.as_str() {
            "" => or_default(&config.namespace),
            said => said,
        };
        ObjectRef::new(Kind::Service, namespace, &self.name)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::its_own("shop", "", "shop/web", "shop/web")]
    #[case::anothers("shop", "bank", "shop/web", "bank/web")]
    #[case::of_a_clusterwide_one("", "bank", "bank/web", "bank/web")]
    #[case::of_a_clusterwide_one_that_says_none("", "", "default/web", "default/web")]
    fn an_entry_means_a_service_by_its_namespace_and_the_configs(
        #[case] own: &str,
        #[case] said: &str,
        #[case] led: &str,
        #[case] asked_for: &str,
    ) {
        let config = ObjectRef::new(Kind::CiliumEnvoyConfig, own, "config");
        let leads = ServiceListener {
            name: "web".to_owned(),
            namespace: said.to_owned(),
            ..ServiceListener::default()
        };
        let backend = BackendService {
            name: "web".to_owned(),
            namespace: said.to_owned(),
            ..BackendService::default()
        };
        assert_eq!(leads.service(&config).path(), led);
        assert_eq!(backend.service(&config).path(), asked_for);
    }
}
