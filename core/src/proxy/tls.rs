//! What a filter chain that terminates TLS shows its clients: certificates, by SDS or written down.

use crate::envoy::Fields;

/// `envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext`, as far as it is modelled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DownstreamTls {
    /// Names of the Secrets that hold its certificates.
    pub secrets: Vec<String>,
    /// Certificate chains that are written down, in PEM form.
    pub inline: Vec<Vec<u8>>,
    /// ALPN, most wanted first.
    pub protocols: Vec<String>,
    /// Whether it has a certificate that is not known here, as of an Envoy's dump: it then shows one
    /// of which nothing can be told.
    pub assumed: bool,
}

impl DownstreamTls {
    /// Reads a chain's transport socket; none for plain text.
    pub(super) fn read(socket: &Fields<'_>) -> Option<Self> {
        socket.skip("name");
        let Some(config) = socket.any("typed_config") else {
            return Some(Self::default());
        };
        let kind = config.message_name();
        if kind.ends_with(".RawBuffer") {
            return None;
        }
        let mut tls = Self::default();
        if !kind.ends_with(".DownstreamTlsContext") {
            config.note();
            return Some(tls);
        }
        let Some(common) = config.message("common_tls_context") else {
            return Some(tls);
        };
        tls.protocols = common
            .texts("alpn_protocols")
            .iter()
            // Cilium writes one text for two.
            .flat_map(|text| text.split(',').map(str::to_owned))
            .collect();
        for secret in common.messages("tls_certificate_sds_secret_configs") {
            secret.skip("sds_config");
            tls.secrets.push(secret.text("name"));
        }
        for certificate in common.messages("tls_certificates") {
            certificate.skip("private_key");
            tls.inline.extend(written(&certificate));
        }
        Some(tls)
    }
}

/// The chain of an `envoy.extensions.transport_sockets.tls.v3.TlsCertificate` that is written down.
pub(crate) fn written(certificate: &Fields<'_>) -> Option<Vec<u8>> {
    let source = certificate.message("certificate_chain")?;
    let text = source.text("inline_string").into_bytes();
    let bytes = source.bytes("inline_bytes").unwrap_or_default();
    [text, bytes].into_iter().find(|it| !it.is_empty())
}
