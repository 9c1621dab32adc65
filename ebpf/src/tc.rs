//! tc ingress: parse, decide, mark and assign.
//!
//! An Ethernet device's packets are read directly; what is not in the linear part is read through
//! the helper, as are packets of devices with another link header (TUN has none).

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
use crate::packet::{Linear, Whole};
use crate::report::{self, Origin};

/// Packets of devices with an Ethernet header.
#[classifier]
pub fn nw_tc_ethernet(context: TcContext) -> i32 {
    let ethertype = ethertype(&context);
    match parse_frame(ethertype, &Linear(&context)) {
        Ok(flow) => act(&context, &flow),
        // Perhaps only the linear part ends here.
        Err(Reason::Truncated) => whole(&context, ethertype),
        Err(reason) => unread(&context, reason),
    }
}

/// Packets of devices with any link header.
#[classifier]
pub fn nw_tc_any(context: TcContext) -> i32 {
    whole(&context, ethertype(&context))
}

#[inline(always)]
fn whole(context: &TcContext, ethertype: u16) -> i32 {
    match parse_frame(ethertype, &Whole(context)) {
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
