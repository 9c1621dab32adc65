//! A cluster as a test sees it: ask something, look at the reply, break something.
//!
//! A test body that takes `&mut impl Cluster` runs on the simulator and on network namespaces with
//! a real kernel and a real Envoy (the lab): nothing in it says which.

use std::fmt;

use nodeway_core::source::Known;
use nodeway_core::trace::{Failure, Way, stages};

use crate::reply::Reply;

/// What a test can do to a cluster.
pub trait Cluster {
    /// Sends a request and waits for its end.
    ///
    /// `from` is a pod or its Deployment (`default/client`, or `client` in `default`), `outside`
    /// (the first host outside, or one by name: `outside/laptop`), a node (`node/node-1`), or an
    /// address of one of these.
    ///
    /// # Errors
    ///
    /// When no answer came, with the reason and the way up to there.
    fn request(&mut self, from: &str, ask: Ask) -> Result<Reply, Box<Failed>>;

    /// Sends a GET request and waits for its end.
    ///
    /// # Errors
    ///
    /// As [`Cluster::request`].
    fn get(&mut self, from: &str, url: &str) -> Result<Reply, Box<Failed>> {
        self.request(from, Ask::get(url))
    }

    /// Kills the Envoy of a node: its connections are reset, its ports are closed. Where pods have
    /// their own, those of all pods on that node, or that of one pod (`default/client`).
    ///
    /// # Errors
    ///
    /// When there is no such node.
    fn crash_proxy(&mut self, of: &str) -> Result<(), AskError>;

    /// Starts again, with the node's plan, what [`Cluster::crash_proxy`] kills.
    ///
    /// # Errors
    ///
    /// When there is no such node.
    fn restart_proxy(&mut self, of: &str) -> Result<(), AskError>;

    /// Why the redirect is none for a client: by `sidecar`, it has no sidecar. It can ask all the
    /// same, and gets what Services without any redirect give.
    ///
    /// # Errors
    ///
    /// When nobody is called so.
    fn not_applicable(&self, _from: &str) -> Result<Option<String>, AskError> {
        Ok(None)
    }

    /// What is known of it: what a way's evidence is in.
    fn known(&self) -> Known;
}

/// A request that somebody is to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// `GET`
    pub method: String,
    /// `http://details:9080/details/0`
    pub url: String,
    /// Header fields beside those that every client sends; `host` replaces the URL's.
    pub headers: Vec<(String, String)>,
    /// The body; empty for none.
    pub body: Vec<u8>,
    /// Which of a name's addresses is taken.
    pub family: Family,
    /// The connection that it goes over: the first request of a name opens it, those that follow go
    /// over the same one, whatever has become of it. None is one of its own, closed after it.
    pub connection: Option<String>,
}

/// An address family, for names that have addresses of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// The name's first address, whatever it is.
    #[default]
    Any,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Ask {
    /// A GET request.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: "GET".to_owned(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            family: Family::Any,
            connection: None,
        }
    }

    /// With another method.
    #[must_use]
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = method.into();
        self
    }

    /// With a header field.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<str>, value: impl Into<String>) -> Self {
        let name = name.as_ref().to_ascii_lowercase();
        self.headers.push((name, value.into()));
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Over the connection of that name, which is kept for the next.
    #[must_use]
    pub fn over(mut self, connection: impl Into<String>) -> Self {
        self.connection = Some(connection.into());
        self
    }

    /// To an address of that family.
    #[must_use]
    pub fn family(mut self, family: Family) -> Self {
        self.family = family;
        self
    }
}

/// What is wrong with what was asked of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// `from` names nobody.
    #[error("nobody is called `{from}`; {}", instead(.close, "name a pod, a Deployment, `outside`, `node/NAME` or an address"))]
    UnknownClient {
        /// What was asked for.
        from: String,
        /// Names that are close.
        close: Vec<String>,
    },
    /// The URL is none.
    #[error("`{url}` is no URL that can be asked for: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it, and what to write.
        reason: String,
    },
    /// A method or header field that HTTP does not allow.
    #[error("`{what}` is no {of}; use letters, digits and `-`, and values without line breaks")]
    Malformed {
        /// `method`, `header field`
        of: &'static str,
        /// What was given.
        what: String,
    },
    /// The connection has a request under way.
    #[error(
        "the connection `{0}` has a request under way; wait for it, or take another connection"
    )]
    Busy(String),
    /// A node's Envoy does not start.
    #[error("the Envoy of node `{node}` does not start: {reason}")]
    Proxy {
        /// The node.
        node: String,
        /// Why.
        reason: String,
    },
    /// No node of that name.
    #[error("there is no node `{node}`; {}", instead(.nodes, "the cluster has none"))]
    UnknownNode {
        /// What was asked for.
        node: String,
        /// The nodes that there are.
        nodes: Vec<String>,
    },
}

fn instead(names: &[String], otherwise: &str) -> String {
    if names.is_empty() {
        otherwise.to_owned()
    } else {
        format!("there is `{}`", names.join("`, `"))
    }
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The network or the other side.
    Network(Failure),
    /// The question itself.
    Ask(AskError),
}

impl PartialEq<Failure> for Cause {
    fn eq(&self, failure: &Failure) -> bool {
        matches!(self, Self::Network(own) if own == failure)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(failure) => f.write_str(failure.name()),
            Self::Ask(error) => error.fmt(f),
        }
    }
}

/// A request without a reply. Printed, it shows the whole way up to its end.
#[derive(Clone)]
pub struct Failed {
    /// Why: compare it with a [`Failure`].
    pub failure: Cause,
    /// Who asked.
    pub from: String,
    /// For what.
    pub url: String,
    /// The node whose hook or proxy the request met, if it met one.
    pub proxy_node: Option<String>,
    /// `namespace/name` of the pod whose own proxy that is; none for a node's.
    pub proxy_pod: Option<String>,
    /// The peer that the client's socket saw, if it was connected.
    pub client_saw: Option<crate::reply::Seen>,
    /// How it went up to there.
    pub way: Way,
    /// What the way's evidence is in.
    pub known: Known,
    /// The virtual time that it took.
    pub took: std::time::Duration,
    /// How to see the same again.
    pub replay: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} -> {}: {}", self.from, self.url, self.failure)?;
        f.write_str(&tell(&self.way, &self.known))?;
        if self.replay.is_empty() {
            return Ok(());
        }
        write!(f, "replay: {}", self.replay)
    }
}

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failed {}

/// A way in words, a stage a line, with what lost and where it stops.
#[must_use]
pub fn tell(way: &Way, known: &Known) -> String {
    use fmt::Write as _;
    let mut text = String::new();
    for stage in stages(way, known) {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {:<12} {}", stage.stage, stage.decided);
        if !stage.because.is_empty() {
            let _ = writeln!(text, "  {:<12}   because {}", "", stage.because);
        }
        for lost in &stage.lost {
            let _ = writeln!(text, "  {:<12}   not {}: {}", "", lost.candidate, lost.why);
        }
        if let Some(stop) = &stage.stop {
            let _ = writeln!(
                text,
                "  {:<12}   cause: {} {}; {}",
                "", stop.object, stop.field, stop.fix
            );
        }
    }
    text
}
