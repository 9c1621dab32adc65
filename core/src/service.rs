//! A Service's ports, addresses and endpoints: what the planner and kube-proxy must agree on.
//!
//! A Service has ports (number, maybe a name), frontends (the addresses under which packets reach
//! it) and EndpointSlices (the pods behind it). A slice's port is matched with a Service's by
//! *name*; the slice's number is the pods' own, which may differ per slice (Kubernetes,
//! "EndpointSlices"). Cilium asks by the number or name of the Service's port, as text.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use k8s_openapi::api::core::v1::{Node, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use crate::address::node_port_addresses;
use crate::endpoint::{PlannedEndpoint, PlannedEndpoints};
use crate::frontend::{FrontendKey, FrontendKind, Ranges};
use crate::object::{Kind, ObjectRef, namespace_of};

/// The label by which a slice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What asks for every port of a Service.
pub const ALL_PORTS: &str = "*";

/// The reference of a Service.
#[must_use]
pub fn reference(service: &Service) -> ObjectRef {
    ObjectRef::of(Kind::Service, &service.metadata)
}

/// The Service that a slice belongs to, by its label.
#[must_use]
pub fn of_slice(slice: &EndpointSlice) -> Option<ObjectRef> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    let namespace = namespace_of(&slice.metadata);
    Some(ObjectRef::new(Kind::Service, namespace, name))
}

/// The Service's TCP ports. Nothing else is led to a listener or proxied.
pub fn tcp_ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    let ports = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    ports.iter().filter(|port| is_tcp(port.protocol.as_deref()))
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol.is_empty() || protocol == "TCP")
}

/// A port as the number that packets carry.
#[must_use]
pub fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

/// Whether the Service has a TCP port of that number or name (`*`: any).
#[must_use]
pub fn has_port(service: &Service, wanted: &str) -> bool {
    tcp_ports(service).any(|port| is_wanted(port, wanted))
}

fn is_wanted(port: &ServicePort, wanted: &str) -> bool {
    wanted == ALL_PORTS
        || port.port.to_string() == wanted
        || port
            .name
            .as_deref()
            .is_some_and(|name| !name.is_empty() && name == wanted)
}

/// The endpoints behind one port of a Service, asked for by number, by name, or all with `*`: then
/// at every TCP port that a slice has, whatever its name, as Cilium gives them to Envoy.
///
/// A slice without a ready condition is ready. Endpoints that are not ready, or on their way out,
/// are left out, with the reason. Slices whose label names another Service must not be given.
#[must_use]
pub fn endpoints<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    wanted: &str,
) -> PlannedEndpoints {
    let names: Vec<&str> = tcp_ports(service)
        .filter(|port| is_wanted(port, wanted))
        .map(|port| port.name.as_deref().unwrap_or_default())
        .collect();
    let is_meant = |name: &str| wanted == ALL_PORTS || names.contains(&name);
    let mut ready = BTreeMap::new();
    let mut left_out = BTreeMap::new();
    for slice in slices.filter(|slice| slice.address_type != "FQDN") {
        let ports = slice.ports.as_deref().unwrap_or_default();
        for port in ports.iter().filter_map(|port| port_number(port, is_meant)) {
            for endpoint in slice.endpoints.as_deref().unwrap_or_default() {
                let Some(address) = address(endpoint) else {
                    continue;
                };
                let address = SocketAddr::new(address, port);
                match why_not(endpoint) {
                    Some(reason) => {
                        left_out.insert(address, reason);
                    }
                    None => {
                        ready.insert(address, planned(endpoint, address, slice));
                    }
                }
            }
        }
    }
    // While a controller moves an endpoint between slices it may be in two: ready wins.
    left_out.retain(|address, _| !ready.contains_key(address));
    PlannedEndpoints {
        service: Some(reference(service)),
        endpoints: ready.into_values().collect(),
        left_out: left_out.into_iter().collect(),
    }
}

fn port_number(port: &EndpointPort, is_meant: impl Fn(&str) -> bool) -> Option<u16> {
    let name = port.name.as_deref().unwrap_or_default();
    if is_tcp(port.protocol.as_deref()) && is_meant(name) {
        number(port.port?)
    } else {
        None
    }
}

