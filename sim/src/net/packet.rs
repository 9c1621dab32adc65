//! A packet on a link: its bytes from the IP header on, and the way that it is on.
//!
//! Reading is the datapath's `parse`; here is what changes a packet (addresses, ports, TTL) and
//! what makes one (ICMP errors). Simulated links corrupt nothing: checksums are left at zero,
//! and `checksum` fills them in for captures.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nodeway_core::conntrack::Tracked;
use nodeway_core::datapath::{Address, Family, Flow};
use nodeway_core::netfilter::Owner;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpPacket,
};

use crate::process::WayId;

/// A packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packet {
    /// From the IP header on.
    pub(crate) bytes: Vec<u8>,
    /// The way it is on.
    pub(crate) way: Option<WayId>,
    /// What a packet over `lo` keeps of how it was sent.
    pub(crate) carried: Option<Box<Carried>>,
    /// The user of the socket that sent it.
    pub(crate) uid: u32,
    /// Whether it carries bytes from who asks to who answers.
    pub(crate) asks: bool,
}

impl Packet {
    /// Who sent it, as rules see that.
    pub(crate) fn owner(&self) -> Owner {
        Owner {
            uid: self.uid,
            gid: self.uid,
        }
    }
}

/// What the kernel keeps beside a packet's bytes within one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) mark: u32,
    pub(crate) tracked: Tracked,
    /// What was decided when it was sent, where captures are asked for.
    pub(crate) told: Vec<String>,
}

/// An address as the datapath has it.
pub(crate) fn widen(address: IpAddr) -> (Family, Address) {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            (Family::V4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }
        IpAddr::V6(address) => (Family::V6, address.octets()),
    }
}

/// An address as the standard library has it.
pub(crate) fn narrow(family: Family, address: &Address) -> IpAddr {
    match family {
        Family::V4 => {
            let [a, b, c, d, ..] = *address;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        Family::V6 => IpAddr::V6(Ipv6Addr::from(*address)),
    }
}

/// A flow's source.
pub(crate) fn source(flow: &Flow) -> SocketAddr {
    SocketAddr::new(narrow(flow.family, &flow.src), flow.sport)
}

/// A flow's destination.
pub(crate) fn destination(flow: &Flow) -> SocketAddr {
    SocketAddr::new(narrow(flow.family, &flow.dst), flow.dport)
}

/// Who has sent an IP packet.
pub(crate) fn comes_from(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.first()? >> 4 {
        4 => Some(Ipv4Packet::new_checked(bytes).ok()?.src_addr().into()),
        6 => Some(Ipv6Packet::new_checked(bytes).ok()?.src_addr().into()),
        _ => None,
    }
}

/// Where any IP packet goes, also one that no flow can be read from.
pub(crate) fn goes_to(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.first()? >> 4 {
        4 => Some(Ipv4Packet::new_checked(bytes).ok()?.dst_addr().into()),
        6 => Some(Ipv6Packet::new_checked(bytes).ok()?.dst_addr().into()),
        _ => None,
    }
}

/// Counts a hop down; says no when the packet has come to its last.
pub(crate) fn count_down(bytes: &mut [u8]) -> bool {
    let at = match bytes.first().map(|first| first >> 4) {
        Some(4) => 8,
        Some(6) => 7,
        _ => return false,
    };
    match bytes.get_mut(at) {
        Some(hops) if *hops > 1 => {
            *hops -= 1;
            true
        }
        _ => false,
    }
}

/// The sequence number of a TCP segment and its payload; none where the TCP header does not stand
/// right behind the IP header.
pub(crate) fn payload(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let segment = match bytes.first()? >> 4 {
        4 => {
            let packet = Ipv4Packet::new_checked(bytes).ok()?;
            let until = usize::from(packet.total_len());
            let is_tcp = packet.next_header() == IpProtocol::Tcp;
            bytes
                .get(usize::from(packet.header_len())..until)
                .filter(|_| is_tcp)?
        }
        6 => {
            let packet = Ipv6Packet::new_checked(bytes).ok()?;
            let is_tcp = packet.next_header() == IpProtocol::Tcp;
            bytes
                .get(packet.header_len()..packet.total_len())
                .filter(|_| is_tcp)?
        }
        _ => return None,
    };
    let header = TcpPacket::new_checked(segment).ok()?;
    let number = u32::from_ne_bytes(header.seq_number().0.to_ne_bytes());
    Some((number, segment.get(usize::from(header.header_len())..)?))
}

/// Whether a TCP segment has a payload; of one with IPv6 extension headers, whether it may.
pub(crate) fn has_data(bytes: &[u8]) -> bool {
    let at = match bytes.first() {
        Some(first) if first >> 4 == 4 => usize::from(first & 0x0f) << 2,
        _ => 40,
    };
    let offset = bytes.get(at + 12).map(|byte| usize::from(byte >> 4) << 2);
    offset.is_some_and(|offset| bytes.len() > at + offset)
}

/// Gives a TCP segment another source and destination of the same family.
///
/// Says no, and changes nothing, where there is no TCP header right behind the IP header.
pub(crate) fn readdress(bytes: &mut [u8], from: SocketAddr, to: SocketAddr) -> bool {
    let payload = match (bytes.first().map(|first| first >> 4), from.ip(), to.ip()) {
        (Some(4), IpAddr::V4(from), IpAddr::V4(to)) => {
            let Ok(mut packet) = Ipv4Packet::new_checked(&mut *bytes) else {
                return false;
            };
            if packet.next_header() != IpProtocol::Tcp {
                return false;
            }
            packet.set_src_addr(from);
            packet.set_dst_addr(to);
            usize::from(packet.header_len())
        }
        (Some(6), IpAddr::V6(from), IpAddr::V6(to)) => {
            let Ok(mut packet) = Ipv6Packet::new_checked(&mut *bytes) else {
                return false;
            };
            if packet.next_header() != IpProtocol::Tcp {
                return false;
            }
            packet.set_src_addr(from);
            packet.set_dst_addr(to);
            packet.header_len()
        }
        _ => return false,
    };
    match bytes.get_mut(payload..).map(TcpPacket::new_checked) {
        Some(Ok(mut segment)) => {
            segment.set_src_port(from.port());
            segment.set_dst_port(to.port());
            true
        }
        _ => false,
    }
}

/// Whether an ICMP error says that nobody serves that port.
pub(crate) fn says_port_unreachable(bytes: &[u8]) -> bool {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => Ipv4Packet::new_checked(bytes)
            .ok()
            .and_then(|packet| bytes.get(usize::from(packet.header_len())..))
            .is_some_and(|icmp| matches!(icmp, [3, 3, ..])),
        Some(6) => matches!(bytes.get(40..), Some([1, 4, ..])),
        _ => false,
    }
}

