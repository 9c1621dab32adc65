//! Tables for `parse` and `decide`, and what must hold for any bytes and any tables.

extern crate std;

use std::vec::Vec;

use proptest::prelude::*;
use rstest::rstest;

use crate::layout::{
    self, Event, FAULT_ROW, Fault, FrontendKey, FrontendValue, SocketKey, SourceKey,
};
use crate::{
    Address, Family, Flow, Frontend, FrontendState, Hook, Kernel, Packet, Reason, SocketState,
    Verdict, decide, ethertype, mark, parse, parse_frame, protocol, tcp_flags,
};

const POD: [u8; 4] = [10, 244, 1, 7];
const SERVICE: [u8; 4] = [10, 96, 0, 10];
const POD_V6: [u8; 16] = [0xfd; 16];
const SERVICE_V6: [u8; 16] = [0xfe; 16];

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
    packet.extend(POD_V6);
    packet.extend(SERVICE_V6);
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

/// An ICMP message of that protocol and type, about a segment from port 80 to port 4711.
fn about(outer: fn(u8, &[u8]) -> Vec<u8>, protocol: u8, kind: u8) -> Vec<u8> {
    let mut message = std::vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(outer(protocol::TCP, &tcp(80, 4711, tcp_flags::ACK)));
    outer(protocol, &message)
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
#[case::long_extension_header(
    ipv6(0, &[[protocol::TCP, 1].as_slice(), &[0; 14], &tcp(4711, 80, 0)].concat()),
    Ok((4711, 80))
)]
#[case::ipv4_options(
    with(ipv4(protocol::TCP, &[[1; 4].as_slice(), &tcp(4711, 80, 0)].concat()), 0, 0x46),
    Ok((4711, 80))
)]
#[case::udp(ipv4(protocol::UDP, &tcp(1, 2, 0)), Err(Reason::NotTcp))]
#[case::echo_request(ipv4(protocol::ICMP, &[8, 0, 0, 0]), Err(Reason::NotTcp))]
#[case::echo_request_over_ipv6(ipv6(protocol::ICMPV6, &[128, 0, 0, 0]), Err(Reason::NotTcp))]
#[case::error_of_ipv6_over_ipv4(about(ipv4, protocol::ICMPV6, 3), Err(Reason::NotTcp))]
#[case::error_of_ipv4_over_ipv6(about(ipv6, protocol::ICMP, 3), Err(Reason::NotTcp))]
#[case::error_about_udp(
    ipv4(protocol::ICMP, &[[3, 4, 0, 0, 0, 0, 5, 0].as_slice(), &ipv4(protocol::UDP, &tcp(80, 4711, 0))].concat()),
    Err(Reason::NotTcp)
)]
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
fn a_segment_over_ipv6_gives_its_whole_flow() {
    let packet = ipv6(protocol::TCP, &tcp(4711, 80, tcp_flags::SYN));
    let expected = Flow {
        family: Family::V6,
        src: POD_V6,
        dst: SERVICE_V6,
        ..syn()
    };
    assert_eq!(parse(packet.as_slice()), Ok(expected));
}

#[rstest]
#[case::ipv4(ethertype::IPV4, ipv4(protocol::TCP, &tcp(4711, 80, 0)), Ok(Family::V4))]
#[case::ipv6(ethertype::IPV6, ipv6(protocol::TCP, &tcp(4711, 80, 0)), Ok(Family::V6))]
#[case::ipv6_in_a_frame_of_ipv4(ethertype::IPV4, ipv6(protocol::TCP, &tcp(4711, 80, 0)), Err(Reason::BadHeader))]
#[case::ipv4_in_a_frame_of_ipv6(ethertype::IPV6, ipv4(protocol::TCP, &tcp(4711, 80, 0)), Err(Reason::BadHeader))]
#[case::arp(0x0806, ipv4(protocol::TCP, &tcp(4711, 80, 0)), Err(Reason::NotIp))]
#[case::empty(ethertype::IPV4, Vec::new(), Err(Reason::Truncated))]
fn a_frame_is_read_when_its_packet_is_of_the_version_that_it_names(
    #[case] ethertype: u16,
    #[case] packet: Vec<u8>,
    #[case] expected: Result<Family, Reason>,
) {
    let flow = parse_frame(ethertype, packet.as_slice());
    assert_eq!(flow.map(|flow| flow.family), expected);
}

