//! What will happen, ordered by time and, at one time, by who asked first.
//!
//! Packets on one link never overtake each other, so only the first of each link stands in the
//! heap of links: it stays as small as the network, however many packets are under way. The few
//! that a fault holds back stand in a heap of their own.

use std::cmp::Ordering;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};

use super::link::{Arrival, Port};
use super::packet::Packet;
use crate::process::{SocketId, TimerId};
use crate::time::Time;

/// Something that will happen without a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A connection wants to be polled.
    Socket(SocketId),
    /// A process's timer runs out.
    Timer(TimerId),
    /// A node looks at its frontends that arm or drain.
    Review(u32),
}

/// What happens next.
#[derive(Debug)]
pub(crate) enum Next {
    /// A packet comes to the end of a link.
    Arrival(Port, Packet),
    /// Something else.
    Event(Event),
}

#[derive(Debug, PartialEq, Eq)]
struct Entry<T> {
    at: Time,
    sequence: u64,
    what: T,
}

impl<T: Eq> Ord for Entry<T> {
    /// The earliest is the greatest: `BinaryHeap` gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl<T: Eq> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A packet under way.
#[derive(Debug, PartialEq, Eq)]
struct Flying {
    at: Time,
    sequence: u64,
    port: Port,
    packet: Packet,
}

/// Which of the heaps has the earliest.
enum Heap {
    Lanes,
    Behind,
    Others,
}

/// The packets on one direction of a link, the first to arrive first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lane(usize);

/// All that will happen, and the packets under way.
#[derive(Debug, Default)]
pub(crate) struct Events {
    others: BinaryHeap<Entry<Event>>,
    /// Each lane that has a packet, with when its first arrives.
    first: BinaryHeap<Entry<usize>>,
    lanes: Vec<VecDeque<Flying>>,
    /// Packets that others overtake.
    behind: BinaryHeap<Entry<(Port, Packet)>>,
    sequence: u64,
}

impl Events {
    /// Adds an event.
    pub(crate) fn add(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.others.push(Entry {
            at,
            sequence: self.sequence,
            what: event,
        });
    }

    /// A lane for one direction of a link.
    pub(crate) fn lane(&mut self) -> Lane {
        self.lanes.push(VecDeque::new());
        Lane(self.lanes.len() - 1)
    }

    /// Lets a packet come to the end of a link.
    pub(crate) fn send(&mut self, arrival: Arrival, port: Port, packet: Packet) {
        self.sequence += 1;
        let sequence = self.sequence;
        let (lane, at) = match arrival {
            Arrival::InTurn(lane, at) => (lane, at),
            Arrival::Behind(at) => {
                let what = (port, packet);
                self.behind.push(Entry { at, sequence, what });
                return;
            }
        };
        let Some(flying) = self.lanes.get_mut(lane.0) else {
            return;
        };
        if flying.is_empty() {
            let what = lane.0;
            self.first.push(Entry { at, sequence, what });
        }
        flying.push_back(Flying {
            at,
            sequence,
            port,
            packet,
        });
    }

    /// When the next event is.
    pub(crate) fn next_at(&self) -> Option<Time> {
        self.earliest().map(|((at, _), _)| at)
    }

    /// The next event.
    pub(crate) fn pop(&mut self) -> Option<(Time, Next)> {
        match self.earliest()?.1 {
            Heap::Lanes => self.pop_packet(),
            Heap::Behind => self.pop_behind(),
            Heap::Others => self.pop_other(),
        }
    }

    fn earliest(&self) -> Option<((Time, u64), Heap)> {
        let lanes = self.first.peek().map(|it| (it.at, it.sequence));
        let behind = self.behind.peek().map(|it| (it.at, it.sequence));
        let others = self.others.peek().map(|it| (it.at, it.sequence));
        let all = [
            lanes.map(|key| (key, Heap::Lanes)),
            behind.map(|key| (key, Heap::Behind)),
            others.map(|key| (key, Heap::Others)),
        ];
        // A sequence is given once: no two keys are equal.
        all.into_iter().flatten().min_by_key(|(key, _)| *key)
    }

    fn pop_behind(&mut self) -> Option<(Time, Next)> {
        let entry = self.behind.pop()?;
        let (port, packet) = entry.what;
        Some((entry.at, Next::Arrival(port, packet)))
    }

    fn pop_other(&mut self) -> Option<(Time, Next)> {
        let entry = self.others.pop()?;
        Some((entry.at, Next::Event(entry.what)))
    }

    fn pop_packet(&mut self) -> Option<(Time, Next)> {
        let mut head = self.first.peek_mut()?;
        let lane = self.lanes.get_mut(head.what)?;
        let flying = lane.pop_front()?;
        match lane.front() {
            Some(next) => {
                head.at = next.at;
                head.sequence = next.sequence;
            }
            None => {
                PeekMut::pop(head);
            }
        }
        Some((flying.at, Next::Arrival(flying.port, flying.packet)))
    }
}
