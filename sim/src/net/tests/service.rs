//! kube-proxy's translation of what no hook redirects.

use nodeway_core::netfilter::kube_proxy::{ExternalKind, ServicePort};
use nodeway_core::plan::PlannedEndpoint;
use nodeway_core::trace::Step;
use rstest::rstest;

use super::*;
use crate::process::{SocketError, SocketEvent};

/// A service at one address, and how long its clients stay with an endpoint.
fn serve(world: &mut World, address: &str, endpoints: &[&str], affinity: Option<Duration>) {
    let address = at(address);
    let endpoint = |text: &&str| PlannedEndpoint {
        address: at(text),
        pod: None,
        node: None,
    };
    let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
    let inside = address.ip().to_string().contains("96");
    let port = ServicePort {
        name: "default/echo".to_owned(),
        cluster: inside.then_some(address.ip()).into_iter().collect(),
        external: (!inside)
            .then_some((address.ip(), ExternalKind::ExternalIp))
            .into_iter()
            .collect(),
        port: address.port(),
        node_port: None,
        endpoints: endpoints.iter().map(|it| (it.address, false)).collect(),
        external_local: false,
        internal_local: false,
        affinity,
        source_ranges: Vec::new(),
    };
    let entry = ServiceEntry {
        service: ObjectRef::new(Kind::Service, "default", "echo"),
        endpoints,
    };
    let table = ServiceTable {
        ports: vec![port],
        entries: [((address.ip(), address.port()), entry)].into(),
    };
    world.translate_services(None, table).unwrap();
}

#[rstest]
#[case::same_node(
    "pod default/client",
    "10.96.0.9:80",
    "pod default/near",
    "10.0.1.2:8080",
    None
)]
#[case::other_node(
    "pod default/client",
    "10.96.0.9:80",
    "pod default/far",
    "10.0.2.1:8080",
    None
)]
#[case::v6(
    "pod default/client",
    "[fd00:96::9]:80",
    "pod default/far",
    "[fd00:2::1]:8080",
    None
)]
#[case::node("node one", "10.96.0.9:80", "pod default/far", "10.0.2.1:8080", None)]
#[case::outside(
    "outside client",
    "172.18.0.100:80",
    "pod default/far",
    "10.0.2.1:8080",
    Some("192.168.0.1")
)]
#[case::node_port(
    "outside client",
    "192.168.0.2:30080",
    "pod default/near",
    "10.0.1.2:8080",
    Some("192.168.0.2")
)]
#[case::hairpin(
    "pod default/near",
    "10.96.0.9:80",
    "pod default/near",
    "10.0.1.2:8080",
    Some("192.168.0.1")
)]
fn the_client_never_notices_a_translation(
    #[case] from: &str,
    #[case] to: &str,
    #[case] server: &str,
    #[case] endpoint: &str,
    #[case] masqueraded: Option<&str>,
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let mut world = world(redirect);
    let server = echo(&mut world, server, None, 8080);
    serve(&mut world, to, &[endpoint], None);
    let (id, way) = ask(&mut world, from, to, 20_000);
    run(&mut world, id);
    let asker = asker(&world, id);
    assert_eq!(asker.end, Some(SocketEvent::Closed), "{}", trace(&world));
    assert_eq!((asker.got.len(), asker.peer), (20_000, Some(at(to))));
    let (local, peer, _) = world.process::<Echo>(server).unwrap().saw[0];
    assert_eq!(local, at(endpoint));
    let client = asker.local.unwrap().ip();
    assert_eq!(peer.ip(), masqueraded.map_or(client, ip));
    let steps = &world.way(way).unwrap().steps;
    let translated = steps.iter().find_map(|(_, step)| match step {
        Step::Translation(step) => Some(step),
        _ => None,
    });
    let translated = translated.unwrap();
    assert_eq!(translated.to.as_ref().unwrap().address, at(endpoint));
    assert_eq!(translated.masqueraded, masqueraded.is_some());
}

#[rstest]
#[case::pod("pod default/client", "10.96.0.9:80")]
#[case::pod_v6("pod default/client", "[fd00:96::9]:80")]
#[case::node("node one", "10.96.0.9:80")]
#[case::outside("outside client", "172.18.0.100:80")]
fn a_service_without_endpoints_refuses_at_once(#[case] from: &str, #[case] to: &str) {
    let mut world = world(Redirect::Tc);
    serve(&mut world, to, &[], None);
    let (id, way) = ask(&mut world, from, to, 10);
    run(&mut world, id);
    let refused = SocketEvent::Failed(SocketError::Refused);
    assert_eq!(asker(&world, id).events, [refused], "{}", trace(&world));
    assert!(world.now() < Time::from_nanos(2_000_000));
    let (_, last) = world.way(way).unwrap().steps.last().unwrap();
    assert!(matches!(last, Step::Translation(step) if step.to.is_none()));
}

#[rstest]
#[case::tc(Redirect::Tc)]
#[case::sk_lookup(Redirect::SkLookup)]
#[case::iptables(Redirect::Iptables)]
fn a_frontend_comes_before_the_service(#[case] redirect: Redirect) {
    let mut world = world(redirect);
    let proxy = echo(&mut world, "node one", Some("127.0.0.1"), 10_001);
    let backend = echo(&mut world, "pod default/near", None, 8080);
    lead(&mut world, "10.96.0.9:80", 10_001);
    serve(&mut world, "10.96.0.9:80", &["10.0.1.2:8080"], None);
    for from in ["pod default/client", "node one"] {
        let (id, _) = ask(&mut world, from, "10.96.0.9:80", 10);
        run(&mut world, id);
        assert_eq!(asker(&world, id).end, Some(SocketEvent::Closed));
    }
    assert_eq!(world.process::<Echo>(proxy).unwrap().saw.len(), 2);
    assert_eq!(world.process::<Echo>(backend).unwrap().saw, []);
}

#[test]
fn connections_are_spread_unless_the_client_stays() {
    let count = |affinity: Option<Duration>| {
        let mut world = world(Redirect::Tc);
        let near = echo(&mut world, "pod default/near", None, 8080);
        echo(&mut world, "pod default/far", None, 8080);
        let endpoints = ["10.0.1.2:8080", "10.0.2.1:8080"];
        serve(&mut world, "10.96.0.9:80", &endpoints, affinity);
        for _ in 0..20 {
            let (id, _) = ask(&mut world, "pod default/client", "10.96.0.9:80", 1);
            run(&mut world, id);
        }
        world.process::<Echo>(near).unwrap().saw.len()
    };
    assert!((3..=17).contains(&count(None)));
    assert!([0, 20].contains(&count(Some(Duration::from_secs(10_800)))));
}
