//! sk_lookup: no connection has the packet; which listening socket takes it?
//!
//! It sees addresses, ports and the device, and no packet. It also runs when tc looks a socket up,
//! so its counters count look-ups, not packets.

#![expect(
    unsafe_code,
    reason = "a look-up's context is a pointer of the kernel's"
)]

use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
use aya_ebpf::macros::sk_lookup;
use aya_ebpf::programs::SkLookupContext;
use nodeway_datapath::layout::Fault;
use nodeway_datapath::{Address, Family, Flow, Hook, Verdict, decide};

use crate::connect::{address4, address6};
use crate::node::SkLookupNode;
use crate::report::{self, Origin};

const AF_INET: u32 = 2;

/// Reads a field of the context; volatile, so that LLVM neither joins two reads nor reads through
/// a computed pointer: the verifier allows each field at its own offset and width.
macro_rules! read {
    ($context:expr, $($field:tt)+) => {
        // SAFETY: the context is the kernel's, and valid while the program runs.
        unsafe { (&raw const (*$context.lookup).$($field)+).read_volatile() }
    };
}

/// Look-ups of the node's network namespace.
#[sk_lookup]
pub fn nw_sk_lookup(context: SkLookupContext) -> u32 {
    if read!(context, family) == AF_INET {
        let src = address4(read!(context, remote_ip4));
        let dst = address4(read!(context, local_ip4));
        act(&context, &flow(&context, Family::V4, src, dst))
    } else {
        let src = address6([
            read!(context, remote_ip6[0]),
            read!(context, remote_ip6[1]),
            read!(context, remote_ip6[2]),
            read!(context, remote_ip6[3]),
        ]);
        let dst = address6([
            read!(context, local_ip6[0]),
            read!(context, local_ip6[1]),
            read!(context, local_ip6[2]),
            read!(context, local_ip6[3]),
        ]);
        act(&context, &flow(&context, Family::V6, src, dst))
    }
}

#[inline(always)]
fn flow(context: &SkLookupContext, family: Family, src: Address, dst: Address) -> Flow {
    let protocol = read!(context, protocol) as u8;
    // The one is in network byte order, the other in the machine's.
    let sport = u16::from_be(read!(context, remote_port));
    let dport = read!(context, local_port) as u16;
    Flow::call(family, protocol, Some((src, sport)), (dst, dport))
}

#[inline(always)]
fn act(context: &SkLookupContext, flow: &Flow) -> u32 {
    let verdict = decide(flow, Hook::SkLookup, &SkLookupNode);
    let origin = Origin {
        hook: Hook::SkLookup,
        ifindex: read!(context, ingress_ifindex),
    };
    report::decided(origin, flow, &verdict);
    match verdict {
        Verdict::Assign { socket, .. } => {
            if socket.assign(context).is_err() {
                report::fault(Fault::AssignRefused);
            }
            SK_PASS
        }
        Verdict::Drop(_) => SK_DROP,
        // The kernel goes on as if there were no program.
        Verdict::Pass(_) | Verdict::Deliver { .. } | Verdict::Connect { .. } => SK_PASS,
    }
}
