//! Calls of the node's own processes: `connect` is led to the listener, and `getpeername` answers
//! with what was asked for, so that the client never sees the listener's address.
//!
//! A cgroup holds processes of many network namespaces: only calls of ours are decided on.

#![expect(unsafe_code, reason = "a call's context is a pointer of the kernel's")]

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use nodeway_datapath::layout::{Fault, Peer};
use nodeway_datapath::{Address, Family, Flow, Hook, Verdict, decide};

use crate::maps::{NETNS_COOKIE, PEERS};
use crate::node::{CallNode, loopback};
use crate::report::{self, Origin};

/// The call goes on.
const ALLOW: i32 = 1;

/// The first twelve bytes of `::ffff:a.b.c.d`.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// `connect` to an IPv4 address.
#[cgroup_sock_addr(connect4)]
pub fn nw_connect4(context: SockAddrContext) -> i32 {
    if !is_ours(&context) {
        return ALLOW;
    }
    // SAFETY: the context is the kernel's, and valid while the program runs.
    let call = unsafe { &mut *context.sock_addr };
    let address = address4(call.user_ip4);
    if let Some(port) = redirected(&context, call, Family::V4, address) {
        call.user_ip4 = word(loopback(Family::V4));
        call.user_port = u32::from(port.to_be());
    }
    ALLOW
}

/// `connect` to an IPv6 address, or to an IPv4 one by its IPv6 form.
#[cgroup_sock_addr(connect6)]
pub fn nw_connect6(context: SockAddrContext) -> i32 {
    if !is_ours(&context) {
        return ALLOW;
    }
    // SAFETY: as above.
    let call = unsafe { &mut *context.sock_addr };
    let address = read6(call);
    let (family, address) = match mapped(address) {
        Some(address) => (Family::V4, address),
        None => (Family::V6, address),
    };
    if let Some(port) = redirected(&context, call, family, address) {
        write6(call, family, loopback(family));
        call.user_port = u32::from(port.to_be());
    }
    ALLOW
}

/// `getpeername` of an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
pub fn nw_getpeername4(context: SockAddrContext) -> i32 {
    // SAFETY: the context is the kernel's, and valid while the program runs.
    let call = unsafe { &mut *context.sock_addr };
    if let Some(peer) = peer(&context)
        && address4(call.user_ip4) == loopback(Family::V4)
        && port(call) == peer.listener_port
    {
        call.user_ip4 = word(peer.address);
        call.user_port = u32::from(peer.port.to_be());
    }
    ALLOW
}

/// `getpeername` of an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
pub fn nw_getpeername6(context: SockAddrContext) -> i32 {
    // SAFETY: as above.
    let call = unsafe { &mut *context.sock_addr };
    let Some(peer) = peer(&context) else {
        return ALLOW;
    };
    if port(call) != peer.listener_port {
        return ALLOW;
    }
    let address = read6(call);
    let family = match mapped(address) {
        Some(address) if address == loopback(Family::V4) => Family::V4,
        None if address == loopback(Family::V6) => Family::V6,
        _ => return ALLOW,
    };
    write6(call, family, peer.address);
    call.user_port = u32::from(peer.port.to_be());
    ALLOW
}

#[inline(always)]
fn is_ours(context: &SockAddrContext) -> bool {
    // SAFETY: the helper reads the namespace of the context's socket.
    unsafe { bpf_get_netns_cookie(context.as_ptr()) == NETNS_COOKIE.load() }
}

