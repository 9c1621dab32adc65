//! What the proxy answers by itself.

use std::sync::Arc;

use nodeway_core::proxy::ResolvedEdits;
use nodeway_core::trace::{ReplyStep, Step};

use super::NodeProxy;
use crate::http::{Pipe, ResponseHead};
use crate::process::{Os, WayId};

/// An answer of the proxy's own.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) location: Option<String>,
    pub(super) edits: ResolvedEdits,
    /// Why it answers by itself.
    pub(super) why: String,
}

impl Answer {
    /// An answer whose body says why.
    pub(super) fn saying(status: u16, why: &str) -> Self {
        Self {
            body: why.as_bytes().to_vec(),
            ..Self::silent(status, why)
        }
    }

    /// An answer without a body.
    pub(super) fn silent(status: u16, why: &str) -> Self {
        Self {
            status,
            body: Vec::new(),
            location: None,
            edits: ResolvedEdits::default(),
            why: why.to_owned(),
        }
    }

    /// The upstream connection failed before it answered.
    pub(super) fn reset(status: u16, reason: &str) -> Self {
        let why = format!(
            "upstream connect error or disconnect/reset before headers. reset reason: {reason}"
        );
        Self::saying(status, &why)
    }
}

impl NodeProxy {
    /// Writes an answer; `keep` says whether the connection goes on after it.
    pub(super) fn answer(
        &mut self,
        pipe: &mut Pipe,
        (method, way): (&str, Option<WayId>),
        answer: Answer,
        keep: bool,
        os: &mut dyn Os,
    ) {
        let mut head = ResponseHead::new(answer.status);
        if let Some(location) = answer.location {
            head.headers.set("location", location);
        }
        if !matches!(answer.status, 100..=199 | 204 | 304) {
            let length = answer.body.len().to_string();
            head.headers.set("content-length", length);
        }
        if !answer.body.is_empty() {
            head.headers.set("content-type", "text/plain");
        }
        answer.edits.apply(&mut head.headers.0);
        head.headers.set("server", "envoy");
        if !keep {
            head.headers.set("connection", "close");
        }
        os.set_way(pipe.socket, way);
        if let Some(way) = way {
            let step = ReplyStep::Proxy {
                node: Arc::clone(&self.node),
                pod: self.pod.clone(),
                status: answer.status,
                why: answer.why,
            };
            os.note(way, Step::Reply(step));
        }
        head.write(&mut pipe.output);
        let bodiless = method == "HEAD" || matches!(answer.status, 100..=199 | 204 | 304);
        if !bodiless {
            pipe.output.extend_from_slice(&answer.body);
        }
        *self.counters.responses.entry(answer.status).or_default() += 1;
        self.counters.own_responses += 1;
    }
}