#[rstest]
#[case::ipv4(
    about(ipv4, protocol::ICMP, 11),
    Family::V4,
    address(POD),
    address(SERVICE)
)]
#[case::ipv6(about(ipv6, protocol::ICMPV6, 2), Family::V6, POD_V6, SERVICE_V6)]
fn an_icmp_error_of_either_family_is_turned_round(
    #[case] packet: Vec<u8>,
    #[case] family: Family,
    #[case] sender: Address,
    #[case] receiver: Address,
) {
    let expected = Flow {
        family,
        packet: Packet::IcmpError,
        tcp_flags: 0,
        src: receiver,
        dst: sender,
        ..syn()
    };
    assert_eq!(parse(packet.as_slice()), Ok(expected));
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
use tcp_flags::{ACK, SYN};

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
#[case::arming(Arming, Verdict::Connect { port: PORT, reason: Reason::NodeCall })]
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

#[test]
fn a_call_of_another_protocol_passes() {
    let udp = Flow {
        protocol: protocol::UDP,
        packet: Packet::Call,
        ..syn()
    };
    assert_eq!(
        decide(&udp, Hook::Connect, &tables(Active, None, true)),
        Verdict::Pass(Reason::NotTcp)
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

#[rstest]
#[case::syn(SYN, true)]
#[case::syn_that_asks_for_ecn(SYN | 0xc0, true)]
#[case::answer(SYN | ACK, false)]
#[case::ack(ACK, false)]
#[case::nothing(0, false)]
fn a_syn_without_an_ack_opens_a_connection(#[case] flags: u8, #[case] opens: bool) {
    let flow = Flow {
        tcp_flags: flags,
        ..syn()
    };
    assert_eq!(flow.opens(), opens);
}

/// Reports, the kernel's events and `explain` go by these; none may change or be given twice.
#[test]
fn a_verdict_has_a_stable_number_a_name_and_its_reason() {
    let all = [
        Verdict::Pass(Reason::NotTcp),
        Verdict::Drop(Reason::NoListener),
        deliver(Reason::TimeWait),
        assign("its own", Reason::Established),
        Verdict::Connect {
            port: PORT,
            reason: Reason::NodeCall,
        },
    ];
    assert_eq!(
        all.map(|it| (it.number(), it.name(), it.reason())),
        [
            (0, "pass", Reason::NotTcp),
            (1, "drop", Reason::NoListener),
            (2, "deliver", Reason::TimeWait),
            (3, "assign", Reason::Established),
            (4, "connect", Reason::NodeCall),
        ]
    );
}

#[test]
fn states_and_faults_have_stable_names() {
    let states = FrontendState::ALL.map(FrontendState::name);
    assert_eq!(states, ["arming", "active", "draining"]);
    let faults: Vec<_> = Fault::ALL.iter().map(|it| (*it as u8, it.name())).collect();
    assert_eq!(
        faults,
        [(0, "assign-refused"), (1, "event-lost"), (2, "peer-lost")]
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
        assert_eq!(std::format!("{reason}"), reason.name());
        assert!(!names.contains(&reason.name()));
        names.push(reason.name());
    }
}

#[test]
fn a_key_is_its_address_port_and_family_in_the_map() {
    let [high, low] = 80u16.to_ne_bytes();
    let frontend = FrontendKey::new(Family::V4, address(SERVICE), 80);
    let mut bytes = [0; FrontendKey::SIZE];
    bytes[..4].copy_from_slice(&SERVICE);
    bytes[16..19].copy_from_slice(&[high, low, 4]);
    assert_eq!(frontend.to_bytes(), bytes);
    assert_eq!(FrontendKey::from_bytes(bytes), frontend);

    let source = SourceKey {
        frontend,
        source: address(POD),
    };
    let mut of_source = [0; SourceKey::SIZE];
    of_source[..20].copy_from_slice(&bytes);
    of_source[20..24].copy_from_slice(&POD);
    assert_eq!(source.to_bytes(), of_source);
    assert_eq!(SourceKey::from_bytes(of_source), source);

    let socket = SocketKey::new(Family::V6, 80);
    assert_eq!(socket.to_bytes(), [high, low, 6, 0]);
    assert_eq!(SocketKey::from_bytes([high, low, 6, 0]), socket);
}

#[rstest]
#[case::arming(0, 0, Some((Arming, false)))]
#[case::active(1, 0, Some((Active, false)))]
#[case::draining(2, 1, Some((Draining, true)))]
#[case::no_state(3, 0, None)]
#[case::no_flag(1, 2, None)]
fn a_frontends_value_is_read_unless_its_state_or_flag_is_none(
    #[case] state: u8,
    #[case] ranged: u8,
    #[case] expected: Option<(FrontendState, bool)>,
) {
    let [high, low] = PORT.to_ne_bytes();
    let bytes = [high, low, state, ranged];
    let value = FrontendValue::from_bytes(bytes);
    assert_eq!(value.to_bytes(), bytes);
    let frontend = expected.map(|(state, ranged)| Frontend {
        listener_port: PORT,
        state,
        ranged,
    });
    assert_eq!(value.frontend(), frontend);
    if let Some(frontend) = frontend {
        assert_eq!(FrontendValue::from(frontend), value);
    }
}

#[test]
fn a_call_has_no_flags_and_may_have_no_source() {
    let to = ([7; 16], 80);
    let call = Flow::call(Family::V6, protocol::TCP, None, to);
    assert_eq!((call.src, call.sport), ([0; 16], 0));
    assert_eq!((call.dst, call.dport), to);
    assert_eq!((call.packet, call.tcp_flags), (Packet::Call, 0));
    let from = ([9; 16], 4000);
    let call = Flow::call(Family::V6, protocol::TCP, Some(from), to);
    assert_eq!((call.src, call.sport), from);
}

#[test]
fn an_event_is_read_field_by_field_and_at_its_length_alone() {
    let mut bytes = Vec::new();
    bytes.extend(1u64.to_ne_bytes());
    bytes.extend(2u32.to_ne_bytes());
    bytes.extend(3u32.to_ne_bytes());
    bytes.extend([4; 16]);
    bytes.extend([5; 16]);
    for port in [6u16, 7, 8, 9] {
        bytes.extend(port.to_ne_bytes());
    }
    bytes.extend(10..18);
    let expected = Event {
        time: 1,
        ifindex: 2,
        mark: 3,
        src: [4; 16],
        dst: [5; 16],
        sport: 6,
        dport: 7,
        listener_port: 8,
        socket_port: 9,
        hook: 10,
        verdict: 11,
        reason: 12,
        family: 13,
        packet: 14,
        protocol: 15,
        tcp_flags: 16,
        socket_state: 17,
    };
    assert_eq!(Event::from_bytes(&bytes), Some(expected));
    assert_eq!(Event::from_bytes(&bytes[..63]), None);
    bytes.push(0);
    assert_eq!(Event::from_bytes(&bytes), None);
}

#[test]
fn hooks_and_faults_count_in_rows_of_their_own() {
    let rows = [
        layout::row(Hook::TcIngress { sk_lookup: true }),
        layout::row(Hook::TcIngress { sk_lookup: false }),
        layout::row(Hook::SkLookup),
        layout::row(Hook::Connect),
        FAULT_ROW,
    ];
    assert_eq!(rows, [0, 0, 1, 2, 3]);
    assert_eq!(layout::COUNTERS, 128, "a row has 32 columns");
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
