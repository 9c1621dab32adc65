//! A case: what is drawn, what the native decision says of it, and how both sides' answers look.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nodeway_core::datapath::{
    Address, Family, Flow, Hook, Reason, Verdict, decide, parse_frame, protocol,
};
use nodeway_live::bpf::LookUp;
use nodeway_sim::{Random, Seed};

use super::packet::{Frame, tuple};
use super::tables::{Socket, Tables, byte, chance};

/// What is put before a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A frame, at tc; beside sk_lookup or alone, of an Ethernet device or of any.
    Frame {
        /// The frame.
        frame: Frame,
        /// Whether sk_lookup stands beside tc.
        sk_lookup: bool,
        /// Whether the program reads packets of Ethernet devices.
        ethernet: bool,
    },
    /// A look-up.
    LookUp(LookUp),
    /// A connect call.
    Call {
        /// Where to; an IPv4 address in its IPv6 form calls the other hook.
        to: SocketAddr,
        /// TCP, else UDP.
        is_tcp: bool,
    },
}

/// One case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// Its round.
    pub(super) round: u32,
    /// Its number in the round.
    pub(super) number: u32,
    /// What is put before which hook.
    pub(super) input: Input,
}

impl Case {
    /// Draws a case: the same for the same seed, round and number.
    pub(super) fn draw(
        seed: Seed,
        round: u32,
        number: u32,
        is_call: bool,
        tables: &Tables,
    ) -> Self {
        let mut random = seed.stream(&format!("decision/{round}/{number}"));
        let random = &mut random;
        let input = if is_call {
            call(random, tables)
        } else if chance(random, 25) {
            Input::LookUp(look_up(random, tables))
        } else {
            Input::Frame {
                frame: Frame::draw(random, tables),
                sk_lookup: chance(random, 50),
                ethernet: chance(random, 60),
            }
        };
        Self {
            round,
            number,
            input,
        }
    }

    /// The hook, as counters name it.
    #[must_use]
    pub(super) const fn hook(&self) -> &'static str {
        match self.input {
            Input::Frame { .. } => "tc",
            Input::LookUp(_) => "sk-lookup",
            Input::Call { .. } => "connect",
        }
    }

    /// What the native decision says.
    #[must_use]
    pub(super) fn native(&self, tables: &Tables) -> Outcome {
        let (flow, hook) = match &self.input {
            Input::Frame {
                frame, sk_lookup, ..
            } => {
                let hook = Hook::TcIngress {
                    sk_lookup: *sk_lookup,
                };
                match parse_frame(frame.ethertype, frame.packet.as_slice()) {
                    Ok(flow) => (flow, hook),
                    Err(reason) => return Outcome::unread(reason),
                }
            }
            Input::LookUp(look_up) => (look_up_flow(look_up), Hook::SkLookup),
            Input::Call { to, is_tcp } => (call_flow(*to, *is_tcp), Hook::Connect),
        };
        Outcome::decided(hook, &flow, &decide(&flow, hook, tables))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.input {
            Input::Frame {
                frame,
                sk_lookup,
                ethernet,
            } => {
                let beside = if *sk_lookup {
                    "beside sk_lookup"
                } else {
                    "alone"
                };
                let kind = if *ethernet { "Ethernet" } else { "any" };
                write!(f, "tc {beside}, {kind} device, frame ")?;
                frame
                    .bytes()
                    .iter()
                    .try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Input::LookUp(look_up) => write!(f, "sk_lookup {look_up:?}"),
            Input::Call { to, is_tcp } => {
                let kind = if *is_tcp { "TCP" } else { "UDP" };
                write!(f, "connect {kind} {to}")
            }
        }
    }
}

fn look_up(random: &mut Random, tables: &Tables) -> LookUp {
    let tuple = tuple(random, tables);
    LookUp {
        family: match tuple.family {
            Family::V4 => 2,
            Family::V6 => 10,
        },
        protocol: u32::from(if chance(random, 85) {
            protocol::TCP
        } else {
            protocol::UDP
        }),
        remote: tuple.src,
        remote_port: tuple.sport,
        local: tuple.dst,
        local_port: tuple.dport,
    }
}