/// Consumers take the first address only (Kubernetes API, `Endpoint.addresses`).
fn address(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first()?.parse().ok()
}

fn why_not(endpoint: &Endpoint) -> Option<&'static str> {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true);
    let terminating = conditions
        .and_then(|conditions| conditions.terminating)
        .unwrap_or(false);
    match (ready, terminating) {
        (_, true) => Some("terminating"),
        (false, false) => Some("not ready"),
        (true, false) => None,
    }
}

fn planned(endpoint: &Endpoint, address: SocketAddr, slice: &EndpointSlice) -> PlannedEndpoint {
    let pod = endpoint
        .target_ref
        .as_ref()
        .filter(|target| target.kind.as_deref() == Some("Pod"))
        .and_then(|target| {
            let own = || namespace_of(&slice.metadata).to_owned();
            Some(ObjectRef::new(
                Kind::Pod,
                target.namespace.clone().unwrap_or_else(own),
                target.name.clone()?,
            ))
        });
    PlannedEndpoint {
        address,
        pod,
        node: endpoint.node_name.clone(),
    }
}

/// The addresses under which packets reach a Service's TCP ports, with the Service's port number.
///
/// `NodePort` frontends are the given nodes' addresses of the Service's families, internal and
/// external ([`node_port_addresses`]). A load balancer whose `ipMode` is `Proxy` sends to node
/// ports, so its own address never arrives.
#[must_use]
pub fn frontends<'a>(
    service: &Service,
    nodes: impl IntoIterator<Item = &'a Node>,
) -> Vec<(FrontendKey, FrontendKind, u16)> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let mut addresses: Vec<(IpAddr, FrontendKind)> = cluster_ips(service)
        .map(|address| (address, FrontendKind::ClusterIp))
        .collect();
    addresses
        .extend(load_balancer_ips(service).map(|address| (address, FrontendKind::LoadBalancer)));
    let external = spec
        .external_ips
        .iter()
        .flatten()
        .filter_map(|ip| ip.parse().ok());
    addresses.extend(external.map(|address| (address, FrontendKind::ExternalIp)));

    let v4 = cluster_ips(service).any(|address| address.is_ipv4());
    let v6 = cluster_ips(service).any(|address| address.is_ipv6());
    let of_nodes: Vec<IpAddr> = nodes
        .into_iter()
        .flat_map(node_port_addresses)
        .filter(|address| if address.is_ipv4() { v4 } else { v6 })
        .collect();

    let mut frontends = Vec::new();
    for port in tcp_ports(service) {
        let Some(service_port) = number(port.port) else {
            continue;
        };
        for (address, kind) in &addresses {
            frontends.push((
                FrontendKey {
                    address: *address,
                    port: service_port,
                },
                *kind,
                service_port,
            ));
        }
        let Some(node_port) = port.node_port.and_then(number) else {
            continue;
        };
        for address in &of_nodes {
            frontends.push((
                FrontendKey {
                    address: *address,
                    port: node_port,
                },
                FrontendKind::NodePort,
                service_port,
            ));
        }
    }
    frontends
}

/// Who may come by an address of a Service; none if everybody may.
///
/// `loadBalancerSourceRanges` are for a load balancer's address alone, and for each client of it:
/// pods and nodes too, as kube-proxy has it (`pkg/proxy/iptables`). An address of a family of which
/// no range is said is open there, and here too. A range that cannot be read lets nobody in, and
/// leaves no family open: the API server would have refused it.
#[must_use]
pub fn source_ranges(service: &Service, kind: FrontendKind, address: IpAddr) -> Option<Ranges> {
    if kind != FrontendKind::LoadBalancer {
        return None;
    }
    let mut ranges = Vec::new();
    let mut unread = false;
    for (_, _, range) in said_ranges(service) {
        match range {
            Some(range) if range.addr().is_ipv4() == address.is_ipv4() => ranges.push(range),
            Some(_) => {}
            None => unread = true,
        }
    }
    ranges.sort_unstable();
    ranges.dedup();
    (unread || !ranges.is_empty()).then(|| ranges.into())
}

