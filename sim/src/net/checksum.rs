//! Checksums of a packet that somebody else will read.
//!
//! Within the simulation they are left at zero, because its links corrupt nothing.

use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpAddress, IpProtocol, Ipv4Packet,
    Ipv6Packet, TcpPacket,
};

/// Bytes of an ICMP error before the packet that it is about.
const ERROR_HEADER: usize = 8;

/// Fills in the checksums of an IP packet, also of the one that an ICMP error quotes.
///
/// What cannot be read is left as it is.
pub(crate) fn fill(bytes: &mut [u8]) {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => v4(bytes),
        Some(6) => v6(bytes),
        _ => {}
    }
}

fn v4(bytes: &mut [u8]) {
    let Ok(mut packet) = Ipv4Packet::new_checked(bytes) else {
        return;
    };
    packet.fill_checksum();
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    match packet.next_header() {
        IpProtocol::Tcp => tcp(packet.payload_mut(), from.into(), to.into()),
        IpProtocol::Icmp => {
            let Ok(mut icmp) = Icmpv4Packet::new_checked(packet.payload_mut()) else {
                return;
            };
            if icmp.msg_type() == Icmpv4Message::DstUnreachable {
                quoted(icmp.data_mut());
            }
            icmp.fill_checksum();
        }
        _ => {}
    }
}

fn v6(bytes: &mut [u8]) {
    let Ok(mut packet) = Ipv6Packet::new_checked(bytes) else {
        return;
    };
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    match packet.next_header() {
        IpProtocol::Tcp => tcp(packet.payload_mut(), from.into(), to.into()),
        IpProtocol::Icmpv6 => {
            let payload = packet.payload_mut();
            let unreachable = Icmpv6Packet::new_checked(&*payload)
                .is_ok_and(|icmp| icmp.msg_type() == Icmpv6Message::DstUnreachable);
            if let Some(about) = payload.get_mut(ERROR_HEADER..).filter(|_| unreachable) {
                quoted(about);
            }
            if let Ok(mut icmp) = Icmpv6Packet::new_checked(payload) {
                icmp.fill_checksum(&from, &to);
            }
        }
        _ => {}
    }
}

fn tcp(payload: &mut [u8], from: IpAddress, to: IpAddress) {
    if let Ok(mut segment) = TcpPacket::new_checked(payload) {
        segment.fill_checksum(&from, &to);
    }
}

/// An ICMP error never is about an ICMP error, so this goes one level down at most.
fn quoted(about: &mut [u8]) {
    let next = match about.first().map(|first| first >> 4) {
        Some(4) => about.get(9),
        Some(6) => about.get(6),
        _ => None,
    };
    if next.copied().map(IpProtocol::from) == Some(IpProtocol::Tcp) {
        fill(about);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::packet::port_unreachable;
    use rstest::rstest;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{IpRepr, TcpControl, TcpRepr, TcpSeqNumber};

    /// A SYN whose checksums are left at zero.
    fn syn(from: IpAddress, to: IpAddress) -> Vec<u8> {
        let segment = TcpRepr {
            src_port: 40_000,
            dst_port: 80,
            control: TcpControl::Syn,
            seq_number: TcpSeqNumber(7),
            ack_number: None,
            window_len: 1024,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: b"odd",
        };
        let unchecked = ChecksumCapabilities::ignored();
        let header = IpRepr::new(from, to, IpProtocol::Tcp, segment.buffer_len(), 64);
        let mut bytes = vec![0; header.header_len() + segment.buffer_len()];
        header.emit(&mut bytes, &unchecked);
        let mut packet = TcpPacket::new_unchecked(&mut bytes[header.header_len()..]);
        segment.emit(&mut packet, &from, &to, &unchecked);
        bytes
    }

    fn ends(family: u8) -> (IpAddress, IpAddress) {
        if family == 4 {
            (IpAddress::v4(10, 0, 0, 1), IpAddress::v4(10, 0, 0, 2))
        } else {
            (
                IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 1),
                IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 2),
            )
        }
    }

    fn tcp_holds(bytes: &[u8], from: IpAddress, to: IpAddress) -> bool {
        let header = if bytes[0] >> 4 == 4 { 20 } else { 40 };
        TcpPacket::new_checked(&bytes[header..])
            .unwrap()
            .verify_checksum(&from, &to)
    }

    #[rstest]
    fn a_segment_gets_the_checksum_of_its_addresses(#[values(4, 6)] family: u8) {
        let (from, to) = ends(family);
        let mut bytes = syn(from, to);
        assert!(!tcp_holds(&bytes, from, to));
        fill(&mut bytes);
        assert!(tcp_holds(&bytes, from, to));
        if family == 4 {
            assert!(Ipv4Packet::new_checked(&bytes).unwrap().verify_checksum());
        }
    }

    #[rstest]
    fn the_segment_that_an_icmp_error_quotes_is_right_too(#[values(4, 6)] family: u8) {
        let (from, to) = ends(family);
        let mut bytes = port_unreachable(&syn(from, to), to.into()).unwrap();
        fill(&mut bytes);
        let header = if family == 4 { 20 } else { 40 };
        assert!(tcp_holds(&bytes[header + ERROR_HEADER..], from, to));
        let icmp = &bytes[header..];
        match (to, from) {
            (IpAddress::Ipv6(to), IpAddress::Ipv6(from)) => {
                let icmp = Icmpv6Packet::new_checked(icmp).unwrap();
                assert!(icmp.verify_checksum(&to, &from));
            }
            _ => assert!(Icmpv4Packet::new_checked(icmp).unwrap().verify_checksum()),
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120)) {
            fill(&mut bytes);
        }

        #[test]
        fn no_cut_or_changed_packet_makes_it_panic(
            family in proptest::sample::select(vec![4u8, 6]),
            cut in 0usize..120,
            at in 0usize..120,
            byte in proptest::num::u8::ANY,
        ) {
            let (from, to) = ends(family);
            let mut bytes = port_unreachable(&syn(from, to), to.into()).unwrap();
            bytes.truncate(cut);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            fill(&mut bytes);
        }
    }
}
