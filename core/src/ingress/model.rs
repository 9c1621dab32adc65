//! What one or several Ingresses ask for, before it is written as Envoy resources.
//!
//! One listener stands for one host on one port; Envoy's listeners are fewer. The JSON form is that
//! of Cilium's own model, so that its translations can be compared with ours.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// All listeners of one config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// Hosts whose requests are read, in plain text or with TLS ended by the proxy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpListener>,
    /// Hosts whose TLS connections are passed through to a backend.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls_passthrough: Vec<PassthroughListener>,
}

impl Model {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.http.is_empty() && self.tls_passthrough.is_empty()
    }

    /// Whether a host is served in plain text.
    #[must_use]
    pub fn has_insecure(&self) -> bool {
        self.http.iter().any(|listener| !listener.is_secure())
    }

    /// Whether a host is served with TLS that the proxy ends.
    #[must_use]
    pub fn has_secure(&self) -> bool {
        self.http.iter().any(HttpListener::is_secure)
    }

    /// The Service's ports that lead to a listener, sorted.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        let passthrough = self
            .tls_passthrough
            .iter()
            .filter(|listener| !listener.routes.is_empty());
        let mut ports: Vec<u16> = self
            .http
            .iter()
            .map(|listener| listener.port)
            .chain(passthrough.map(|listener| listener.port))
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// All backends of HTTP routes.
    pub fn http_backends(&self) -> impl Iterator<Item = &Backend> {
        self.http
            .iter()
            .flat_map(|listener| &listener.routes)
            .flat_map(|route| &route.backends)
    }

    /// All backends that TLS is passed through to.
    pub fn passthrough_backends(&self) -> impl Iterator<Item = &Backend> {
        self.tls_passthrough
            .iter()
            .flat_map(|listener| &listener.routes)
            .flat_map(|route| &route.backends)
    }
}

/// One host on one port, read as HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpListener {
    /// `ing-<ingress>-<namespace>-<host>`; empty for the listener of a default backend.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The Ingresses it comes from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// The port at which clients come in.
    pub port: u16,
    /// The host, `*` for any.
    pub hostname: String,
    /// The certificates; in plain text if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<SecretName>,
    /// Its routes in the order of the Ingress.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<HttpRoute>,
    /// What the Ingress asks of its Service, unless that is the usual LoadBalancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceWish>,
    /// Whether the same host in plain text is redirected here.
    #[serde(
        rename = "force_http_to_https_redirect",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub force_https: bool,
}

impl HttpListener {
    /// Whether the proxy ends TLS for it.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        !self.tls.is_empty()
    }
}

/// One host whose TLS is passed through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PassthroughListener {
    /// `ing-<ingress>-<namespace>-<host>`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The Ingresses it comes from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// The port at which clients come in.
    pub port: u16,
    /// The host.
    pub hostname: String,
    /// Where its connections go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<PassthroughRoute>,
    /// What the Ingress asks of its Service, unless that is the usual LoadBalancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceWish>,
}

/// The object that asked for something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its API version.
    pub version: String,
    /// Its kind.
    pub kind: String,
    /// Its UID, if it has been stored in a cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// Requests that go one way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpRoute {
    /// Which paths.
    pub path_match: PathMatch,
    /// Where to; several share the requests.
    pub backends: Vec<Backend>,
    /// How long they may take.
    pub timeout: Timeout,
}

/// Connections that are passed through to one place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PassthroughRoute {
    /// Its name; an Ingress gives none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The server names.
    pub hostnames: Vec<String>,
    /// Where to; several share the connections.
    pub backends: Vec<Backend>,
}

/// What a path must be. At most one is set; none matches every path.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PathMatch {
    /// Exactly this.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub exact: String,
    /// Beginning with these whole segments.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// As a whole matching this expression.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub regex: String,
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.exact.is_empty() {
            write!(f, "path {}", self.exact)
        } else if !self.prefix.is_empty() {
            write!(f, "prefix {}", self.prefix)
        } else if !self.regex.is_empty() {
            write!(f, "regular expression {}", self.regex)
        } else {
            f.write_str("every path")
        }
    }
}

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backend {
    /// The Service's name.
    pub name: String,
    /// The Service's namespace.
    pub namespace: String,
    /// Its port.
    pub port: BackendPort,
    /// Its share among several; one if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// A port by number or by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackendPort {
    /// Its number; 0 if it is named.
    #[serde(skip_serializing_if = "is_zero")]
    pub port: u16,
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(port: &u16) -> bool {
    *port == 0
}

impl fmt::Display for BackendPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port == 0 {
            f.write_str(&self.name)
        } else {
            self.port.fmt(f)
        }
    }
}

/// How long a request may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeout {
    /// From the end of the request to the end of the reply, retries included.
    #[serde(skip_serializing_if = "Option::is_none", with = "nanoseconds")]
    pub request: Option<Duration>,
    /// One try at a backend.
    #[serde(skip_serializing_if = "Option::is_none", with = "nanoseconds")]
    pub backend: Option<Duration>,
}

impl Timeout {
    /// The one that strikes first.
    #[must_use]
    pub fn effective(&self) -> Option<Duration> {
        match (self.request, self.backend) {
            (Some(request), Some(backend)) => Some(request.min(backend)),
            (request, backend) => request.or(backend),
        }
    }
}

/// A Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretName {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// What an Ingress asks of the Service that is made for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceWish {
    /// Its type.
    #[serde(rename = "type")]
    pub service_type: String,
    /// The NodePort of port 80.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_node_port: Option<u16>,
    /// The NodePort of port 443.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure_node_port: Option<u16>,
}

/// Go writes a duration as a number of nanoseconds.
mod nanoseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration.and_then(|duration| u64::try_from(duration.as_nanos()).ok()) {
            Some(nanoseconds) => serializer.serialize_u64(nanoseconds),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_nanos))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_model_is_written_as_it_is_read() {
        let text = json!({"http": [{
            "name": "ing-shop-default-shop.example", "hostname": "shop.example", "port": 443,
            "tls": [{"name": "cert", "namespace": "default"}],
            "force_http_to_https_redirect": true,
            "routes": [{"path_match": {"prefix": "/"}, "timeout": {"request": 10_000_000_000_u64},
                "backends": [{"name": "web", "namespace": "default", "port": {"name": "http"}}]}],
        }]});
        let model: Model = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(
            model.http[0].routes[0].timeout.request,
            Some(Duration::from_secs(10))
        );
        assert_eq!(serde_json::to_value(&model).unwrap(), text);
    }

    #[test]
    fn a_passthrough_without_routes_opens_no_port() {
        let model: Model = serde_json::from_value(json!({
            "http": [{"port": 443}, {"port": 80}, {"port": 80}], "tls_passthrough": [{"port": 8443}],
        }))
        .unwrap();
        assert_eq!(model.ports(), [80, 443]);
    }
}
