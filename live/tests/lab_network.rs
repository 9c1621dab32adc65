//! The machines of a lab, without Envoy and without a redirect. Needs root and iproute2.

use std::net::{IpAddr, SocketAddr};

use nodeway_core::backend::Identity;
use nodeway_core::trace::Failure;
use nodeway_live::backend::{Backends, Program};
use nodeway_live::client::{self, Spoken};
use nodeway_live::lab::machines::Machines;
use nodeway_live::lab::name::LabName;
use nodeway_live::netns::NetNs;
use nodeway_sim::{Ask, Fixture, Place, Sim};
use rstest::rstest;

/// A lab's machines, taken away at the end, also of a test that fails.
struct Ground {
    sim: Sim,
    machines: Machines,
    _namespaces: Namespaces,
}

struct Namespaces(LabName);

impl Drop for Namespaces {
    fn drop(&mut self) {
        let _ = Machines::delete(&self.0);
    }
}

fn ground(fixture: &str, test: &str) -> Ground {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/");
    let fixture = Fixture::load(format!("{root}{fixture}")).unwrap();
    let sim = Sim::from_fixture(&fixture).unwrap().start().unwrap();
    let name = LabName::new(&format!("{test}-{}", std::process::id())).unwrap();
    let namespaces = Namespaces(name.clone());
    let machines = Machines::create(sim.topology(), &name);
    Ground {
        machines: machines.expect("this test needs root, and `ip` of iproute2"),
        sim,
        _namespaces: namespaces,
    }
}

impl Ground {
    fn space(&self, place: &str) -> &NetNs {
        let place = match place.split_once('/').unwrap() {
            ("node", name) => Place::Node(name.to_owned()),
            ("outside", name) => Place::Outside(name.to_owned()),
            _ => Place::Pod(place.to_owned()),
        };
        self.machines.get(&place).unwrap()
    }

    /// The address of a pod, node or host, of that family.
    fn address(&self, place: &str, v6: bool) -> IpAddr {
        let topology = self.sim.topology();
        let (kind, name) = place.split_once('/').unwrap();
        let nodes = topology.nodes.iter();
        let addresses = match kind {
            "node" => nodes
                .clone()
                .find(|it| it.name == name)
                .unwrap()
                .addresses
                .clone(),
            "outside" => topology.outside[0].addresses.clone(),
            _ => {
                let mut pods = nodes.flat_map(|node| &node.pods);
                pods.find(|it| it.name == place).unwrap().addresses.clone()
            }
        };
        addresses.into_iter().find(|it| it.is_ipv6() == v6).unwrap()
    }

    fn echo(&self, place: &str) -> Backends {
        let program = Program {
            identity: Identity {
                pod: place.to_owned(),
                ..Identity::default()
            },
            ports: vec![8080],
            tls: None,
        };
        Backends::start(self.space(place), &[program]).unwrap()
    }

    fn ask(&self, from: &str, to: SocketAddr) -> Spoken {
        let ask = Ask::get(format!("http://{to}/a?b=c"));
        client::send(self.space(from), &ask, &ask.target().unwrap(), to).unwrap()
    }
}

/// Every place reaches every other, with its own address.
#[rstest]
#[case::a_pod_on_its_own_node("default/client", "default/productpage-v1-1")]
#[case::a_pod_on_another_node("default/client", "default/details-v1-1")]
#[case::a_pod_itself("default/client", "default/client")]
#[case::a_node_a_pod_of_its_own("node/node-1", "default/productpage-v1-1")]
#[case::a_node_a_pod_elsewhere("node/node-2", "default/productpage-v1-1")]
#[case::a_pod_its_node("default/client", "node/node-1")]
#[case::a_pod_another_node("default/client", "node/node-2")]
#[case::outside_a_node("outside/client", "node/node-2")]
#[case::outside_a_pod("outside/client", "default/details-v1-1")]
fn who_is_asked_sees_who_asks(
    #[case] from: &str,
    #[case] to: &str,
    #[values(false, true)] v6: bool,
) {
    let short = format!("net{}", from.len() * 64 + to.len() * 2 + usize::from(v6));
    let ground = ground("bookinfo", &short);
    let _echo = ground.echo(to);
    let to = SocketAddr::new(ground.address(to, v6), 8080);
    let spoken = ground.ask(from, to);
    let answer = spoken.result.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(spoken.client_saw, Some(to));
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let peer: SocketAddr = body["saw"]["peer"].as_str().unwrap().parse().unwrap();
    assert_eq!(Some(peer), spoken.local);
    assert_eq!(peer.ip(), ground.address(from, v6));
}

/// What nobody has is met with silence, as in the simulator; nothing goes round in circles.
#[rstest]
#[case::an_address_of_nobody("198.51.100.9:80")]
#[case::an_announced_address_that_its_node_leaves_alone("192.0.2.216:80")]
fn who_asks_for_nobody_gives_up(#[case] to: SocketAddr) {
    let ground = ground("bookinfo", &format!("nobody{}", to.to_string().len()));
    let spoken = ground.ask("outside/client", to);
    assert_eq!(spoken.result, Err(Failure::TimedOut));
    assert!(spoken.took.as_secs() < 10, "{:?}", spoken.took);
}

#[test]
fn a_port_on_which_nobody_listens_refuses() {
    let ground = ground("bookinfo", "refuses");
    let to = SocketAddr::new(ground.address("default/details-v1-1", false), 9);
    let spoken = ground.ask("default/client", to);
    assert_eq!(spoken.result, Err(Failure::ConnectionRefused));
}

#[test]
fn programs_end_with_who_started_them_and_leave_the_namespace_free() {
    let ground = ground("bookinfo", "ends");
    let echo = ground.echo("default/client");
    let to = SocketAddr::new(ground.address("default/client", false), 8080);
    assert_eq!(ground.ask("default/client", to).result.unwrap().status, 200);
    drop(echo);
    let spoken = ground.ask("default/client", to);
    assert_eq!(spoken.result, Err(Failure::ConnectionRefused));
}

#[test]
fn a_lab_is_not_made_on_top_of_another() {
    let ground = ground("bookinfo", "twice");
    let name = LabName::new(&format!("twice-{}", std::process::id())).unwrap();
    let error = Machines::create(ground.sim.topology(), &name).unwrap_err();
    assert!(error.to_string().contains("already"), "{error}");
}
