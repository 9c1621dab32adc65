//! tc ingress: parse, decide, mark and assign.
//!
//! An Ethernet device's packets are read directly, and through a helper where the linear part ends
//! too soon. Of other devices nobody knows the link header's length (TUN has none): there another
//! helper reads, which does.

#![expect(
    unsafe_code,
    reason = "a packet's context is a pointer of the kernel's"
)]

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use nodeway_datapath::layout::Fault;
use nodeway_datapath::{Flow, Hook, Reason, Verdict, decide, parse_frame};

use crate::maps::SK_LOOKUP;
use crate::node::TcNode;
use crate::packet::{AnyDevice, Linear, Whole};
use crate::report::{self, Origin};

/// Packets of devices with an Ethernet header.
#[classifier]
pub fn nw_tc_ethernet(context: TcContext) -> i32 {
    let ethertype = ethertype(&context);
    match parse_frame(ethertype, &Linear(&context)) {
        // Perhaps only the linear part ends here.
        Err(Reason::Truncated) => follow(&context, parse_frame(ethertype, &Whole(&context))),
        parsed => follow(&context, parsed),
    }
}

/// Packets of devices with any link header.
#[classifier]
pub fn nw_tc_any(context: TcContext) -> i32 {
    let packet = AnyDevice::new(&context);
    follow(&context, parse_frame(ethertype(&context), &packet))
}

#[inline(always)]
fn follow(context: &TcContext, parsed: Result<Flow, Reason>) -> i32 {
    match parsed {
        Ok(flow) => act(context, &flow),
        Err(reason) => unread(context, reason),
    }
}

#[inline(always)]
fn ethertype(context: &TcContext) -> u16 {
    // SAFETY: the context is the kernel's; the field holds 16 bits in network byte order.
    let protocol = unsafe { (*context.skb.skb).protocol };
    u16::from_be(protocol as u16)
}

#[inline(always)]
fn origin(context: &TcContext) -> Origin {
    Origin {
        hook: hook(),
        // SAFETY: the context is the kernel's.
        ifindex: unsafe { (*context.skb.skb).ifindex },
    }
}

#[inline(always)]
fn hook() -> Hook {
    Hook::TcIngress {
        sk_lookup: SK_LOOKUP.load() != 0,
    }
}

/// Not a flow that could be redirected: the next program or the stack has it.
#[inline(always)]
fn unread(context: &TcContext, reason: Reason) -> i32 {
    report::unread(origin(context), reason);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn act(context: &TcContext, flow: &Flow) -> i32 {
    let verdict = decide(flow, hook(), &TcNode(context));
    report::decided(origin(context), flow, &verdict);
    match verdict {
        // tc redirects no calls.
        Verdict::Pass(_) | Verdict::Connect { .. } => TC_ACT_UNSPEC,
        Verdict::Drop(_) => TC_ACT_SHOT,
        Verdict::Deliver { mark, .. } => {
            context.skb.set_mark(mark);
            TC_ACT_OK
        }
        Verdict::Assign { socket, mark, .. } => {
            context.skb.set_mark(mark);
            // The socket may be gone by now. The mark still delivers the packet to this node,
            // whose TCP then looks for itself: it is never carried on.
            if socket.assign(context).is_err() {
                report::fault(Fault::AssignRefused);
            }
            TC_ACT_OK
        }
    }
}
