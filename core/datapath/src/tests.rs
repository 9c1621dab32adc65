//! Tables for `parse` and `decide`, and what must hold for any bytes and any tables.

extern crate std;

use std::vec::Vec;

use proptest::prelude::*;
use rstest::rstest;

use crate::{
    Address, Family, Flow, Frontend, FrontendState, Hook, Kernel, Packet, Reason, SocketState,
    Verdict, decide, mark, parse, protocol, tcp_flags,
};

const POD: [u8; 4] = [10, 244, 1, 7];
const SERVICE: [u8; 4] = [10, 96, 0, 10];

fn address(bytes: [u8; 4]) -> Address {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&bytes);
    address
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = std::vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet.extend(POD);
    packet.extend(SERVICE);
    packet.extend(payload);
    packet
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = std::vec![0x60, 0, 0, 0, 0, 0, next, 64];
    packet.extend([0xfd; 16]);
    packet.extend([0xfe; 16]);
    packet.extend(payload);
    packet
}

fn tcp(sport: u16, dport: u16, flags: u8) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(sport.to_be_bytes());
    segment.extend(dport.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

fn with(mut packet: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    packet[at] = byte;
    packet
}

/// Hop-by-hop options headers, each naming the next as `next`, the last naming TCP.
fn behind_options(count: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    for n in 1..=count {
        let next = if n == count { protocol::TCP } else { 60 };
        payload.extend([next, 0, 0, 0, 0, 0, 0, 0]);
    }
    payload.extend(tcp(1, 2, tcp_flags::SYN));
    ipv6(60, &payload)
}

#[rstest]
#[case::tcp(ipv4(protocol::TCP, &tcp(4711, 80, tcp_flags::SYN)), Ok((4711, 80)))]
#[case::tcp_over_ipv6(ipv6(protocol::TCP, &tcp(4711, 80, tcp_flags::SYN)), Ok((4711, 80)))]
#[case::four_extension_headers(behind_options(4), Ok((1, 2)))]
#[case::five_extension_headers(behind_options(5), Err(Reason::ExtensionHeader))]
#[case::udp(ipv4(protocol::UDP, &tcp(1, 2, 0)), Err(Reason::NotTcp))]
#[case::echo_request(ipv4(protocol::ICMP, &[8, 0, 0, 0]), Err(Reason::NotTcp))]
#[case::nothing(Vec::new(), Err(Reason::Truncated))]
#[case::arp(std::vec![0x00, 0x01], Err(Reason::NotIp))]
#[case::short_header_length(with(ipv4(protocol::TCP, &tcp(1, 2, 0)), 0, 0x44), Err(Reason::BadHeader))]
#[case::more_fragments(with(ipv4(protocol::TCP, &tcp(1, 2, 0)), 6, 0x20), Err(Reason::Fragment))]
#[case::later_fragment(with(ipv4(protocol::TCP, &tcp(1, 2, 0)), 7, 1), Err(Reason::Fragment))]
#[case::ipv6_fragment(ipv6(44, &tcp(1, 2, 0)), Err(Reason::Fragment))]
#[case::cut_in_ports(ipv4(protocol::TCP, &[0, 80, 0]), Err(Reason::Truncated))]
#[case::cut_before_flags(ipv4(protocol::TCP, &tcp(1, 2, 0)[..13]), Err(Reason::Truncated))]
fn a_packet_gives_ports_or_a_reason(
    #[case] packet: Vec<u8>,
    #[case] expected: Result<(u16, u16), Reason>,
) {
    assert_eq!(
        parse(packet.as_slice()).map(|flow| (flow.sport, flow.dport)),
        expected
    );
}

#[test]
fn a_segment_gives_its_whole_flow() {
    let packet = ipv4(protocol::TCP, &tcp(4711, 80, tcp_flags::SYN));
    assert_eq!(parse(packet.as_slice()), Ok(syn()));
}

#[test]
fn an_icmp_error_reads_as_the_flow_towards_the_quoted_sender() {
    let mut quoted = ipv4(protocol::TCP, &tcp(80, 4711, tcp_flags::ACK));
    quoted[12..16].copy_from_slice(&SERVICE);
    quoted[16..20].copy_from_slice(&POD);
    let mut icmp = std::vec![3, 4, 0, 0, 0, 0, 5, 0];
    icmp.extend(quoted);
    let flow = parse(ipv4(protocol::ICMP, &icmp).as_slice()).unwrap();
    assert_eq!(
        flow,
        Flow {
            packet: Packet::IcmpError,
            tcp_flags: 0,
            ..syn()
        }
    );
}

fn syn() -> Flow {
    Flow {
        family: Family::V4,
        packet: Packet::Segment,
        protocol: protocol::TCP,
        tcp_flags: tcp_flags::SYN,
        sport: 4711,
        dport: 80,
        src: address(POD),
        dst: address(SERVICE),
    }
}

fn ack() -> Flow {
    Flow {
        tcp_flags: tcp_flags::ACK,
        ..syn()
    }
}

/// A node's tables as a literal: one frontend, at most one socket of the flow, at most one listener.
struct Tables {
    frontend: Option<Frontend>,
    socket: Option<SocketState>,
    listener: bool,
    admits: bool,
}

impl Kernel for Tables {
    type Socket = &'static str;

    fn frontend(&self, _: Family, address: &Address, port: u16) -> Option<&Frontend> {
        self.frontend
            .as_ref()
            .filter(|_| *address == self::address(SERVICE) && port == 80)
    }

    fn admits(&self, _: &Flow) -> bool {
        self.admits
    }

    fn socket(&self, _: &Flow) -> Option<Self::Socket> {
        self.socket.map(|_| "its own")
    }

    fn state(&self, _: &Self::Socket, _: &Frontend) -> SocketState {
        self.socket.unwrap()
    }

    fn listener(&self, _: Family, _: &Frontend) -> Option<Self::Socket> {
        self.listener.then_some("listener")
    }
}

const PORT: u16 = 10000;

fn tables(state: FrontendState, socket: Option<SocketState>, listener: bool) -> Tables {
    Tables {
        frontend: Some(Frontend {
            listener_port: PORT,
            state,
            ranged: false,
        }),
        socket,
        listener,
        admits: false,
    }
}

/// The same, open to some sources alone.
fn ranged(tables: Tables, admits: bool) -> Tables {
    let frontend = tables.frontend.map(|it| Frontend { ranged: true, ..it });
    Tables {
        frontend,
        admits,
        ..tables
    }
}

fn assign(socket: &'static str, reason: Reason) -> Verdict<&'static str> {
    Verdict::Assign {
        socket,
        mark: mark(PORT),
        reason,
    }
}

fn deliver(reason: Reason) -> Verdict<&'static str> {
    Verdict::Deliver {
        mark: mark(PORT),
        reason,
    }
}

use FrontendState::{Active, Arming, Draining};
use SocketState::{Established, OtherListener, OurListener, Request, TimeWait};

#[rstest]
#[case::new(syn(), Active, None, true, assign("listener", Reason::NewConnection))]
#[case::new_without_listener(syn(), Active, None, false, Verdict::Drop(Reason::NoListener))]
#[case::established(
    ack(),
    Active,
    Some(Established),
    true,
    assign("its own", Reason::Established)
)]
#[case::established_while_draining(
    ack(),
    Draining,
    Some(Established),
    true,
    assign("its own", Reason::Established)
)]
#[case::request(
    ack(),
    Active,
    Some(Request),
    true,
    assign("its own", Reason::RequestSocket)
)]
#[case::time_wait(
    syn(),
    Active,
    Some(TimeWait),
    true,
    assign("its own", Reason::TimeWait)
)]
#[case::foreign_listener(
    syn(),
    Active,
    Some(OtherListener),
    true,
    assign("listener", Reason::NewConnection)
)]
#[case::own_listener(
    syn(),
    Active,
    Some(OurListener),
    true,
    assign("listener", Reason::NewConnection)
)]
#[case::new_while_draining(syn(), Draining, None, true, Verdict::Pass(Reason::Draining))]
#[case::new_while_arming(syn(), Arming, None, true, assign("listener", Reason::NewConnection))]
#[case::older_while_arming(ack(), Arming, None, true, Verdict::Pass(Reason::OlderConnection))]
// With SYN cookies the ACK that opens a connection has no socket: the listener must get it.
#[case::stray_ack(ack(), Active, None, true, assign("listener", Reason::NewConnection))]
fn tc_alone_decides(
    #[case] flow: Flow,
    #[case] state: FrontendState,
    #[case] socket: Option<SocketState>,
    #[case] listener: bool,
    #[case] expected: Verdict<&'static str>,
) {
    let hook = Hook::TcIngress { sk_lookup: false };
    assert_eq!(
        decide(&flow, hook, &tables(state, socket, listener)),
        expected
    );
}

