//! The wall clock: the one place where live mode waits.

use std::thread;
use std::time::{Duration, Instant};

/// A moment after which waiting is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// That long from now.
    #[expect(
        clippy::disallowed_methods,
        reason = "live mode waits for real processes"
    )]
    pub(crate) fn within(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// Waits for `time`; false when the deadline has passed already.
    #[expect(
        clippy::disallowed_methods,
        reason = "live mode waits for real processes"
    )]
    pub(crate) fn pause(self, time: Duration) -> bool {
        let left = self.0.saturating_duration_since(Instant::now());
        thread::sleep(time.min(left));
        !left.is_zero()
    }
}

/// What a capture says of a packet: the time since the beginning of 1970, by this machine's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "packets of a real network are told with the time of day"
)]
pub(crate) fn time_of_day() -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap_or_default()
}

/// Time since some moment of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "live mode lives in real time")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
