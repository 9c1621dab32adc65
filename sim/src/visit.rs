//! Visits: what the external host asked, and what came of it, read off its packets.
//!
//! Both directions of each connection are followed in the order of their bytes: a request's head
//! opens a way, the head of the response to it closes that way. What is no HTTP/1 in plain text is
//! told once a connection. A byte that was never seen ends the following of its connection.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use nodeway_core::datapath::{self, Flow, Packet, tcp_flags};

use crate::http::{Decoder, HttpError, RequestHead, ResponseHead};
use crate::net::{destination, payload, source};
use crate::process::WayId;
use crate::sim::ServedBy;
use crate::time::Time;

/// A request of the external host, or a connection that came to no request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Who asked.
    pub from: SocketAddr,
    /// The address that was asked for.
    pub to: SocketAddr,
    /// What was asked for.
    pub asked: Option<Asked>,
    /// What came of it.
    pub outcome: VisitOutcome,
    /// From the head of the request, or the first packet, to the head of the response, or the last.
    pub took: Duration,
    /// Who served it.
    pub served: ServedBy,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `GET`
    pub method: String,
    /// The `host` header field.
    pub host: Option<String>,
    /// `/details/0`
    pub target: String,
}

/// What came of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VisitOutcome {
    /// A response of that status.
    Answered(u16),
    /// Nobody listens there, or a rule rejects it.
    Refused,
    /// The connection ended before there was an answer.
    Ended,
    /// It is no HTTP/1 in plain text: TLS, say.
    NotHttp,
}

/// A visit that is over, with the way that it went.
#[derive(Debug)]
pub(crate) struct Over {
    pub(crate) visit: Visit,
    pub(crate) way: WayId,
}

/// All connections of the external host.
#[derive(Debug, Default)]
pub(crate) struct Visits {
    /// By client and server.
    connections: BTreeMap<(SocketAddr, SocketAddr), Connection>,
    over: Vec<Over>,
}

#[derive(Debug)]
struct Connection {
    began: Time,
    /// Of the first request, from the first packet on.
    first: Option<WayId>,
    up: Stream<RequestHead>,
    down: Stream<ResponseHead>,
    /// Requests without a response, in order.
    open: VecDeque<Open>,
    answered: bool,
}

#[derive(Debug)]
struct Open {
    asked: Asked,
    way: WayId,
    at: Time,
}

/// The bytes of one direction.
#[derive(Debug)]
struct Stream<H> {
    /// The number of the next byte.
    next: Option<u32>,
    /// What could not be read yet.
    rest: Vec<u8>,
    /// What of a message comes next.
    body: Option<Decoder>,
    closed: bool,
    /// It cannot be followed: it is no HTTP, or bytes are missing.
    lost: bool,
    heads: std::marker::PhantomData<H>,
}

/// Whether somebody may go on with a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goes {
    On,
    Over,
}

impl Visits {
    /// A packet comes from the external host: the way that it is on.
    pub(crate) fn comes(
        &mut self,
        packet: &[u8],
        now: Time,
        open_way: &mut dyn FnMut(SocketAddr) -> WayId,
    ) -> Option<WayId> {
        let flow = segment(packet)?;
        let (client, server) = (source(&flow), destination(&flow));
        let (number, data) = payload(packet)?;
        let key = (client, server);
        if flow.opens() && !self.is_again(key, number) {
            self.end(key, now, VisitOutcome::Ended);
            let connection = Connection::new(open_way(server), number, now);
            self.connections.insert(key, connection);
        }
        let connection = self.connections.get_mut(&key)?;
        connection.up.take(flow.tcp_flags, number, data);
        let mut no_http = false;
        loop {
            match connection.up.head() {
                Ok(Some(head)) => connection.asks(head, now, &mut || open_way(server)),
                Ok(None) => break,
                Err(_) => {
                    no_http = !connection.answered && connection.open.is_empty();
                    connection.up.lose();
                    break;
                }
            }
        }
        let way = connection.way();
        if no_http {
            self.tell_of(key, now, VisitOutcome::NotHttp);
        }
        if flow.tcp_flags & tcp_flags::RST != 0 || self.is_done(key) {
            self.end(key, now, VisitOutcome::Ended);
        }
        way
    }

