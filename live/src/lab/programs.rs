//! What runs in a lab's pods: the simulator's programs, with real certificates and keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use nodeway_core::certificate::secret_value;
use nodeway_core::object::{ObjectRef, Objects};
use nodeway_sim::{Place, Sim};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::backend::Program;

/// Why a pod's program cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It answers TLS with a certificate of its own making.
    #[error(
        "{0} answers TLS and mounts no Secret with a certificate: a lab makes none yet; mount a `kubernetes.io/tls` Secret"
    )]
    NoCertificate(String),
    /// What it mounts cannot be used.
    #[error("{pod} cannot use the certificate of {secret}: {reason}")]
    Certificate {
        /// The pod.
        pod: String,
        /// The Secret.
        secret: ObjectRef,
        /// Why.
        reason: String,
    },
}

/// The programs of a cluster by place.
///
/// # Errors
/// When one's certificate cannot be used.
pub fn programs(model: &Sim) -> Result<BTreeMap<Place, Vec<Program>>, ProgramError> {
    let mut all: BTreeMap<Place, Vec<Program>> = BTreeMap::new();
    for (place, backend) in model.programs() {
        let identity = backend.identity().clone();
        let tls = match backend.tls().map(|tls| &tls.mounted) {
            None => None,
            Some(None) => return Err(ProgramError::NoCertificate(identity.pod)),
            Some(Some((secret, _))) => {
                let config = config(model.objects(), secret);
                let config = config.map_err(|reason| ProgramError::Certificate {
                    pod: identity.pod.clone(),
                    secret: secret.clone(),
                    reason,
                })?;
                Some(Arc::new(config))
            }
        };
        all.entry(place).or_default().push(Program {
            identity,
            ports: backend.ports().to_vec(),
            tls,
        });
    }
    Ok(all)
}

/// The Secrets that have certificates, by the certificate that a server shows first.
#[must_use]
pub fn certificates(model: &Sim) -> BTreeMap<Vec<u8>, ObjectRef> {
    let mut all = BTreeMap::new();
    let mut add = |certificate: &nodeway_core::certificate::Certificate, source: &ObjectRef| {
        if let Some(own) = certificate.chain().next() {
            all.insert(own.to_vec(), source.clone());
        }
    };
    for secret in model.plans().flat_map(|(_, plan)| plan.secrets.values()) {
        if let Ok(certificate) = &secret.certificate {
            add(certificate, &secret.source);
        }
    }
    for (_, backend) in model.programs() {
        let mounted = backend.tls().and_then(|tls| tls.mounted.as_ref());
        if let Some((secret, certificate)) = mounted {
            add(certificate, secret);
        }
    }
    all
}

fn config(objects: &Objects, reference: &ObjectRef) -> Result<ServerConfig, String> {
    let secret = objects
        .secret(&reference.namespace, &reference.name)
        .ok_or_else(|| "it is not there".to_owned())?;
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&secret_value(secret, "tls.crt")).collect();
    let chain = chain.map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(&secret_value(secret, "tls.key"));
    let key = key.map_err(|error| error.to_string())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
