//! A request on its way to an endpoint, and the response on its way back: pieces are passed on
//! only as the other side has room.

use std::time::Duration;

use nodeway_core::proxy::ResolvedEdits;

use super::answer::Answer;
use super::request::refusal;
use super::response::Response;
use super::upstream::{Key, Upstream};
use super::{Due, NodeProxy};
use crate::http::{BodyLength, Decoder, Encoder, HttpError, Pipe};
use crate::process::{Os, SocketError, SocketId, TimerId, WayId};
use crate::time::Time;

/// What is kept of a request to send it once more.
const REPLAY: usize = 64 * 1024;

/// A request that is being served.
pub(super) struct Exchange {
    pub(super) method: String,
    pub(super) way: Option<WayId>,
    pub(super) key: Key,
    pub(super) upstream: Option<SocketId>,
    /// Whether the client wants to go on with its connection.
    pub(super) keep: bool,
    pub(super) edits: ResolvedEdits,
    pub(super) timeout: Option<Duration>,
    pub(super) timer: Option<TimerId>,
    pub(super) timed_out: bool,
    pub(super) began: Time,
    body: Decoder,
    encoder: Encoder,
    /// Whether the request is passed on as a whole.
    pub(super) sent: bool,
    /// All that was passed on, unless it is too much to be sent again.
    replay: Option<Vec<u8>>,
    pub(super) response: Option<Response>,
}

/// How a request goes on.
pub(super) enum Progress {
    /// It has begun.
    Begun(Box<Exchange>),
    /// It is sent once more.
    Retry(Box<Exchange>),
    /// Something must happen first.
    Wait(Option<Box<Exchange>>),
    /// Its response is written; `keep` says whether the connection goes on.
    Done {
        /// Whether it does.
        keep: bool,
    },
    /// Its response broke off.
    Broken,
}

impl Exchange {
    pub(super) fn new(
        method: String,
        way: Option<WayId>,
        key: Key,
        upstream: SocketId,
        length: BodyLength,
        keep: bool,
    ) -> Self {
        Self {
            method,
            way,
            key,
            upstream: Some(upstream),
            keep,
            edits: ResolvedEdits::default(),
            timeout: None,
            timer: None,
            timed_out: false,
            began: Time::ZERO,
            body: Decoder::new(length),
            encoder: Encoder::new(length),
            sent: false,
            replay: Some(Vec::new()),
            response: None,
        }
    }

    /// Passes bytes on.
    pub(super) fn send(&mut self, upstream: &mut Upstream, bytes: &[u8]) {
        upstream.pipe.output.extend_from_slice(bytes);
        self.replay = self
            .replay
            .take()
            .filter(|replay| replay.len() + bytes.len() <= REPLAY)
            .map(|mut replay| {
                replay.extend_from_slice(bytes);
                replay
            });
    }

    /// Passes on what has come of the request's body.
    fn pass_body(
        &mut self,
        pipe: &mut Pipe,
        upstream: &mut Upstream,
        os: &mut dyn Os,
    ) -> Result<(), HttpError> {
        loop {
            if upstream.connected {
                upstream.pipe.flush(os);
            }
            if self.sent {
                return Ok(());
            }
            pipe.read(os);
            let before = pipe.input.len();
            let mut piece = Vec::new();
            let room = upstream.pipe.room();
            self.body.decode(&mut pipe.input, &mut piece, room)?;
            let mut bytes = Vec::new();
            self.encoder.write(&piece, &mut bytes);
            if self.body.is_done() {
                self.encoder.finish(&mut bytes);
                self.sent = true;
            }
            self.send(upstream, &bytes);
            if pipe.input.len() == before && !self.sent {
                return Ok(());
            }
        }
    }
}

impl NodeProxy {
    /// Goes on with a request as far as it can.
    pub(super) fn exchange(
        &mut self,
        pipe: &mut Pipe,
        mut exchange: Exchange,
        os: &mut dyn Os,
    ) -> Progress {
        let upstream = exchange.upstream.take();
        let Some(mut upstream) = upstream.and_then(|socket| self.upstreams.remove(&socket)) else {
            return self.lost(
                pipe,
                exchange,
                Answer::reset(503, "connection termination"),
                os,
            );
        };
        if exchange.timed_out {
            self.drop_upstream(&upstream, os);
            let answer = Answer::saying(504, "upstream request timeout");
            return self.lost(pipe, exchange, answer, os);
        }
        if upstream.failed.is_none() {
            if let Err(error) = exchange.pass_body(pipe, &mut upstream, os) {
                self.drop_upstream(&upstream, os);
                exchange.keep = false;
                return self.lost(pipe, exchange, refusal(&error), os);
            }
            if exchange.sent && exchange.timer.is_none() {
                let due = Due::Route(pipe.socket);
                exchange.timer = exchange.timeout.map(|after| self.arm(after, due, os));
            }
        }
        self.pass_response(pipe, exchange, upstream, os)
    }

    /// The upstream connection ended before it answered.
    pub(super) fn reset(
        &mut self,
        pipe: &mut Pipe,
        mut exchange: Exchange,
        upstream: &Upstream,
        os: &mut dyn Os,
    ) -> Progress {
        self.drop_upstream(upstream, os);
        if upstream.reused
            && let Some(bytes) = exchange.replay.take()
        {
            let key = exchange.key.clone();
            let again = self.connect(key, pipe.socket, exchange.way, false, os);
            if let Some((socket, fresh)) = again
                .ok()
                .and_then(|socket| Some((socket, self.upstreams.get_mut(&socket)?)))
            {
                fresh.pipe.output.extend_from_slice(&bytes);
                exchange.upstream = Some(socket);
                exchange.replay = Some(bytes);
                self.counters.retries += 1;
                return Progress::Retry(Box::new(exchange));
            }
        }
        let reason = match upstream.failed {
            _ if upstream.connected => "connection termination",
            Some(SocketError::TimedOut) => "connection timeout",
            _ => "remote connection failure",
        };
        self.lost(pipe, exchange, Answer::reset(503, reason), os)
    }

    /// The request has no upstream any more: the proxy answers, if nothing was answered yet.
    pub(super) fn lost(
        &mut self,
        pipe: &mut Pipe,
        mut exchange: Exchange,
        answer: Answer,
        os: &mut dyn Os,
    ) -> Progress {
        self.disarm(exchange.timer.take(), os);
        if exchange.response.is_some() {
            return Progress::Broken;
        }
        let keep = exchange.keep && exchange.sent;
        self.answer(pipe, (&exchange.method, exchange.way), answer, keep, os);
        Progress::Done { keep }
    }

    pub(super) fn route_timed_out(&mut self, downstream: SocketId, os: &mut dyn Os) {
        if let Some(connection) = self.downstreams.get_mut(&downstream)
            && let super::downstream::Stage::Http(session) = &mut connection.stage
            && let Some(exchange) = &mut session.exchange
        {
            exchange.timed_out = true;
            exchange.timer = None;
            self.drive(downstream, os);
        }
    }
}