const fn look_up_flow(look_up: &LookUp) -> Flow {
    let [protocol, ..] = look_up.protocol.to_le_bytes();
    let family = if look_up.family == 2 {
        Family::V4
    } else {
        Family::V6
    };
    let from = (look_up.remote, look_up.remote_port);
    let to = (look_up.local, look_up.local_port);
    Flow::call(family, protocol, Some(from), to)
}

fn call(random: &mut Random, tables: &Tables) -> Input {
    let tuple = tuple(random, tables);
    let [a, b, c, d, ..] = tuple.dst;
    let v4 = Ipv4Addr::new(a, b, c, d);
    let address: IpAddr = match tuple.family {
        Family::V4 if byte(random).is_multiple_of(3) => v4.to_ipv6_mapped().into(),
        Family::V4 => v4.into(),
        Family::V6 => Ipv6Addr::from(tuple.dst).into(),
    };
    Input::Call {
        to: SocketAddr::new(address, tuple.dport),
        is_tcp: chance(random, 80),
    }
}

fn call_flow(to: SocketAddr, is_tcp: bool) -> Flow {
    let (family, dst) = widen(to.ip().to_canonical());
    let protocol = if is_tcp { protocol::TCP } else { protocol::UDP };
    Flow::call(family, protocol, None, (dst, to.port()))
}

fn widen(address: IpAddr) -> (Family, Address) {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            (Family::V4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }
        IpAddr::V6(address) => (Family::V6, address.octets()),
    }
}

/// What a hook did, in terms that both sides have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// What the program returns.
    pub(super) returned: i32,
    /// The packet's mark, or whether a look-up chose a socket.
    pub(super) mark: u32,
    /// The verdict's number.
    pub(super) verdict: u8,
    /// Why.
    pub(super) reason: Reason,
    /// What was read: family, packet, protocol and flags.
    pub(super) read: (u8, u8, u8, u8),
    /// From where.
    pub(super) src: (Address, u16),
    /// To where.
    pub(super) dst: (Address, u16),
    /// The chosen socket's state and port.
    pub(super) socket: (u8, u16),
    /// Where a call goes instead.
    pub(super) listener: u16,
}

/// What tc programs return: `TC_ACT_UNSPEC`, `TC_ACT_SHOT`, `TC_ACT_OK`.
const UNSPEC: i32 = -1;
const SHOT: i32 = 2;
const OK: i32 = 0;

impl Outcome {
    /// Whether a socket is to get the packet.
    #[must_use]
    pub(super) const fn assigns(&self) -> bool {
        self.verdict == 3
    }

    /// What could not be read passes.
    const fn unread(reason: Reason) -> Self {
        Self {
            returned: UNSPEC,
            mark: 0,
            verdict: 0,
            reason,
            read: (0, 0, 0, 0),
            src: ([0; 16], 0),
            dst: ([0; 16], 0),
            socket: (0, 0),
            listener: 0,
        }
    }

    fn decided(hook: Hook, flow: &Flow, verdict: &Verdict<Socket>) -> Self {
        let returned = match (hook, verdict) {
            (Hook::TcIngress { .. }, Verdict::Pass(_) | Verdict::Connect { .. }) => UNSPEC,
            (Hook::TcIngress { .. }, Verdict::Drop(_)) => SHOT,
            (Hook::TcIngress { .. }, _) => OK,
            // SK_DROP and SK_PASS; a connect call is always allowed.
            (Hook::SkLookup, Verdict::Drop(_)) => 0,
            (Hook::SkLookup | Hook::Connect, _) => 1,
        };
        let mark = match (hook, verdict) {
            (Hook::SkLookup, Verdict::Assign { .. }) => 1,
            (
                Hook::TcIngress { .. },
                Verdict::Assign { mark, .. } | Verdict::Deliver { mark, .. },
            ) => *mark,
            _ => 0,
        };
        let socket = match verdict {
            Verdict::Assign { socket, .. } => (socket.state as u8, socket.port),
            _ => (0, 0),
        };
        let listener = match verdict {
            Verdict::Connect { port, .. } => *port,
            _ => 0,
        };
        Self {
            returned,
            mark,
            verdict: verdict.number(),
            reason: verdict.reason(),
            read: (
                flow.family as u8,
                flow.packet as u8,
                flow.protocol,
                flow.tcp_flags,
            ),
            src: (flow.src, flow.sport),
            dst: (flow.dst, flow.dport),
            socket,
            listener,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {self:?}", self.reason)
    }
}
