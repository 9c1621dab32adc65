//! One direction of a link: latency, rate, and a queue that never drops and never overtakes, unless
//! an impairment says so.

use std::time::Duration;

use super::event::Lane;
use super::impairment::{Impairment, Stroke};
use super::stack::StackId;
use super::topology::LinkSpec;
use crate::seed::{Random, Seed};
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
    /// Short of a machine on the fabric, whose own link is bad.
    Fabric(StackId),
}

/// One direction of a link.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    latency: Duration,
    picos_per_byte: u64,
    free_at: Time,
    /// Where its packets fly.
    lane: Lane,
    impairment: Option<Impairment>,
    /// What impairments draw from; by the link's name.
    luck: Random,
    /// When the last packet in the queue arrives: none behind it is earlier.
    last_at: Time,
}

/// When a packet arrives, and whether in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// On the lane, behind those that were sent before.
    InTurn(Lane, Time),
    /// Held back: whatever was sent after it may be earlier.
    Behind(Time),
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carriage {
    /// None when it is lost.
    pub(crate) arrival: Option<Arrival>,
    /// When it arrives a second time.
    pub(crate) again: Option<Arrival>,
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
            impairment: None,
            luck: seed.stream(&format!("faults of {name}")),
            last_at: Time::ZERO,
        }
    }

    /// Makes the link bad, or well again.
    pub(crate) fn impair(&mut self, impairment: Option<Impairment>) {
        self.impairment = impairment;
    }

    /// What is wrong with it.
    pub(crate) fn impairment(&self) -> Option<Impairment> {
        self.impairment
    }

    /// Sends that many bytes and says when they arrive.
    #[inline]
    pub(crate) fn send(&mut self, now: Time, length: usize) -> Carriage {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let nanos = length.saturating_mul(self.picos_per_byte) / 1_000;
        self.free_at = now.max(self.free_at) + Duration::from_nanos(nanos);
        let at = self.free_at + self.latency;
        match self.impairment {
            None => Carriage {
                arrival: Some(self.in_turn(at)),
                again: None,
            },
            Some(impairment) => self.send_badly(at, impairment),
        }
    }

    fn send_badly(&mut self, at: Time, impairment: Impairment) -> Carriage {
        match impairment.strike(self.latency, &mut self.luck) {
            Stroke::Lost => Carriage {
                arrival: None,
                again: None,
            },
            Stroke::Carried {
                more,
                behind,
                twice,
            } => {
                let arrival = match behind {
                    Some(behind) => Arrival::Behind(at + more + behind),
                    None => self.in_turn(at + more),
                };
                Carriage {
                    arrival: Some(arrival),
                    again: twice.then(|| self.in_turn(at + more)),
                }
            }
        }
    }

    fn in_turn(&mut self, at: Time) -> Arrival {
        self.last_at = self.last_at.max(at);
        Arrival::InTurn(self.lane, self.last_at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Events;
    use super::super::impairment::Share;
    use super::*;

    fn link() -> Link {
        let spec = LinkSpec {
            latency: Duration::from_micros(100),
            bits_per_second: 1_000_000_000,
        };
        Link::new(spec, Seed(1), "a link", Events::default().lane())
    }

    fn at(carriage: Carriage) -> Option<Time> {
        carriage.arrival.map(|arrival| match arrival {
            Arrival::InTurn(_, at) | Arrival::Behind(at) => at,
        })
    }

    #[test]
    fn jitter_never_lets_a_packet_overtake() {
        let mut link = link();
        link.impair(Some(Impairment {
            jitter: Duration::from_millis(5),
            ..Impairment::default()
        }));
        let times: Vec<_> = (0..200u64)
            .filter_map(|n| at(link.send(Time::from_nanos(n * 1_000), 100)))
            .collect();
        assert_eq!(times.len(), 200);
        assert!(times.is_sorted());
    }

    #[test]
    fn a_delay_that_ends_does_not_let_later_packets_overtake() {
        let mut link = link();
        link.impair(Some(Impairment {
            delay: Duration::from_millis(50),
            ..Impairment::default()
        }));
        let slow = at(link.send(Time::ZERO, 100));
        link.impair(None);
        assert!(at(link.send(Time::ZERO, 100)) >= slow);
    }

    #[test]
    fn what_falls_behind_comes_after_what_was_sent_later() {
        let mut link = link();
        link.impair(Some(Impairment {
            reorder: Share::ALL,
            ..Impairment::default()
        }));
        let behind = at(link.send(Time::ZERO, 100));
        link.impair(None);
        assert!(at(link.send(Time::ZERO, 100)) < behind);
    }

    #[test]
    fn a_lossy_link_loses_and_doubles_as_it_was_told() {
        let mut link = link();
        link.impair(Some(Impairment {
            loss: Share::percent(10),
            duplicate: Share::percent(50),
            ..Impairment::default()
        }));
        let all: Vec<_> = (0..10_000).map(|_| link.send(Time::ZERO, 100)).collect();
        let lost = all.iter().filter(|it| it.arrival.is_none()).count();
        let twice = all.iter().filter(|it| it.again.is_some()).count();
        assert!((900..1_100).contains(&lost), "{lost} lost");
        assert!((4_300..4_700).contains(&twice), "{twice} twice");
    }
}
