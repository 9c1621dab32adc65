//! TCP between pods, nodes and the outside, without hooks or services.

use rstest::rstest;

use super::*;
use crate::net::tcp::Caller;
use crate::process::{SocketError, SocketEvent};

#[rstest]
#[case::same_node("pod default/client", "pod default/near", "10.0.1.2:80", 100)]
#[case::same_node_v6("pod default/client", "pod default/near", "[fd00:1::2]:80", 100)]
#[case::other_node("pod default/client", "pod default/far", "10.0.2.1:80", 100)]
#[case::other_node_v6("pod default/client", "pod default/far", "[fd00:2::1]:80", 100)]
#[case::a_megabyte("pod default/client", "pod default/near", "10.0.1.2:80", 1_000_000)]
#[case::a_megabyte_far("pod default/client", "pod default/far", "[fd00:2::1]:80", 1_000_000)]
#[case::itself("pod default/client", "pod default/client", "10.0.1.1:80", 100)]
#[case::loopback("pod default/client", "pod default/client", "127.0.0.1:80", 100)]
#[case::loopback_v6("node one", "node one", "[::1]:80", 100)]
#[case::node_to_node("node one", "node two", "192.168.0.2:80", 100)]
#[case::node_to_pod("node one", "pod default/far", "10.0.2.1:80", 100)]
#[case::node_to_itself("node one", "node one", "192.168.0.1:80", 100)]
#[case::pod_to_its_node("pod default/client", "node one", "192.168.0.1:80", 100)]
#[case::outside_to_node("outside client", "node two", "192.168.0.2:80", 100)]
#[case::pod_to_outside("pod default/far", "outside client", "203.0.113.9:80", 100)]
fn bytes_come_back_as_they_were_sent(
    #[case] from: &str,
    #[case] server: &str,
    #[case] to: &str,
    #[case] size: usize,
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let mut world = world(redirect);
    let echo = echo(&mut world, server, None, 80);
    let (id, way) = ask(&mut world, from, to, size);
    run(&mut world, id);
    let asker = asker(&world, id);
    assert_eq!(asker.end, Some(SocketEvent::Closed), "{}", trace(&world));
    let sent = process::pattern(size);
    assert!(asker.got == sent, "got {} bytes", asker.got.len());
    assert_eq!(asker.peer, Some(at(to)));
    let saw = &world.process::<Echo>(echo).unwrap().saw;
    assert_eq!(saw, &[(at(to), asker.local.unwrap(), Some(way))]);
}

#[rstest]
#[case::nobody_listens("10.0.2.1:81", SocketError::Refused)]
#[case::nobody_has_it("10.9.9.9:80", SocketError::TimedOut)]
#[case::nobody_listens_v6("[fd00:2::1]:81", SocketError::Refused)]
#[case::nobody_has_it_v6("[fd00:99::]:80", SocketError::TimedOut)]
fn a_connect_fails_with_its_reason(#[case] to: &str, #[case] error: SocketError) {
    let mut world = world(Redirect::Tc);
    echo(&mut world, "pod default/far", None, 80);
    let (id, _) = ask(&mut world, "pod default/client", to, 1);
    run(&mut world, id);
    assert_eq!(asker(&world, id).events, [SocketEvent::Failed(error)]);
    let last = match error {
        SocketError::TimedOut => "no-route",
        _ => "delivered",
    };
    assert_eq!(world.hops().last().unwrap().what.name(), last);
}

#[test]
fn a_closed_half_still_reads() {
    let mut world = world(Redirect::Tc);
    echo(&mut world, "pod default/far", None, 80);
    // Far more than all buffers: most of it comes back after the FIN was sent.
    let (id, _) = ask(&mut world, "pod default/client", "10.0.2.1:80", 200_000);
    run(&mut world, id);
    let asker = asker(&world, id);
    assert_eq!(asker.got.len(), 200_000);
    let tail = &asker.events[asker.events.len() - 2..];
    assert_eq!(tail, [SocketEvent::PeerClosed, SocketEvent::Closed]);
}

#[test]
fn a_port_is_listened_on_once() {
    let mut world = world(Redirect::Tc);
    let stack = world.stack(&place("node one")).unwrap();
    let process = echo(&mut world, "node one", Some("127.0.0.1"), 80);
    let caller = Caller { process, uid: 0 };
    let tcp = &mut world.network_mut().tcp;
    use crate::process::CallError::{AddressInUse, NoAddress};
    assert_eq!(tcp.listen(stack, caller, None, 80), Err(AddressInUse));
    let same = Some(ip("127.0.0.1"));
    assert_eq!(tcp.listen(stack, caller, same, 80), Err(AddressInUse));
    assert!(tcp.listen(stack, caller, Some(ip("::1")), 80).is_ok());
    let foreign = Some(ip("10.0.1.1"));
    assert_eq!(tcp.listen(stack, caller, foreign, 81), Err(NoAddress));
}

#[test]
fn a_full_backlog_drops_syns() {
    let settings = Settings {
        backlog: 0,
        ..settings(Redirect::Tc)
    };
    let mut world = World::new(&topology(), settings, Box::new(NodewayDatapath)).unwrap();
    echo(&mut world, "pod default/far", None, 80);
    let (id, _) = ask(&mut world, "pod default/client", "10.0.2.1:80", 1);
    run(&mut world, id);
    let error = SocketEvent::Failed(SocketError::TimedOut);
    assert_eq!(asker(&world, id).events, [error]);
    assert_eq!(world.hops().last().unwrap().what, Happening::BacklogFull);
}
