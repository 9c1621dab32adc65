//! How connections end: killed processes, resets, TIME_WAIT, silence.

use rstest::rstest;

use super::*;
use crate::process::{SocketError, SocketEvent};

/// A client that leaves its connection open.
fn hold(world: &mut World, from: &str, to: &str, size: usize) -> ProcessId {
    let stack = world.stack(&place(from)).unwrap();
    world.spawn(stack, Box::new(Asker::new(at(to), size, None).holding()))
}

fn pass(world: &mut World, time: Duration) {
    let until = world.now() + time;
    assert!(!world.run_until(until, |_| false));
    assert_eq!(world.now(), until);
}

#[rstest]
#[case::pod("pod default/client", "10.0.2.1:80", "pod default/far", 80)]
#[case::redirected("pod default/client", "10.96.0.5:80", "node one", 10_001)]
#[case::node("node one", "10.96.0.5:80", "node one", 10_001)]
fn a_killed_process_closes_what_it_had_and_takes_nothing_new(
    #[case] from: &str,
    #[case] to: &str,
    #[case] server: &str,
    #[case] port: u16,
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let mut world = world(redirect);
    lead(&mut world, "10.96.0.5:80", 10_001);
    let server = echo(&mut world, server, None, port);
    let held = hold(&mut world, from, to, 10);
    pass(&mut world, Duration::from_millis(50));
    assert_eq!(asker(&world, held).got.len(), 10);
    world.kill(server);
    assert!(!world.alive(server));
    pass(&mut world, Duration::from_millis(50));
    let told = asker(&world, held).events.last();
    assert_eq!(told, Some(&SocketEvent::PeerClosed));
    let (id, _) = ask(&mut world, from, to, 10);
    run(&mut world, id);
    let ended = match to.starts_with("10.96.") {
        true => closed(redirect),
        false => SocketError::Refused,
    };
    let ended = SocketEvent::Failed(ended);
    assert_eq!(asker(&world, id).events, [ended], "{}", trace(&world));
}

#[test]
fn a_killed_process_that_had_not_read_resets() {
    let mut world = world(Redirect::Tc);
    let server = echo(&mut world, "pod default/far", None, 80);
    world.process_mut::<Echo>(server).unwrap().reads = false;
    let held = hold(&mut world, "pod default/client", "10.0.2.1:80", 10);
    pass(&mut world, Duration::from_millis(50));
    world.kill(server);
    pass(&mut world, Duration::from_millis(50));
    let reset = SocketEvent::Failed(SocketError::Reset);
    assert_eq!(asker(&world, held).end, Some(reset));
}

#[test]
fn what_a_dead_process_is_sent_is_answered_by_reset() {
    let mut world = world(Redirect::Tc);
    let server = echo(&mut world, "pod default/far", None, 80);
    // More than all buffers: the client is still sending when the server dies having read all.
    let held = hold(&mut world, "pod default/client", "10.0.2.1:80", 1_000_000);
    pass(&mut world, Duration::from_millis(2));
    world.kill(server);
    pass(&mut world, Duration::from_secs(1));
    let reset = SocketEvent::Failed(SocketError::Reset);
    assert_eq!(asker(&world, held).end, Some(reset));
}

#[test]
fn a_peer_that_vanishes_is_given_up() {
    let settings = Settings {
        retransmit_timeout: Duration::from_secs(20),
        ..settings(Redirect::Tc)
    };
    let mut world = World::new(&topology(), settings, Box::new(NodewayDatapath)).unwrap();
    let server = echo(&mut world, "pod default/far", None, 80);
    world.process_mut::<Echo>(server).unwrap().reads = false;
    let held = hold(&mut world, "pod default/client", "10.0.2.1:80", 200_000);
    pass(&mut world, Duration::from_millis(50));
    // Nothing is acknowledged beyond the server's buffer, ever.
    assert_eq!(asker(&world, held).end, None);
    world.network_mut().fabric.clear();
    pass(&mut world, Duration::from_secs(30));
    let error = SocketEvent::Failed(SocketError::TimedOut);
    assert_eq!(asker(&world, held).end, Some(error));
}

