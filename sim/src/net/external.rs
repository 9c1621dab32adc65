//! A host outside whose network stack is none of ours: its packets are bytes that come from, and go
//! to, whoever runs the simulation. Behind a TUN device that is this machine's kernel.
//!
//! One node is its gateway, both ways: the node that announces LoadBalancer addresses. So a ClusterIP,
//! which no fabric knows, can be asked for from outside, and who translates a connection sees its
//! answers too.

use std::collections::VecDeque;
use std::net::IpAddr;

use nodeway_core::datapath;

use super::checksum;
use super::hop::Happening;
use super::link::Port;
use super::network::Network;
use super::packet::{Packet, comes_from, goes_to};
use super::stack::{Role, StackId};
use crate::process::WayId;

/// How many addresses behind the host are remembered.
const MOST_BEHIND: usize = 4096;

/// The external host.
#[derive(Debug)]
pub(crate) struct External {
    stack: StackId,
    /// The index of the node that it sends to and hears from.
    gateway: u32,
    /// Addresses beside its own that it has sent from.
    behind: usize,
    /// What has arrived there and was not taken yet.
    arrived: VecDeque<Vec<u8>>,
}

impl Network {
    /// Makes a host outside external. Nothing can be started there any more.
    pub(crate) fn make_external(&mut self, stack: StackId, gateway: u32) {
        self.external = Some(External {
            stack,
            gateway,
            behind: 0,
            arrived: VecDeque::new(),
        });
    }

    pub(crate) fn is_external(&self, stack: StackId) -> bool {
        let external = self.external.as_ref();
        external.is_some_and(|external| external.stack == stack)
    }

    /// Over its gateway, where a packet is the external host's or goes to it.
    pub(crate) fn by_gateway(&self, from: StackId, port: Option<Port>) -> Option<Port> {
        let Some(external) = &self.external else {
            return port;
        };
        let gateway = Port::Uplink(external.gateway);
        if from == external.stack {
            return Some(gateway);
        }
        let role = self.tcp.stack(from).map(|stack| stack.role);
        let is_gateway = role
            == Some(Role::Host {
                node: external.gateway,
            });
        if port == Some(Port::Stack(external.stack)) && !is_gateway {
            return Some(gateway);
        }
        port
    }

    /// A packet arrives at the external host.
    pub(crate) fn hand_out(&mut self, mut packet: Packet) {
        self.delivered += 1;
        checksum::fill(&mut packet.bytes);
        if let Some(external) = &mut self.external {
            external.arrived.push_back(packet.bytes);
        }
    }

    /// The external host sends a packet. What is no IP packet, or has a source that somebody in the
    /// simulation has, goes nowhere.
    pub(crate) fn take_in(&mut self, bytes: &[u8], way: Option<WayId>) {
        let Some(external) = &self.external else {
            return;
        };
        let stack = external.stack;
        let (Some(from), Some(to)) = (comes_from(bytes), goes_to(bytes)) else {
            return;
        };
        if !self.is_behind(from, stack) {
            return;
        }
        let mut buffer = self.tcp.wire.buffer();
        buffer.extend_from_slice(bytes);
        let packet = Packet {
            bytes: buffer,
            way,
            ..Packet::default()
        };
        if let Some(recorder) = &mut self.recorder {
            recorder.made();
        }
        let flow = datapath::parse(bytes).ok();
        self.hop_at(stack, (&packet, flow), Happening::Sent);
        self.leave(stack, to, flow, packet);
    }

    /// Whether answers to an address go to the external host; a new one is remembered: it may be
    /// a container's, whose packets this machine forwards.
    fn is_behind(&mut self, address: IpAddr, stack: StackId) -> bool {
        if let Some(port) = self.fabric.get(&address) {
            return *port == Port::Stack(stack);
        }
        let Some(external) = &mut self.external else {
            return false;
        };
        if external.behind >= MOST_BEHIND || address.is_multicast() || address.is_unspecified() {
            return false;
        }
        external.behind += 1;
        self.fabric.insert(address, Port::Stack(stack));
        true
    }

    /// Takes a packet that has arrived at the external host, with right checksums.
    pub(crate) fn take_out(&mut self) -> Option<Vec<u8>> {
        self.external.as_mut()?.arrived.pop_front()
    }
}
