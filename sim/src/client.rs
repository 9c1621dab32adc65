//! A client: sends requests, each on a connection of its own unless it is to be kept under a name,
//! and keeps what came of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use nodeway_core::trace::Failure;

use crate::cluster::{Ask, AskError};
use crate::http::{BodyLength, Decoder, Headers, HttpError, Pipe, ResponseHead, Shown};
use crate::process::{Os, Process, SocketError, SocketEvent, SocketId, TimerId, WayId};
use crate::target::Target;
use crate::time::Time;

/// How long a client waits for a whole answer: longer than a connect is tried (127 s in Linux), so
/// that the network's reason is told and not the client's impatience.
const PATIENCE: Duration = Duration::from_secs(300);

/// The longest body that is kept; nobody here sends longer ones but a proxy that repeats itself.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// A program that sends requests.
#[derive(Debug, Default)]
pub struct Client {
    waiting: Vec<Waiting>,
    exchanges: BTreeMap<SocketId, Exchange>,
    timers: BTreeMap<TimerId, SocketId>,
    outcomes: BTreeMap<WayId, Outcome>,
    /// Connections that were to be kept, by the name that they were given.
    kept: BTreeMap<String, Kept>,
}

/// A connection between two requests.
#[derive(Debug)]
enum Kept {
    /// It stands.
    Idle(Pipe),
    /// It is over, and how that showed. A request on it ends the same way: what became of a
    /// connection is what its user asks about, so no other one is opened in silence.
    Ended(Failure),
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The answer, or why there is none.
    pub result: Result<Answer, Failure>,
    /// The peer on the client's socket, once it was connected.
    pub client_saw: Option<SocketAddr>,
    /// When it was over.
    pub ended: Time,
}

/// Over which connection a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// A new one to that address.
    New(SocketAddr),
    /// The one that is kept under the request's name for it.
    Kept,
}

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// What the server showed, where TLS was spoken.
    pub shown: Option<Shown>,
}

#[derive(Debug)]
struct Waiting {
    ask: Ask,
    target: Target,
    through: Through,
    way: WayId,
}

/// A request on its way.
#[derive(Debug)]
struct Exchange {
    pipe: Pipe,
    way: WayId,
    method: String,
    /// The name under which the connection is kept.
    connection: Option<String>,
    client_saw: Option<SocketAddr>,
    timer: TimerId,
    /// What has come of the answer so far.
    answer: Option<(Answer, Decoder)>,
}

impl Client {
    /// Gives it a request, which it sends when it is woken.
    ///
    /// # Errors
    ///
    /// When the request is malformed, or its connection has one under way; nothing is sent then.
    pub fn ask(&mut self, ask: Ask, through: Through, way: WayId) -> Result<(), AskError> {
        let target = ask.target()?;
        if let Some(name) = &ask.connection {
            let waiting = self.waiting.iter().map(|it| &it.ask.connection);
            let under_way = self.exchanges.values().map(|it| &it.connection);
            if waiting
                .chain(under_way)
                .any(|other| other.as_ref() == Some(name))
            {
                return Err(AskError::Busy(name.clone()));
            }
        }
        self.waiting.push(Waiting {
            ask,
            target,
            through,
            way,
        });
        Ok(())
    }

    /// Whether the request of that way is over.
    #[must_use]
    pub fn has_outcome(&self, way: WayId) -> bool {
        self.outcomes.contains_key(&way)
    }

    /// Takes what came of the request of that way.
    pub fn take_outcome(&mut self, way: WayId) -> Option<Outcome> {
        self.outcomes.remove(&way)
    }

    /// Whether a connection of that name was kept, and still stands or ended since.
    #[must_use]
    pub fn keeps(&self, connection: &str) -> bool {
        self.kept.contains_key(connection)
    }