#[test]
fn an_idle_connection_lives_for_days() {
    let mut world = world(Redirect::Tc);
    echo(&mut world, "pod default/far", None, 80);
    let held = hold(&mut world, "pod default/client", "10.0.2.1:80", 10);
    pass(&mut world, Duration::from_secs(200_000));
    let events = &asker(&world, held).events;
    assert_eq!(events, &[SocketEvent::Connected, SocketEvent::Readable]);
    assert!(world.hops().len() < 200, "nothing is sent meanwhile");
}

#[rstest]
#[case::pod("pod default/client", "10.0.2.1:80", "pod default/far", 80)]
#[case::redirected("pod default/client", "10.96.0.5:80", "node one", 10_001)]
fn a_syn_takes_over_a_port_in_time_wait(
    #[case] from: &str,
    #[case] to: &str,
    #[case] server: &str,
    #[case] port: u16,
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    use super::super::stack::Tuple;
    let mut world = world(redirect);
    lead(&mut world, "10.96.0.5:80", 10_001);
    let server_id = echo(&mut world, server, None, port);
    // The server closes first, so that TIME_WAIT is on its side.
    let held = hold(&mut world, from, to, 10);
    pass(&mut world, Duration::from_millis(50));
    let local = asker(&world, held).local.unwrap();
    let (client, host) = (
        world.stack(&place(from)).unwrap(),
        world.stack(&place(server)).unwrap(),
    );
    let tuple = Tuple::new(at(to), local);
    world.kill(server_id);
    pass(&mut world, Duration::from_millis(50));
    world.kill(held);
    pass(&mut world, Duration::from_millis(50));
    let now = world.now();
    assert!(world.network_mut().tcp.in_time_wait(now, host, &tuple));
    // The client's stack, restarted, uses the same port again.
    world.network_mut().tcp.stacks[client.index()].next_port = local.port();
    let again = echo(&mut world, server, None, port);
    let (id, _) = ask(&mut world, from, to, 10);
    run(&mut world, id);
    assert_eq!(asker(&world, id).local, Some(local));
    let end = asker(&world, id).end;
    assert_eq!(end, Some(SocketEvent::Closed), "{}", trace(&world));
    assert_eq!(world.process::<Echo>(again).unwrap().saw.len(), 1);
}

#[test]
fn both_wait_when_both_close_at_once() {
    use super::super::stack::Tuple;
    let mut world = world(Redirect::Tc);
    let server = echo(&mut world, "pod default/far", None, 80);
    let held = hold(&mut world, "pod default/client", "10.0.2.1:80", 10);
    pass(&mut world, Duration::from_millis(50));
    let (to, local) = (at("10.0.2.1:80"), asker(&world, held).local.unwrap());
    world.kill(server);
    world.kill(held);
    pass(&mut world, Duration::from_millis(50));
    let now = world.now();
    for (stack, tuple) in [
        ("pod default/far", Tuple::new(to, local)),
        ("pod default/client", Tuple::new(local, to)),
    ] {
        let stack = world.stack(&place(stack)).unwrap();
        assert!(world.network_mut().tcp.in_time_wait(now, stack, &tuple));
    }
}

#[test]
fn everything_is_forgotten_in_the_end() {
    let mut world = world(Redirect::Tc);
    let server = echo(&mut world, "pod default/far", None, 80);
    for _ in 0..10 {
        let (id, _) = ask(&mut world, "pod default/client", "10.0.2.1:80", 10_000);
        run(&mut world, id);
        world.kill(id);
    }
    world.kill(server);
    pass(&mut world, Duration::from_secs(200));
    for stack in &world.network_mut().tcp.stacks {
        assert!(stack.connections.is_empty() && stack.listening.is_empty());
    }
    assert!(!world.step(), "nothing is left to happen");
}
