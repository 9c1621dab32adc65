use std::collections::BTreeSet;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::address::{node_addresses, pod_addresses};
use crate::service::{cluster_ips, endpoints};
use crate::source::{Text, read};

fn derived(manifest: &str) -> Objects {
    derive(
        read(&[Text::new("m.yaml", manifest)]).unwrap(),
        &DeriveOptions::default(),
    )
}

const SHOP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-v1}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, version: v1}}
    spec:
      containers: [{name: web, ports: [{name: http, containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}, {name: admin, port: 81, targetPort: 9000}]
";

/// One line an object: what it is, where it came from and what matters of it.
fn shown(objects: &Objects) -> String {
    let lines = objects.iter().map(|(reference, entry)| {
        let what = match &entry.object {
            Object::Node(node) => {
                let spec = node.spec.as_ref().unwrap();
                format!(
                    "{:?} {:?}",
                    node_addresses(node).collect::<Vec<_>>(),
                    spec.pod_cidrs.as_ref().unwrap()
                )
            }
            Object::Pod(pod) => {
                let node = pod.spec.as_ref().unwrap().node_name.clone();
                format!("on {node:?} {:?}", pod_addresses(pod).collect::<Vec<_>>())
            }
            Object::Service(service) => {
                let ports = service.spec.as_ref().unwrap().ports.iter().flatten();
                let node_ports: Vec<_> = ports.filter_map(|port| port.node_port).collect();
                let frontends = crate::service::frontends(service, [])
                    .into_iter()
                    .map(|(key, ..)| key.to_string());
                format!("{:?} {node_ports:?}", frontends.collect::<Vec<_>>())
            }
            Object::EndpointSlice(slice) => {
                let ports: Vec<_> = slice.ports.iter().flatten().map(|port| port.port).collect();
                format!(
                    "{} endpoints, ports {ports:?}",
                    slice.endpoints.as_ref().unwrap().len()
                )
            }
            _ => String::new(),
        };
        format!(
            "{reference} | {} | {:?} | {what}",
            entry.provenance, entry.derived_fields
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_bare_manifest_becomes_a_whole_cluster() {
    insta::assert_snapshot!(shown(&derived(SHOP)));
}

#[test]
fn what_is_derived_stays_when_it_is_derived_again() {
    let once = derived(SHOP);
    assert_eq!(derive(once.clone(), &DeriveOptions::default()), once);
}

#[test]
fn a_recording_has_all_and_nothing_is_derived() {
    let text = "
apiVersion: v1
kind: Node
metadata: {name: n, uid: a}
status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: p, uid: b, labels: {app: p}}
spec: {containers: []}
status: {phase: Pending}
---
apiVersion: v1
kind: Service
metadata: {name: s, uid: c}
spec: {type: LoadBalancer, clusterIP: 10.96.0.9, ports: [{port: 80}], selector: {app: p}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s-x, uid: d, labels: {kubernetes.io/service-name: s}}
addressType: IPv4
endpoints: []
ports: []
";
    let objects = read(&[Text::new("dump.yaml", text)]).unwrap();
    assert_eq!(derive(objects.clone(), &DeriveOptions::default()), objects);
}

#[rstest]
#[case::families("ipFamilies: [IPv6]", &["fd00"])]
#[case::single("ipFamilyPolicy: SingleStack", &["10.96"])]
#[case::dual("ipFamilyPolicy: PreferDualStack", &["10.96", "fd00"])]
#[case::nothing_said("sessionAffinity: None", &["10.96"])]
#[case::headless("clusterIP: None", &[])]
#[case::written("clusterIP: 10.96.7.7", &["10.96.7.7"])]
fn a_service_gets_the_addresses_it_allows(#[case] field: &str, #[case] want: &[&str]) {
    let objects = derived(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: s}}, spec: {{{field}, ports: [{{port: 80}}]}}}}"
    ));
    let ips: Vec<String> = cluster_ips(objects.service("default", "s").unwrap())
        .map(|ip| ip.to_string())
        .collect();
    assert_eq!(ips.len(), want.len(), "{ips:?}");
    assert!(
        ips.iter()
            .zip(want)
            .all(|(ip, start)| ip.starts_with(start)),
        "{ips:?}"
    );
}

