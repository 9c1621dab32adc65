//! Pods with rules and a proxy of their own.

use rstest::rstest;

use super::*;
use crate::envoy::NodeProxy;
use crate::process::SocketEvent;
use crate::proxies::proxy;

fn sidecar(world: &mut World, node: &str, pod: &str) -> ProcessId {
    let place = Place::Pod(pod.to_owned());
    let mut proxy = proxy(world, node, &place, 1);
    proxy.apply(&PlanDelta::default());
    let stack = world.stack(&place).unwrap();
    world.spawn(stack, Box::new(proxy))
}

/// `default/client` and `default/far` have one, `default/near` has not.
fn with_sidecars() -> (World, ProcessId, ProcessId) {
    let mut world = world(Redirect::Sidecar);
    let client = sidecar(&mut world, "one", "default/client");
    let far = sidecar(&mut world, "two", "default/far");
    (world, client, far)
}

fn pass(world: &mut World, time: Duration) {
    let until = world.now() + time;
    world.run_until(until, |_| false);
}

#[rstest]
#[case::v4("10.0.2.1:80", "127.0.0.6")]
#[case::v6("[fd00:2::1]:80", "::6")]
fn bytes_go_through_both_proxies_and_the_backend_sees_its_own(
    #[case] to: &str,
    #[case] from: &str,
    #[values(100, 1_000_000)] size: usize,
) {
    let (mut world, client, far) = with_sidecars();
    let server = echo(&mut world, "pod default/far", None, 80);
    let (id, way) = ask(&mut world, "pod default/client", to, size);
    run(&mut world, id);
    assert_eq!(asker(&world, id).got, process::pattern(size));
    assert_eq!(
        asker(&world, id).peer,
        Some(at(to)),
        "as if nothing were between"
    );
    let (local, peer, _) = world.process::<Echo>(server).unwrap().saw[0];
    assert_eq!((local, peer.ip()), (at(to), ip(from)));
    for proxy in [client, far] {
        let counters = world.process::<NodeProxy>(proxy).unwrap().counters();
        assert_eq!((counters.connections, counters.upstream_connects), (1, 1));
    }
    // lo, veth, uplink, veth, lo
    assert_eq!(world.way(way).unwrap().hops, 5);
}

#[test]
fn a_client_without_a_proxy_meets_that_of_the_server_alone() {
    let (mut world, client, far) = with_sidecars();
    let server = echo(&mut world, "pod default/far", None, 80);
    let (id, way) = ask(&mut world, "pod default/near", "10.0.2.1:80", 10);
    run(&mut world, id);
    assert_eq!(asker(&world, id).got.len(), 10);
    assert_eq!(
        world.process::<Echo>(server).unwrap().saw[0].1.ip(),
        ip("127.0.0.6")
    );
    let connections = |id| {
        world
            .process::<NodeProxy>(id)
            .unwrap()
            .counters()
            .connections
    };
    assert_eq!((connections(client), connections(far)), (0, 1));
    assert_eq!(world.way(way).unwrap().hops, 4);
}

#[rstest]
#[case::by_its_address("10.0.1.1:80", "10.0.1.1")]
#[case::by_loopback("127.0.0.1:80", "127.0.0.1")]
#[case::by_loopback_v6("[::1]:80", "::1")]
fn a_pod_that_asks_itself_meets_no_proxy(#[case] to: &str, #[case] from: &str) {
    let (mut world, client, _) = with_sidecars();
    let server = echo(&mut world, "pod default/client", None, 80);
    let (id, way) = ask(&mut world, "pod default/client", to, 10);
    run(&mut world, id);
    assert_eq!(asker(&world, id).got.len(), 10);
    assert_eq!(
        world.process::<Echo>(server).unwrap().saw[0].1.ip(),
        ip(from)
    );
    let counters = world.process::<NodeProxy>(client).unwrap().counters();
    assert_eq!(counters.connections, 0);
    assert_eq!(world.way(way).unwrap().hops, 1);
}

#[rstest]
#[case::for_what_the_pod_gets("10.0.2.1:15006")]
#[case::for_what_the_pod_sends("10.0.2.1:15001")]
fn who_asks_for_the_proxys_own_ports_is_not_passed_on_for_ever(#[case] to: &str) {
    let (mut world, _, far) = with_sidecars();
    let (id, _) = ask(&mut world, "pod default/near", to, 10);
    run(&mut world, id);
    assert_eq!(asker(&world, id).got, [0_u8; 0]);
    assert!(matches!(
        asker(&world, id).end,
        Some(SocketEvent::Failed(_))
    ));
    pass(&mut world, Duration::from_secs(200));
    let counters = world.process::<NodeProxy>(far).unwrap().counters();
    assert!(counters.upstream_connects <= 1, "{counters:?}");
}

#[rstest]
#[case::its_own("default/client", "one")]
#[case::the_servers("default/far", "two")]
fn without_a_proxy_what_stands_ends_and_what_is_new_is_refused(
    #[case] whose: &str,
    #[case] node: &str,
) {
    let (mut world, client, far) = with_sidecars();
    echo(&mut world, "pod default/far", None, 80);
    let stack = world.stack(&place("pod default/client")).unwrap();
    let held = Asker::new(at("10.0.2.1:80"), 10, None).holding();
    let held = world.spawn(stack, Box::new(held));
    pass(&mut world, Duration::from_millis(50));
    assert_eq!(asker(&world, held).got.len(), 10);
    let killed = if whose == "default/client" {
        client
    } else {
        far
    };
    world.kill(killed);
    pass(&mut world, Duration::from_millis(50));
    assert_eq!(
        asker(&world, held).events.last(),
        Some(&SocketEvent::PeerClosed)
    );
    let end = |world: &mut World, from: &str| {
        let (id, _) = ask(world, from, "10.0.2.1:80", 10);
        run(world, id);
        (asker(world, id).got.len(), asker(world, id).end)
    };
    let refused = Some(SocketEvent::Failed(SocketError::Refused));
    if killed == client {
        // The rules go on to redirect all that the pod sends; nobody else notices.
        assert_eq!(end(&mut world, "pod default/client"), (0, refused));
        assert_eq!(end(&mut world, "pod default/near").0, 10);
    } else {
        // The client's proxy has taken the connection before it learns that.
        let reset = Some(SocketEvent::Failed(SocketError::Reset));
        assert_eq!(end(&mut world, "pod default/client"), (0, reset));
        assert_eq!(end(&mut world, "pod default/near"), (0, refused));
    }
    sidecar(&mut world, node, whose);
    assert_eq!(end(&mut world, "pod default/client").0, 10);
}
