//! What a request to an echo wishes of its answer, so that a test can have any answer it needs.
//!
//! `?status=503` or the header field `x-answer-status: 503` chooses the status, `?bytes=100000` makes
//! the body so much longer and sends it in chunks, `?delay=200` lets it come that many milliseconds
//! later. Bookinfo's programs know none of them.

use std::time::Duration;

/// The most that may be wished: enough to measure how fast bytes get through.
const MAX_BYTES: usize = 1 << 30;

/// The longest delay that may be wished: longer than any time-out on the way.
const MAX_DELAY: u64 = 600_000;

/// What the answer shall be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// Its status.
    pub(super) status: Option<u16>,
    /// How much longer its body shall be.
    pub(super) bytes: Option<usize>,
    /// How long it shall be waited for.
    pub(super) delay: Duration,
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
    /// No time, or too long.
    #[error("`{0}` is no number of milliseconds; wish at most {MAX_DELAY}")]
    Delay(String),
}

impl Wish {
    /// Reads the wishes of a request from its target and the value of `x-answer-status`.
    pub(super) fn of(target: &str, status: Option<&str>) -> Result<Self, WishError> {
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let parameter = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| value)
                .next()
        };
        Ok(Self {
            status: status
                .or_else(|| parameter("status"))
                .map(read_status)
                .transpose()?,
            bytes: parameter("bytes").map(read_bytes).transpose()?,
            delay: parameter("delay").map_or(Ok(Duration::ZERO), read_delay)?,
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

fn read_delay(text: &str) -> Result<Duration, WishError> {
    let millis = text.parse().ok().filter(|millis| *millis <= MAX_DELAY);
    let delay = millis.map(Duration::from_millis);
    delay.ok_or_else(|| WishError::Delay(text.to_owned()))
}
