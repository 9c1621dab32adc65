//! The requests of a connection, one after the other.

use std::sync::Arc;

use nodeway_core::proxy::HttpConnectionManager;

use super::NodeProxy;
use super::downstream::{Arrival, Stage};
use super::exchange::{Exchange, Progress};
use crate::http::Pipe;
use crate::process::Os;

/// A connection that speaks HTTP.
pub(super) struct Session {
    pub(super) arrival: Arrival,
    pub(super) manager: Arc<HttpConnectionManager>,
    pub(super) tls: bool,
    /// The request that is being served; the next one waits for its end.
    pub(super) exchange: Option<Exchange>,
}

impl Session {
    pub(super) fn new(arrival: Arrival, manager: Arc<HttpConnectionManager>, tls: bool) -> Self {
        Self {
            arrival,
            manager,
            tls,
            exchange: None,
        }
    }
}

impl NodeProxy {
    /// Goes on with a session as far as it can.
    pub(super) fn session(
        &mut self,
        pipe: &mut Pipe,
        mut session: Box<Session>,
        os: &mut dyn Os,
    ) -> Stage {
        loop {
            pipe.flush(os);
            pipe.read(os);
            let progress = match session.exchange.take() {
                // A client that does not read its answers gets no new ones.
                None if pipe.room() == 0 => Progress::Wait(None),
                None => self.begin(pipe, &session, os),
                Some(exchange) => self.exchange(pipe, exchange, os),
            };
            match progress {
                Progress::Begun(exchange) | Progress::Retry(exchange) => {
                    session.exchange = Some(*exchange);
                }
                Progress::Wait(exchange) => {
                    session.exchange = exchange.map(|it| *it);
                    break;
                }
                Progress::Done { keep: true } => {}
                Progress::Done { keep: false } => return self.end(pipe, os),
                Progress::Broken => return Stage::Gone,
            }
        }
        // As Envoy, which takes a client's end for the end of the connection.
        if pipe.peer_closed {
            self.abandon(Stage::Http(session), os);
            return self.end(pipe, os);
        }
        Stage::Http(session)
    }
}
