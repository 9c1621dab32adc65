//! A backend: a program that answers who it is and what it saw ([`Identity::answer`]), over HTTP
//! and, where it has a certificate, over TLS.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use nodeway_core::backend::{Identity, Page, Seen, Text};
use nodeway_core::certificate::Certificate;
use nodeway_core::object::{Kind, ObjectRef};
use nodeway_core::trace::{HandshakeStep, Step};

use crate::http::{
    Decoder, Encoder, Headers, HttpError, Opening, Pipe, RequestHead, ResponseHead, server_flight,
};
use crate::process::{Os, Process, SocketEvent, SocketId, TimerId};

/// How much of a body goes into one chunk.
const CHUNK: usize = 16 * 1024;

/// A program that answers.
#[derive(Debug)]
pub struct Backend {
    identity: Identity,
    ports: Vec<u16>,
    tls: Option<Tls>,
    visitors: BTreeMap<SocketId, Visitor>,
    /// Answers that were wished for later.
    later: BTreeMap<TimerId, SocketId>,
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
    /// The answer that is to go out later.
    waiting: Option<Answer>,
    /// The answer that is not all written yet.
    writing: Option<Writing>,
    closing: bool,
}

#[derive(Debug)]
struct Visit {
    head: RequestHead,
    decoder: Decoder,
    received: usize,
}

impl Backend {
    /// A program of that identity on those ports.
    #[must_use]
    pub fn new(identity: Identity, ports: Vec<u16>) -> Self {
        Self {
            identity,
            ports,
            tls: None,
            visitors: BTreeMap::new(),
            later: BTreeMap::new(),
        }
    }

    /// The same, which answers TLS too.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls;
        self
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The ports on which it listens, host byte order.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// How it answers TLS; none for plain text alone.
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
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
                Ok(Some(visit)) => {
                    let answer = answer(&self.identity, visitor.peer, visit);
                    if answer.page.delay.is_zero() {
                        answer.go(visitor);
                    } else {
                        self.later.insert(os.timer(answer.page.delay), socket);
                        visitor.waiting = Some(answer);
                    }
                }
                Ok(None) if !arrived => break,
                Ok(None) => {}
                Err(error) => refuse(visitor, &error),
            }
            if visitor.closing {
                break;
            }
        }
        let waits = !visitor.write(os) || visitor.waiting.is_some();
        if visitor.writing.is_some() {
            return;
        }
        if visitor.closing || visitor.pipe.peer_closed && !waits {
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
        while let Some(writing) = &mut self.writing {
            if writing.write(self.pipe.room(), &mut self.pipe.output) {
                self.writing = None;
            }
            let before = self.pipe.room();
            self.pipe.flush(os);
            if self.pipe.room() == before {
                break;
            }
        }
        self.pipe.flush(os);
        self.writing.is_none() && self.pipe.room() > 0
    }

    /// A request when it is whole.
    fn advance(&mut self) -> Result<Option<Visit>, HttpError> {
        if self.closing || self.waiting.is_some() {
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

/// An answer, ready to go.
#[derive(Debug)]
struct Answer {
    page: Page,
    method: String,
    keep: bool,
}

impl Answer {
    fn go(self, visitor: &mut Visitor) {
        respond(visitor, self.page, &self.method, self.keep);
    }
}

fn answer(identity: &Identity, peer: Option<SocketAddr>, visit: Visit) -> Answer {
    let Visit { head, received, .. } = visit;
    let page = identity.answer(&Seen {
        peer,
        method: &head.method,
        target: &head.target,
        headers: &head.headers.0,
        body_bytes: received,
    });
    Answer {
        page,
        keep: head.keeps_alive(),
        method: head.method,
    }
}

fn refuse(visitor: &mut Visitor, error: &HttpError) {
    respond(visitor, Page::refusal(error), "GET", false);
}

fn respond(visitor: &mut Visitor, page: Page, method: &str, keep: bool) {
    visitor.writing = Some(Writing::begin(page, method, keep, &mut visitor.pipe.output));
    visitor.closing = !keep;
}

/// An answer whose head is written, and whose body follows as there is room.
#[derive(Clone, Debug)]
pub struct Writing {
    body: Text,
    /// None where there is no body.
    encoder: Option<Encoder>,
    /// How much of the body is written.
    written: usize,
}

impl Writing {
    /// Appends the head of an answer to a request of that method.
    #[must_use]
    pub fn begin(page: Page, method: &str, keep: bool, out: &mut Vec<u8>) -> Self {
        let mut head = ResponseHead::new(page.status);
        head.headers = Headers::default();
        let encoder = if page.chunked {
            Encoder::Chunked
        } else {
            Encoder::Plain
        };
        // These two have no body, whatever the head says (RFC 9110, sections 15.3.5 and 15.4.5).
        let bodiless = matches!(page.status, 204 | 304);
        if !bodiless {
            head.headers.add("content-type", page.kind);
            match encoder {
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
        head.write(out);
        Self {
            body: page.body,
            encoder: (method != "HEAD" && !bodiless).then_some(encoder),
            written: 0,
        }
    }

    /// Appends what follows until about `room` bytes are appended; whether that is all.
    pub fn write(&mut self, room: usize, out: &mut Vec<u8>) -> bool {
        let Some(encoder) = self.encoder else {
            return true;
        };
        let full = out.len().saturating_add(room);
        while out.len() < full {
            let piece = self.body.piece(self.written, CHUNK);
            if piece.is_empty() {
                encoder.finish(out);
                return true;
            }
            self.written += piece.len();
            encoder.write(&piece, out);
        }
        false
    }
}

/// Appends the bytes of an answer to a request of that method.
pub fn write_page(page: &Page, method: &str, keep: bool, out: &mut Vec<u8>) {
    let _ = Writing::begin(page.clone(), method, keep, out).write(usize::MAX, out);
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
                    waiting: None,
                    writing: None,
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

    fn on_timer(&mut self, timer: TimerId, os: &mut dyn Os) {
        let Some(socket) = self.later.remove(&timer) else {
            return;
        };
        if let Some(visitor) = self.visitors.get_mut(&socket)
            && let Some(answer) = visitor.waiting.take()
        {
            answer.go(visitor);
            visitor.pipe.flush(os);
            self.serve(socket, os);
        }
    }
}