#[rstest]
#[case::new(syn(), Active, None, deliver(Reason::LeftToSkLookup))]
#[case::established(
    ack(),
    Active,
    Some(Established),
    assign("its own", Reason::Established)
)]
#[case::time_wait(syn(), Active, Some(TimeWait), deliver(Reason::TimeWait))]
#[case::new_while_draining(syn(), Draining, None, Verdict::Pass(Reason::Draining))]
#[case::older_while_arming(ack(), Arming, None, Verdict::Pass(Reason::OlderConnection))]
fn tc_beside_sk_lookup_leaves_new_connections_to_it(
    #[case] flow: Flow,
    #[case] state: FrontendState,
    #[case] socket: Option<SocketState>,
    #[case] expected: Verdict<&'static str>,
    #[values(true, false)] listener: bool,
) {
    let hook = Hook::TcIngress { sk_lookup: true };
    assert_eq!(
        decide(&flow, hook, &tables(state, socket, listener)),
        expected
    );
}

#[rstest]
#[case::new(Active, true, assign("listener", Reason::NewConnection))]
#[case::arming(Arming, true, assign("listener", Reason::NewConnection))]
#[case::no_listener(Active, false, Verdict::Drop(Reason::NoListener))]
#[case::draining(Draining, true, Verdict::Pass(Reason::Draining))]
fn sk_lookup_decides(
    #[case] state: FrontendState,
    #[case] listener: bool,
    #[case] expected: Verdict<&'static str>,
) {
    let call = Flow {
        packet: Packet::Call,
        tcp_flags: 0,
        ..syn()
    };
    assert_eq!(
        decide(&call, Hook::SkLookup, &tables(state, None, listener)),
        expected
    );
}