/// Where a call goes instead, once what it asked for is kept with its socket.
#[inline(always)]
fn redirected(
    context: &SockAddrContext,
    call: &bpf_sock_addr,
    family: Family,
    address: Address,
) -> Option<u16> {
    let flow = Flow::call(family, call.protocol as u8, None, (address, port(call)));
    let verdict = decide(&flow, Hook::Connect, &CallNode);
    let origin = Origin {
        hook: Hook::Connect,
        ifindex: 0,
    };
    report::decided(origin, &flow, &verdict);
    let Verdict::Connect { port, .. } = verdict else {
        return None;
    };
    let mut kept = Peer {
        address,
        port: flow.dport,
        listener_port: port,
    };
    // SAFETY: the storage belongs to the calling socket, which the call holds. A socket that calls
    // again has a storage already, so it is written in any case.
    unsafe {
        let storage = PEERS.get_or_insert_ptr_mut(context, Some(&mut kept));
        if storage.is_null() {
            report::fault(Fault::PeerLost);
        } else {
            storage.write(kept);
        }
    }
    Some(port)
}

/// What the socket asked for, if it was led elsewhere.
#[inline(always)]
fn peer(context: &SockAddrContext) -> Option<&Peer> {
    // SAFETY: the storage belongs to the socket, which the call holds.
    unsafe { PEERS.get_ptr_mut(context).cast_const().as_ref() }
}

#[inline(always)]
fn port(call: &bpf_sock_addr) -> u16 {
    u16::from_be(call.user_port as u16)
}

/// The kernel's IPv4 address as an [`Address`].
#[inline(always)]
pub const fn address4(word: u32) -> Address {
    let [a, b, c, d] = word.to_ne_bytes();
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// The kernel's IPv6 address as an [`Address`].
#[inline(always)]
pub const fn address6([a, b, c, d]: [u32; 4]) -> Address {
    let [a0, a1, a2, a3] = a.to_ne_bytes();
    let [b0, b1, b2, b3] = b.to_ne_bytes();
    let [c0, c1, c2, c3] = c.to_ne_bytes();
    let [d0, d1, d2, d3] = d.to_ne_bytes();
    [
        a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3,
    ]
}

#[inline(always)]
const fn words(address: Address) -> [u32; 4] {
    let [
        a0,
        a1,
        a2,
        a3,
        b0,
        b1,
        b2,
        b3,
        c0,
        c1,
        c2,
        c3,
        d0,
        d1,
        d2,
        d3,
    ] = address;
    [
        u32::from_ne_bytes([a0, a1, a2, a3]),
        u32::from_ne_bytes([b0, b1, b2, b3]),
        u32::from_ne_bytes([c0, c1, c2, c3]),
        u32::from_ne_bytes([d0, d1, d2, d3]),
    ]
}

#[inline(always)]
const fn word(address: Address) -> u32 {
    let [a, b, c, d, ..] = address;
    u32::from_ne_bytes([a, b, c, d])
}

/// The call's IPv6 address, word by word: the kernel allows no wider read.
#[inline(always)]
fn read6(call: &bpf_sock_addr) -> Address {
    let [a, b, c, d] = &call.user_ip6;
    // SAFETY: they are references; volatile keeps LLVM from joining the reads.
    unsafe {
        address6([
            (&raw const *a).read_volatile(),
            (&raw const *b).read_volatile(),
            (&raw const *c).read_volatile(),
            (&raw const *d).read_volatile(),
        ])
    }
}

/// Sets the call's IPv6 address; an IPv4 one in its IPv6 form.
#[inline(always)]
fn write6(call: &mut bpf_sock_addr, family: Family, address: Address) {
    let address = match family {
        Family::V6 => address,
        Family::V4 => {
            let [a, b, c, d, ..] = address;
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
        }
    };
    let [a, b, c, d] = words(address);
    let [to_a, to_b, to_c, to_d] = &mut call.user_ip6;
    // SAFETY: they are references; volatile keeps LLVM from joining the writes.
    unsafe {
        (&raw mut *to_a).write_volatile(a);
        (&raw mut *to_b).write_volatile(b);
        (&raw mut *to_c).write_volatile(c);
        (&raw mut *to_d).write_volatile(d);
    }
}

/// The IPv4 address of an IPv6 form.
#[inline(always)]
fn mapped(address: Address) -> Option<Address> {
    let [prefix @ .., a, b, c, d] = address;
    if prefix == MAPPED {
        Some([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    } else {
        None
    }
}
