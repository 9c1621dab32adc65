//! Whatever is put onto a wire, nothing panics, and who behaves goes on being served.

use proptest::prelude::*;

use super::super::event::Event;
use super::super::link::{Arrival, Port};
use super::super::packet::Packet;
use super::*;
use crate::process::SocketEvent;

/// Bytes that look like a packet: an IP header, perhaps TCP, then flipped bytes.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let heads = prop_oneof![
        Just(hex(
            "45000028000040004006000 00a0001010a000201 9c40005000000001000000005002ffff00000000"
        )),
        Just(hex(
            "450000280000400040060000 0a000101 0a600005 9c40005000000001000000005002ffff00000000"
        )),
        Just(hex(
            "4500003800004000400100000a0001010a000201 0303000000000000 45000028000040004006000 00a0002010a0001010050 9c4000000001"
        )),
        Just(hex(concat!(
            "6000000000140640 fd000001000000000000000000000001 fd000002000000000000000000000001",
            "9c40005000000001000000005002ffff00000000"
        ))),
        Just(Vec::new()),
    ];
    let flips = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let tail = proptest::collection::vec(any::<u8>(), 0..80);
    (heads, flips, tail).prop_map(|(mut bytes, flips, tail)| {
        bytes.extend(tail);
        for (index, value) in flips {
            if !bytes.is_empty() {
                let index = index.index(bytes.len());
                bytes[index] = value;
            }
        }
        bytes
    })
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| *byte != b' ')
        .map(|byte| u8::try_from((byte as char).to_digit(16).unwrap()).unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_harms_nobody(
        packets in proptest::collection::vec((0..4_u8, mangled()), 1..40),
        sk_lookup: bool,
    ) {
        let redirect = if sk_lookup { Redirect::SkLookup } else { Redirect::Tc };
        let mut world = world(redirect);
        echo(&mut world, "pod default/far", None, 80);
        echo(&mut world, "node one", None, 10_001);
        lead(&mut world, "10.96.0.5:80", 10_001);
        let client = world.stack(&place("pod default/client")).unwrap();
        let far = world.stack(&place("pod default/far")).unwrap();
        for (port, bytes) in packets {
            let port = match port {
                0 => Port::Veth(client),
                1 => Port::Uplink(0),
                2 => Port::Uplink(1),
                _ => Port::Stack(far),
            };
            let now = world.now();
            let events = &mut world.network_mut().events;
            let lane = events.lane();
            events.send(Arrival::InTurn(lane, now), port, Packet { bytes, ..Packet::default() });
        }
        let (id, _) = ask(&mut world, "pod default/client", "10.96.0.5:80", 1_000);
        run(&mut world, id);
        prop_assert_eq!(asker(&world, id).end, Some(SocketEvent::Closed));
        prop_assert_eq!(asker(&world, id).got.len(), 1_000);
    }
}

#[test]
fn a_stale_event_is_no_event() {
    let mut world = world(Redirect::Tc);
    let network = world.network_mut();
    network
        .events
        .add(Time::ZERO, Event::Socket(crate::process::SocketId(7)));
    network
        .events
        .add(Time::ZERO, Event::Timer(crate::process::TimerId(7)));
    assert!(world.step() && world.step() && !world.step());
}
