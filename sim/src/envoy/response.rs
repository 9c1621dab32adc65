//! A response on its way back to the client.

use super::NodeProxy;
use super::answer::Answer;
use super::exchange::{Exchange, Progress};
use super::upstream::Upstream;
use crate::http::{BodyLength, Decoder, Encoder, HttpError, Pipe, ResponseHead};
use crate::process::Os;

/// A response whose head is passed on.
pub(super) struct Response {
    body: Decoder,
    encoder: Encoder,
    /// Whether the endpoint goes on with its connection.
    keep: bool,
}

/// How far a response is.
enum Passed {
    /// More must come, or the client must read.
    Wait,
    /// It is whole.
    Whole,
    /// The endpoint ended, or said something that is no HTTP.
    Broken,
}

impl NodeProxy {
    /// Passes on what has come of the response.
    pub(super) fn pass_response(
        &mut self,
        pipe: &mut Pipe,
        mut exchange: Exchange,
        mut upstream: Upstream,
        os: &mut dyn Os,
    ) -> Progress {
        if upstream.failed.is_none() {
            upstream.pipe.read(os);
        }
        let ended = upstream.failed.is_some() || upstream.pipe.peer_closed;
        if exchange.response.is_none() {
            match self.pass_head(pipe, &mut exchange, &mut upstream, os) {
                Err(_) => {
                    self.drop_upstream(&upstream, os);
                    return self.lost(pipe, exchange, Answer::reset(502, "protocol error"), os);
                }
                Ok(false) if ended => return self.reset(pipe, exchange, &upstream, os),
                Ok(_) => {}
            }
        }
        let passed = match &mut exchange.response {
            Some(response) => response.pass_body(pipe, &mut upstream, os),
            None => Passed::Wait,
        };
        match passed {
            Passed::Wait => {
                exchange.upstream = Some(upstream.pipe.socket);
                self.upstreams.insert(upstream.pipe.socket, upstream);
                Progress::Wait(Some(Box::new(exchange)))
            }
            Passed::Whole => self.settle(exchange, upstream, os),
            Passed::Broken => {
                self.drop_upstream(&upstream, os);
                self.disarm(exchange.timer.take(), os);
                Progress::Broken
            }
        }
    }

    /// Passes the head on; false while it is not whole.
    fn pass_head(
        &mut self,
        pipe: &mut Pipe,
        exchange: &mut Exchange,
        upstream: &mut Upstream,
        os: &mut dyn Os,
    ) -> Result<bool, HttpError> {
        let mut head = loop {
            let Some((head, length)) = ResponseHead::parse(&upstream.pipe.input)? else {
                return Ok(false);
            };
            upstream.pipe.input.drain(..length);
            match head.status {
                101 => return Err(HttpError::Head("an upgrade that was not asked".to_owned())),
                // The proxy has sent its own `100 Continue`; of others the client knows nothing.
                100..=199 => {}
                _ => break head,
            }
        };
        let length = head.body(&exchange.method)?;
        exchange.response = Some(Response {
            body: Decoder::new(length),
            encoder: Encoder::new(outgoing(length)),
            keep: head.keeps_alive() && length != BodyLength::UntilClose,
        });
        let headers = &mut head.headers;
        headers.remove_hop_by_hop();
        let took = (os.now() - exchange.began).as_millis().to_string();
        headers.set("x-envoy-upstream-service-time", took);
        exchange.edits.apply(&mut headers.0);
        headers.set("server", "envoy");
        if outgoing(length) == BodyLength::Chunked {
            headers.set("transfer-encoding", "chunked");
        }
        if !exchange.keep {
            headers.set("connection", "close");
        }
        head.old = false;
        *self.counters.responses.entry(head.status).or_default() += 1;
        os.set_way(pipe.socket, exchange.way);
        head.write(&mut pipe.output);
        Ok(true)
    }

    /// The response is whole: the connections go on, or end.
    fn settle(&mut self, mut exchange: Exchange, upstream: Upstream, os: &mut dyn Os) -> Progress {
        self.disarm(exchange.timer.take(), os);
        let keep = exchange.response.is_some_and(|response| response.keep);
        let clean = upstream.pipe.input.is_empty() && upstream.pipe.output.is_empty();
        if !exchange.sent {
            // The endpoint would take the rest of the request for the next one.
            self.drop_upstream(&upstream, os);
        } else if keep && clean && !upstream.pipe.peer_closed && upstream.failed.is_none() {
            self.keep(upstream, os);
        } else {
            self.finish_upstream(upstream, os);
        }
        Progress::Done {
            keep: exchange.keep && exchange.sent,
        }
    }
}

impl Response {
    fn pass_body(&mut self, pipe: &mut Pipe, upstream: &mut Upstream, os: &mut dyn Os) -> Passed {
        loop {
            pipe.flush(os);
            if upstream.failed.is_none() {
                upstream.pipe.read(os);
            }
            let before = upstream.pipe.input.len();
            let mut piece = Vec::new();
            let decoded = self
                .body
                .decode(&mut upstream.pipe.input, &mut piece, pipe.room());
            self.encoder.write(&piece, &mut pipe.output);
            if decoded.is_err() {
                return Passed::Broken;
            }
            if !self.body.is_done() && before == 0 {
                // All was read: is the endpoint's end the body's?
                let whole = match (upstream.failed, upstream.pipe.peer_closed) {
                    (_, true) => self.body.end().is_ok(),
                    (Some(_), false) => return Passed::Broken,
                    (None, false) => return Passed::Wait,
                };
                if !whole {
                    return Passed::Broken;
                }
            }
            if self.body.is_done() {
                self.encoder.finish(&mut pipe.output);
                return Passed::Whole;
            }
            if upstream.pipe.input.len() == before {
                // Half a chunk's line is no progress, and after the endpoint's end never will be.
                let stuck = upstream.pipe.peer_closed || upstream.failed.is_some();
                return if stuck && pipe.room() > 0 {
                    Passed::Broken
                } else {
                    Passed::Wait
                };
            }
        }
    }
}

/// How a body goes on to the client: one up to the end of the connection in chunks.
fn outgoing(length: BodyLength) -> BodyLength {
    match length {
        BodyLength::UntilClose => BodyLength::Chunked,
        length => length,
    }
}
