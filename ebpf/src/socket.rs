//! A socket that the kernel looked up: a guard that gives it back.
//!
//! The verifier refuses a program with a path that keeps a reference, so the type is checked again
//! at each load.

#![expect(
    unsafe_code,
    reason = "a socket is a pointer of the kernel's, given back by a helper"
)]

use core::ptr::NonNull;

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::{bpf_sk_assign, bpf_sk_release};
use aya_ebpf::{EbpfContext, cty::c_void};
use nodeway_datapath::{Frontend, SocketState};

/// `TCP_TIME_WAIT`, `TCP_LISTEN` and `TCP_NEW_SYN_RECV` of the kernel's `tcp_states.h`.
const TIME_WAIT: u32 = 6;
const LISTEN: u32 = 10;
const NEW_SYN_RECV: u32 = 12;

/// A reference to a socket of the kernel's.
pub struct Socket(NonNull<bpf_sock>);

impl Socket {
    /// What a look-up found.
    ///
    /// # Safety
    /// The pointer is null, or a referenced socket as `bpf_skc_lookup_tcp` and its like return it.
    #[inline(always)]
    pub unsafe fn new(found: *mut bpf_sock) -> Option<Self> {
        NonNull::new(found).map(Self)
    }

    /// The kernel's number of its TCP state.
    #[inline(always)]
    pub fn tcp_state(&self) -> u32 {
        // SAFETY: the reference is ours; the verifier turns the read into one of the real field.
        // It is volatile so that LLVM does not widen or move it past the release.
        unsafe { (&raw const (*self.0.as_ptr()).state).read_volatile() }
    }

    /// The port that it is bound to.
    #[inline(always)]
    pub fn port(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0.as_ptr()).src_port).read_volatile() }
    }

    /// Whether it listens on that port.
    #[inline(always)]
    pub fn listens_on(&self, port: u16) -> bool {
        self.tcp_state() == LISTEN && self.port() == u32::from(port)
    }

    /// What it is, to a decision.
    #[inline(always)]
    pub fn state(&self, frontend: &Frontend) -> SocketState {
        match self.tcp_state() {
            TIME_WAIT => SocketState::TimeWait,
            NEW_SYN_RECV => SocketState::Request,
            LISTEN if self.port() == u32::from(frontend.listener_port) => SocketState::OurListener,
            LISTEN => SocketState::OtherListener,
            _ => SocketState::Established,
        }
    }

    /// Hands it the packet of this context, or makes it the look-up's answer.
    #[inline(always)]
    pub fn assign(&self, context: &impl EbpfContext) -> Result<(), ()> {
        // SAFETY: both pointers are the kernel's own; the helper takes a reference for itself.
        match unsafe { bpf_sk_assign(context.as_ptr(), self.as_ptr(), 0) } {
            0 => Ok(()),
            _ => Err(()),
        }
    }

    /// For helpers that take a socket.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut c_void {
        self.0.as_ptr().cast()
    }
}

impl Drop for Socket {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the reference is ours, and this is its end.
        unsafe { bpf_sk_release(self.as_ptr()) };
    }
}
