use rstest::rstest;

use super::*;
use crate::derive::{DeriveOptions, derive};
use crate::plan::{Ledger, plan};
use crate::proxy::{Endpoint, LoadAssignment};
use crate::source::Text;
use crate::source::read;

const SHOP: &str = include_str!("../plan/shop.yaml");

fn shop() -> (Objects, NodePlan) {
    let objects = read(&[Text::new("shop.yaml", SHOP)]).unwrap();
    let objects = derive(objects, &DeriveOptions::default());
    let planned = plan(&objects, "node-1", Ledger::default());
    (objects, planned)
}

/// The dump of an Envoy that has all of a plan, its listeners at other ports.
fn dump(planned: &NodePlan, ports_from: u16) -> ConfigDump {
    let mut dump = ConfigDump {
        plan: planned.clone(),
        has_endpoints: true,
        ..ConfigDump::default()
    };
    for (name, port) in planned.listeners.keys().zip(ports_from..) {
        let at = vec![SocketAddr::from(([127, 0, 0, 1], port))];
        dump.listens.insert(Arc::clone(name), at);
    }
    for cluster in dump.plan.clusters.values_mut() {
        let name = cluster.model.endpoints.clone();
        let planned = planned.endpoints.get(name.as_str());
        let endpoints = planned.iter().flat_map(|it| &it.endpoints);
        let endpoints = endpoints.map(|it| Endpoint {
            address: it.address,
            weight: 1,
            priority: 0,
            unhealthy: false,
        });
        let written = LoadAssignment {
            endpoints: endpoints.collect(),
            cluster_name: name,
            not_simulated: Vec::new(),
        };
        let model = &mut Arc::make_mut(cluster).model;
        Arc::make_mut(model).discovery = Discovery::Static(written);
    }
    dump
}

fn leading(port: u16) -> Frontend {
    Frontend {
        listener_port: port,
        state: FrontendState::Active,
        ranged: false,
    }
}

/// A node that does all of a plan.
fn observed(planned: &NodePlan) -> Observed {
    let frontends = planned.frontends.keys();
    Observed {
        node: "node-1".into(),
        frontends: frontends.map(|key| (*key, leading(19_000))).collect(),
        table: "map 7 (frontends)".to_owned(),
        envoys: vec![Dumped {
            generation: "g1".to_owned(),
            dump: dump(planned, 19_000),
        }],
        ..Observed::default()
    }
}

fn differences(change: impl FnOnce(&mut Observed)) -> Vec<String> {
    let (objects, planned) = shop();
    let mut observed = observed(&planned);
    change(&mut observed);
    let in_force = InForce::of(observed, &planned, &objects);
    let differences = in_force.differences.into_iter();
    differences.map(|it| it.what).collect()
}

#[test]
fn a_node_that_does_what_is_planned_has_that_plan_at_its_own_ports() {
    let (objects, planned) = shop();
    let in_force = InForce::of(observed(&planned), &planned, &objects);
    assert_eq!(in_force.differences, []);
    let mut expected = planned;
    for listener in expected.listeners.values_mut() {
        Arc::make_mut(listener).port = 19_000;
    }
    for frontend in expected.frontends.values_mut() {
        frontend.listener_port = 19_000;
    }
    // What no cluster asks for no Envoy has.
    let asked: Vec<_> = expected
        .clusters
        .values()
        .map(|it| it.model.endpoints.clone())
        .collect();
    expected
        .endpoints
        .retain(|name, _| asked.iter().any(|it| **it == **name));
    let found = in_force.plan;
    // In print, a message shows all of its descriptors.
    assert!(found.listeners == expected.listeners);
    assert!(found.clusters == expected.clusters);
    assert_eq!(found.endpoints, expected.endpoints);
    assert_eq!(found.frontends, expected.frontends);
    assert!(found == expected);
}

