//! A certificate chain, as a Secret has it: whether it is one at all, and which names it covers.
//!
//! Names are compared as a client does: the subject's alternative names only, a wildcard for one
//! label (RFC 9525, section 6.3). Who signed it and until when are not looked at: a simulated
//! client has no store of roots, and no wall clock.

use k8s_openapi::api::core::v1::Secret;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// A certificate chain, the server's own first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
}

/// Why bytes are no certificate for a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not PEM at all, or PEM of something else.
    #[error("it holds no certificate in PEM form (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate,
    /// PEM that breaks off or is no base64.
    #[error("its PEM form is damaged: {0}")]
    Damaged(String),
    /// No X.509 certificate of version 3.
    #[error("it is no X.509 certificate of version 3: {0}")]
    NotX509(String),
    /// No private key.
    #[error("it holds no private key in PEM form (`-----BEGIN PRIVATE KEY-----`)")]
    NoKey,
}

impl Certificate {
    /// Reads a chain in PEM form.
    ///
    /// # Errors
    /// When it is none, or its first certificate is not X.509.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| CertificateError::Damaged(error.to_string()))?;
        Self::from_chain(chain)
    }

    /// A chain of DER encodings, as a server shows it.
    ///
    /// # Errors
    /// When it is empty, or its first certificate is not X.509.
    pub fn from_der(chain: Vec<Vec<u8>>) -> Result<Self, CertificateError> {
        Self::from_chain(chain.into_iter().map(CertificateDer::from).collect())
    }

    fn from_chain(chain: Vec<CertificateDer<'static>>) -> Result<Self, CertificateError> {
        let own = chain.first().ok_or(CertificateError::NoCertificate)?;
        webpki::EndEntityCert::try_from(own)
            .map_err(|error| CertificateError::NotX509(error.to_string()))?;
        Ok(Self { chain })
    }

    /// The DER encodings, the server's own first.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.chain.iter().map(AsRef::as_ref)
    }

    /// The DNS names that it is for, in the order of the certificate.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let own = self.chain.first();
        let own = own.and_then(|own| webpki::EndEntityCert::try_from(own).ok());
        let names = own
            .as_ref()
            .map(|own| own.valid_dns_names().map(str::to_owned));
        names.map(Iterator::collect).unwrap_or_default()
    }

    /// Whether a client that asked for that name or address takes it.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        let own = self.chain.first();
        let own = own.and_then(|own| webpki::EndEntityCert::try_from(own).ok());
        let (Some(own), Ok(name)) = (own, ServerName::try_from(host)) else {
            return false;
        };
        own.verify_is_valid_for_subject_name(&name).is_ok()
    }
}

/// Whether bytes hold a private key in PEM form.
///
/// # Errors
/// When they do not. What the key is worth is not looked at.
pub fn check_key(pem: &[u8]) -> Result<(), CertificateError> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(_) => Ok(()),
        Err(rustls_pki_types::pem::Error::NoItemsFound) => Err(CertificateError::NoKey),
        Err(error) => Err(CertificateError::Damaged(error.to_string())),
    }
}

/// A value of a Secret, in whichever of its two fields it was written; empty if in none.
#[must_use]
pub fn secret_value(secret: &Secret, key: &str) -> Vec<u8> {
    let text = secret.string_data.as_ref().and_then(|all| all.get(key));
    let data = secret.data.as_ref().and_then(|all| all.get(key));
    match (text, data) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(data)) => data.0.clone(),
        (None, None) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// `openssl req -x509 -newkey ed25519 -days 36500 -subj "/CN=only.a.test"
    /// -addext "subjectAltName=DNS:shop.example,DNS:*.shop.example,IP:192.0.2.7"`; its key was
    /// thrown away.
    const SHOP: &str = include_str!("certificate/shop.pem");

    #[rstest]
    #[case::its_name("shop.example", true)]
    #[case::in_capitals("SHOP.example", true)]
    #[case::one_label_of_a_wildcard("a.shop.example", true)]
    #[case::two_labels_of_a_wildcard("b.a.shop.example", false)]
    #[case::another_name("cart.example", false)]
    #[case::the_common_name_does_not_count("only.a.test", false)]
    #[case::its_address("192.0.2.7", true)]
    #[case::another_address("192.0.2.8", false)]
    #[case::no_name("not a name", false)]
    #[case::nothing("", false)]
    fn a_certificate_covers_its_alternative_names(#[case] host: &str, #[case] covered: bool) {
        let certificate = Certificate::from_pem(SHOP.as_bytes()).unwrap();
        assert_eq!(certificate.covers(host), covered);
    }

    #[test]
    fn its_names_are_told_in_order() {
        let certificate = Certificate::from_pem(SHOP.as_bytes()).unwrap();
        assert_eq!(certificate.names(), ["shop.example", "*.shop.example"]);
    }

    #[rstest]
    #[case::nothing("", "no certificate in PEM form")]
    #[case::words("hello", "no certificate in PEM form")]
    #[case::a_key(
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "no certificate"
    )]
    #[case::cut_off("-----BEGIN CERTIFICATE-----\nAAAA\n", "damaged")]
    #[case::no_der(
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "no X.509"
    )]
    fn what_is_no_certificate_says_why(#[case] pem: &str, #[case] why: &str) {
        let error = Certificate::from_pem(pem.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }

    #[test]
    fn a_chain_that_was_shown_is_the_chain_that_was_read() {
        let read = Certificate::from_pem(SHOP.as_bytes()).unwrap();
        let shown = read.chain().map(<[u8]>::to_vec).collect();
        assert_eq!(Certificate::from_der(shown).unwrap(), read);
    }
}
