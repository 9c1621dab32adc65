//! What is said of a decision: always a count, and an event while tracing is on.

#![expect(
    unsafe_code,
    reason = "counters and events are written in the kernel's memory"
)]

use aya_ebpf::helpers::bpf_ktime_get_ns;
use nodeway_datapath::layout::{COLUMNS, Event, FAULT_ROW, Fault, row};
use nodeway_datapath::{Flow, Hook, Reason, Verdict};

use crate::maps::{COUNTERS, EVENTS, TRACE};
use crate::socket::Socket;

/// What a hook knows beside the flow.
#[derive(Clone, Copy)]
pub struct Origin {
    /// Which hook.
    pub hook: Hook,
    /// The device that the packet came in by, or 0.
    pub ifindex: u32,
}

/// Something could not be done and was worked around.
#[inline(always)]
pub fn fault(fault: Fault) {
    count(FAULT_ROW, fault as u8);
}

/// A packet could not be read as a flow and passes.
#[inline(always)]
pub fn unread(origin: Origin, reason: Reason) {
    count(row(origin.hook), reason as u8);
    if tracing() {
        emit(Event {
            reason: reason as u8,
            ..blank(origin)
        });
    }
}

/// A flow has its verdict; it may come with a socket.
#[inline(always)]
pub fn decided<S: Seen>(origin: Origin, flow: &Flow, verdict: &Verdict<S>) {
    let reason = verdict.reason() as u8;
    count(row(origin.hook), reason);
    if !tracing() {
        return;
    }
    let mut event = Event {
        src: flow.src,
        dst: flow.dst,
        sport: flow.sport,
        dport: flow.dport,
        verdict: verdict.number(),
        reason,
        family: flow.family as u8,
        packet: flow.packet as u8,
        protocol: flow.protocol,
        tcp_flags: flow.tcp_flags,
        ..blank(origin)
    };
    match verdict {
        Verdict::Assign { socket, mark, .. } => {
            event.mark = *mark;
            event.socket_state = socket.state();
            event.socket_port = socket.port();
        }
        Verdict::Deliver { mark, .. } => event.mark = *mark,
        Verdict::Connect { port, .. } => event.listener_port = *port,
        Verdict::Pass(_) | Verdict::Drop(_) => {}
    }
    emit(event);
}

/// What an event says of a socket.
pub trait Seen {
    /// The kernel's number of its TCP state.
    fn state(&self) -> u8;
    /// The port that it is bound to.
    fn port(&self) -> u16;
}

impl Seen for Socket {
    #[inline(always)]
    fn state(&self) -> u8 {
        self.tcp_state() as u8
    }

    #[inline(always)]
    fn port(&self) -> u16 {
        Self::port(self) as u16
    }
}

impl Seen for () {
    #[inline(always)]
    fn state(&self) -> u8 {
        0
    }

    #[inline(always)]
    fn port(&self) -> u16 {
        0
    }
}

#[inline(always)]
fn tracing() -> bool {
    TRACE.load() != 0
}

#[inline(always)]
fn blank(origin: Origin) -> Event {
    Event {
        // SAFETY: the helper takes and touches nothing.
        time: unsafe { bpf_ktime_get_ns() },
        ifindex: origin.ifindex,
        hook: row(origin.hook),
        ..Event::default()
    }
}

#[inline(always)]
fn emit(event: Event) {
    if EVENTS.output::<Event>(&event, 0).is_err() {
        fault(Fault::EventLost);
    }
}

#[inline(always)]
fn count(row: u8, column: u8) {
    let index = u32::from(row) * COLUMNS + u32::from(column);
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: the counter is this CPU's own, and no other program runs on it meanwhile that
        // would not have finished before this one goes on.
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
}
