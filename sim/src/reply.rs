//! A reply, in fields that a test compares with plain names.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use nodeway_core::object::ObjectRef;
use nodeway_core::plan::ResourceName;
use nodeway_core::trace::Way;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::http::Headers;

/// The answer to a request, and what the three parties saw.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The Service whose backend answered; nobody when the proxy did it itself.
    pub service: Who,
    /// The pod that answered.
    pub pod: Who,
    /// The node of that pod.
    pub node: Option<String>,
    /// The node whose Envoy had the request; none when nothing was redirected.
    pub proxy_node: Option<String>,
    /// `namespace/name` of the pod whose own Envoy that was; none for a node's.
    pub proxy_pod: Option<String>,
    /// The listener's qualified name.
    pub listener: Option<ResourceName>,
    /// What the route matches (`path_separated_prefix /details`).
    pub route: Option<String>,
    /// The cluster's qualified name.
    pub cluster: Option<ResourceName>,
    /// The endpoint that the proxy, or else kube-proxy, chose.
    pub endpoint: Option<SocketAddr>,
    /// The peer that the client's socket saw.
    pub client_saw: Option<Seen>,
    /// The peer that the proxy saw; none when nothing was redirected.
    pub proxy_saw: Option<Seen>,
    /// The destination that the proxy saw: the one that the client meant.
    pub proxy_destination: Option<Seen>,
    /// The peer that the backend saw.
    pub backend_saw: Option<Seen>,
    /// What the client was shown in the TLS handshake; none for plain text.
    pub tls: Option<Shown>,
    /// Header fields.
    pub headers: Headers,
    /// The body as JSON; null when it is none.
    pub body: Value,
    /// The body as it came.
    pub bytes: Vec<u8>,
    /// The virtual time from the client's first packet to the last byte.
    pub took: Duration,
    /// How it went.
    pub way: Way,
}

/// Whom a client of TLS spoke to, as far as certificates say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The server name that it asked for; empty for an address.
    pub server_name: String,
    /// Who terminates TLS: `Node node-1` for its Envoy, or `Pod default/shop-1`.
    pub terminated_by: String,
    /// `namespace/name` of the Secret that has the certificate; null where no object has it.
    pub certificate: Option<String>,
    /// The names that the certificate is for.
    pub names: Vec<String>,
    /// Whether they cover the server name: a client that checks ends here if not.
    pub covers: bool,
    /// The protocol that was chosen by ALPN; empty for none.
    pub protocol: String,
}

impl Reply {
    /// Whether a node's proxy had the request.
    #[must_use]
    pub fn redirected(&self) -> bool {
        self.listener.is_some()
    }
}

/// An object, or nobody. Equal to its name, and to `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who(pub Option<ObjectRef>);

impl Who {
    /// Whether somebody calls it so.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.0
            .as_ref()
            .is_some_and(|it| it.name == name || it.path() == name || it.to_string() == name)
    }
}

impl PartialEq<str> for Who {
    fn eq(&self, name: &str) -> bool {
        self.is(name)
    }
}

impl PartialEq<&str> for Who {
    fn eq(&self, name: &&str) -> bool {
        self.is(name)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(object) => f.write_str(&object.path()),
            None => f.write_str("nobody"),
        }
    }
}

impl Serialize for Who {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().map(ObjectRef::path).serialize(serializer)
    }
}

/// An address that somebody saw, and whose it is.
///
/// Equal to its name in full (`Service default/x:80`, `Pod default/client`, `Node node-1`,
/// `outside/laptop`), without the kind, and to the address as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The address.
    pub address: SocketAddr,
    /// Whose it is.
    pub name: Option<String>,
}

impl Seen {
    /// Whether somebody calls it so.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        let own = self.name.as_deref().unwrap_or_default();
        let without_kind = own.split_once(' ').map_or(own, |(_, rest)| rest);
        let without_port = without_kind
            .rsplit_once(':')
            .map_or(without_kind, |(it, _)| it);
        let address = self.address;
        !name.is_empty() && [own, without_kind, without_port].contains(&name)
            || address.to_string() == name
            || address.ip().to_string() == name
    }
}

impl PartialEq<str> for Seen {
    fn eq(&self, name: &str) -> bool {
        self.is(name)
    }
}

impl PartialEq<&str> for Seen {
    fn eq(&self, name: &&str) -> bool {
        self.is(name)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => self.address.fmt(f),
        }
    }
}

impl Serialize for Seen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
