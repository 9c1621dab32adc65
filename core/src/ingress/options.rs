//! What the operator is told: Cilium's flags, with Cilium's defaults.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::annotations::{Annotations, Mistake};
use super::dialect::Dialect;
use super::mode::Mode;
use super::model::SecretName;

/// Listeners on the nodes' own addresses instead of a redirect.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostNetwork {
    /// The port of shared Ingresses for everything that has none of its own; 8080 if unset.
    pub shared_port: Option<u16>,
    /// The port of shared Ingresses for plain text.
    pub http_port: Option<u16>,
    /// The port of shared Ingresses for TLS.
    pub https_port: Option<u16>,
    /// The port of shared Ingresses for TLS that is passed through.
    pub passthrough_port: Option<u16>,
    /// The nodes that listen; all if unset.
    pub nodes: Option<LabelSelector>,
}

/// How Ingresses are translated.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The form of the configs.
    pub dialect: Dialect,
    /// The name of our IngressClass.
    pub class: String,
    /// The mode of an Ingress that does not say.
    pub default_mode: Mode,
    /// The namespace of the shared config and Service.
    pub cilium_namespace: String,
    /// The name of the shared config and Service.
    pub shared_service_name: String,
    /// The namespace that certificates are copied to; empty leaves them where they are.
    pub secrets_namespace: String,
    /// The certificate of a TLS entry that names none.
    pub default_secret: Option<SecretName>,
    /// Whether plain text is redirected where an Ingress has TLS and does not say.
    pub enforce_https: bool,
    /// How long a request may take where an Ingress does not say; no limit if unset.
    pub request_timeout: Option<Duration>,
    /// How long a stream may be silent; zero leaves it to Envoy.
    pub stream_idle_timeout: Duration,
    /// How long a connection to a backend may be silent.
    pub cluster_idle_timeout: Duration,
    /// Annotations and labels that the dedicated Service takes over, by the beginning of their keys.
    pub lb_annotation_prefixes: Vec<String>,
    /// Listeners on the nodes' own addresses.
    pub host_network: Option<HostNetwork>,
    /// Whether the cluster has IPv4.
    pub ipv4: bool,
    /// Whether the cluster has IPv6.
    pub ipv6: bool,
    /// Whether connections begin with a PROXY header.
    pub use_proxy_protocol: bool,
    /// Whether HTTP/2 is offered in the TLS handshake.
    pub use_alpn: bool,
    /// Whether the peer's address is taken for the client's.
    pub use_remote_address: bool,
    /// How many proxies before ours are trusted to tell the client's address.
    pub xff_num_trusted_hops: u32,
    /// Whether a wildcard host stands for several labels, as in the Gateway API.
    pub hostname_suffix_match: bool,
    /// Whether each dedicated Service gets an EndpointSlice with an address that nobody has.
    ///
    /// Cilium's agent programs no frontend without a backend; ours does, so this is off.
    pub placeholder_endpoints: bool,
}

impl Default for Options {
    fn default() -> Self {
        let prefixes = [
            "lbipam.cilium.io",
            "nodeipam.cilium.io",
            "service.beta.kubernetes.io",
            "service.kubernetes.io",
            "cloud.google.com",
        ];
        Self {
            dialect: Dialect::Today,
            class: "cilium".into(),
            default_mode: Mode::Dedicated,
            cilium_namespace: "kube-system".into(),
            shared_service_name: "cilium-ingress".into(),
            secrets_namespace: "cilium-secrets".into(),
            default_secret: None,
            enforce_https: true,
            request_timeout: None,
            stream_idle_timeout: Duration::from_secs(300),
            cluster_idle_timeout: Duration::from_secs(60),
            lb_annotation_prefixes: prefixes.map(str::to_owned).to_vec(),
            host_network: None,
            ipv4: true,
            ipv6: true,
            use_proxy_protocol: false,
            use_alpn: false,
            use_remote_address: true,
            xff_num_trusted_hops: 0,
            hostname_suffix_match: false,
            placeholder_endpoints: false,
        }
    }
}

/// The ports at which clients of one Ingress come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Plain text.
    pub insecure: u16,
    /// TLS.
    pub secure: u16,
    /// TLS that is passed through.
    pub passthrough: u16,
}

impl Ports {
    /// Behind a Service.
    pub const SERVICE: Self = Self {
        insecure: 80,
        secure: 443,
        passthrough: 443,
    };

    /// The port in host-network mode that nobody chose.
    const HOST_DEFAULT: u16 = 8080;

    fn all(port: u16) -> Self {
        Self {
            insecure: port,
            secure: port,
            passthrough: port,
        }
    }

    /// Those of an Ingress: on the nodes' own addresses one port may serve everything.
    pub fn of(
        annotations: Annotations<'_>,
        mode: Mode,
        options: &Options,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        match (&options.host_network, mode) {
            (None, _) => Self::SERVICE,
            (Some(host), Mode::Shared) => {
                let port =
                    |own: Option<u16>| own.or(host.shared_port).unwrap_or(Self::HOST_DEFAULT);
                Self {
                    insecure: port(host.http_port),
                    secure: port(host.https_port),
                    passthrough: port(host.passthrough_port),
                }
            }
            (Some(_), Mode::Dedicated) => Self::all(
                annotations
                    .host_listener_port()
                    .noting(mistakes)
                    .unwrap_or(Self::HOST_DEFAULT),
            ),
        }
    }
}
