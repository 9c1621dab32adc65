//! Where a packet goes: the one decision that the simulator and the kernel share.
//!
//! What happens when something is missing is declared here, and is fail-closed throughout: a
//! packet to a frontend is never carried on as if there were no redirect, except where a
//! frontend's state says so (`arming`, `draining`).
//!
//! | missing | tc beside sk_lookup | tc alone | sk_lookup | connect |
//! |---|---|---|---|---|
//! | frontend | pass | pass | pass | pass |
//! | the listener's socket | left to sk_lookup, which refuses: RST | dropped | refused: RST | refused: RST |
//! | the source in the frontend's ranges | dropped | dropped | refused: RST | left to sk_lookup |
//!
//! A frontend may be open to some sources alone: `loadBalancerSourceRanges`, of a load balancer's
//! address. Whose packet that is makes no difference, nor whether it belongs to a connection: Cilium
//! looks at each packet, before its proxy gets it (`nodeport_lb4` in `bpf/lib/nodeport.h`, by
//! `lb4_src_range_ok`), and kube-proxy at pods' and the node's own packets too, which Cilium does not
//! (`KUBE-FW-*` and `KUBE-PROXY-FIREWALL` of `pkg/proxy/iptables`). Both drop, so that the client
//! waits. A look-up can only refuse; so where packets come to sk_lookup without passing tc, a rule
//! drops them first (`nodeway_core::netfilter::frontends`).
//!
//! The RST of a refused look-up has the service's address as its source. The kernel's IPv4 sends it
//! only where that is an address or a local route of the node; else the client waits as if the
//! packet were dropped. So every frontend has a local route, also beside tc, whose marks would
//! deliver without one (`nodeway_core::netfilter::ebpf`). IPv6 sends it always.

use crate::flow::{Flow, Packet, protocol};
use crate::kernel::{Frontend, FrontendState, Kernel, SocketState};
use crate::reason::Reason;

/// Which hook asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// tc ingress of a pod's host-side veth or of the node's uplink.
    TcIngress {
        /// Whether an sk_lookup program of ours is attached to the same namespace: then what has
        /// no connection yet is left to it, and no host socket can take the traffic.
        sk_lookup: bool,
    },
    /// The sk_lookup program of the node's network namespace: no connection has the packet.
    SkLookup,
    /// A connect call in the node's network namespace.
    Connect,
}

/// What to do with a packet or a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<Socket> {
    /// Carry on as if there were no hook.
    Pass(Reason),
    /// Refuse: a packet is dropped; a look-up finds no socket, so that the node answers RST.
    Drop(Reason),
    /// Deliver to this node; its TCP (and the sk_lookup program) finds the socket.
    Deliver {
        /// The packet's mark, for policy routing to local delivery.
        mark: u32,
        /// Why.
        reason: Reason,
    },
    /// Deliver to this node and to this socket.
    Assign {
        /// The socket that takes the packet.
        socket: Socket,
        /// The packet's mark, for policy routing to local delivery.
        mark: u32,
        /// Why.
        reason: Reason,
    },
    /// Connect to this port of loopback in place of what was asked for.
    Connect {
        /// The listener's port, host byte order.
        port: u16,
        /// Why.
        reason: Reason,
    },
}

impl<Socket> Verdict<Socket> {
    /// Why the verdict was given.
    #[inline(always)]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Pass(reason)
            | Self::Drop(reason)
            | Self::Deliver { reason, .. }
            | Self::Assign { reason, .. }
            | Self::Connect { reason, .. } => *reason,
        }
    }

    /// The verdict's number in an event of the kernel's ring ([`crate::layout::Event`]); stable.
    #[inline(always)]
    pub const fn number(&self) -> u8 {
        match self {
            Self::Pass(_) => 0,
            Self::Drop(_) => 1,
            Self::Deliver { .. } => 2,
            Self::Assign { .. } => 3,
            Self::Connect { .. } => 4,
        }
    }

    /// The verdict's name, as reports and traces print it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Drop(_) => "drop",
            Self::Deliver { .. } => "deliver",
            Self::Assign { .. } => "assign",
            Self::Connect { .. } => "connect",
        }
    }
}

/// The bits of a mark that say that a packet is for the node's proxy, and their value there:
/// Cilium's `MARK_MAGIC_HOST_MASK` and `MARK_MAGIC_TO_PROXY`.
pub const PROXY_MASK: u32 = 0x0f00;
/// See [`PROXY_MASK`].
pub const TO_PROXY: u32 = 0x0200;

/// The mark of a packet that is led to a listener's port (host byte order): [`TO_PROXY`], and above
/// it the port in network byte order, as iptables' TPROXY rules compare it.
#[must_use]
#[inline(always)]
pub const fn mark(listener_port: u16) -> u32 {
    TO_PROXY | (listener_port.to_be() as u32) << 16
}