/// The ICMP error "port unreachable" about a packet, sent from an address.
pub(crate) fn port_unreachable(about: &[u8], from: IpAddr) -> Option<Vec<u8>> {
    let unchecked = ChecksumCapabilities::ignored();
    match from {
        IpAddr::V4(from) => {
            let quoted = Ipv4Packet::new_checked(about).ok()?;
            let header = Ipv4Repr::parse(&quoted, &unchecked).ok()?;
            // RFC 1812: as much as fits in 576 bytes.
            let payload = quoted.payload();
            let error = Icmpv4Repr::DstUnreachable {
                reason: Icmpv4DstUnreachable::PortUnreachable,
                header,
                data: payload.get(..payload.len().min(528))?,
            };
            let outer = Ipv4Repr {
                src_addr: from,
                dst_addr: header.src_addr,
                next_header: IpProtocol::Icmp,
                payload_len: error.buffer_len(),
                hop_limit: 64,
            };
            let mut bytes = vec![0; outer.buffer_len() + error.buffer_len()];
            outer.emit(&mut Ipv4Packet::new_unchecked(&mut bytes), &unchecked);
            let icmp = bytes.get_mut(outer.buffer_len()..)?;
            error.emit(&mut Icmpv4Packet::new_unchecked(icmp), &unchecked);
            Some(bytes)
        }
        IpAddr::V6(from) => {
            let quoted = Ipv6Packet::new_checked(about).ok()?;
            let header = Ipv6Repr::parse(&quoted).ok()?;
            // RFC 4443: as much as fits in the minimum MTU.
            let payload = quoted.payload();
            let error = Icmpv6Repr::DstUnreachable {
                reason: Icmpv6DstUnreachable::PortUnreachable,
                header,
                data: payload.get(..payload.len().min(1192))?,
            };
            let outer = Ipv6Repr {
                src_addr: from,
                dst_addr: header.src_addr,
                next_header: IpProtocol::Icmpv6,
                payload_len: error.buffer_len(),
                hop_limit: 64,
            };
            let mut bytes = vec![0; outer.buffer_len() + error.buffer_len()];
            outer.emit(&mut Ipv6Packet::new_unchecked(&mut bytes));
            let icmp = bytes.get_mut(outer.buffer_len()..)?;
            error.emit(
                &from,
                &header.src_addr,
                &mut Icmpv6Packet::new_unchecked(icmp),
                &unchecked,
            );
            Some(bytes)
        }
    }
}
