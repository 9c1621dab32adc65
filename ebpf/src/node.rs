//! A node's tables, as a decision asks them: the maps, and the kernel's own socket table.

#![expect(
    unsafe_code,
    reason = "maps and sockets are reached through the kernel's helpers"
)]

use core::mem::MaybeUninit;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_tuple;
use aya_ebpf::helpers::{bpf_map_lookup_elem, bpf_skc_lookup_tcp};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::TcContext;
use nodeway_datapath::layout::{FrontendKey, SocketKey, SourceKey};
use nodeway_datapath::{Address, Family, Flow, Frontend, Kernel, SocketState};

use crate::maps::{FRONTENDS, LISTEN_SOCKETS, SOURCES};
use crate::socket::Socket;

/// Look up in the network namespace of the context itself (`BPF_F_CURRENT_NETNS`, sign-extended
/// from 32 bits as the helper reads it).
const THIS_NAMESPACE: u64 = u64::MAX;

/// The frontend of an address, read in place.
#[inline(always)]
pub fn frontend<'a>(family: Family, address: &Address, port: u16) -> Option<&'a Frontend> {
    let key = FrontendKey::new(family, *address, port);
    let value = FRONTENDS.get_ptr(key)?;
    // SAFETY: the map holds a value for as long as the program runs (RCU), and it is written as a
    // whole. The layout asserts that the bytes are a `Frontend`'s once the state is known to be
    // one of its three, and the flag one of its two.
    unsafe {
        if (&raw const (*value).state).read_volatile() > 2
            || (&raw const (*value).ranged).read_volatile() > 1
        {
            return None;
        }
        Some(&*value.cast::<Frontend>())
    }
}

/// Whether a range of the flow's frontend has its source.
#[inline(always)]
fn admits(flow: &Flow) -> bool {
    let key = SourceKey {
        frontend: FrontendKey::new(flow.family, flow.dst, flow.dport),
        source: flow.src,
    };
    SOURCES.get(Key::new(SourceKey::BITS, key)).is_some()
}

/// A flow as `bpf_skc_lookup_tcp` wants it: addresses and ports, all in network byte order.
struct Tuple {
    bytes: MaybeUninit<[u8; 36]>,
    size: u32,
}

impl Tuple {
    #[inline(always)]
    fn new(family: Family, src: &Address, dst: &Address, sport: u16, dport: u16) -> Self {
        let mut bytes = MaybeUninit::<[u8; 36]>::uninit();
        let at = bytes.as_mut_ptr().cast::<u8>();
        let address = match family {
            Family::V4 => 4,
            Family::V6 => 16,
        };
        // SAFETY: every write ends within the 36 bytes, and the kernel reads `size` of them: two
        // addresses and two ports, all of which are written.
        unsafe {
            match family {
                Family::V4 => {
                    at.cast::<[u8; 4]>().write_unaligned(first4(src));
                    at.add(4).cast::<[u8; 4]>().write_unaligned(first4(dst));
                }
                Family::V6 => {
                    at.cast::<Address>().write_unaligned(*src);
                    at.add(16).cast::<Address>().write_unaligned(*dst);
                }
            }
            let ports = at.add(2 * address);
            ports.cast::<[u8; 2]>().write_unaligned(sport.to_be_bytes());
            ports
                .add(2)
                .cast::<[u8; 2]>()
                .write_unaligned(dport.to_be_bytes());
        }
        let size = match family {
            Family::V4 => 12,
            Family::V6 => 36,
        };
        Self { bytes, size }
    }

    /// The socket that the kernel's TCP would give such a packet to; runs sk_lookup programs.
    #[inline(always)]
    fn look_up(&mut self, context: &TcContext) -> Option<Socket> {
        let tuple = self.bytes.as_mut_ptr().cast::<bpf_sock_tuple>();
        // SAFETY: `size` bytes of the tuple are written; what comes back is a referenced socket.
        unsafe {
            Socket::new(bpf_skc_lookup_tcp(
                context.as_ptr(),
                tuple,
                self.size,
                THIS_NAMESPACE,
                0,
            ))
        }
    }
}