#[rstest]
#[case::host_network("hostNetwork: true", "Running", Some("172.18.0.2"))]
#[case::a_named_node("nodeName: node-2", "Running", Some("10.244.1."))]
#[case::no_node_has_the_label("nodeSelector: {disk: ssd}", "Pending", None)]
#[case::no_such_node("nodeName: node-9", "Pending", None)]
fn a_pod_goes_where_its_spec_lets_it(
    #[case] field: &str,
    #[case] phase: &str,
    #[case] ip: Option<&str>,
) {
    let objects = derived(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{{field}, containers: []}}}}"
    ));
    let status = objects.pod("default", "p").unwrap().status.clone().unwrap();
    assert_eq!(status.phase.as_deref(), Some(phase));
    match (ip, status.pod_ip.as_deref()) {
        (Some(start), Some(got)) => assert!(got.starts_with(start), "{got}"),
        (want, got) => assert_eq!(want, got),
    }
}

#[test]
fn a_deployment_whose_pods_are_there_gets_no_others() {
    let pod = "---\n{apiVersion: v1, kind: Pod, metadata: {name: mine, labels: {app: web}}, spec: {containers: []}}\n";
    let objects = derived(&format!("{SHOP}{pod}"));
    assert_eq!(objects.pods().count(), 1);
}

#[test]
fn pods_whose_named_ports_differ_stand_in_slices_of_their_own() {
    let other = SHOP
        .split("---")
        .next()
        .unwrap()
        .replace("web-v1", "web-v2")
        .replace("8080", "8888");
    let other = other
        .replace(
            "matchLabels: {app: web}",
            "matchLabels: {app: web, version: v2}",
        )
        .replace("version: v1", "version: v2");
    let first = SHOP.replace(
        "matchLabels: {app: web}",
        "matchLabels: {app: web, version: v1}",
    );
    let objects = derived(&format!("{first}---{other}"));
    let service = objects.service("default", "web").unwrap();
    let found = endpoints(service, objects.endpoint_slices().map(AsRef::as_ref), "80");
    let ports: BTreeSet<u16> = found
        .endpoints
        .iter()
        .map(|endpoint| endpoint.address.port())
        .collect();
    assert_eq!(
        (found.endpoints.len(), ports),
        (6, BTreeSet::from([8080, 8888]))
    );
}

#[rstest]
#[case::of_a_sidecar("restartPolicy: Always, ", Some(9000))]
#[case::of_an_init_container_that_ends("", None)]
fn a_named_port_is_looked_for_in_containers_that_stay(
    #[case] policy: &str,
    #[case] port: Option<i32>,
) {
    let objects = derived(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: http}}]}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: web}}}}
spec:
  initContainers: [{{{policy}name: proxy, ports: [{{name: http, containerPort: 9000}}]}}]
  containers: [{{name: web, ports: [{{containerPort: 8080}}]}}]
"
    ));
    let ports = objects
        .endpoint_slices()
        .flat_map(|slice| slice.ports.iter().flatten());
    let ports: Vec<_> = ports.filter_map(|port| port.port).collect();
    assert_eq!(ports, port.into_iter().collect::<Vec<_>>());
}

#[test]
fn what_an_operator_makes_does_not_replace_what_a_cluster_has() {
    let mut objects = read(&[Text::new("m.yaml", SHOP)]).unwrap();
    let before = objects.clone();
    let service = Object::Service(Arc::default());
    let web = objects.service("default", "web").unwrap().metadata.clone();
    let mut same = (**before.service("default", "web").unwrap()).clone();
    same.metadata = web;
    same.spec = None;
    let from = service.reference();
    insert_missing(
        &mut objects,
        vec![Object::Service(Arc::new(same))],
        &from,
        "ingress operator",
    );
    assert_eq!(objects, before);
}

proptest! {
    /// Addresses hang on names alone: a new Service moves no other's, and no two have the same.
    #[test]
    fn another_service_renumbers_no_other(names in proptest::collection::btree_set("[a-z]{1,6}", 2..12), skip in any::<prop::sample::Index>()) {
        let names: Vec<String> = names.into_iter().collect();
        let skipped = skip.get(&names).clone();
        let manifest = |names: &[String]| -> String {
            names.iter().map(|name| format!("---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{port: 80}}]}}}}\n")).collect()
        };
        let all = derived(&manifest(&names));
        let rest: Vec<String> = names.iter().filter(|name| **name != skipped).cloned().collect();
        let fewer = derived(&manifest(&rest));
        let host = |objects: &Objects, name: &str| {
            let first = cluster_ips(objects.service("default", name).unwrap()).next().unwrap();
            pool::offset([10, 96, 0, 0].into(), first).unwrap() as usize
        };
        for name in &rest {
            // Two names in 65,000 numbers may collide; then the later one stands right behind.
            let collided = host(&all, name).abs_diff(host(&all, &skipped)) <= names.len();
            prop_assert!(collided || all.service("default", name) == fewer.service("default", name));
        }
        let ips: BTreeSet<_> = all.services().flat_map(|service| cluster_ips(service)).collect();
        prop_assert_eq!(ips.len(), names.len());
    }
}
