//! The present: the simulation's time by this machine's clock.

use std::time::Instant;

use nodeway_sim::Time;

/// A clock that shows a simulation's time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present {
    began: Instant,
    /// What it showed then.
    at: Time,
}

impl Present {
    /// A clock that goes on from that moment.
    pub(super) fn from(at: Time) -> Self {
        Self {
            began: instant(),
            at,
        }
    }

    /// What it shows.
    pub(super) fn now(&self) -> Time {
        self.at + instant().duration_since(self.began)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "behind a device a simulation follows the wall clock"
)]
fn instant() -> Instant {
    Instant::now()
}
