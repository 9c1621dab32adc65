//! What smoltcp's interfaces send to and receive from: one packet in, any number out.
//!
//! One wire serves every stack, because one connection is polled at a time. Buffers go round.

use std::collections::VecDeque;

use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// Buffers kept for the next packets.
const SPARE: usize = 4096;

/// Packets to and from the connection that is polled.
#[derive(Debug)]
pub(crate) struct Wire {
    mtu: usize,
    input: Vec<u8>,
    output: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Wire {
    /// A wire on which packets of that many bytes fit.
    pub(crate) fn new(mtu: usize) -> Self {
        Self {
            mtu,
            input: Vec::new(),
            output: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// An empty buffer, an old one if there is one.
    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes
    }

    /// Puts a packet where the next poll finds it.
    pub(crate) fn put(&mut self, bytes: Vec<u8>) {
        self.input = bytes;
    }

    /// The next packet that was sent.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        self.output.pop_front()
    }

    /// Takes a buffer back.
    pub(crate) fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE && buffer.capacity() > 0 {
            self.spare.push(buffer);
        }
    }

    /// Takes back the buffer of the packet that was polled.
    pub(crate) fn settle(&mut self) {
        let buffer = std::mem::take(&mut self.input);
        self.recycle(buffer);
    }
}

impl Device for Wire {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        if self.input.is_empty() {
            return None;
        }
        Some((
            Received(&mut self.input),
            Sending {
                output: &mut self.output,
                spare: &mut self.spare,
            },
        ))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sending<'_>> {
        // A token is never refused: smoltcp would try again at the same instant for ever.
        Some(Sending {
            output: &mut self.output,
            spare: &mut self.spare,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

/// The packet that came in.
pub(crate) struct Received<'a>(&'a mut Vec<u8>);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let result = read(self.0);
        // Emptied, so that it is received once; `Wire::settle` takes the buffer.
        self.0.clear();
        result
    }
}

/// Room for one packet.
pub(crate) struct Sending<'a> {
    output: &'a mut VecDeque<Vec<u8>>,
    spare: &'a mut Vec<Vec<u8>>,
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.resize(length, 0);
        let result = write(&mut bytes);
        self.output.push_back(bytes);
        result
    }
}