#[rstest]
#[case::active(Active, Verdict::Connect { port: PORT, reason: Reason::NodeCall })]
#[case::draining(Draining, Verdict::Pass(Reason::Draining))]
fn a_connect_call_goes_to_the_listeners_port(
    #[case] state: FrontendState,
    #[case] expected: Verdict<&'static str>,
) {
    let call = Flow {
        packet: Packet::Call,
        tcp_flags: 0,
        sport: 0,
        src: [0; 16],
        ..syn()
    };
    assert_eq!(
        decide(&call, Hook::Connect, &tables(state, None, true)),
        expected
    );
}

#[rstest]
fn a_source_outside_the_ranges_is_dropped_at_every_hook_that_sees_packets(
    #[values(
        Hook::TcIngress { sk_lookup: true },
        Hook::TcIngress { sk_lookup: false },
        Hook::SkLookup
    )]
    hook: Hook,
    #[values(Arming, Active, Draining)] state: FrontendState,
    #[values(None, Some(Established), Some(Request), Some(TimeWait))] socket: Option<SocketState>,
) {
    let tables = ranged(tables(state, socket, true), false);
    let expected = Verdict::Drop(Reason::SourceNotInRanges);
    assert_eq!(decide(&ack(), hook, &tables), expected);
}

#[rstest]
fn a_source_within_the_ranges_meets_what_it_would_without_any(
    #[values(
        Hook::TcIngress { sk_lookup: true },
        Hook::TcIngress { sk_lookup: false },
        Hook::SkLookup
    )]
    hook: Hook,
    #[values(Arming, Active, Draining)] state: FrontendState,
    #[values(None, Some(Established), Some(Request), Some(TimeWait))] socket: Option<SocketState>,
) {
    let open = decide(&syn(), hook, &tables(state, socket, true));
    let tables = ranged(tables(state, socket, true), true);
    assert_eq!(decide(&syn(), hook, &tables), open);
}

