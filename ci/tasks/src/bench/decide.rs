//! Decisions per second: parse and decide on one packet, over a table of 10,000 frontends.

use std::collections::BTreeMap;

use nodeway_core::datapath::{
    Address, Family, Flow, Frontend, FrontendState, Hook, Kernel, SocketState, decide, parse,
};

use super::{Line, short, turns};

const FRONTENDS: u32 = 10_000;
const PACKETS: u64 = 1_000_000;
const ROUNDS: usize = 7;

/// A node's tables with nothing behind them.
struct Tables {
    frontends: BTreeMap<(Address, u16), Frontend>,
    socket: Option<SocketState>,
}

impl Kernel for Tables {
    type Socket = u32;

    fn frontend(&self, _: Family, address: &Address, port: u16) -> Option<&Frontend> {
        self.frontends.get(&(*address, port))
    }

    fn admits(&self, _: &Flow) -> bool {
        false
    }

    fn socket(&self, flow: &Flow) -> Option<u32> {
        self.socket.map(|_| u32::from(flow.sport))
    }

    fn state(&self, _: &u32, _: &Frontend) -> SocketState {
        self.socket.unwrap_or(SocketState::OtherListener)
    }

    fn listener(&self, _: Family, frontend: &Frontend) -> Option<u32> {
        Some(u32::from(frontend.listener_port))
    }
}

fn tables(socket: Option<SocketState>) -> Tables {
    let frontend = Frontend {
        listener_port: 10_000,
        state: FrontendState::Active,
        ranged: false,
    };
    let frontends = (0..FRONTENDS).map(|n| {
        let [_, b, c, d] = n.to_be_bytes();
        ((address([10, b, c, d]), 80), frontend)
    });
    Tables {
        frontends: frontends.collect(),
        socket,
    }
}

fn address([a, b, c, d]: [u8; 4]) -> Address {
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// An IPv4 TCP segment to port 80 of that address.
pub(super) fn segment([a, b, c, d]: [u8; 4], flags: u8) -> [u8; 40] {
    [
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 244, 1, 7, a, b, c, d, // IPv4
        0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0, // TCP
    ]
}

/// Decides on that many packets, of a new or an established connection: what others are compared with.
pub(super) fn reference(established: bool) -> impl FnMut(u64) -> u64 {
    let tables = tables(established.then_some(SocketState::Established));
    let packet = segment([10, 0, 19, 7], if established { 0x10 } else { 0x02 });
    move |packets| {
        for _ in 0..packets {
            let flow = parse(std::hint::black_box(packet.as_slice()));
            let hook = Hook::TcIngress { sk_lookup: false };
            let _ = std::hint::black_box(flow.map(|flow| decide(&flow, hook, &tables)));
        }
        packets
    }
}

/// The lines of this benchmark. The reference is what no decision can do without: one look-up in the table.
#[must_use]
pub fn run() -> Vec<Line> {
    let hook = Hook::TcIngress { sk_lookup: false };
    let cases = [
        ("decide: no frontend", segment([10, 200, 0, 1], 0x02), None),
        (
            "decide: new connection",
            segment([10, 0, 19, 7], 0x02),
            None,
        ),
        (
            "decide: established",
            segment([10, 0, 19, 7], 0x10),
            Some(SocketState::Established),
        ),
    ];
    let mut lines = Vec::new();
    for (what, packet, socket) in cases {
        let tables = tables(socket);
        let (rate, _, ratio) = turns(
            ROUNDS,
            || {
                for _ in 0..PACKETS {
                    let flow = parse(std::hint::black_box(packet.as_slice()));
                    let verdict = flow.map(|flow| decide(&flow, hook, &tables));
                    let _ = std::hint::black_box(verdict);
                }
                PACKETS
            },
            || {
                for _ in 0..PACKETS {
                    let key = std::hint::black_box(address([10, 0, 19, 7]));
                    let _ = std::hint::black_box(tables.frontends.get(&(key, 80)));
                }
                PACKETS
            },
        );
        let figure = format!("{}/s", short(rate));
        lines.push(Line::beside(
            what,
            figure,
            "one look-up in 10,000 frontends",
            ratio,
        ));
    }
    lines
}
