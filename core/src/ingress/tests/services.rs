//! The Service of a dedicated Ingress.

use k8s_openapi::api::core::v1::Service;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::ingress::HostNetwork;
use crate::ingress::service::merged;

fn service(annotations: &[(&str, &str)], options: &Options) -> Value {
    let spec = json!({"rules": [rule("a.example", &["Prefix / a"])]});
    let translation = translated(&[ingress("shop", annotations, &spec)], options);
    serde_json::to_value(&translation.services[0]).unwrap()
}

#[rstest]
#[case::usual(&[], json!({"type": "LoadBalancer", "ports": [
    {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "https", "port": 443, "protocol": "TCP"}]}))]
#[case::node_ports(
    &[("ingress.cilium.io/service-type", "NodePort"), ("ingress.cilium.io/secure-node-port", "30443")],
    json!({"type": "NodePort", "ports": [
        {"name": "http", "port": 80, "protocol": "TCP"},
        {"name": "https", "port": 443, "protocol": "TCP", "nodePort": 30443}]})
)]
#[case::passed_through(&[("ingress.cilium.io/tls-passthrough", "true")], json!({"type": "LoadBalancer", "ports": [
    {"name": "https", "port": 443, "protocol": "TCP"}]}))]
#[case::passed_through_on_a_node_port(
    &[("ingress.cilium.io/tls-passthrough", "true"), ("ingress.cilium.io/service-type", "NodePort"),
      ("ingress.cilium.io/secure-node-port", "30443")],
    json!({"type": "NodePort", "ports": [{"name": "https", "port": 443, "protocol": "TCP", "nodePort": 30443}]})
)]
#[case::class_and_policy(
    &[("ingress.cilium.io/loadbalancer-class", "metal"), ("ingress.cilium.io/service-external-traffic-policy", "Local")],
    json!({"type": "LoadBalancer", "loadBalancerClass": "metal", "externalTrafficPolicy": "Local", "ports": [
        {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "https", "port": 443, "protocol": "TCP"}]})
)]
fn a_service_is_what_the_annotations_say(
    #[case] annotations: &[(&str, &str)],
    #[case] want: Value,
) {
    assert_eq!(service(annotations, &Options::default())["spec"], want);
}

#[test]
fn a_service_in_host_network_mode_has_only_a_cluster_address() {
    let options = Options {
        host_network: Some(HostNetwork::default()),
        ..Options::default()
    };
    assert_eq!(service(&[], &options)["spec"]["type"], "ClusterIP");
}

#[test]
fn only_keys_with_a_known_beginning_are_taken_over() {
    let got = service(
        &[("lbipam.cilium.io/ips", "10.0.0.9"), ("example.com/x", "y")],
        &Options::default(),
    );
    assert_eq!(
        got["metadata"]["annotations"],
        json!({"lbipam.cilium.io/ips": "10.0.0.9"})
    );
    assert_eq!(
        got["metadata"]["labels"],
        json!({"cilium.io/ingress": "true"})
    );
}

#[rstest]
#[case::stored(Some("7b1c"), json!([{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "shop",
    "uid": "7b1c", "controller": true}]))]
#[case::only_written(None, Value::Null)]
fn only_a_stored_ingress_owns_its_service(#[case] uid: Option<&str>, #[case] want: Value) {
    let mut shop = ingress("shop", &[], &json!({"rules": [rule("", &["Prefix / a"])]}));
    shop.metadata.uid = uid.map(str::to_owned);
    let translation = translated(&[shop], &Options::default());
    let service = serde_json::to_value(&translation.services[0]).unwrap();
    assert_eq!(service["metadata"]["ownerReferences"], want);
}

#[test]
fn a_service_that_is_there_keeps_its_addresses() {
    let there: Service = manifest(
        "
        metadata: {name: cilium-ingress-shop, namespace: default, labels: {team: blue}, resourceVersion: '7'}
        spec:
          type: LoadBalancer
          clusterIP: 10.96.0.9
          loadBalancerClass: cloud
          ports: [{name: http, port: 80, protocol: TCP, nodePort: 31080}]
        status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}
        ",
    );
    let wanted: Service = serde_json::from_value(service(&[], &Options::default())).unwrap();
    let got = merged(&there, &wanted);
    assert_eq!(got.status, there.status);
    let spec = got.spec.clone().unwrap();
    assert_eq!(spec.cluster_ip.as_deref(), Some("10.96.0.9"));
    assert_eq!(spec.load_balancer_class.as_deref(), Some("cloud"));
    let ports: Vec<_> = spec
        .ports
        .unwrap()
        .iter()
        .map(|port| (port.port, port.node_port))
        .collect();
    assert_eq!(ports, [(80, Some(31080)), (443, None)]);
    assert_eq!(got.metadata.labels.as_ref().unwrap().len(), 2);
    assert_eq!(merged(&got, &wanted), got, "a second time changes nothing");
}
