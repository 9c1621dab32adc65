//! Frames as nobody sends them, and as everybody does.

use nodeway_core::datapath::{Address, Family, ethertype, protocol, tcp_flags};
use nodeway_sim::Random;

use super::tables::{
    LISTENERS, PORTS, SERVICES, Tables, Tuple, byte, chance, client, pick, port, service, silent,
};

/// A frame: what it says that it carries, and the bytes from the network header on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Host byte order.
    pub(super) ethertype: u16,
    /// From the network header on.
    pub(super) packet: Vec<u8>,
}

impl Frame {
    /// With its Ethernet header.
    #[must_use]
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        bytes.extend(self.ethertype.to_be_bytes());
        bytes.extend(&self.packet);
        bytes
    }

    /// Draws one.
    pub(super) fn draw(random: &mut Random, tables: &Tables) -> Self {
        let tuple = tuple(random, tables);
        let mut packet = internet(random, &tuple);
        if chance(random, 8) {
            damage(random, &mut packet);
        }
        if chance(random, 12) {
            let length = u64::try_from(packet.len()).unwrap_or(0);
            packet.truncate(usize::try_from(random.below(length + 1)).unwrap_or(0));
        }
        let right = match tuple.family {
            Family::V4 => ethertype::IPV4,
            Family::V6 => ethertype::IPV6,
        };
        let ethertype = match random.below(100) {
            0..=2 => port(random),
            3 => 0x0806,
            4 => 0x8100,
            5 => ethertype::IPV4,
            6 => ethertype::IPV6,
            _ => right,
        };
        // The kernel runs no program on less than the header that the EtherType promises.
        let least = match ethertype {
            ethertype::IPV4 => 20,
            ethertype::IPV6 => 40,
            _ => 1,
        };
        if packet.len() < least {
            packet.resize(least, 0);
        }
        Self { ethertype, packet }
    }
}

/// Of whom to whom: a connection that stands there, a frontend, or anything.
pub(super) fn tuple(random: &mut Random, tables: &Tables) -> Tuple {
    if chance(random, 35) {
        let known: Vec<Tuple> = tables.sockets.keys().copied().collect();
        if let Some(tuple) = pick(random, &known) {
            // Sometimes nearly: another port, so that a socket is only almost found.
            let sport = if chance(random, 10) {
                tuple.sport ^ 1
            } else {
                tuple.sport
            };
            return Tuple { sport, ..tuple };
        }
    }
    let family = if chance(random, 50) {
        Family::V4
    } else {
        Family::V6
    };
    let [_, n] = u16::try_from(random.below(u64::from(SERVICES) + 2))
        .unwrap_or(0)
        .to_be_bytes();
    let dst = match random.below(20) {
        0 => client(family, n),
        1 => anywhere(random, family),
        _ => service(family, n),
    };
    let dport = match random.below(20) {
        0 => port(random),
        1 => pick(random, &LISTENERS).unwrap_or(0),
        _ => pick(random, &PORTS).unwrap_or(0),
    };
    let [_, from] = u16::try_from(random.below(8)).unwrap_or(0).to_be_bytes();
    let src = match random.below(4) {
        0 => silent(family, from),
        1 => anywhere(random, family),
        _ => client(family, from),
    };
    Tuple {
        family,
        src,
        sport: port(random),
        dst,
        dport,
    }
}

fn anywhere(random: &mut Random, family: Family) -> Address {
    let mut address = [0; 16];
    let bytes = match family {
        Family::V4 => 4,
        Family::V6 => 16,
    };
    address
        .iter_mut()
        .take(bytes)
        .for_each(|it| *it = byte(random));
    address
}

/// An IP packet with what a header may have in front of its payload.
fn internet(random: &mut Random, tuple: &Tuple) -> Vec<u8> {
    let (number, payload) = payload(random, tuple);
    match tuple.family {
        Family::V4 => ipv4(random, tuple.src, tuple.dst, number, &payload),
        Family::V6 => ipv6(random, tuple.src, tuple.dst, number, &payload),
    }
}

