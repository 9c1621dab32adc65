//! Certificates that listeners of the node name: from Secrets, or written in a config.
//!
//! Cilium copies the Secret of an Ingress into a namespace of its own and asks Envoy to fetch it by
//! the copy's name, which is a hash; so a Secret goes by two names.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use prost_reflect::DynamicMessage;
use serde_json::json;

use crate::certificate::{Certificate, CertificateError, check_key, secret_value};
use crate::envoy::{self, Fields, ResourceKind, Unread};
use crate::ingress;
use crate::ingress::listener::sds_name;
use crate::ingress::model::SecretName;
use crate::object::ObjectRef;
use crate::proxy;

use super::ResourceName;

/// A certificate as Envoy fetches it by SDS.
#[derive(Clone, PartialEq)]
pub struct PlannedSecret {
    /// The Secret that has it, or the config in which it is written.
    pub source: ObjectRef,
    /// The certificate; or which field of the source has none, and why: a handshake then fails.
    pub certificate: Result<Arc<Certificate>, NoCertificate>,
    /// The message that a real Envoy gets, private key included; none without a certificate.
    pub message: Option<DynamicMessage>,
}

/// Says nothing of the message: it holds a private key.
impl fmt::Debug for PlannedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlannedSecret")
            .field("source", &self.source)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// Why a source has no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoCertificate {
    /// The field of the source (`data["tls.crt"]`).
    pub field: String,
    /// What is wrong with it.
    pub error: CertificateError,
}

impl PlannedSecret {
    /// What a Secret holds, under the name by which Envoy fetches it.
    #[must_use]
    pub fn of(name: &str, source: ObjectRef, secret: &Secret) -> Self {
        let field = |error, key: &str| NoCertificate {
            field: format!("data[{key:?}]"),
            error,
        };
        let certificate = Certificate::from_pem(&secret_value(secret, "tls.crt"))
            .map_err(|error| field(error, "tls.crt"))
            .and_then(|certificate| {
                check_key(&secret_value(secret, "tls.key"))
                    .map_err(|error| field(error, "tls.key"))?;
                Ok(Arc::new(certificate))
            });
        let message = certificate.is_ok().then(|| message(name, secret));
        Self {
            source,
            certificate,
            message: message.flatten(),
        }
    }

    /// What a config has written down as an `envoy.extensions.transport_sockets.tls.v3.Secret`.
    pub(crate) fn written(config: &ObjectRef, at: &str, message: &DynamicMessage) -> Self {
        let unread = Unread::default();
        let fields = Fields::new(message, "", &unread);
        let pem = fields
            .message("tls_certificate")
            .and_then(|certificate| proxy::written(&certificate));
        let field = |error| NoCertificate {
            field: format!("{at}.tlsCertificate.certificateChain"),
            error,
        };
        Self {
            source: config.clone(),
            certificate: Certificate::from_pem(&pem.unwrap_or_default())
                .map(Arc::new)
                .map_err(field),
            message: Some(message.clone()),
        }
    }
}

/// The pair of a Secret as Envoy's own message. What stands around PEM is nothing to Envoy.
fn message(name: &str, secret: &Secret) -> Option<DynamicMessage> {
    let pem = |key| json!({"inlineString": String::from_utf8_lossy(&secret_value(secret, key)).into_owned()});
    let written = json!({
        "@type": format!("type.googleapis.com/{}", ResourceKind::Secret.message_name()),
        "name": name,
        "tlsCertificate": {"certificateChain": pem("tls.crt"), "privateKey": pem("tls.key")},
    });
    Some(envoy::decode(&written).ok()?.message)
}

/// The names by which Envoy fetches a Secret: its own, and that of Cilium's copy.
pub(super) fn names(secret: &ObjectRef) -> [ResourceName; 2] {
    let name = SecretName {
        namespace: secret.namespace.clone(),
        name: secret.name.clone(),
    };
    let copies = ingress::Options::default().secrets_namespace;
    ["", &copies].map(|namespace| sds_name(&name, namespace).into())
}

/// Whether a name is that of a copy, from which nobody can tell the Secret.
pub(super) fn is_copy(name: &str) -> bool {
    let copies = ingress::Options::default().secrets_namespace;
    name.strip_prefix(&copies)
        .is_some_and(|rest| rest.starts_with("/cilium-sync-secret-"))
}