    /// A packet goes to the external host.
    pub(crate) fn goes(&mut self, packet: &[u8], now: Time) {
        let Ok(flow) = datapath::parse(packet) else {
            return;
        };
        let key = (destination(&flow), source(&flow));
        if flow.packet == Packet::IcmpError {
            return self.end(key, now, VisitOutcome::Refused);
        }
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let reset = flow.tcp_flags & tcp_flags::RST != 0;
        let early = connection.down.next.is_none();
        if let Some((number, data)) = payload(packet) {
            connection.down.take(flow.tcp_flags, number, data);
            while connection.answer(now, key, &mut self.over) == Goes::On {}
        }
        if reset {
            let outcome = if early {
                VisitOutcome::Refused
            } else {
                VisitOutcome::Ended
            };
            self.end(key, now, outcome);
        } else if self.is_done(key) {
            self.end(key, now, VisitOutcome::Ended);
        }
    }

    /// Takes the visits that are over.
    pub(crate) fn take(&mut self) -> Vec<Over> {
        std::mem::take(&mut self.over)
    }

    /// Whether a SYN is one that was sent before.
    fn is_again(&self, key: (SocketAddr, SocketAddr), number: u32) -> bool {
        let connection = self.connections.get(&key);
        connection.is_some_and(|it| it.up.next == Some(number.wrapping_add(1)))
    }

    fn is_done(&self, key: (SocketAddr, SocketAddr)) -> bool {
        let connection = self.connections.get(&key);
        connection.is_some_and(|it| it.up.closed && it.down.closed)
    }

    /// Forgets a connection; what it still waits for came to that end.
    fn end(&mut self, key: (SocketAddr, SocketAddr), now: Time, outcome: VisitOutcome) {
        self.tell_of(key, now, outcome);
        self.connections.remove(&key);
    }

    /// What a connection waits for came to that end.
    fn tell_of(&mut self, key: (SocketAddr, SocketAddr), now: Time, outcome: VisitOutcome) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        if let Some(way) = connection.first.take() {
            let began = connection.began;
            self.over.push(over(key, None, way, now - began, outcome));
        }
        for open in connection.open.drain(..) {
            let took = now - open.at;
            self.over
                .push(over(key, Some(open.asked), open.way, took, outcome));
        }
    }
}

fn over(
    (from, to): (SocketAddr, SocketAddr),
    asked: Option<Asked>,
    way: WayId,
    took: Duration,
    outcome: VisitOutcome,
) -> Over {
    Over {
        way,
        visit: Visit {
            from,
            to,
            asked,
            outcome,
            took,
            served: ServedBy::default(),
        },
    }
}

/// The flow of a TCP segment.
fn segment(packet: &[u8]) -> Option<Flow> {
    let flow = datapath::parse(packet).ok()?;
    (flow.packet == Packet::Segment).then_some(flow)
}

impl Connection {
    fn new(way: WayId, number: u32, now: Time) -> Self {
        let up = Stream {
            next: Some(number),
            ..Stream::default()
        };
        Self {
            began: now,
            first: Some(way),
            up,
            down: Stream::default(),
            open: VecDeque::new(),
            answered: false,
        }
    }

    /// The way of what the client sends now.
    fn way(&self) -> Option<WayId> {
        let newest = self.open.back().map(|open| open.way);
        newest.or(self.first)
    }