fn ipv4(random: &mut Random, src: Address, dst: Address, number: u8, payload: &[u8]) -> Vec<u8> {
    let words = match random.below(20) {
        // Shorter than a header can be.
        0 => random.below(5),
        1..=4 => 5 + random.below(11),
        _ => 5,
    };
    let words = u8::try_from(words).unwrap_or(5);
    let fragment = match random.below(25) {
        0 => port(random),
        1 => 0x2000,
        // "Do not fragment", which is no fragment; and the reserved bit.
        2 => 0x8000,
        _ => 0x4000,
    };
    let mut packet = vec![0x40 | words, byte(random)];
    let length = usize::from(words) * 4 + payload.len();
    packet.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, number, 0, 0]);
    packet.extend(src.iter().take(4));
    packet.extend(dst.iter().take(4));
    for _ in 20..usize::from(words) * 4 {
        packet.push(byte(random));
    }
    packet.extend(payload);
    packet
}

fn ipv6(random: &mut Random, src: Address, dst: Address, number: u8, payload: &[u8]) -> Vec<u8> {
    let headers = if chance(random, 30) {
        1 + random.below(6)
    } else {
        0
    };
    let mut next = number;
    let mut behind = payload.to_vec();
    for _ in 0..headers {
        // Hop-by-hop, routing, destination options; fragment; authentication, mobility, nothing.
        let kind = match random.below(20) {
            0 => 44,
            1 => pick(random, &[51, 135, 59, 50]).unwrap_or(59),
            _ => pick(random, &[0, 43, 60]).unwrap_or(0),
        };
        let longest = if chance(random, 2) { 40 } else { 3 };
        let units = random.below(longest);
        let units = u8::try_from(units).unwrap_or(0);
        let mut header = vec![next, units];
        header.resize(usize::from(units) * 8 + 8, 0);
        header.extend(behind);
        (next, behind) = (kind, header);
    }
    let mut packet = vec![0x60, byte(random) & 0x0f, 0, 0];
    packet.extend(u16::try_from(behind.len()).unwrap_or(0).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(src);
    packet.extend(dst);
    packet.extend(behind);
    packet
}

/// What the packet carries, and its number.
fn payload(random: &mut Random, tuple: &Tuple) -> (u8, Vec<u8>) {
    match random.below(20) {
        0 => (protocol::UDP, segment(random, tuple)),
        1 => (byte(random), segment(random, tuple)),
        2 | 3 => icmp(random, tuple),
        _ => (protocol::TCP, segment(random, tuple)),
    }
}

fn segment(random: &mut Random, tuple: &Tuple) -> Vec<u8> {
    use tcp_flags::{ACK, FIN, RST, SYN};
    let flags = pick(
        random,
        &[
            SYN,
            SYN,
            SYN,
            ACK,
            ACK,
            SYN | ACK,
            FIN | ACK,
            RST,
            0,
            0xff,
            SYN | 0xc0,
        ],
    );
    let mut segment = Vec::new();
    segment.extend(tuple.sport.to_be_bytes());
    segment.extend(tuple.dport.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags.unwrap_or(0)]);
    segment.extend([0xff, 0xff, 0, 0, 0, 0]);
    for _ in 0..random.below(20) {
        segment.push(byte(random));
    }
    segment
}

/// An ICMP message, mostly an error about a segment that the destination once sent.
fn icmp(random: &mut Random, tuple: &Tuple) -> (u8, Vec<u8>) {
    let (number, errors): (u8, [u8; 4]) = match tuple.family {
        Family::V4 => (protocol::ICMP, [3, 11, 12, 5]),
        Family::V6 => (protocol::ICMPV6, [1, 2, 3, 4]),
    };
    let kind = if chance(random, 80) {
        pick(random, &errors).unwrap_or(0)
    } else {
        byte(random)
    };
    let turned = tuple.turned();
    let quoted = match random.below(10) {
        0 => (protocol::UDP, segment(random, &turned)),
        _ => (protocol::TCP, segment(random, &turned)),
    };
    let mut message = vec![kind, 4, 0, 0, 0, 0, 5, 0];
    message.extend(match tuple.family {
        Family::V4 => ipv4(random, turned.src, turned.dst, quoted.0, &quoted.1),
        Family::V6 => ipv6(random, turned.src, turned.dst, quoted.0, &quoted.1),
    });
    (number, message)
}

/// Turns one to three bytes of the headers into others.
fn damage(random: &mut Random, packet: &mut [u8]) {
    let reach = u64::try_from(packet.len().min(80)).unwrap_or(0);
    for _ in 0..=random.below(3) {
        let at = usize::try_from(random.below(reach)).unwrap_or(0);
        if let Some(it) = packet.get_mut(at) {
            *it = byte(random);
        }
    }
}
