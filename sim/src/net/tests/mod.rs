//! Two nodes, three pods, a host outside; small processes that echo, ask and count.

mod echo;
mod garbage;
mod process;
mod redirect;
mod service;
mod sidecar;
mod teardown;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodeway_core::object::{Kind, ObjectRef};
use nodeway_core::plan::{FrontendKey, FrontendKind, PlanDelta, PlannedFrontend, Update};
use nodeway_core::redirect::Redirect;
use nodeway_core::trace::Failure;

use super::*;
use crate::process::{SocketError, WayId};
use crate::seed::Seed;
use crate::time::Time;
use crate::world::{ProcessId, World};
use process::{Asker, Echo};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn pod(name: &str, addresses: [&str; 2]) -> PodSpec {
    PodSpec {
        name: name.to_owned(),
        addresses: addresses.map(ip).to_vec(),
        host_network: false,
    }
}

fn topology() -> Topology {
    Topology {
        nodes: vec![
            NodeSpec {
                name: "one".to_owned(),
                addresses: vec![ip("192.168.0.1"), ip("fd00::1")],
                pods: vec![
                    pod("default/client", ["10.0.1.1", "fd00:1::1"]),
                    pod("default/near", ["10.0.1.2", "fd00:1::2"]),
                ],
            },
            NodeSpec {
                name: "two".to_owned(),
                addresses: vec![ip("192.168.0.2"), ip("fd00::2")],
                pods: vec![pod("default/far", ["10.0.2.1", "fd00:2::1"])],
            },
        ],
        outside: vec![HostSpec {
            name: "client".to_owned(),
            addresses: vec![ip("203.0.113.9"), ip("2001:db8::9")],
        }],
        announcements: [
            (ip("172.18.0.100"), "one".to_owned()),
            (ip("fd00:18::100"), "one".to_owned()),
        ]
        .into(),
    }
}

fn settings(redirect: Redirect) -> Settings {
    Settings {
        seed: Seed(1),
        redirect,
        trace_packets: true,
        connect_timeout: Duration::from_secs(5),
        ..Settings::default()
    }
}

fn world(redirect: Redirect) -> World {
    World::new(&topology(), settings(redirect), Box::new(NodewayDatapath)).unwrap()
}

/// `pod default/client`, `node one`, `outside client`.
fn place(text: &str) -> Place {
    match text.split_once(' ') {
        Some(("pod", name)) => Place::Pod(name.to_owned()),
        Some(("node", name)) => Place::Node(name.to_owned()),
        Some(("outside", name)) => Place::Outside(name.to_owned()),
        _ => panic!("no place: {text}"),
    }
}

fn echo(world: &mut World, text: &str, address: Option<&str>, port: u16) -> ProcessId {
    let stack = world.stack(&place(text)).unwrap();
    world.spawn(stack, Box::new(Echo::new(address.map(ip), port)))
}

/// Starts a client that sends `size` bytes and waits for them to come back.
fn ask(world: &mut World, text: &str, to: &str, size: usize) -> (ProcessId, WayId) {
    let way = world.open_way();
    let stack = world.stack(&place(text)).unwrap();
    let asker = Asker::new(at(to), size, Some(way));
    (world.spawn(stack, Box::new(asker)), way)
}

fn run(world: &mut World, id: ProcessId) {
    let limit = world.now() + Duration::from_secs(60);
    world.run_until(limit, |world| {
        world.process::<Asker>(id).unwrap().end.is_some()
    });
}

fn asker(world: &World, id: ProcessId) -> &Asker {
    world.process(id).unwrap()
}

/// Leads `address` on node `one` to the listener on loopback's port.
fn lead(world: &mut World, address: &str, listener_port: u16) {
    let address = at(address);
    let frontend = PlannedFrontend {
        ranges: None,
        kind: FrontendKind::ClusterIp,
        listener: "default/ingress/listener".into(),
        listener_port,
        service: ObjectRef::new(Kind::Service, "default", "ingress"),
        service_port: address.port(),
        config: ObjectRef::new(Kind::CiliumEnvoyConfig, "default", "ingress"),
    };
    let key = FrontendKey {
        address: address.ip(),
        port: address.port(),
    };
    let delta = PlanDelta {
        frontends: [(key, Update::Put(frontend))].into(),
        ..PlanDelta::default()
    };
    world.apply("one", &delta).unwrap();
}

fn trace(world: &World) -> String {
    let lines: Vec<String> = world.hops().iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn one_seed_gives_one_run_and_another_seed_another_timing() {
    let traced = |seed: u64| {
        let settings = Settings {
            seed: Seed(seed),
            ..settings(Redirect::Tc)
        };
        let mut world = World::new(&topology(), settings, Box::new(NodewayDatapath)).unwrap();
        echo(&mut world, "pod default/far", None, 80);
        let (id, _) = ask(&mut world, "pod default/client", "10.0.2.1:80", 5_000);
        run(&mut world, id);
        (world.now(), trace(&world))
    };
    assert_eq!(traced(1), traced(1));
    assert_ne!(traced(1).0, traced(2).0);
}

#[test]
fn a_topology_that_contradicts_itself_is_refused_by_name() {
    let mut twice = topology();
    twice.nodes[1].pods[0].addresses = vec![ip("10.0.1.1")];
    let error = Network::new(&twice, settings(Redirect::Tc), Box::new(NodewayDatapath));
    assert_eq!(
        error.err().unwrap().to_string(),
        "default/far has the address 10.0.1.1, which is default/client's; give it another"
    );
    let mut nobody = topology();
    nobody.announcements = [(ip("1.2.3.4"), "three".to_owned())].into();
    let error = Network::new(&nobody, settings(Redirect::Tc), Box::new(NodewayDatapath));
    assert_eq!(
        error.err().unwrap().to_string(),
        "1.2.3.4 is announced by node `three`, but there is no such node"
    );
}

/// How a connection to a frontend without a listener ends.
fn closed(redirect: Redirect) -> SocketError {
    match redirect.without_listener() {
        Failure::ConnectionRefused => SocketError::Refused,
        _ => SocketError::TimedOut,
    }
}
