//! The first plan of a node for 100, 1,000 and 10,000 services, and one changed endpoint.
//!
//! Each service has an Ingress of its own, so a config, a listener, a cluster and a frontend: the
//! cost per service should not grow with how many others there are.

use std::hint::black_box;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use nodeway_core::ingress::{Options, translate};
use nodeway_core::object::{Change, Object, Objects, Provenance};
use nodeway_core::plan::{Ledger, Planner};
use serde_json::json;

use super::{Line, Spread, median, micros, timed};

pub(super) const NODE: &str = "node-1";

/// Measures a first plan for each of these sizes, and a changed endpoint at the largest.
///
/// # Errors
/// When the objects to measure with cannot be made.
pub fn run(rounds: usize, sizes: &[u32]) -> Result<Vec<Line>, serde_json::Error> {
    let mut lines = Vec::new();
    let mut reference: Option<(u32, f64)> = None;
    // All are kept to the end: the first change after one is dropped would pay for the allocator's putting its pieces together.
    let mut planners = Vec::new();
    for size in sizes {
        let objects = cluster(*size, 2)?;
        let mut costs = Vec::new();
        for _ in 0..rounds.max(1) {
            let (took, planner) =
                timed(|| Planner::with_objects(&objects, NODE, Ledger::default()));
            costs.push(micros(took) / f64::from((*size).max(1)));
            planners.push(planner);
        }
        let cost = median(&mut costs);
        let beside = |other: f64| Spread::of(costs.iter().map(|it| it / other));
        let what = format!("first plan, {size} services");
        let figure = format!("{cost:.0} µs a service");
        lines.push(match reference {
            None => Line::plain(what, figure),
            Some((few, first)) => {
                Line::beside(what, figure, format!("{few} services"), beside(first))
            }
        });
        reference = reference.or(Some((*size, cost)));
        if let Some(planner) = planners.last_mut()
            && sizes.last() == Some(size)
        {
            let mut changes = changed_endpoint(planner, rounds)?;
            let change = median(&mut changes);
            lines.push(Line::beside(
                format!("one changed endpoint, {size} services"),
                format!("{change:.0} µs"),
                "first plan's cost of a service",
                Spread::of(changes.iter().map(|it| it / cost)),
            ));
        }
    }
    Ok(lines)
}

/// Microseconds for a slice whose endpoint moves, of some moves.
fn changed_endpoint(planner: &mut Planner, rounds: usize) -> Result<Vec<f64>, serde_json::Error> {
    let mut costs = Vec::new();
    for round in 0..rounds.max(1) * 10 {
        let last = u8::try_from(round % 200).unwrap_or(0);
        let change = Change::Put(Object::EndpointSlice(slice(0, last, 2)?.into()));
        let (took, delta) = timed(|| planner.apply(change));
        let _ = black_box(delta);
        costs.push(micros(took));
    }
    Ok(costs)
}

/// That many services, each with an Ingress, so many endpoints and what the Ingress becomes.
pub(super) fn cluster(services: u32, endpoints: u8) -> Result<Objects, serde_json::Error> {
    let mut objects = Objects::default();
    for n in 0..services {
        objects.insert(Object::Service(service(n)?.into()), written(n));
        objects.insert(
            Object::EndpointSlice(slice(n, 0, endpoints)?.into()),
            written(n),
        );
        objects.insert(Object::Ingress(ingress(n)?.into()), written(n));
    }
    let translation = translate(&objects, &Options::default());
    for (n, mut service) in (0..).zip(translation.services) {
        if let Some(spec) = &mut service.spec {
            spec.cluster_ip = Some(address(97, n));
            spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
        }
        objects.insert(Object::Service(service.into()), written(n));
    }
    for (n, config) in (0..).zip(translation.configs) {
        objects.insert(Object::CiliumEnvoyConfig(config.into()), written(n));
    }
    Ok(objects)
}

fn written(line: u32) -> Provenance {
    let file = "bench".into();
    Provenance::Written { file, line }
}

fn address(second: u8, n: u32) -> String {
    let [_, _, c, d] = n.to_be_bytes();
    format!("10.{second}.{c}.{d}")
}

fn service(n: u32) -> Result<Service, serde_json::Error> {
    serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": format!("svc-{n}")},
        "spec": {
            "clusterIP": address(96, n), "clusterIPs": [address(96, n)],
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    }))
}

/// The slice of a service, with so many endpoints from an address on.
pub(super) fn slice(n: u32, first: u8, endpoints: u8) -> Result<EndpointSlice, serde_json::Error> {
    let [_, _, c, d] = n.to_be_bytes();
    let endpoint = |n: u8| {
        json!({
            "addresses": [format!("10.{c}.{d}.{}", first.wrapping_add(n))],
            "conditions": {"ready": true},
            "nodeName": NODE,
        })
    };
    let endpoints: Vec<_> = (0..endpoints).map(endpoint).collect();
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "shop", "name": format!("svc-{n}-1"),
            "labels": {"kubernetes.io/service-name": format!("svc-{n}")},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }))
}

fn ingress(n: u32) -> Result<Ingress, serde_json::Error> {
    serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": format!("ingress-{n}")},
        "spec": {
            "ingressClassName": "cilium",
            "rules": [{"http": {"paths": [{
                "path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": format!("svc-{n}"), "port": {"number": 80}}},
            }]}}],
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_its_listener_frontend_and_endpoints() {
        let objects = cluster(3, 2).unwrap();
        let mut planner = Planner::with_objects(&objects, NODE, Ledger::default());
        let plan = planner.plan();
        assert_eq!((plan.listeners.len(), plan.clusters.len()), (3, 3));
        assert!(plan.frontends.len() >= 3);
        assert_eq!(plan.problems, Default::default());
        let change = Change::Put(Object::EndpointSlice(slice(0, 1, 2).unwrap().into()));
        assert!(!planner.apply(change).endpoints.is_empty());
    }

    #[test]
    fn every_size_but_the_first_has_a_ratio() {
        let lines = run(1, &[1, 2]).unwrap();
        let ratios: Vec<bool> = lines.iter().map(|line| !line.ratio.is_empty()).collect();
        assert_eq!(ratios, [false, true, true]);
    }
}
