//! What a backend answers: who it is and what it saw, so that a test can tell who answered.
//!
//! It knows the paths of Bookinfo's programs by their images: `/ratings` is a page of ratings and
//! not of productpage. Any other image is an echo that takes every path. One function for the
//! simulator and for real pods: the same request gives the same bytes.

mod text;
mod wish;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde_json::json;

pub use text::Text;
use wish::Wish;

/// The containers of a pod that run as long as it does, in the order in which Kubernetes looks for the name of a port: its
/// containers, then those of its init containers that are sidecars (Kubernetes, `FindPort`).
pub fn containers(pod: &PodSpec) -> impl Iterator<Item = &Container> {
    let init = pod.init_containers.iter().flatten();
    let sidecars = init.filter(|it| it.restart_policy.as_deref() == Some("Always"));
    pod.containers.iter().chain(sidecars)
}

/// Who a backend is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The Service that leads to it; its bare name.
    pub service: String,
    /// `namespace/name` of its pod.
    pub pod: String,
    /// Its node.
    pub node: String,
    /// Its pod's `version` label.
    pub version: String,
    /// Its container's image.
    pub image: String,
}

/// A request as a backend saw it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The peer on its socket.
    pub peer: Option<SocketAddr>,
    /// `GET`
    pub method: &'a str,
    /// Path and query as they came.
    pub target: &'a str,
    /// Header fields in their order; names in lower case.
    pub headers: &'a [(String, String)],
    /// Bytes of the request's body.
    pub body_bytes: usize,
}

impl Seen<'_> {
    /// The first value of a header field.
    fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.headers.iter();
        let found = fields.find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Every field once; several values of one name are joined with commas, as RFC 9110 allows.
    fn fields(&self) -> BTreeMap<&str, String> {
        let mut joined = BTreeMap::<&str, String>::new();
        for (name, value) in self.headers {
            let entry = joined.entry(name).or_default();
            if !entry.is_empty() {
                entry.push_str(", ");
            }
            entry.push_str(value);
        }
        joined
    }
}

/// What an answer has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// `content-type`
    pub kind: &'static str,
    /// The body.
    pub body: Text,
    /// Whether the body goes out in chunks, or with its length.
    pub chunked: bool,
    /// How long it is waited for.
    pub delay: Duration,
}

impl Page {
    /// A request that is no HTTP, or wishes what cannot be: why.
    #[must_use]
    pub fn refusal(why: &impl std::fmt::Display) -> Self {
        Self {
            status: 400,
            kind: "text/plain",
            body: format!("{why}\n").into_bytes().into(),
            chunked: false,
            delay: Duration::ZERO,
        }
    }
}

impl Identity {
    /// What it answers.
    #[must_use]
    pub fn answer(&self, seen: &Seen<'_>) -> Page {
        let program = Program::of(&self.image);
        let wish = match program {
            Program::Echo => Wish::of(seen.target, seen.header("x-answer-status")),
            _ => Ok(Wish::default()),
        };
        let wish = match wish {
            Ok(wish) => wish,
            Err(error) => return Page::refusal(&error),
        };
        let path = seen.target.split('?').next().unwrap_or_default();
        let mut body = json!({
            "service": self.service,
            "pod": self.pod,
            "node": self.node,
            "version": self.version,
            "saw": {
                "peer": seen.peer.map(|peer| peer.to_string()),
                "method": seen.method,
                "path": seen.target,
                "host": seen.header("host"),
                "headers": seen.fields(),
                "body_bytes": seen.body_bytes,
            },
        });
        if let (Some(_), Some(fields)) = (wish.bytes, body.as_object_mut()) {
            fields.insert("padding".to_owned(), "".into());
        }
        let mut text = body.to_string().into_bytes();
        text.push(b'\n');
        Page {
            status: wish.status.unwrap_or_else(|| program.status(path)),
            kind: "application/json",
            body: match wish.bytes {
                Some(bytes) => Text::padded(text, b"\"padding\":\"", bytes),
                None => text.into(),
            },
            chunked: wish.bytes.is_some(),
            delay: wish.delay,
        }
    }
}

/// What runs in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Productpage,
    Details,
    Reviews,
    Ratings,
    Echo,
}

impl Program {
    fn of(image: &str) -> Self {
        let Some((_, name)) = image.split_once("examples-bookinfo-") else {
            return Self::Echo;
        };
        let known = [
            ("productpage", Self::Productpage),
            ("details", Self::Details),
            ("reviews", Self::Reviews),
            ("ratings", Self::Ratings),
        ];
        known
            .into_iter()
            .find(|(program, _)| name.starts_with(program))
            .map_or(Self::Echo, |(_, program)| program)
    }

    /// The status of a path without its query.
    fn status(self, path: &str) -> u16 {
        let found = match self {
            Self::Echo => true,
            Self::Productpage => {
                matches!(
                    path,
                    "/" | "/productpage" | "/health" | "/login" | "/logout"
                ) || path.starts_with("/static/")
                    || path == "/api/v1/products"
                    || path.starts_with("/api/v1/products/")
            }
            Self::Details => return numbered(path, "/details/", 400),
            Self::Ratings => return numbered(path, "/ratings/", 400),
            Self::Reviews => return numbered(path, "/reviews/", 404),
        };
        if found { 200 } else { 404 }
    }
}

/// One thing by its number, or whether the program is well. What is no number is `otherwise`.
fn numbered(path: &str, prefix: &str, otherwise: u16) -> u16 {
    match path.strip_prefix(prefix) {
        Some(id) if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()) => 200,
        Some(id) if !id.is_empty() && !id.contains('/') => otherwise,
        _ if path == "/health" => 200,
        _ => 404,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Program;

    #[rstest]
    #[case::productpage("productpage-v1:1.20.3", "/", 200)]
    #[case::productpage("productpage-v1:1.20.3", "/productpage", 200)]
    #[case::productpage("productpage-v1:1.20.3", "/api/v1/products/0/reviews", 200)]
    #[case::ratings_are_not_productpages("productpage-v1:1.20.3", "/ratings", 404)]
    #[case::details("details-v1:1.20.3", "/details/0", 200)]
    #[case::details_of_what("details-v1:1.20.3", "/details/abc", 400)]
    #[case::details_of_nothing("details-v1:1.20.3", "/details", 404)]
    #[case::details_below("details-v1:1.20.3", "/details/0/x", 404)]
    #[case::well("ratings-v1:1", "/health", 200)]
    #[case::ratings("ratings-v1:1", "/ratings/0", 200)]
    #[case::reviews("reviews-v3:1", "/reviews/0", 200)]
    #[case::reviews_elsewhere("reviews-v3:1", "/details/0", 404)]
    fn bookinfo_knows_its_paths(#[case] image: &str, #[case] path: &str, #[case] status: u16) {
        let image = format!("docker.io/istio/examples-bookinfo-{image}");
        assert_eq!(Program::of(&image).status(path), status);
    }
}
