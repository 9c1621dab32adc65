//! Bytes to [`Flow`], from the network header on.
//!
//! Every read goes through [`Bytes::get`], which says no beyond the end: in eBPF it is a bounded
//! helper call, natively a slice. Nothing is assumed about the rest of the packet.

use crate::flow::{Address, Family, Flow, Packet, protocol};
use crate::reason::Reason;

/// Bytes from the network header on.
pub trait Bytes {
    /// The `N` bytes at `offset`, or nothing if they are not all there.
    fn get<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    #[inline]
    fn get<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let end = offset.checked_add(N)?;
        <[u8]>::get(self, offset..end)?.try_into().ok()
    }
}

/// IPv6 extension headers walked before giving up: the verifier refuses an unbounded walk.
const EXTENSION_HEADERS: usize = 4;

/// Where a header's payload begins and what it is.
struct Network {
    family: Family,
    src: Address,
    dst: Address,
    protocol: u8,
    payload: usize,
}

/// What a frame says that it carries (IEEE 802, "EtherType").
pub mod ethertype {
    /// IPv4
    pub const IPV4: u16 = 0x0800;
    /// IPv6
    pub const IPV6: u16 = 0x86dd;
}

/// Reads a packet that came in a frame of that EtherType (host byte order): IP alone is looked
/// into, and its version has to be the frame's.
///
/// # Errors
/// A [`Reason`] with which the caller passes the packet on and counts it.
#[inline(always)]
pub fn parse_frame<B: Bytes + ?Sized>(ethertype: u16, bytes: &B) -> Result<Flow, Reason> {
    let version = match ethertype {
        ethertype::IPV4 => 4,
        ethertype::IPV6 => 6,
        _ => return Err(Reason::NotIp),
    };
    match bytes.get::<1>(0) {
        None => Err(Reason::Truncated),
        Some([first]) if first >> 4 == version => parse(bytes),
        Some(_) => Err(Reason::BadHeader),
    }
}

/// Reads a packet.
///
/// An ICMP error about a TCP segment that was sent *from* an address becomes the flow *to* that
/// address, marked [`Packet::IcmpError`].
///
/// # Errors
/// A [`Reason`] with which the caller passes the packet on and counts it.
#[inline(always)]
pub fn parse<B: Bytes + ?Sized>(bytes: &B) -> Result<Flow, Reason> {
    let outer = network(bytes, 0)?;
    match outer.protocol {
        protocol::TCP => segment(bytes, &outer),
        protocol::ICMP if matches!(outer.family, Family::V4) => icmp_error(bytes, &outer),
        protocol::ICMPV6 if matches!(outer.family, Family::V6) => icmp_error(bytes, &outer),
        _ => Err(Reason::NotTcp),
    }
}

#[inline(always)]
fn network<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Result<Network, Reason> {
    let [first] = bytes.get::<1>(at).ok_or(Reason::Truncated)?;
    match first >> 4 {
        4 => ipv4(bytes, at, first),
        6 => ipv6(bytes, at),
        _ => Err(Reason::NotIp),
    }
}

/// RFC 791, section 3.1.
#[inline(always)]
fn ipv4<B: Bytes + ?Sized>(bytes: &B, at: usize, first: u8) -> Result<Network, Reason> {
    let length = usize::from(first & 0x0f) << 2;
    if length < 20 {
        return Err(Reason::BadHeader);
    }
    let [flags, offset] = bytes
        .get::<2>(at.wrapping_add(6))
        .ok_or(Reason::Truncated)?;
    // More fragments to come, or not the first one.
    if flags & 0x3f != 0 || offset != 0 {
        return Err(Reason::Fragment);
    }
    let [protocol] = bytes
        .get::<1>(at.wrapping_add(9))
        .ok_or(Reason::Truncated)?;
    let src = bytes
        .get::<4>(at.wrapping_add(12))
        .ok_or(Reason::Truncated)?;
    let dst = bytes
        .get::<4>(at.wrapping_add(16))
        .ok_or(Reason::Truncated)?;
    Ok(Network {
        family: Family::V4,
        src: widen(src),
        dst: widen(dst),
        protocol,
        payload: at.wrapping_add(length),
    })
}

