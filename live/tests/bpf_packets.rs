//! Packets that the kernel does not run programs on by hand, sent over a real veth: shorter than
//! their IP header, and with headers outside of the linear part.
//! Needs root: `sudo -E cargo nextest run -p nodeway-live`.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::bpf_net::{Net, SERVICE4, SERVICE6};
use nodeway_core::datapath::{Frontend, FrontendState, Reason};
use nodeway_core::plan::FrontendKey;
use nodeway_live::bpf::{Datapath, Mode, Options};
use rstest::rstest;

/// Sends frames, one a line in hexadecimal, out of the pod. With a second argument the kernel keeps
/// only that many bytes of each in the linear part (it does so for frames of a page and more).
const SEND: &str = r"
import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('eth0', 0))
linear = int(sys.argv[1])
if linear:
    s.setsockopt(263, 15, 1)
for line in sys.stdin:
    frame = bytes.fromhex(line.strip())
    head = struct.pack('=BBHHHH', 0, 0, linear, 0, 0, 0) if linear else b''
    s.send(head + frame)
";

fn send(net: &Net, linear: usize, frames: &[Vec<u8>]) {
    pipe(net.pod_name(), SEND, linear, frames);
}

/// Runs a script in a namespace with packets on its standard input.
fn pipe(netns: &str, script: &str, linear: usize, packets: &[Vec<u8>]) {
    let linear = linear.to_string();
    let mut python = Command::new("ip")
        .args(["netns", "exec", netns, "python3", "-c", script, &linear])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = python.stdin.take().unwrap();
    for packet in packets {
        let text: String = packet.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(stdin, "{text}").unwrap();
    }
    drop(stdin);
    assert!(python.wait().unwrap().success());
}

fn frame(net: &Net, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = net.device_address().to_vec();
    frame.extend([2, 0, 0, 0, 0, 9]);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// A SYN to a service, with `data` bytes behind its header.
fn syn(to: IpAddr, data: usize) -> (u16, Vec<u8>) {
    let mut segment = vec![
        0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
    ];
    segment.resize(20 + data, 0);
    match to {
        IpAddr::V4(to) => {
            let mut packet = vec![0x45, 0];
            packet.extend(u16::try_from(20 + segment.len()).unwrap().to_be_bytes());
            packet.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 244, 1, 7]);
            packet.extend(to.octets());
            packet.extend(segment);
            (0x0800, packet)
        }
        IpAddr::V6(to) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend(u16::try_from(segment.len()).unwrap().to_be_bytes());
            packet.extend([6, 64, 0xfd, 0, 2, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
            packet.extend(to.octets());
            packet.extend(segment);
            (0x86dd, packet)
        }
    }
}

fn attached(net: &Net) -> Datapath {
    let mut datapath = Datapath::load(net.node(), &Options::default()).unwrap();
    for address in [SERVICE4, SERVICE6] {
        let frontend = Frontend {
            listener_port: 10_007,
            state: FrontendState::Active,
            ranged: false,
        };
        let key = FrontendKey { address, port: 80 };
        datapath.put(key, &frontend).unwrap();
    }
    datapath.attach(&[net.device()]).unwrap();
    datapath
}

/// What tc counts, once as many packets as were sent have come; what the kernel sends by itself
/// (neighbour discovery) gives other reasons.
fn counted(datapath: &Datapath, reason: Reason, sent: u64) -> u64 {
    for _ in 0..100 {
        if datapath.counters().unwrap().of("tc", reason) >= sent {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    datapath.counters().unwrap().of("tc", reason)
}

/// With each byte more up to the ports and flags, nothing can be read; with all of them it can.
#[rstest]
#[case::ipv4(SERVICE4, 20 + 14)]
#[case::ipv6(SERVICE6, 40 + 14)]
fn a_packet_cut_anywhere_in_its_headers_is_truncated(#[case] to: IpAddr, #[case] whole: usize) {
    let net = Net::new(Mode::Both, &[]);
    let datapath = attached(&net);
    let (ethertype, packet) = syn(to, 0);
    let frames: Vec<Vec<u8>> = (0..whole)
        .map(|length| frame(&net, ethertype, &packet[..length]))
        .collect();
    send(&net, 0, &frames);
    let sent = u64::try_from(whole).unwrap();
    assert_eq!(counted(&datapath, Reason::Truncated, sent), sent);
    let before = datapath
        .counters()
        .unwrap()
        .of("tc", Reason::LeftToSkLookup);
    assert_eq!(before, 0);
    send(&net, 0, &[frame(&net, ethertype, &packet[..whole])]);
    assert_eq!(counted(&datapath, Reason::LeftToSkLookup, 1), 1);
    datapath.detach().unwrap();
}

/// The program reads the linear part directly, and what is not in it through the kernel's helper.
#[rstest]
fn headers_outside_of_the_linear_part_are_read_all_the_same(
    #[values(SERVICE4, SERVICE6)] to: IpAddr,
    #[values(14, 15, 34, 40, 60)] linear: usize,
) {
    let net = Net::new(Mode::Both, &[]);
    net.in_node("ip link set DEVICE mtu 9000");
    net.in_pod("ip link set eth0 mtu 9000");
    let datapath = attached(&net);
    let (ethertype, packet) = syn(to, 6_000);
    send(&net, linear, &[frame(&net, ethertype, &packet)]);
    assert_eq!(counted(&datapath, Reason::LeftToSkLookup, 1), 1);
    assert_eq!(datapath.counters().unwrap().of("tc", Reason::Truncated), 0);
    datapath.detach().unwrap();
}

/// Writes packets, one a line in hexadecimal, into a TUN device; with the kernel keeping only some
/// bytes of each in the linear part, as above.
const WRITE: &str = r"
import fcntl, os, struct, sys
tun = os.open('/dev/net/tun', os.O_RDWR)
# TUNSETIFF with IFF_TUN, IFF_NO_PI and IFF_VNET_HDR
fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH', b'tun0', 0x5001))
linear = int(sys.argv[1])
for line in sys.stdin:
    os.write(tun, struct.pack('=BBHHHH', 0, 0, linear, 0, 0, 0) + bytes.fromhex(line.strip()))
";

#[rstest]
fn packets_of_a_device_without_a_link_header_are_read_too(
    #[values(SERVICE4, SERVICE6)] to: IpAddr,
    #[values(0, 1, 20, 41)] linear: usize,
) {
    let net = Net::new(Mode::Both, &[]);
    net.in_node("ip tuntap add tun0 mode tun");
    net.in_node("ip link set tun0 mtu 9000 up");
    let mut datapath = attached(&net);
    datapath.add_device("tun0").unwrap();
    let (_, packet) = syn(to, 6_000);
    pipe(net.node().name(), WRITE, linear, &[packet]);
    assert_eq!(counted(&datapath, Reason::LeftToSkLookup, 1), 1);
    assert_eq!(datapath.counters().unwrap().of("tc", Reason::Truncated), 0);
    datapath.detach().unwrap();
}