    fn begin(&mut self, waiting: Waiting, os: &mut dyn Os) {
        let Waiting {
            ask,
            target,
            through,
            way,
        } = waiting;
        let kept = ask.connection.as_ref().and_then(|it| self.kept.remove(it));
        let head = ask.head(&target);
        let stood = matches!(kept, Some(Kept::Idle(_)));
        let pipe = match (kept, through) {
            (Some(Kept::Idle(pipe)), _) => {
                os.set_way(pipe.socket, Some(way));
                Ok(pipe)
            }
            (Some(Kept::Ended(failure)), _) => Err(failure),
            (None, Through::Kept) => Err(Failure::ConnectionClosed),
            (None, Through::New(to)) => match os.connect(to, Some(way)) {
                Ok(socket) => {
                    let mut pipe = Pipe::new(socket);
                    if target.tls {
                        pipe.start_tls(&target.hello(&head.headers));
                    }
                    Ok(pipe)
                }
                Err(_) => Err(Failure::Unreachable),
            },
        };
        let mut pipe = match pipe {
            Ok(pipe) => pipe,
            Err(failure) => {
                if let Some(name) = ask.connection {
                    self.kept.insert(name, Kept::Ended(failure));
                }
                let outcome = Outcome {
                    result: Err(failure),
                    client_saw: None,
                    ended: os.now(),
                };
                self.outcomes.insert(way, outcome);
                return;
            }
        };
        let socket = pipe.socket;
        head.write(&mut pipe.output);
        pipe.output.extend_from_slice(&ask.body);
        if stood {
            pipe.flush(os);
        }
        let timer = os.timer(PATIENCE);
        self.timers.insert(timer, socket);
        self.exchanges.insert(
            socket,
            Exchange {
                pipe,
                way,
                method: ask.method,
                connection: ask.connection,
                client_saw: if stood { os.peer(socket) } else { None },
                timer,
                answer: None,
            },
        );
    }

    fn end(&mut self, socket: SocketId, result: Result<Answer, Failure>, os: &mut dyn Os) {
        let Some(exchange) = self.exchanges.remove(&socket) else {
            return;
        };
        self.timers.remove(&exchange.timer);
        os.cancel(exchange.timer);
        if let Some(name) = exchange.connection {
            let kept = match &result {
                Ok(answer) if may_be_kept(answer, &exchange.pipe) => {
                    os.set_way(socket, None);
                    Kept::Idle(exchange.pipe)
                }
                Ok(_) => {
                    os.shutdown(socket);
                    Kept::Ended(Failure::ConnectionClosed)
                }
                Err(failure) => Kept::Ended(*failure),
            };
            self.kept.insert(name, kept);
        } else if result.is_ok() {
            os.shutdown(socket);
        }
        let outcome = Outcome {
            result,
            client_saw: exchange.client_saw,
            ended: os.now(),
        };
        self.outcomes.insert(exchange.way, outcome);
    }

    /// Something happened to a connection between two requests.
    fn on_idle(&mut self, socket: SocketId, event: SocketEvent, os: &mut dyn Os) {
        let is_it = |kept: &Kept| matches!(kept, Kept::Idle(pipe) if pipe.socket == socket);
        let Some(kept) = self.kept.values_mut().find(|kept| is_it(kept)) else {
            return;
        };
        *kept = Kept::Ended(match event {
            SocketEvent::Failed(error) => failure(error),
            SocketEvent::Closed => Failure::ConnectionClosed,
            // It says that it will send no more, or speaks unasked: nobody would ask it again.
            SocketEvent::PeerClosed | SocketEvent::Readable => {
                os.shutdown(socket);
                Failure::ConnectionClosed
            }
            SocketEvent::Connected | SocketEvent::Writable | SocketEvent::Accepted(_) => return,
        });
    }
}

/// Whether another request can follow on the connection of an answer (RFC 9112, section 9.3).
fn may_be_kept(answer: &Answer, pipe: &Pipe) -> bool {
    let closes = answer.headers.get("connection");
    let framed = ["content-length", "transfer-encoding"]
        .iter()
        .any(|name| answer.headers.get(name).is_some())
        || matches!(answer.status, 204 | 304);
    framed && !pipe.peer_closed && !closes.is_some_and(|it| it.eq_ignore_ascii_case("close"))
}

fn failure(error: SocketError) -> Failure {
    match error {
        SocketError::Refused => Failure::ConnectionRefused,
        SocketError::Reset => Failure::ConnectionReset,
        SocketError::TimedOut => Failure::TimedOut,
    }
}

