//! Puts a listener's socket into the table that sk_lookup picks from.
//!
//! The loader runs it once for each listener and family by `BPF_PROG_TEST_RUN`, in the node's
//! network namespace, with the port and the family in the packet's control block. So no process
//! has to hand over a descriptor: any Envoy's socket is found by its port.

#![expect(
    unsafe_code,
    reason = "a packet's context is a pointer of the kernel's"
)]

use aya_ebpf::helpers::bpf_map_update_elem;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use nodeway_datapath::Family;
use nodeway_datapath::layout::SocketKey;

use crate::maps::LISTEN_SOCKETS;
use crate::node::listening;

/// `ENOENT`: nobody listens.
const NO_LISTENER: i32 = 2;

/// The first word of the control block is the port, the second the family. Answers 0, or the
/// number of an error.
#[classifier]
pub fn nw_stash(context: TcContext) -> i32 {
    // SAFETY: the context is the kernel's.
    let [port, family, ..] = unsafe { (*context.skb.skb).cb };
    let port = port as u16;
    if family == 4 {
        put(&context, Family::V4, port)
    } else {
        put(&context, Family::V6, port)
    }
}

#[inline(always)]
fn put(context: &TcContext, family: Family, port: u16) -> i32 {
    let Some(socket) = listening(context, family, port) else {
        return NO_LISTENER;
    };
    let key = SocketKey::new(family, port);
    let map = (&raw const LISTEN_SOCKETS).cast_mut();
    // SAFETY: map, key and socket are of the kinds that the helper wants; it takes a reference.
    let refused = unsafe {
        bpf_map_update_elem(
            map.cast(),
            (&raw const key).cast(),
            socket.as_ptr().cast_const(),
            0,
        )
    };
    // An error is the negative of its number.
    -(refused as i32)
}