#[rstest]
#[case::a_frontend_that_is_not_led(|it: &mut Observed| { it.frontends.pop_first(); }, "and the kernel does not (map 7 (frontends))")]
#[case::one_that_leads_to_nobody(|it: &mut Observed| { it.frontends.first_entry().unwrap().insert(leading(19_999)); }, "is led to port 19999, where no Envoy listens")]
#[case::one_that_drains(|it: &mut Observed| {
    it.frontends.first_entry().unwrap().get_mut().state = FrontendState::Draining;
}, "and new connections go past (map 7 (frontends))")]
#[case::one_that_nobody_planned(|it: &mut Observed| {
    let key = FrontendKey { address: [10, 96, 0, 99].into(), port: 80 };
    it.frontends.insert(key, leading(19_000));
}, "10.96.0.99:80 is led to default/shop/web, and no object asks for that")]
#[case::other_ranges(|it: &mut Observed| {
    let key = *it.frontends.first_key_value().unwrap().0;
    it.frontends.get_mut(&key).unwrap().ranged = true;
}, "other source ranges")]
#[case::a_listener_that_envoy_lacks(|it: &mut Observed| {
    it.frontends.clear();
    it.envoys[0].dump.plan.listeners.clear();
}, "no Envoy has the listener")]
#[case::a_route_table_that_envoy_lacks(|it: &mut Observed| it.envoys[0].dump.plan.routes.clear(), "no Envoy has the route configuration")]
#[case::a_cluster_that_envoy_lacks(|it: &mut Observed| { it.envoys[0].dump.plan.clusters.pop_first(); }, "no Envoy has the cluster")]
#[case::other_endpoints(|it: &mut Observed| {
    for cluster in it.envoys[0].dump.plan.clusters.values_mut() {
        let model = Arc::make_mut(&mut Arc::make_mut(cluster).model);
        if let Discovery::Static(written) = &mut model.discovery {
            written.endpoints.pop();
        }
    }
}, "Envoy has other endpoints of")]
#[case::what_a_dump_does_not_tell(|it: &mut Observed| it.envoys[0].dump.notes.push("Cluster x is not simulated: y".to_owned()), "config_dump of g1: Cluster x is not simulated: y")]
#[case::other_rules(|it: &mut Observed| it.rules.differences.push("raw lacks a rule".to_owned()), "raw lacks a rule")]
fn what_is_not_as_planned_is_told(#[case] change: impl FnOnce(&mut Observed), #[case] told: &str) {
    let all = differences(change);
    assert!(all.iter().any(|it| it.contains(told)), "{all:#?}");
}

#[test]
fn one_that_drains_is_nobodys_mistake() {
    let (objects, mut planned) = shop();
    let mut observed = observed(&planned);
    let key = *planned.frontends.first_key_value().unwrap().0;
    planned.frontends.remove(&key);
    let draining = Frontend {
        state: FrontendState::Draining,
        ..leading(19_000)
    };
    observed.frontends.insert(key, draining);
    let in_force = InForce::of(observed, &planned, &objects);
    assert_eq!(in_force.differences, []);
    assert_eq!(in_force.switching, [(key, FrontendState::Draining)].into());
    assert_eq!(in_force.plan.frontends[&key].service.kind, Kind::Service);
}

#[test]
fn of_two_envoys_each_frontend_has_the_one_that_it_leads_to() {
    let (objects, planned) = shop();
    let mut observed = observed(&planned);
    observed.envoys.push(Dumped {
        generation: "g2".to_owned(),
        dump: dump(&planned, 19_500),
    });
    let in_force = InForce::of(observed, &planned, &objects);
    let led = in_force.plan.frontends.values().next().unwrap();
    assert_eq!(&*led.listener, "default/shop/web of g1");
    let config = planned.listeners.values().next().unwrap().config.clone();
    let mut listeners = in_force.plan.listeners.values();
    assert!(
        listeners.all(|it| it.config == config),
        "both are of one config"
    );
    let listeners = in_force.plan.listeners.iter();
    let ports: Vec<_> = listeners.map(|(name, it)| (&**name, it.port)).collect();
    assert_eq!(
        ports,
        [
            ("default/shop/web", 19_500),
            ("default/shop/web of g1", 19_000)
        ]
    );
}

#[test]
fn an_endpoint_that_no_slice_names_has_its_pods_name() {
    let (objects, planned) = shop();
    let (endpoints, wanted) = planned
        .endpoints
        .iter()
        .find_map(|(name, it)| Some((name, it.endpoints.first()?.clone())))
        .unwrap();
    let mut unknown = planned.clone();
    unknown.endpoints.clear();
    let in_force = InForce::of(observed(&planned), &unknown, &objects);
    let found = &in_force.plan.endpoints[endpoints].endpoints[0];
    assert_eq!((found.address, &found.pod), (wanted.address, &wanted.pod));
}
