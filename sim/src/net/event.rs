//! What will happen, ordered by time and, at one time, by who asked first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::link::Port;
use super::packet::Packet;
use crate::process::{SocketId, TimerId};
use crate::time::Time;

/// Something that will happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A packet comes to the end of a link.
    Arrival {
        /// That end.
        port: Port,
        /// The packet's place among those under way.
        packet: u32,
    },
    /// A connection wants to be polled.
    Socket(SocketId),
    /// A process's timer runs out.
    Timer(TimerId),
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    at: Time,
    sequence: u64,
    event: Event,
}

impl Ord for Entry {
    /// The earliest is the greatest: `BinaryHeap` gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// All that will happen, and the packets under way.
#[derive(Debug, Default)]
pub(crate) struct Events {
    heap: BinaryHeap<Entry>,
    sequence: u64,
    under_way: Vec<Packet>,
    free: Vec<u32>,
}

impl Events {
    /// Adds an event.
    pub(crate) fn add(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.heap.push(Entry {
            at,
            sequence: self.sequence,
            event,
        });
    }

    /// Lets a packet come to the end of a link.
    pub(crate) fn send(&mut self, at: Time, port: Port, packet: Packet) {
        let index = match self.free.pop() {
            Some(index) => {
                if let Some(slot) = self.under_way.get_mut(index as usize) {
                    *slot = packet;
                }
                index
            }
            None => {
                // Four thousand million packets under way do not fit in memory.
                let index = u32::try_from(self.under_way.len()).unwrap_or(u32::MAX);
                self.under_way.push(packet);
                index
            }
        };
        self.add(
            at,
            Event::Arrival {
                port,
                packet: index,
            },
        );
    }

    /// Takes the packet of an arrival.
    pub(crate) fn packet(&mut self, index: u32) -> Packet {
        self.free.push(index);
        self.under_way
            .get_mut(index as usize)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// When the next event is.
    pub(crate) fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// The next event.
    pub(crate) fn pop(&mut self) -> Option<(Time, Event)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}