#[rstest]
#[case::active(Active, Reason::LeftToSkLookup)]
#[case::draining(Draining, Reason::Draining)]
fn a_call_to_a_frontend_with_ranges_goes_on_as_packets(
    #[case] state: FrontendState,
    #[case] reason: Reason,
) {
    let tables = ranged(tables(state, None, true), false);
    assert_eq!(
        decide(&syn(), Hook::Connect, &tables),
        Verdict::Pass(reason)
    );
}

#[test]
fn an_icmp_error_about_a_frontend_is_delivered_here() {
    let flow = Flow {
        packet: Packet::IcmpError,
        tcp_flags: 0,
        ..syn()
    };
    let hook = Hook::TcIngress { sk_lookup: true };
    assert_eq!(
        decide(&flow, hook, &tables(Active, None, true)),
        deliver(Reason::IcmpError)
    );
}

#[rstest]
fn what_is_no_frontend_passes_at_every_hook(
    #[values(
        Hook::TcIngress { sk_lookup: true },
        Hook::TcIngress { sk_lookup: false },
        Hook::SkLookup,
        Hook::Connect
    )]
    hook: Hook,
) {
    let none = Tables {
        frontend: None,
        socket: Some(Established),
        listener: true,
        admits: false,
    };
    assert_eq!(
        decide(&syn(), hook, &none),
        Verdict::Pass(Reason::NotAFrontend)
    );
}

/// cilium.md, 4.2: port 10000 (0x2710) is mark 0x10270200 on a little-endian machine.
#[cfg(target_endian = "little")]
#[test]
fn the_mark_carries_the_port_in_network_byte_order() {
    assert_eq!(mark(10000), 0x1027_0200);
}

#[test]
fn reasons_are_numbered_without_gaps_and_named_once() {
    let mut names = Vec::new();
    for (number, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, number);
        assert!(!names.contains(&reason.name()));
        names.push(reason.name());
    }
}

fn states() -> impl Strategy<Value = Option<SocketState>> {
    prop_oneof![
        Just(None),
        Just(Some(OurListener)),
        Just(Some(OtherListener)),
        Just(Some(Request)),
        Just(Some(Established)),
        Just(Some(TimeWait)),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
        let _ = parse(bytes.as_slice());
    }

    #[test]
    fn a_packet_cut_anywhere_gives_a_flow_or_a_reason(cut in 0usize..100) {
        let packet = behind_options(4);
        let cut = cut.min(packet.len());
        let _ = parse(&packet[..cut]);
    }

    /// Fail-closed: an active frontend's packet is never carried on as if there were no redirect.
    #[test]
    fn an_active_frontend_never_passes(socket in states(), listener: bool, sk_lookup: bool, flags: u8) {
        let flow = Flow { tcp_flags: flags, ..syn() };
        for hook in [Hook::TcIngress { sk_lookup }, Hook::SkLookup, Hook::Connect] {
            let verdict = decide(&flow, hook, &tables(Active, socket, listener));
            prop_assert!(!matches!(verdict, Verdict::Pass(_)), "{hook:?} {verdict:?}");
        }
    }

    /// A connection of this node is never torn, whatever state its frontend is in.
    #[test]
    fn a_known_connection_always_keeps_its_socket(
        state in prop_oneof![Just(Arming), Just(Active), Just(Draining)],
        listener: bool, sk_lookup: bool, flags: u8,
    ) {
        let flow = Flow { tcp_flags: flags, ..syn() };
        let verdict = decide(
            &flow, Hook::TcIngress { sk_lookup }, &tables(state, Some(Established), listener));
        prop_assert_eq!(verdict, assign("its own", Reason::Established));
    }
}
