//! Frontends: from a pod, from outside, from the node itself; by tc and by sk_lookup alone.

use nodeway_core::datapath::{Flow, Hook, Reason, Verdict};
use nodeway_core::trace::Step;
use rstest::rstest;

use super::*;
use crate::process::{SocketError, SocketEvent};

const PORT: u16 = 10_001;

/// What the hooks said on a way, by name and reason.
fn verdicts(world: &World, way: WayId) -> Vec<(&'static str, &'static str, Reason)> {
    let steps = &world.way(way).unwrap().steps;
    steps
        .iter()
        .filter_map(|(_, step)| match step {
            Step::Verdict(step) => Some((hook_name(step.hook), step.verdict, step.reason)),
            _ => None,
        })
        .collect()
}

#[rstest]
#[case::pod("pod default/client", "10.96.0.5:80", "127.0.0.1")]
#[case::pod_v6("pod default/client", "[fd00:96::5]:80", "::1")]
#[case::outside_to_load_balancer("outside client", "172.18.0.100:80", "127.0.0.1")]
#[case::outside_to_load_balancer_v6("outside client", "[fd00:18::100]:80", "::1")]
#[case::outside_to_node_port("outside client", "192.168.0.1:30080", "127.0.0.1")]
#[case::another_node_to_node_port("node two", "192.168.0.1:30080", "127.0.0.1")]
#[case::pod_elsewhere_to_node_port("pod default/far", "192.168.0.1:30080", "127.0.0.1")]
fn the_listener_sees_the_original_destination_and_the_client(
    #[case] from: &str,
    #[case] to: &str,
    #[case] loopback: &str,
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let mut world = world(redirect);
    let proxy = echo(&mut world, "node one", Some(loopback), PORT);
    lead(&mut world, to, PORT);
    let (id, way) = ask(&mut world, from, to, 50_000);
    run(&mut world, id);
    let asker = asker(&world, id);
    assert_eq!(asker.end, Some(SocketEvent::Closed), "{}", trace(&world));
    assert_eq!((asker.got.len(), asker.peer), (50_000, Some(at(to))));
    let saw = &world.process::<Echo>(proxy).unwrap().saw;
    assert_eq!(saw, &[(at(to), asker.local.unwrap(), Some(way))]);
    let assigned = ("sk-lookup", "assign", Reason::NewConnection);
    let noted = verdicts(&world, way);
    let by_program = redirect != Redirect::Iptables;
    assert_eq!(noted.last(), by_program.then_some(&assigned));
    let steps = &world.way(way).unwrap().steps;
    let led = steps
        .iter()
        .any(|(_, step)| matches!(step, Step::Rule(it) if it.rule.contains("-j TPROXY")));
    assert_eq!(led, !by_program);
    let at_tc = noted.contains(&("tc-ingress", "deliver", Reason::LeftToSkLookup));
    assert_eq!(at_tc, redirect == Redirect::Tc);
}

#[rstest]
#[case::tc(Redirect::Tc, "127.0.0.1:10001", "127.0.0.1")]
#[case::sk_lookup(Redirect::SkLookup, "10.96.0.5:80", "192.168.0.1")]
#[case::iptables(Redirect::Iptables, "10.96.0.5:80", "192.168.0.1")]
fn a_call_of_the_node_itself_comes_from_an_address_of_its_way(
    #[case] redirect: Redirect,
    #[case] destination: &str,
    #[case] source: &str,
) {
    let mut world = world(redirect);
    let proxy = echo(&mut world, "node one", Some("127.0.0.1"), PORT);
    lead(&mut world, "10.96.0.5:80", PORT);
    let (id, way) = ask(&mut world, "node one", "10.96.0.5:80", 10);
    run(&mut world, id);
    let asker = asker(&world, id);
    assert_eq!(asker.end, Some(SocketEvent::Closed), "{}", trace(&world));
    // getpeername tells of nothing.
    assert_eq!(asker.peer, Some(at("10.96.0.5:80")));
    let (local, peer, _) = world.process::<Echo>(proxy).unwrap().saw[0];
    assert_eq!((local, peer.ip()), (at(destination), ip(source)));
    let led = ("connect", "connect", Reason::NodeCall);
    assert_eq!(
        verdicts(&world, way).first() == Some(&led),
        redirect == Redirect::Tc
    );
}

#[rstest]
#[case::pod("pod default/client")]
#[case::outside("outside client")]
#[case::node("node one")]
fn without_a_listener_no_client_gets_through(
    #[case] from: &str,
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let mut world = world(redirect);
    lead(&mut world, "172.18.0.100:80", PORT);
    // A socket of something else on the service's port must not get it.
    echo(&mut world, "node one", None, 80);
    let (id, _) = ask(&mut world, from, "172.18.0.100:80", 10);
    run(&mut world, id);
    let ended = SocketEvent::Failed(closed(redirect));
    assert_eq!(asker(&world, id).events, [ended], "{}", trace(&world));
}

#[test]
fn what_is_no_frontend_passes_and_says_so() {
    let mut world = world(Redirect::Tc);
    lead(&mut world, "10.96.0.5:80", PORT);
    echo(&mut world, "pod default/near", None, 80);
    let (id, way) = ask(&mut world, "pod default/client", "10.0.1.2:80", 10);
    run(&mut world, id);
    assert_eq!(asker(&world, id).end, Some(SocketEvent::Closed));
    let passed = ("tc-ingress", "pass", Reason::NotAFrontend);
    assert_eq!(verdicts(&world, way), [passed]);
    let counted = world.reasons("one").unwrap()[&("tc-ingress", Reason::NotAFrontend)];
    assert!(counted >= 6, "every packet is counted, got {counted}");
}

#[test]
fn established_connections_are_assigned_at_tc() {
    let mut world = world(Redirect::Tc);
    echo(&mut world, "node one", Some("127.0.0.1"), PORT);
    lead(&mut world, "10.96.0.5:80", PORT);
    let (id, _) = ask(&mut world, "pod default/client", "10.96.0.5:80", 50_000);
    run(&mut world, id);
    let reasons = world.reasons("one").unwrap();
    assert_eq!(reasons[&("tc-ingress", Reason::LeftToSkLookup)], 1);
    assert_eq!(reasons[&("tc-ingress", Reason::RequestSocket)], 1);
    assert!(reasons[&("tc-ingress", Reason::Established)] >= 2);
}

/// A decision that somebody else puts under test.
struct DropsAll;

impl Datapath for DropsAll {
    fn parse(&self, bytes: &[u8]) -> Result<Flow, Reason> {
        NodewayDatapath.parse(bytes)
    }

    fn decide(&self, _: &Flow, _: Hook, _: &NodeKernel<'_>) -> Verdict<SimSocket> {
        Verdict::Drop(Reason::NoListener)
    }
}

#[test]
fn another_decision_can_be_put_under_test() {
    let mut world = World::new(&topology(), settings(Redirect::Tc), Box::new(DropsAll)).unwrap();
    echo(&mut world, "pod default/near", None, 80);
    let (id, _) = ask(&mut world, "pod default/client", "10.0.1.2:80", 10);
    run(&mut world, id);
    let error = SocketEvent::Failed(SocketError::TimedOut);
    assert_eq!(asker(&world, id).events, [error]);
    assert_eq!(world.hops().last().unwrap().what, Happening::Dropped);
    // A connect hook that drops refuses the call.
    let (id, _) = ask(&mut world, "node one", "10.0.1.2:80", 10);
    run(&mut world, id);
    let error = SocketEvent::Failed(SocketError::Refused);
    assert_eq!(asker(&world, id).events, [error]);
}