    /// The client has sent the head of a request.
    fn asks(&mut self, head: RequestHead, now: Time, open_way: &mut dyn FnMut() -> WayId) {
        let way = self.first.take().unwrap_or_else(open_way);
        match head.body() {
            Ok(length) => self.up.body = Some(Decoder::new(length)),
            Err(_) => self.up.lose(),
        }
        self.open.push_back(Open {
            asked: Asked {
                host: head.headers.get("host").map(str::to_owned),
                method: head.method,
                target: head.target,
            },
            way,
            at: now,
        });
    }

    /// Reads on in what the server has sent.
    fn answer(&mut self, now: Time, key: (SocketAddr, SocketAddr), all: &mut Vec<Over>) -> Goes {
        let head = match self.down.head() {
            Ok(Some(head)) => head,
            Ok(None) => return Goes::Over,
            Err(_) => {
                self.down.lose();
                return Goes::Over;
            }
        };
        if (100..200).contains(&head.status) {
            return Goes::On;
        }
        let Some(open) = self.open.pop_front() else {
            // An answer to what was no request: the server says what it thinks of it.
            self.down.lose();
            return Goes::Over;
        };
        self.answered = true;
        match head.body(&open.asked.method) {
            Ok(length) => self.down.body = Some(Decoder::new(length)),
            Err(_) => self.down.lose(),
        }
        let outcome = VisitOutcome::Answered(head.status);
        all.push(over(
            key,
            Some(open.asked),
            open.way,
            now - open.at,
            outcome,
        ));
        Goes::On
    }
}

impl<H> Default for Stream<H> {
    fn default() -> Self {
        Self {
            next: None,
            rest: Vec::new(),
            body: None,
            closed: false,
            lost: false,
            heads: std::marker::PhantomData,
        }
    }
}

impl<H: Head> Stream<H> {
    /// Takes what is new in a segment.
    fn take(&mut self, flags: u8, number: u32, data: &[u8]) {
        // A SYN takes a number of its own.
        let syn = flags & tcp_flags::SYN != 0;
        let number = if syn { number.wrapping_add(1) } else { number };
        let next = if syn {
            *self.next.insert(number)
        } else {
            *self.next.get_or_insert(number)
        };
        let known = next.wrapping_sub(number) as usize;
        match data.get(known..) {
            Some(new) => {
                let length = u32::try_from(new.len()).unwrap_or(u32::MAX);
                self.next = Some(next.wrapping_add(length));
                self.read(new);
            }
            // Before what is known: it was sent again. Behind it: something is missing.
            None if known > usize::from(u16::MAX) << 14 => self.lose(),
            None => {}
        }
        self.closed |= flags & tcp_flags::FIN != 0;
    }

    fn read(&mut self, new: &[u8]) {
        if self.lost || new.is_empty() {
            return;
        }
        // The bulk of a body is passed over where it lies.
        let mut new = new;
        if let (Some(body), true) = (&mut self.body, self.rest.is_empty()) {
            match body.skip(new) {
                Ok(taken) => new = new.get(taken..).unwrap_or_default(),
                Err(_) => return self.lose(),
            }
        }
        self.rest.extend_from_slice(new);
    }

    /// The next head, once it is whole.
    fn head(&mut self) -> Result<Option<H>, HttpError> {
        if self.lost {
            return Ok(None);
        }
        if let Some(body) = &mut self.body {
            let taken = body.skip(&self.rest)?;
            self.rest.drain(..taken);
            if !body.is_done() {
                return Ok(None);
            }
            self.body = None;
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let Some((head, length)) = H::parse(&self.rest)? else {
            return Ok(None);
        };
        self.rest.drain(..length);
        Ok(Some(head))
    }

    /// Gives up.
    fn lose(&mut self) {
        self.lost = true;
        self.rest = Vec::new();
    }
}

/// What both heads have in common.
trait Head: Sized {
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HttpError>;
}

impl Head for RequestHead {
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HttpError> {
        Self::parse(bytes)
    }
}

impl Head for ResponseHead {
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HttpError> {
        Self::parse(bytes)
    }
}
