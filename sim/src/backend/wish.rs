//! What a request to an echo wishes of its answer, so that a test can have any answer it needs.
//!
//! `?status=503` or the header field `x-answer-status: 503` chooses the status, `?bytes=100000` makes
//! the body so much longer and sends it in chunks. Bookinfo's programs know neither.

use crate::http::RequestHead;

/// The most that may be wished: enough to measure how fast bytes get through.
const MAX_BYTES: usize = 1 << 30;

/// What the answer shall be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// Its status.
    pub(super) status: Option<u16>,
    /// How much longer its body shall be.
    pub(super) bytes: Option<usize>,
}

/// A wish that cannot be granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WishError {
    /// No final status.
    #[error("`{0}` is no status of an answer; wish one from 200 to 599")]
    Status(String),
    /// No length, or too much.
    #[error("`{0}` is no number of bytes; wish at most {MAX_BYTES}")]
    Bytes(String),
}

impl Wish {
    /// Reads the wishes of a request.
    pub(super) fn of(head: &RequestHead) -> Result<Self, WishError> {
        let query = head.target.split_once('?').map_or("", |(_, query)| query);
        let parameter = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| value)
                .next()
        };
        let status = head.headers.get("x-answer-status");
        Ok(Self {
            status: status
                .or_else(|| parameter("status"))
                .map(read_status)
                .transpose()?,
            bytes: parameter("bytes").map(read_bytes).transpose()?,
        })
    }
}

fn read_status(text: &str) -> Result<u16, WishError> {
    let status = text
        .parse()
        .ok()
        .filter(|status| (200..600).contains(status));
    status.ok_or_else(|| WishError::Status(text.to_owned()))
}

fn read_bytes(text: &str) -> Result<usize, WishError> {
    let bytes = text.parse().ok().filter(|bytes| *bytes <= MAX_BYTES);
    bytes.ok_or_else(|| WishError::Bytes(text.to_owned()))
}
