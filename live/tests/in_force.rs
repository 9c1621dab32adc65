//! A node of a lab, looked at: what its kernel and its Envoy have is simulated, and says where it comes
//! from. Needs root and what `ci/setup` installs.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use nodeway_core::trace::{Stage, stages_in_force};
use nodeway_live::envoy;
use nodeway_live::in_force::Looked;
use nodeway_live::lab::name::LabName;
use nodeway_live::lab::state::Labs;
use nodeway_live::lab::{Lab, LabOptions, Workers};
use nodeway_sim::{Ask, Cluster, Fixture, Place, Redirect, Reply, Sim};
use rstest::rstest;

const NODE: &str = "node-1";
const DETAILS: &str = "http://cilium-ingress-basic-ingress/details/0";

fn up(redirect: Redirect) -> Lab {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let bookinfo = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/bookinfo");
    let options = LabOptions {
        name: LabName::new(&format!("look-{}-{number}", std::process::id())).unwrap(),
        envoy: envoy::find(None).unwrap_or_else(|error| panic!("{error}")),
        labs: Labs::here(),
        workers: Workers::Threads,
    };
    let fixture = Fixture::load(bookinfo).unwrap();
    let lab = Lab::up(&fixture, Some(redirect), options, &mut |_| {});
    let mut lab = lab.unwrap_or_else(|error| panic!("{error}"));
    lab.settle(NODE).unwrap();
    lab
}

/// A request of the client's in the simulation of what was seen, and its stages.
fn simulated(looked: Looked, url: &str) -> (Reply, Vec<Stage>) {
    let builder = Sim::from_dump(looked.objects).in_force(looked.redirect, looked.in_force);
    let mut sim = builder.start().unwrap();
    let reply = sim.request("default/client", Ask::get(url)).unwrap();
    let stages = stages_in_force(&reply.way, &sim.known(), sim.in_force());
    (reply, stages)
}

/// Runs a command in the node's namespace.
fn on_node(lab: &Lab, command: &str) {
    let netns = lab.machines().get(&Place::Node(NODE.to_owned())).unwrap();
    let mut words = command.split(' ');
    let program = words.next().unwrap();
    let done = netns.run(|| Command::new(program).args(words).status().unwrap());
    assert!(done.unwrap().success(), "{command}");
}

fn told(lab: &Lab) -> Vec<String> {
    let looked = lab.look(NODE).unwrap_or_else(|error| panic!("{error}"));
    let differences = looked.in_force.differences.into_iter();
    differences.map(|it| it.what).collect()
}

#[rstest]
fn what_is_in_force_answers_as_the_lab_does_and_names_what_it_was_read_from(
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let mut lab = up(redirect);
    let real = lab.request("default/client", Ask::get(DETAILS)).unwrap();
    let looked = lab.look(NODE).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(looked.in_force.differences, []);
    let ports: Vec<u16> = looked
        .in_force
        .plan
        .frontends
        .values()
        .map(|it| it.listener_port)
        .collect();
    let led: Vec<u16> = looked.status.frontends.iter().map(|it| it.port).collect();
    assert_eq!(ports, led, "the ports are those that listeners really have");
    let (reply, stages) = simulated(looked, DETAILS);
    // The client's port is another one in each connection.
    let saw = |reply: &Reply| {
        (
            reply.client_saw.clone(),
            reply.proxy_saw.clone().and_then(|it| it.name),
        )
    };
    assert_eq!(saw(&reply), saw(&real));
    assert_eq!(
        (reply.status, &reply.pod, &reply.route),
        (real.status, &real.pod, &real.route)
    );
    let of = |name: &str| {
        let stage = stages.iter().find(|it| it.stage == name);
        let stage = stage.unwrap_or_else(|| panic!("no stage {name} in {stages:#?}"));
        stage.evidence[0].clone()
    };
    match redirect {
        Redirect::Iptables => {
            assert_eq!(of("frontend"), "ipset nodeway-v4, nodeway-v6");
            assert_eq!(of("rule"), "rules of iptables-save");
        }
        _ => assert!(of("verdict").starts_with("map "), "{}", of("verdict")),
    }
    for name in [
        "listener",
        "filter chain",
        "virtual host",
        "route",
        "cluster",
        "endpoint",
    ] {
        assert_eq!(of(name), "config_dump of g1", "{name}");
    }
}

#[test]
fn what_somebody_changed_behind_the_agents_back_is_told() {
    let lab = up(Redirect::Tc);
    on_node(&lab, "iptables -t raw -D NODEWAY_PRE 1");
    on_node(&lab, "ipset flush nodeway-v4");
    on_node(&lab, "iptables -P INPUT DROP");
    let told = told(&lab).join("\n");
    for expected in [
        "iptables -t raw lacks: -A NODEWAY_PRE",
        "ipset nodeway-v4 lacks 10.96.",
        "chain INPUT, drops",
    ] {
        assert!(told.contains(expected), "no `{expected}` in:\n{told}");
    }
}

#[test]
fn a_frontend_whose_set_entry_is_gone_is_led_no_more_by_rules() {
    let lab = up(Redirect::Iptables);
    for set in ["nodeway-v4", "nodeway-known-v4"] {
        on_node(&lab, &format!("ipset flush {set}"));
    }
    let looked = lab.look(NODE).unwrap();
    let told = looked
        .in_force
        .differences
        .iter()
        .map(|it| it.what.as_str());
    let told: Vec<&str> = told
        .filter(|it| it.contains("the kernel does not"))
        .collect();
    assert!(!told.is_empty(), "{:?}", looked.in_force.differences);
    let (reply, stages) = simulated(looked, "http://productpage:9080/");
    assert_eq!((reply.status, reply.proxy_node), (200, None));
    assert_eq!(stages[1].evidence[0], "ipset nodeway-v4, nodeway-v6");
}