/// Decides on a packet or a call.
///
/// The flow's own socket comes first: a redirect must never tear a connection that this node
/// already serves. Only then is a new connection given to the frontend's listener.
#[inline(always)]
pub fn decide<K: Kernel>(flow: &Flow, hook: Hook, kernel: &K) -> Verdict<K::Socket> {
    if flow.protocol != protocol::TCP {
        return Verdict::Pass(Reason::NotTcp);
    }
    let Some(frontend) = kernel.frontend(flow.family, &flow.dst, flow.dport) else {
        return Verdict::Pass(Reason::NotAFrontend);
    };
    if matches!(flow.packet, Packet::IcmpError) {
        return Verdict::Deliver {
            mark: mark(frontend.listener_port),
            reason: Reason::IcmpError,
        };
    }
    // A call has no source yet.
    if frontend.ranged && !matches!(hook, Hook::Connect) && !kernel.admits(flow) {
        return Verdict::Drop(Reason::SourceNotInRanges);
    }
    match hook {
        Hook::TcIngress { sk_lookup } => at_tc(flow, sk_lookup, frontend, kernel),
        Hook::SkLookup => at_sk_lookup(flow, frontend, kernel),
        Hook::Connect => at_connect(frontend),
    }
}

/// tc sees every packet: first the flow's own socket, then the frontend's state.
#[inline(always)]
fn at_tc<K: Kernel>(
    flow: &Flow,
    sk_lookup: bool,
    frontend: &Frontend,
    kernel: &K,
) -> Verdict<K::Socket> {
    let mark = mark(frontend.listener_port);
    if let Some(socket) = kernel.socket(flow) {
        match kernel.state(&socket, frontend) {
            SocketState::Established => {
                return Verdict::Assign {
                    socket,
                    mark,
                    reason: Reason::Established,
                };
            }
            SocketState::Request => {
                return Verdict::Assign {
                    socket,
                    mark,
                    reason: Reason::RequestSocket,
                };
            }
            // Beside sk_lookup the kernel's own TIME_WAIT path finds the listener at once. Alone,
            // handing over the TIME_WAIT socket costs the client one retransmit, but works.
            SocketState::TimeWait if sk_lookup => {
                return Verdict::Deliver {
                    mark,
                    reason: Reason::TimeWait,
                };
            }
            SocketState::TimeWait => {
                return Verdict::Assign {
                    socket,
                    mark,
                    reason: Reason::TimeWait,
                };
            }
            // No connection has the packet. Another program's listening socket must not get it.
            SocketState::OurListener | SocketState::OtherListener => {}
        }
    }
    match frontend.state {
        FrontendState::Draining => Verdict::Pass(Reason::Draining),
        FrontendState::Arming if !flow.opens() => Verdict::Pass(Reason::OlderConnection),
        FrontendState::Arming | FrontendState::Active if sk_lookup => Verdict::Deliver {
            mark,
            reason: Reason::LeftToSkLookup,
        },
        FrontendState::Arming | FrontendState::Active => {
            match kernel.listener(flow.family, frontend) {
                Some(socket) => Verdict::Assign {
                    socket,
                    mark,
                    reason: Reason::NewConnection,
                },
                None => Verdict::Drop(Reason::NoListener),
            }
        }
    }
}

/// sk_lookup runs when no connection has the packet, so it is always about a new one.
#[inline(always)]
fn at_sk_lookup<K: Kernel>(flow: &Flow, frontend: &Frontend, kernel: &K) -> Verdict<K::Socket> {
    if matches!(frontend.state, FrontendState::Draining) {
        return Verdict::Pass(Reason::Draining);
    }
    match kernel.listener(flow.family, frontend) {
        Some(socket) => Verdict::Assign {
            socket,
            mark: mark(frontend.listener_port),
            reason: Reason::NewConnection,
        },
        None => Verdict::Drop(Reason::NoListener),
    }
}

/// A call has no packet yet: it is sent to the listener's own address, and refused there if
/// nobody listens.
#[inline(always)]
fn at_connect<Socket>(frontend: &Frontend) -> Verdict<Socket> {
    match frontend.state {
        FrontendState::Draining => Verdict::Pass(Reason::Draining),
        // It goes on as packets, whose source is known: the node sends them to itself, and there
        // the sk_lookup program finds them.
        FrontendState::Arming | FrontendState::Active if frontend.ranged => {
            Verdict::Pass(Reason::LeftToSkLookup)
        }
        FrontendState::Arming | FrontendState::Active => Verdict::Connect {
            port: frontend.listener_port,
            reason: Reason::NodeCall,
        },
    }
}