impl Exchange {
    /// Takes what has arrived; the answer when it is whole.
    fn advance(&mut self, os: &mut dyn Os) -> Result<Option<Answer>, Failure> {
        loop {
            let before = self.pipe.input.len();
            self.pipe.read(os);
            // Once the server has answered a hello, what waited for that goes out.
            self.pipe.flush(os);
            let arrived = self.pipe.input.len() > before;
            if let Some(answer) = self.take()? {
                return Ok(Some(answer));
            }
            if !arrived {
                return Ok(None);
            }
        }
    }

    fn take(&mut self) -> Result<Option<Answer>, Failure> {
        while self.answer.is_none() {
            let parsed = ResponseHead::parse(&self.pipe.input).map_err(not_http)?;
            let Some((head, length)) = parsed else {
                return Ok(None);
            };
            self.pipe.input.drain(..length);
            // An interim answer; the real one follows.
            if (100..200).contains(&head.status) {
                continue;
            }
            let body: BodyLength = head.body(&self.method).map_err(not_http)?;
            let answer = Answer {
                status: head.status,
                headers: head.headers,
                body: Vec::new(),
                shown: self.pipe.shown().cloned(),
            };
            self.answer = Some((answer, Decoder::new(body)));
        }
        let Some((answer, decoder)) = &mut self.answer else {
            return Ok(None);
        };
        let room = MAX_BODY.saturating_sub(answer.body.len());
        decoder
            .decode(&mut self.pipe.input, &mut answer.body, room)
            .map_err(not_http)?;
        if answer.body.len() >= MAX_BODY && !decoder.is_done() {
            return Err(Failure::NotHttp);
        }
        let done = decoder.is_done();
        Ok(self.answer.take_if(|_| done).map(|(answer, _)| answer))
    }

    /// The peer sends no more: an answer without a length is whole now.
    fn end(&mut self) -> Result<Answer, Failure> {
        match self.answer.take() {
            Some((answer, mut decoder)) => match decoder.end() {
                Ok(()) => Ok(answer),
                Err(_) => Err(Failure::ConnectionClosed),
            },
            None if self.pipe.in_handshake() => Err(Failure::HandshakeFailed),
            None => Err(Failure::ConnectionClosed),
        }
    }
}

fn not_http(_: HttpError) -> Failure {
    Failure::NotHttp
}

impl Process for Client {
    fn name(&self) -> &'static str {
        "client"
    }

    fn on_wake(&mut self, os: &mut dyn Os) {
        for waiting in std::mem::take(&mut self.waiting) {
            self.begin(waiting, os);
        }
    }

    fn on_socket(&mut self, socket: SocketId, event: SocketEvent, os: &mut dyn Os) {
        let Some(exchange) = self.exchanges.get_mut(&socket) else {
            self.on_idle(socket, event, os);
            return;
        };
        let result = match event {
            SocketEvent::Connected => {
                exchange.client_saw = os.peer(socket);
                exchange.pipe.flush(os);
                return;
            }
            SocketEvent::Writable => {
                exchange.pipe.flush(os);
                return;
            }
            SocketEvent::Accepted(_) => return,
            SocketEvent::Readable => match exchange.advance(os) {
                Ok(None) => return,
                Ok(Some(answer)) => Ok(answer),
                Err(failure) => {
                    os.abort(socket);
                    Err(failure)
                }
            },
            SocketEvent::PeerClosed | SocketEvent::Closed => {
                let result = match exchange.advance(os) {
                    Ok(None) => exchange.end(),
                    Ok(Some(answer)) => Ok(answer),
                    Err(failure) => Err(failure),
                };
                exchange.pipe.peer_closed = true;
                if event == SocketEvent::PeerClosed {
                    os.shutdown(socket);
                }
                result
            }
            SocketEvent::Failed(SocketError::Reset) if exchange.pipe.in_handshake() => {
                Err(Failure::HandshakeFailed)
            }
            SocketEvent::Failed(error) => Err(failure(error)),
        };
        self.end(socket, result, os);
    }

    fn on_timer(&mut self, timer: TimerId, os: &mut dyn Os) {
        if let Some(socket) = self.timers.remove(&timer) {
            os.abort(socket);
            self.end(socket, Err(Failure::TimedOut), os);
        }
    }
}

#[cfg(test)]
mod tests;