#[inline(always)]
const fn first4(address: &Address) -> [u8; 4] {
    let [a, b, c, d, ..] = *address;
    [a, b, c, d]
}

/// The loopback address, where listeners of ours are bound.
#[inline(always)]
pub const fn loopback(family: Family) -> Address {
    match family {
        Family::V4 => [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        Family::V6 => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    }
}

/// The socket that listens on that port of loopback.
#[inline(always)]
pub fn listening(context: &TcContext, family: Family, port: u16) -> Option<Socket> {
    let mut tuple = Tuple::new(family, &[0; 16], &loopback(family), 0, port);
    let socket = tuple.look_up(context)?;
    if socket.listens_on(port) {
        Some(socket)
    } else {
        None
    }
}

/// What tc knows: the packet's context finds any socket.
pub struct TcNode<'a>(pub &'a TcContext);

impl Kernel for TcNode<'_> {
    type Socket = Socket;

    #[inline(always)]
    fn frontend(&self, family: Family, address: &Address, port: u16) -> Option<&Frontend> {
        frontend(family, address, port)
    }

    #[inline(always)]
    fn admits(&self, flow: &Flow) -> bool {
        admits(flow)
    }

    #[inline(always)]
    fn socket(&self, flow: &Flow) -> Option<Socket> {
        Tuple::new(flow.family, &flow.src, &flow.dst, flow.sport, flow.dport).look_up(self.0)
    }

    #[inline(always)]
    fn state(&self, socket: &Socket, frontend: &Frontend) -> SocketState {
        socket.state(frontend)
    }

    #[inline(always)]
    fn listener(&self, family: Family, frontend: &Frontend) -> Option<Socket> {
        listening(self.0, family, frontend.listener_port)
    }
}

/// What sk_lookup knows: no connection has the packet, and listening sockets are in their table.
pub struct SkLookupNode;

impl Kernel for SkLookupNode {
    type Socket = Socket;

    #[inline(always)]
    fn frontend(&self, family: Family, address: &Address, port: u16) -> Option<&Frontend> {
        frontend(family, address, port)
    }

    #[inline(always)]
    fn admits(&self, flow: &Flow) -> bool {
        admits(flow)
    }

    #[inline(always)]
    fn socket(&self, _: &Flow) -> Option<Socket> {
        None
    }

    #[inline(always)]
    fn state(&self, socket: &Socket, frontend: &Frontend) -> SocketState {
        socket.state(frontend)
    }

    #[inline(always)]
    fn listener(&self, family: Family, frontend: &Frontend) -> Option<Socket> {
        let key = SocketKey::new(family, frontend.listener_port);
        let map = (&raw const LISTEN_SOCKETS).cast_mut();
        // SAFETY: the map is one of sockets, so what is found is a referenced socket.
        unsafe { Socket::new(bpf_map_lookup_elem(map.cast(), (&raw const key).cast()).cast()) }
    }
}

/// What a connect call knows: only the table of frontends.
pub struct CallNode;

impl Kernel for CallNode {
    type Socket = ();

    #[inline(always)]
    fn frontend(&self, family: Family, address: &Address, port: u16) -> Option<&Frontend> {
        frontend(family, address, port)
    }

    #[inline(always)]
    fn admits(&self, _: &Flow) -> bool {
        false
    }

    #[inline(always)]
    fn socket(&self, _: &Flow) -> Option<()> {
        None
    }

    #[inline(always)]
    fn state(&self, (): &(), _: &Frontend) -> SocketState {
        SocketState::OtherListener
    }

    #[inline(always)]
    fn listener(&self, _: Family, _: &Frontend) -> Option<()> {
        None
    }
}
