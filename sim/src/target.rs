//! A URL taken apart, once it is certain that it can be asked for.

use std::net::IpAddr;

use http::{Uri, header::HeaderName, header::HeaderValue};

use crate::cluster::{Ask, AskError};
use crate::http::{Headers, Hello, RequestHead};

/// Where a request goes and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether the URL is `https`.
    pub tls: bool,
    /// The host's name or address, without brackets.
    pub host: String,
    /// The port, also when the URL does not say it.
    pub port: u16,
    /// Host and port as written: the `host` field unless the request has one of its own.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl Target {
    /// The host as an address, when it is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// What a client says when it begins TLS, for a request with those header fields: a name or
    /// nothing, as addresses do not stand in a ClientHello (RFC 6066, section 3). A `host` field of
    /// the request's own is what `curl --resolve` would have asked for.
    #[must_use]
    pub fn hello(&self, fields: &Headers) -> Hello {
        let host = fields.get("host").unwrap_or(&self.authority);
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let is_name = !name.contains(':') && name.parse::<IpAddr>().is_err();
        Hello {
            server_name: if is_name {
                name.to_ascii_lowercase()
            } else {
                String::new()
            },
            protocols: vec!["http/1.1".to_owned()],
        }
    }

    fn parse(url: &str) -> Result<Self, AskError> {
        let bad = |reason: &str| AskError::Url {
            url: url.to_owned(),
            reason: format!("{reason}; write http://NAME:PORT/PATH"),
        };
        let uri: Uri = url
            .parse()
            .map_err(|error: http::uri::InvalidUri| bad(&error.to_string()))?;
        let (tls, usual) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            Some(other) => return Err(bad(&format!("its scheme is `{other}`"))),
            None => return Err(bad("it has no scheme")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it has a user; send an `authorization` header field"));
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(bad("it has no host"));
        }
        // `http` takes any digits for a port, also ones that are no port.
        let after = authority.as_str().get(host.len()..).unwrap_or_default();
        let port = match after.strip_prefix(':') {
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| bad(&format!("`{port}` is no port")))?,
            None => usual,
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            tls,
            host: bare.to_ascii_lowercase(),
            port,
            authority: authority.as_str().to_owned(),
            path: match uri.path_and_query().map_or("", |path| path.as_str()) {
                path if path.starts_with('/') => path.to_owned(),
                query => format!("/{query}"),
            },
        })
    }
}

impl Ask {
    /// Takes the URL apart and checks everything that goes on the wire.
    ///
    /// # Errors
    ///
    /// When URL, method or a header field is malformed.
    pub fn target(&self) -> Result<Target, AskError> {
        let malformed = |of, what: &str| AskError::Malformed {
            of,
            what: what.to_owned(),
        };
        http::Method::from_bytes(self.method.as_bytes())
            .map_err(|_| malformed("method", &self.method))?;
        for (name, value) in &self.headers {
            let ok = HeaderName::from_bytes(name.as_bytes()).is_ok()
                && HeaderValue::from_str(value).is_ok();
            if !ok {
                return Err(malformed("header field", &format!("{name}: {value}")));
            }
            if matches!(name.as_str(), "content-length" | "transfer-encoding") {
                return Err(malformed(
                    "header field of a request here (the body says it)",
                    name,
                ));
            }
        }
        Target::parse(&self.url)
    }

    /// The head that goes on the wire.
    #[must_use]
    pub fn head(&self, target: &Target) -> RequestHead {
        let mut head = RequestHead::new(&self.method, &target.path);
        let mut fields = Headers::default();
        let host = self.headers.iter().find(|(name, _)| name == "host");
        let host = host.map_or(&target.authority, |(_, value)| value);
        fields.add("host", host);
        for (name, usual) in [("user-agent", "nodeway"), ("accept", "*/*")] {
            if !self.headers.iter().any(|(own, _)| own == name) {
                fields.add(name, usual);
            }
        }
        let own = self.headers.iter().filter(|(name, _)| name != "host");
        fields.0.extend(own.cloned());
        if !self.body.is_empty() || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") {
            fields.add("content-length", self.body.len().to_string());
        }
        head.headers = fields;
        head
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://details", "details", 80, "/")]
    #[case("http://details.shop:9080/x?y=1", "details.shop", 9080, "/x?y=1")]
    #[case("https://[fd00::1]", "fd00::1", 443, "/")]
    #[case("http://[fd00::1]:81/a", "fd00::1", 81, "/a")]
    #[case("http://Details?a", "details", 80, "/?a")]
    fn a_url_gives_host_port_and_path(
        #[case] url: &str,
        #[case] host: &str,
        #[case] port: u16,
        #[case] path: &str,
    ) {
        let target = Ask::get(url).target().unwrap();
        assert_eq!(
            (&*target.host, target.port, &*target.path),
            (host, port, path)
        );
    }

    #[rstest]
    #[case("details", "it has no scheme")]
    #[case("ftp://details/", "its scheme is `ftp`")]
    #[case("http://", "http://NAME")]
    #[case("http://a b/", "http://NAME")]
    #[case("http://a:0/", "`0` is no port")]
    #[case("http://a:70000/", "http://NAME")]
    #[case("http://me@a/", "it has a user")]
    fn a_bad_url_says_what_is_wrong_and_what_to_write(#[case] url: &str, #[case] want: &str) {
        let error = Ask::get(url).target().unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }

    #[rstest]
    #[case(Ask::get("http://a").method("GE T"), "`GE T` is no method")]
    #[case(Ask::get("http://a").header("x", "a\r\nb: c"), "is no header field")]
    #[case(Ask::get("http://a").header("content-length", "7"), "the body says it")]
    fn what_would_break_the_wire_is_refused(#[case] ask: Ask, #[case] want: &str) {
        let error = ask.target().unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }

    proptest! {
        #[test]
        fn a_mangled_url_never_panics(url in "(http|https|x)?:?/?/?\\PC{0,30}") {
            let _ = Ask::get(url).target();
        }
    }
}
