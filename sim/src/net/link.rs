//! One direction of a link: latency, rate, and a queue that never drops and never overtakes.

use std::time::Duration;

use super::event::Lane;
use super::stack::StackId;
use super::topology::LinkSpec;
use crate::seed::Seed;
use crate::time::Time;

/// The end of a link at which a packet arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// A stack's own device: a pod's `eth0`, the device of a host outside.
    Stack(StackId),
    /// A stack's `lo`.
    Loopback(StackId),
    /// The host's side of a pod's veth pair.
    Veth(StackId),
    /// The uplink of a node.
    Uplink(u32),
}

/// One direction of a link.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    latency: Duration,
    picos_per_byte: u64,
    free_at: Time,
    /// Where its packets fly.
    lane: Lane,
}

impl Link {
    /// A link of that name: its latency is up to a tenth longer than asked for, by the seed.
    pub(crate) fn new(spec: LinkSpec, seed: Seed, name: &str, lane: Lane) -> Self {
        let nanos = u64::try_from(spec.latency.as_nanos()).unwrap_or(u64::MAX);
        let more = seed.stream(name).below(nanos / 10 + 1);
        Self {
            latency: Duration::from_nanos(nanos.saturating_add(more)),
            picos_per_byte: 8_000_000_000_000 / spec.bits_per_second.max(1),
            free_at: Time::ZERO,
            lane,
        }
    }

    /// Sends that many bytes and says when they arrive, and on which lane.
    pub(crate) fn send(&mut self, now: Time, length: usize) -> (Lane, Time) {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let nanos = length.saturating_mul(self.picos_per_byte) / 1_000;
        self.free_at = now.max(self.free_at) + Duration::from_nanos(nanos);
        (self.lane, self.free_at + self.latency)
    }
}
