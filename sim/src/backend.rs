//! A backend: answers who it is and what it saw, so that a test can tell who answered.
//!
//! It knows the paths of Bookinfo's programs by their images: `/ratings` is a page of ratings and
//! not of productpage. Any other image is an echo that takes every path.

#[cfg(test)]
mod tests;
mod text;
mod wish;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;

use nodeway_core::certificate::Certificate;
use nodeway_core::object::{Kind, ObjectRef};
use nodeway_core::trace::{HandshakeStep, Step};

use crate::http::{
    Decoder, Encoder, Headers, HttpError, Opening, Pipe, RequestHead, ResponseHead, server_flight,
};
use crate::process::{Os, Process, SocketEvent, SocketId, TimerId};
use text::Text;
use wish::Wish;

/// How much of a body goes into one chunk.
const CHUNK: usize = 16 * 1024;

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
    tls: Option<Tls>,
    visitors: BTreeMap<SocketId, Visitor>,
}

/// The certificate of a program that answers TLS.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The Secret that its pod mounts, and the certificate in it; none for one of its own.
    pub mounted: Option<(ObjectRef, Arc<Certificate>)>,
}

impl Tls {
    fn chain(&self) -> impl Iterator<Item = &[u8]> {
        let certificate = self.mounted.iter();
        certificate.flat_map(|(_, certificate)| certificate.chain())
    }

    fn step(&self, identity: &Identity, server_name: String) -> HandshakeStep {
        let (namespace, name) = identity.pod.split_once('/').unwrap_or_default();
        let certificate = self.mounted.as_ref();
        let names = certificate.map(|(_, it)| it.names()).unwrap_or_default();
        HandshakeStep {
            by: ObjectRef::new(Kind::Pod, namespace, name),
            certificate: certificate.map(|(secret, _)| secret.clone()),
            names,
            covers: certificate.is_some_and(|(_, it)| it.covers(&server_name)),
            server_name,
            failed: None,
        }
    }
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
    /// The answer whose text is not all written yet.
    answer: Option<Writing>,
    closing: bool,
}

/// A text on its way into a pipe.
#[derive(Debug)]
struct Writing {
    text: Text,
    encoder: Encoder,
    /// How much of it is written.
    written: usize,
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
            tls: None,
            visitors: BTreeMap::new(),
        }
    }

    /// The same, which answers TLS too.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls;
        self
    }

    fn serve(&mut self, socket: SocketId, os: &mut dyn Os) {
        let Some(visitor) = self.visitors.get_mut(&socket) else {
            return;
        };
        // Who does not read its answers gets no more of them: they would only pile up here.
        while visitor.write(os) {
            let before = visitor.pipe.input.len();
            visitor.pipe.read(os);
            let arrived = visitor.pipe.input.len() > before;
            if !visitor.opened {
                match visitor.open(&self.identity, self.tls.as_ref(), os) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => refuse(visitor, &error),
                }
            }
            match visitor.advance() {
                Ok(Some(visit)) => answer(&self.identity, self.program, visitor, &visit),
                Ok(None) if !arrived => break,
                Ok(None) => {}
                Err(error) => refuse(visitor, &error),
            }
            if visitor.closing {
                break;
            }
        }
        let waits = !visitor.write(os);
        if visitor.answer.is_none() && (visitor.closing || visitor.pipe.peer_closed && !waits) {
            visitor.pipe.close(os);
        }
    }
}

impl Visitor {
    /// Looks at how the connection begins, and answers a TLS hello. False when more must come.
    ///
    /// A program without TLS takes a hello for HTTP, and it is none.
    fn open(
        &mut self,
        identity: &Identity,
        tls: Option<&Tls>,
        os: &mut dyn Os,
    ) -> Result<bool, HttpError> {
        let opening = Opening::detect(&self.pipe.input);
        let opening = opening.map_err(|error| HttpError::Head(error.to_string()))?;
        self.opened = opening.is_some();
        let (hello, length) = match opening {
            None => return Ok(false),
            Some(Opening::Plain) => return Ok(true),
            Some(Opening::Tls(hello, length)) => (hello, length),
        };
        let Some(tls) = tls else {
            return Err(HttpError::Head(
                "a TLS hello, and this speaks plain text".to_owned(),
            ));
        };
        let flight = server_flight(&hello, &["http/1.1".to_owned()], tls.chain());
        self.pipe.answer_tls(length, flight);
        if let Some(way) = os.way(self.pipe.socket) {
            os.note(way, Step::Handshake(tls.step(identity, hello.server_name)));
        }
        Ok(true)
    }

