//! Nodeway's decision in the kernel: adapters around `nodeway-datapath`.
//!
//! | program | hook | what it does |
//! |---|---|---|
//! | `nw_tc_ethernet`, `nw_tc_any` | tc ingress of a pod's host-side veth, of the node's uplink | parse, decide, mark and assign |
//! | `nw_sk_lookup` | socket look-up of the node's network namespace | decide, pick the listening socket |
//! | `nw_connect4`, `nw_connect6` | connect calls of a cgroup, in the node's network namespace | decide, lead to loopback |
//! | `nw_getpeername4`, `nw_getpeername6` | the same sockets | answer with the service's address |
//! | `nw_stash` | never attached; run once for each listener | puts its listening socket into the table |
//!
//! No program decides anything itself. Each makes a [`nodeway_datapath::Flow`] of what its hook
//! sees, answers the decision's questions through maps and helpers ([`node`]), and does in one
//! `match` what the verdict says.

#![no_std]
#![no_main]

mod connect;
mod maps;
mod node;
mod packet;
mod report;
mod sk_lookup;
mod socket;
mod stash;
mod tc;

/// Nothing here can panic: the build refuses an object that holds this function's symbol.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// No helper that is used here is kept for the GPL.
#[expect(unsafe_code, reason = "the loader finds the licence by its section")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
