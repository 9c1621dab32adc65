//! A backend: answers who it is and what it saw, so that a test can tell who answered.
//!
//! It knows the paths of Bookinfo's programs by their images: `/ratings` is a page of ratings and
//! not of productpage. Any other image is an echo that takes every path.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::json;

use crate::http::{Decoder, Encoder, Headers, HttpError, Opening, Pipe, RequestHead, ResponseHead};
use crate::process::{Os, Process, SocketEvent, SocketId, TimerId};

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

/// A program that answers.
#[derive(Debug)]
pub struct Backend {
    identity: Identity,
    program: Program,
    ports: Vec<u16>,
    visitors: BTreeMap<SocketId, Visitor>,
}

/// A connection of somebody else's.
#[derive(Debug)]
struct Visitor {
    pipe: Pipe,
    peer: Option<SocketAddr>,
    /// Whether the first bytes have been looked at.
    opened: bool,
    /// The request whose body is still coming.
    request: Option<Visit>,
    closing: bool,
}

#[derive(Debug)]
struct Visit {
    head: RequestHead,
    decoder: Decoder,
    received: usize,
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

impl Backend {
    /// A program of that identity on those ports.
    #[must_use]
    pub fn new(identity: Identity, ports: Vec<u16>) -> Self {
        Self {
            program: Program::of(&identity.image),
            identity,
            ports,
            visitors: BTreeMap::new(),
        }
    }

    fn serve(&mut self, socket: SocketId, os: &mut dyn Os) {
        let Some(visitor) = self.visitors.get_mut(&socket) else {
            return;
        };
        loop {
            let before = visitor.pipe.input.len();
            visitor.pipe.read(os);
            let arrived = visitor.pipe.input.len() > before;
            match visitor.advance() {
                Ok(Some(visit)) => answer(&self.identity, self.program, visitor, &visit),
                Ok(None) if !arrived => break,
                Ok(None) => {}
                Err(error) => refuse(visitor, &error),
            }
            visitor.pipe.flush(os);
            if visitor.closing {
                break;
            }
        }
        if visitor.closing || visitor.pipe.peer_closed {
            visitor.pipe.close(os);
        }
    }
}

impl Visitor {
    /// A request when it is whole.
    fn advance(&mut self) -> Result<Option<Visit>, HttpError> {
        if self.closing {
            return Ok(None);
        }
        if !self.opened {
            match Opening::detect(&self.pipe.input)? {
                None => return Ok(None),
                Some(Opening::Plain) => {}
                Some(Opening::Tls(_, length)) => drop(self.pipe.input.drain(..length)),
            }
            self.opened = true;
        }
        if self.request.is_none() {
            let Some((head, length)) = RequestHead::parse(&self.pipe.input)? else {
                return Ok(None);
            };
            self.pipe.input.drain(..length);
            let decoder = Decoder::new(head.body()?);
            self.request = Some(Visit {
                head,
                decoder,
                received: 0,
            });
        }
        let Some(visit) = &mut self.request else {
            return Ok(None);
        };
        // A body is counted and forgotten.
        let mut body = Vec::new();
        visit
            .decoder
            .decode(&mut self.pipe.input, &mut body, usize::MAX)?;
        visit.received += body.len();
        let done = visit.decoder.is_done();
        Ok(self.request.take_if(|_| done))
    }
}

fn answer(identity: &Identity, program: Program, visitor: &mut Visitor, visit: &Visit) {
    let Visit { head, received, .. } = visit;
    let path = head.target.split('?').next().unwrap_or_default();
    let status = program.status(path);
    let peer = visitor.peer.map(|peer| peer.to_string());
    let body = json!({
        "service": identity.service,
        "pod": identity.pod,
        "node": identity.node,
        "version": identity.version,
        "saw": {
            "peer": peer,
            "method": head.method,
            "path": head.target,
            "host": head.headers.get("host"),
            "headers": head.headers,
            "body_bytes": received,
        },
    });
    let mut text = body.to_string();
    text.push('\n');
    let keep = head.keeps_alive();
    respond(
        visitor,
        status,
        "application/json",
        &text,
        &head.method,
        keep,
    );
}

fn refuse(visitor: &mut Visitor, error: &HttpError) {
    respond(
        visitor,
        400,
        "text/plain",
        &format!("{error}\n"),
        "GET",
        false,
    );
}

fn respond(visitor: &mut Visitor, status: u16, kind: &str, body: &str, method: &str, keep: bool) {
    let mut head = ResponseHead::new(status);
    head.headers = Headers::default();
    head.headers.add("content-type", kind);
    head.headers.add("content-length", body.len().to_string());
    head.headers.add("server", "nodeway-backend");
    if !keep {
        head.headers.add("connection", "close");
    }
    head.write(&mut visitor.pipe.output);
    if method != "HEAD" {
        Encoder::Plain.write(body.as_bytes(), &mut visitor.pipe.output);
    }
    visitor.closing = !keep;
}

impl Process for Backend {
    fn name(&self) -> &str {
        &self.identity.pod
    }

    fn on_wake(&mut self, os: &mut dyn Os) {
        for port in &self.ports {
            // Two containers of a pod that want one port: the first has it, as in a real pod.
            let _ = os.listen(None, *port);
        }
    }

    fn on_socket(&mut self, socket: SocketId, event: SocketEvent, os: &mut dyn Os) {
        match event {
            SocketEvent::Accepted(_) => {
                let visitor = Visitor {
                    pipe: Pipe::new(socket),
                    peer: os.peer(socket),
                    opened: false,
                    request: None,
                    closing: false,
                };
                self.visitors.insert(socket, visitor);
            }
            SocketEvent::Readable => self.serve(socket, os),
            SocketEvent::PeerClosed => {
                if let Some(visitor) = self.visitors.get_mut(&socket) {
                    visitor.pipe.peer_closed = true;
                }
                self.serve(socket, os);
            }
            SocketEvent::Writable => {
                if let Some(visitor) = self.visitors.get_mut(&socket) {
                    visitor.pipe.flush(os);
                }
            }
            SocketEvent::Closed | SocketEvent::Failed(_) => {
                self.visitors.remove(&socket);
            }
            SocketEvent::Connected => {}
        }
    }

    fn on_timer(&mut self, _: TimerId, _: &mut dyn Os) {}
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

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

    #[test]
    fn any_other_image_answers_any_path() {
        assert_eq!(Program::of("nginx").status("/what/ever"), 200);
    }
}