    /// Writes on as far as there is room; whether all is written, and there is room for more.
    fn write(&mut self, os: &mut dyn Os) -> bool {
        while let Some(writing) = &mut self.answer {
            while self.pipe.room() > 0 {
                let piece = writing.text.piece(writing.written, CHUNK);
                if piece.is_empty() {
                    writing.encoder.finish(&mut self.pipe.output);
                    self.answer = None;
                    break;
                }
                writing.written += piece.len();
                writing.encoder.write(&piece, &mut self.pipe.output);
            }
            let before = self.pipe.room();
            self.pipe.flush(os);
            if self.pipe.room() == before {
                break;
            }
        }
        self.pipe.flush(os);
        self.answer.is_none() && self.pipe.room() > 0
    }

    /// A request when it is whole.
    fn advance(&mut self) -> Result<Option<Visit>, HttpError> {
        if self.closing {
            return Ok(None);
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
    let wish = match program {
        Program::Echo => Wish::of(head),
        _ => Ok(Wish::default()),
    };
    let keep = head.keeps_alive();
    let wish = match wish {
        Ok(wish) => wish,
        Err(error) => {
            let text = format!("{error}\n").into_bytes();
            let page = Page::new(400, "text/plain", text.into());
            return respond(visitor, page, &head.method, keep);
        }
    };
    let path = head.target.split('?').next().unwrap_or_default();
    let mut body = json!({
        "service": identity.service,
        "pod": identity.pod,
        "node": identity.node,
        "version": identity.version,
        "saw": {
            "peer": visitor.peer.map(|peer| peer.to_string()),
            "method": head.method,
            "path": head.target,
            "host": head.headers.get("host"),
            "headers": head.headers,
            "body_bytes": received,
        },
    });
    if let (Some(_), Some(fields)) = (wish.bytes, body.as_object_mut()) {
        fields.insert("padding".to_owned(), "".into());
    }
    let mut text = body.to_string().into_bytes();
    text.push(b'\n');
    let text = match wish.bytes {
        Some(bytes) => Text::padded(text, b"\"padding\":\"", bytes),
        None => text.into(),
    };
    let status = wish.status.unwrap_or_else(|| program.status(path));
    let mut page = Page::new(status, "application/json", text);
    if wish.bytes.is_some() {
        page.encoder = Encoder::Chunked;
    }
    respond(visitor, page, &head.method, keep);
}

fn refuse(visitor: &mut Visitor, error: &HttpError) {
    let text = format!("{error}\n").into_bytes();
    let page = Page::new(400, "text/plain", text.into());
    respond(visitor, page, "GET", false);
}

/// What an answer has to say.
struct Page {
    status: u16,
    kind: &'static str,
    body: Text,
    encoder: Encoder,
}

impl Page {
    fn new(status: u16, kind: &'static str, body: Text) -> Self {
        Self {
            status,
            kind,
            body,
            encoder: Encoder::Plain,
        }
    }
}

fn respond(visitor: &mut Visitor, page: Page, method: &str, keep: bool) {
    let mut head = ResponseHead::new(page.status);
    head.headers = Headers::default();
    // These two have no body, whatever the head says (RFC 9110, sections 15.3.5 and 15.4.5).
    let bodiless = matches!(page.status, 204 | 304);
    if !bodiless {
        head.headers.add("content-type", page.kind);
        match page.encoder {
            Encoder::Plain => head
                .headers
                .add("content-length", page.body.len().to_string()),
            Encoder::Chunked => head.headers.add("transfer-encoding", "chunked"),
        }
    }
    head.headers.add("server", "nodeway-backend");
    if !keep {
        head.headers.add("connection", "close");
    }
    head.write(&mut visitor.pipe.output);
    if method != "HEAD" && !bodiless {
        visitor.answer = Some(Writing {
            text: page.body,
            encoder: page.encoder,
            written: 0,
        });
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
                    answer: None,
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
                self.serve(socket, os);
            }
            SocketEvent::Closed | SocketEvent::Failed(_) => {
                self.visitors.remove(&socket);
            }
            SocketEvent::Connected => {}
        }
    }

    fn on_timer(&mut self, _: TimerId, _: &mut dyn Os) {}
}