#[inline(always)]
const fn widen([a, b, c, d]: [u8; 4]) -> Address {
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// RFC 8200, sections 3 and 4: hop-by-hop, routing and destination options are walked.
#[inline(always)]
fn ipv6<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Result<Network, Reason> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION_OPTIONS: u8 = 60;

    let [mut next] = bytes
        .get::<1>(at.wrapping_add(6))
        .ok_or(Reason::Truncated)?;
    let src = bytes
        .get::<16>(at.wrapping_add(8))
        .ok_or(Reason::Truncated)?;
    let dst = bytes
        .get::<16>(at.wrapping_add(24))
        .ok_or(Reason::Truncated)?;
    let mut payload = at.wrapping_add(40);
    for _ in 0..EXTENSION_HEADERS {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let [following, length] = bytes.get::<2>(payload).ok_or(Reason::Truncated)?;
                next = following;
                payload = payload.wrapping_add((usize::from(length) << 3).wrapping_add(8));
            }
            FRAGMENT => return Err(Reason::Fragment),
            protocol => {
                return Ok(Network {
                    family: Family::V6,
                    src,
                    dst,
                    protocol,
                    payload,
                });
            }
        }
    }
    match next {
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => Err(Reason::ExtensionHeader),
        FRAGMENT => Err(Reason::Fragment),
        protocol => Ok(Network {
            family: Family::V6,
            src,
            dst,
            protocol,
            payload,
        }),
    }
}

/// RFC 9293, section 3.1: only ports and flags are read.
#[inline(always)]
fn segment<B: Bytes + ?Sized>(bytes: &B, outer: &Network) -> Result<Flow, Reason> {
    let (sport, dport) = ports(bytes, outer.payload)?;
    let [tcp_flags] = bytes
        .get::<1>(outer.payload.wrapping_add(13))
        .ok_or(Reason::Truncated)?;
    Ok(Flow {
        family: outer.family,
        packet: Packet::Segment,
        protocol: protocol::TCP,
        tcp_flags,
        sport,
        dport,
        src: outer.src,
        dst: outer.dst,
    })
}

/// RFC 792 and RFC 4443: errors quote the segment they are about.
#[inline(always)]
fn icmp_error<B: Bytes + ?Sized>(bytes: &B, outer: &Network) -> Result<Flow, Reason> {
    let [kind] = bytes.get::<1>(outer.payload).ok_or(Reason::Truncated)?;
    let error = match outer.family {
        // Destination unreachable (with "fragmentation needed"), time exceeded, parameter problem
        Family::V4 => matches!(kind, 3 | 11 | 12),
        // Destination unreachable, packet too big, time exceeded, parameter problem
        Family::V6 => matches!(kind, 1..=4),
    };
    if !error {
        return Err(Reason::NotTcp);
    }
    let quoted = network(bytes, outer.payload.wrapping_add(8))?;
    if quoted.protocol != protocol::TCP {
        return Err(Reason::NotTcp);
    }
    let (sport, dport) = ports(bytes, quoted.payload)?;
    Ok(Flow {
        family: quoted.family,
        packet: Packet::IcmpError,
        protocol: protocol::TCP,
        tcp_flags: 0,
        sport: dport,
        dport: sport,
        src: quoted.dst,
        dst: quoted.src,
    })
}

#[inline(always)]
fn ports<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Result<(u16, u16), Reason> {
    let source = bytes.get::<2>(at).ok_or(Reason::Truncated)?;
    let destination = bytes
        .get::<2>(at.wrapping_add(2))
        .ok_or(Reason::Truncated)?;
    Ok((u16::from_be_bytes(source), u16::from_be_bytes(destination)))
}
