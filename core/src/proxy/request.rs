//! A request as the router sees it, and what surrounds it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::RepeatedHeaders;

/// A request as the router sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `:method`
    pub method: String,
    /// `:scheme`: `http` or `https`
    pub scheme: String,
    /// `:authority`
    pub authority: String,
    /// `:path`, with its query; empty for a plain CONNECT, which has none
    pub path: String,
    /// The other headers in order; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The random number of the request's weighted draw.
    pub random: u64,
}

impl Request {
    /// The path, or nothing for a CONNECT without one.
    #[must_use]
    pub fn opt_path(&self) -> Option<&str> {
        (!self.path.is_empty() || self.method != "CONNECT").then_some(self.path.as_str())
    }

    /// The path without query and fragment.
    #[must_use]
    pub fn bare_path(&self) -> &str {
        bare(&self.path)
    }

    /// The query's parameters in order, as written; a parameter without `=` has an empty value.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let query = self.path.split_once('?').map_or("", |(_, query)| query);
        let query = query.split_once('#').map_or(query, |(query, _)| query);
        query
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| part.split_once('=').unwrap_or((part, "")))
    }

    /// All values of a header, pseudo headers included; `name` in lower case.
    #[must_use]
    pub fn header<'a>(&'a self, name: &str) -> Vec<&'a str> {
        let pseudo = match name {
            ":method" => Some(self.method.as_str()),
            ":scheme" => Some(self.scheme.as_str()),
            ":authority" | "host" => Some(self.authority.as_str()),
            ":path" => return self.opt_path().into_iter().collect(),
            _ => None,
        };
        match pseudo {
            Some("") => Vec::new(),
            Some(value) => vec![value],
            None => self
                .headers
                .iter()
                .filter(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
                .collect(),
        }
    }

    /// The protocol of the client's connection: `x-forwarded-proto` where a proxy before set it.
    #[must_use]
    pub fn forwarded_proto(&self) -> &str {
        self.header("x-forwarded-proto")
            .first()
            .copied()
            .unwrap_or(&self.scheme)
    }

    /// A cookie's value: the first of that name.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let cookies = self
            .header("cookie")
            .into_iter()
            .flat_map(|header| header.split(';'));
        cookies
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| {
                let quoted = value
                    .strip_prefix('"')
                    .and_then(|value| value.strip_suffix('"'));
                quoted.unwrap_or(value)
            })
    }

    /// Whether Envoy counts the request as its own mesh's.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.header("x-envoy-internal").first() == Some(&"true")
    }

    /// Sets a header that is no pseudo header.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(key, _)| key != name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }
}

/// A path without query and fragment.
pub(super) fn bare(path: &str) -> &str {
    path.find(['?', '#'])
        .and_then(|end| path.get(..end))
        .unwrap_or(path)
}

/// What a route may depend on beside the request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    /// The client, for `%DOWNSTREAM_REMOTE_ADDRESS%`.
    pub remote: Option<SocketAddr>,
    /// How a header that is there more than once is matched.
    pub repeated_headers: RepeatedHeaders,
    /// The trace's id, for `%TRACE_ID%`.
    pub trace_id: Option<String>,
    /// Dynamic metadata that a filter set, by its namespace.
    pub metadata: BTreeMap<String, serde_json::Value>,
}

/// A host without its port, where it has one; brackets of an IPv6 address are no port.
pub(super) fn without_port(host: &str) -> &str {
    port_start(host)
        .and_then(|start| host.get(..start))
        .unwrap_or(host)
}

/// Where a host's `:port` begins.
pub(super) fn port_start(host: &str) -> Option<usize> {
    let last = host.rfind([':', ']'])?;
    host.get(last..)?.starts_with(':').then_some(last)
}

/// Lower case, without a copy where it is already.
pub(super) fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}