/// Each of a Service's source ranges: where it stands in the list, as it is said, and as a network
/// if it is one.
pub fn said_ranges(service: &Service) -> impl Iterator<Item = (usize, &str, Option<IpNet>)> {
    let spec = service.spec.as_ref();
    let said = spec.and_then(|spec| spec.load_balancer_source_ranges.as_deref());
    let said = said.unwrap_or_default().iter().enumerate();
    said.map(|(index, said)| {
        let range: Option<IpNet> = said.trim().parse().ok();
        (index, said.as_str(), range.map(|it| it.trunc()))
    })
}

/// The Service's own addresses; none for a headless one.
pub fn cluster_ips(service: &Service) -> impl Iterator<Item = IpAddr> + '_ {
    let spec = service.spec.as_ref();
    let all = spec
        .and_then(|spec| spec.cluster_ips.as_deref())
        .unwrap_or_default();
    let one = spec
        .and_then(|spec| spec.cluster_ip.as_ref())
        .filter(|_| all.is_empty());
    // `None`, which makes a Service headless, is no address.
    all.iter().chain(one).filter_map(|ip| ip.parse().ok())
}

fn load_balancer_ips(service: &Service) -> impl Iterator<Item = IpAddr> + '_ {
    let status = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    status
        .and_then(|balancer| balancer.ingress.as_deref())
        .unwrap_or_default()
        .iter()
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{from_value, json};

    use super::*;

    fn service() -> Service {
        from_value(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "type": "LoadBalancer",
                "clusterIPs": ["10.96.0.9", "fd00:10:96::9"],
                "externalIPs": ["198.51.100.7"],
                "ports": [
                    {"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080},
                    {"name": "admin", "port": 81, "targetPort": 9000},
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                ],
            },
            "status": {"loadBalancer": {"ingress": [
                {"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "ipMode": "Proxy"}, {"hostname": "lb.example"},
            ]}},
        }))
        .unwrap()
    }

    fn slices() -> Vec<EndpointSlice> {
        let slice = |name: &str, http: u16, endpoints: serde_json::Value| -> EndpointSlice {
            from_value(json!({
                "metadata": {"name": name, "namespace": "shop", "labels": {SERVICE_NAME: "web"}},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": http}, {"name": "admin", "port": 9000}, {"name": "dns", "port": 53, "protocol": "UDP"}],
                "endpoints": endpoints,
            }))
            .unwrap()
        };
        vec![
            slice(
                "b",
                8081,
                json!([
                    {"addresses": ["10.0.0.9"], "nodeName": "n2", "targetRef": {"kind": "Pod", "name": "web-9"}},
                    {"addresses": ["10.0.0.4"], "conditions": {"ready": false}},
                    {"addresses": ["10.0.0.5"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                ]),
            ),
            slice(
                "a",
                8080,
                json!([{"addresses": ["10.0.0.1", "10.0.0.2"], "conditions": {"ready": true}}, {"addresses": ["nonsense"]}]),
            ),
        ]
    }

    #[rstest]
    #[case::by_number("80", &["10.0.0.1:8080", "10.0.0.9:8081"])]
    #[case::by_name("http", &["10.0.0.1:8080", "10.0.0.9:8081"])]
    #[case::the_other_port("81", &["10.0.0.1:9000", "10.0.0.9:9000"])]
    #[case::all("*", &["10.0.0.1:8080", "10.0.0.1:9000", "10.0.0.9:8081", "10.0.0.9:9000"])]
    #[case::a_target_port_is_no_port_of_the_service("8080", &[])]
    #[case::udp_is_never_proxied("53", &[])]
    #[case::nothing("", &[])]
    fn endpoints_are_found_by_the_services_port(#[case] wanted: &str, #[case] want: &[&str]) {
        let found = endpoints(&service(), slices().iter(), wanted);
        let addresses: Vec<_> = found
            .endpoints
            .iter()
            .map(|endpoint| endpoint.address.to_string())
            .collect();
        assert_eq!(addresses, want);
    }

    #[rstest]
    #[case::all("*", 1)]
    #[case::one_port("http", 0)]
    fn without_a_port_every_port_of_a_slice_is_meant_whatever_its_name(
        #[case] wanted: &str,
        #[case] found: usize,
    ) {
        let mut slices = slices();
        for port in slices
            .iter_mut()
            .flat_map(|it| it.ports.iter_mut().flatten())
        {
            port.name = Some("another".to_owned());
        }
        let all = endpoints(&service(), slices.iter(), wanted).endpoints;
        assert_eq!(all.len().min(1), found);
    }

    #[test]
    fn what_is_left_out_says_why_and_what_is_taken_says_whose_it_is() {
        let found = endpoints(&service(), slices().iter(), "http");
        let left_out: Vec<_> = found
            .left_out
            .iter()
            .map(|(address, why)| (address.to_string(), *why))
            .collect();
        let want = [
            ("10.0.0.4:8081", "not ready"),
            ("10.0.0.5:8081", "terminating"),
        ];
        assert_eq!(
            left_out,
            want.map(|(address, why)| (address.to_owned(), why))
        );
        let last = found.endpoints.last().unwrap();
        assert_eq!(last.pod, Some(ObjectRef::new(Kind::Pod, "shop", "web-9")));
        assert_eq!(last.node.as_deref(), Some("n2"));
    }

    #[test]
    fn frontends_are_every_address_under_which_packets_arrive() {
        let node: Node = from_value(json!({
            "metadata": {"name": "n1"},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "172.18.0.2"}, {"type": "InternalIP", "address": "fd00:172:18::2"},
                {"type": "Hostname", "address": "n1"}, {"type": "ExternalIP", "address": "198.51.100.2"},
                {"type": "ExternalIP", "address": "172.18.0.2"}, {"type": "ExternalIP", "address": "127.0.0.1"},
            ]},
        }))
        .unwrap();
        let shown: Vec<_> = frontends(&service(), [&node])
            .into_iter()
            .map(|(key, kind, port)| format!("{key} {kind:?} {port}"))
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        10.96.0.9:80 ClusterIp 80
        [fd00:10:96::9]:80 ClusterIp 80
        192.0.2.1:80 LoadBalancer 80
        198.51.100.7:80 ExternalIp 80
        172.18.0.2:30080 NodePort 80
        [fd00:172:18::2]:30080 NodePort 80
        198.51.100.2:30080 NodePort 80
        10.96.0.9:81 ClusterIp 81
        [fd00:10:96::9]:81 ClusterIp 81
        192.0.2.1:81 LoadBalancer 81
        198.51.100.7:81 ExternalIp 81
        ");
    }

    #[rstest]
    #[case::of_its_family(&["192.0.2.9/24", "2001:db8::/32"], "192.0.2.1", Some("192.0.2.0/24"))]
    #[case::twice(&["192.0.2.0/24", " 192.0.2.0/24 "], "192.0.2.1", Some("192.0.2.0/24"))]
    #[case::of_the_other_family_alone(&["2001:db8::/32"], "192.0.2.1", None)]
    #[case::one_that_cannot_be_read(&["192.0.2.0"], "192.0.2.1", Some(""))]
    #[case::none(&[], "192.0.2.1", None)]
    fn a_load_balancers_address_has_the_ranges_of_its_family(
        #[case] said: &[&str],
        #[case] address: IpAddr,
        #[case] expected: Option<&str>,
    ) {
        let mut service = service();
        let said = said.iter().map(|it| (*it).to_owned()).collect();
        service.spec.as_mut().unwrap().load_balancer_source_ranges = Some(said);
        let ranges = |kind| source_ranges(&service, kind, address);
        let expected = expected.map(|all| all.parse().into_iter().collect());
        assert_eq!(ranges(FrontendKind::LoadBalancer), expected);
        for open in [
            FrontendKind::ClusterIp,
            FrontendKind::NodePort,
            FrontendKind::ExternalIp,
        ] {
            assert_eq!(ranges(open), None);
        }
    }

    #[test]
    fn a_headless_service_and_a_mere_name_have_no_frontend() {
        let mut service = service();
        service.spec.as_mut().unwrap().type_ = Some("ExternalName".to_owned());
        assert!(frontends(&service, []).is_empty());
        let headless: Service =
            from_value(json!({"spec": {"clusterIP": "None", "ports": [{"port": 80}]}})).unwrap();
        assert!(frontends(&headless, []).is_empty());
    }
}
