//! A Service's addresses and node ports, as the API server and a load balancer would give them.
//!
//! One family by default, as in Kubernetes; both where the Service's policy or the options say so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServiceSpec};

use crate::object::{Object, Objects, namespace_of};
use crate::service::cluster_ips;

use super::pool::{Pool, address, offset};
use super::{DeriveOptions, change_each, is_recorded, name_of};

const CLUSTER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 96, 0, 0)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0)),
];

/// Documentation addresses (RFC 5737, RFC 3849): nobody's, so no run can be mistaken for traffic.
const BALANCER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0)),
];

/// Numbers that Services draw from.
struct Pools {
    cluster: Pool,
    balancer: Pool,
    node_ports: Pool,
}

impl Pools {
    fn new(objects: &Objects) -> Self {
        let mut pools = Self {
            // `.1` is the API server, `.10` the DNS server, in nearly every cluster.
            cluster: Pool::new(16, 65_000),
            balancer: Pool::new(1, 254),
            node_ports: Pool::new(30_000, 2_768),
        };
        for service in objects.services() {
            for network in CLUSTER {
                cluster_ips(service)
                    .filter_map(|ip| offset(network, ip))
                    .for_each(|host| pools.cluster.take(host));
            }
            for network in BALANCER {
                let ips = balancer_ips(service).filter_map(|ip| offset(network, ip));
                ips.for_each(|host| pools.balancer.take(host));
            }
            let ports = service
                .spec
                .iter()
                .flat_map(|spec| spec.ports.iter().flatten());
            let taken = ports.filter_map(|port| u32::try_from(port.node_port?).ok());
            taken.for_each(|port| pools.node_ports.take(port));
        }
        pools
    }
}

fn balancer_ips(service: &Service) -> impl Iterator<Item = IpAddr> + '_ {
    let status = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let ingress = status
        .and_then(|balancer| balancer.ingress.as_deref())
        .unwrap_or_default();
    ingress
        .iter()
        .filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
}

pub(super) fn derive(objects: &mut Objects, options: &DeriveOptions) {
    let mut pools = Pools::new(objects);
    change_each(
        objects,
        |object| match object {
            Object::Service(service) => Some(service),
            _ => None,
        },
        |service| {
            let key = format!(
                "{}/{}",
                namespace_of(&service.metadata),
                name_of(&service.metadata)
            );
            let external_name = service
                .spec
                .as_ref()
                .is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName"));
            if is_recorded(&service.metadata) || external_name {
                return Vec::new();
            }
            let mut fields = Vec::new();
            let spec = service.spec.get_or_insert_default();
            families(spec, options, &mut fields);
            addresses(spec, &key, &mut pools, &mut fields);
            node_ports(spec, &key, &mut pools, &mut fields);
            balance(service, &key, &mut pools, &mut fields);
            fields
        },
    );
}

/// A Service that says nothing of families has the cluster's first one, as the API server gives it;
/// both if its policy or the cluster's options ask for them.
fn families(spec: &mut ServiceSpec, options: &DeriveOptions, fields: &mut Vec<&'static str>) {
    if spec
        .ip_families
        .as_ref()
        .is_some_and(|families| !families.is_empty())
    {
        return;
    }
    let written: Vec<IpAddr> = [spec.cluster_ip.as_ref()]
        .into_iter()
        .flatten()
        .chain(spec.cluster_ips.iter().flatten())
        .filter_map(|ip| ip.parse().ok())
        .collect();
    let dual = match spec.ip_family_policy.as_deref() {
        Some("PreferDualStack" | "RequireDualStack") => true,
        Some(_) => false,
        None => options.dual_stack,
    };
    let (v4, v6) = if written.is_empty() {
        (true, options.ipv6 && dual)
    } else {
        (
            written.iter().any(IpAddr::is_ipv4),
            written.iter().any(IpAddr::is_ipv6),
        )
    };
    let families = [v4.then_some("IPv4"), v6.then_some("IPv6")];
    spec.ip_families = Some(families.into_iter().flatten().map(str::to_owned).collect());
    fields.push("spec.ipFamilies");
}

/// The networks of the Service's families, in its own order: the first is its primary one.
fn networks(spec: &ServiceSpec, networks: [IpAddr; 2]) -> Vec<IpAddr> {
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let [v4, v6] = networks;
    families
        .iter()
        .map(|family| if family == "IPv6" { v6 } else { v4 })
        .collect()
}

fn addresses(spec: &mut ServiceSpec, key: &str, pools: &mut Pools, fields: &mut Vec<&'static str>) {
    let written = spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty())
        || spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    if written {
        return;
    }
    let Some(host) = pools.cluster.draw(key) else {
        return;
    };
    let ips: Vec<String> = networks(spec, CLUSTER)
        .into_iter()
        .map(|network| address(network, host).to_string())
        .collect();
    spec.cluster_ip = ips.first().cloned();
    spec.cluster_ips = Some(ips);
    fields.extend(["spec.clusterIP", "spec.clusterIPs"]);
}

fn node_ports(
    spec: &mut ServiceSpec,
    key: &str,
    pools: &mut Pools,
    fields: &mut Vec<&'static str>,
) {
    let wanted = match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec.allocate_load_balancer_node_ports.unwrap_or(true),
        _ => false,
    };
    if !wanted {
        return;
    }
    for port in spec.ports.iter_mut().flatten() {
        if port.node_port.is_none_or(|port| port == 0)
            && let Some(drawn) = pools.node_ports.draw(&format!("{key}:{}", port.port))
        {
            port.node_port = i32::try_from(drawn).ok();
            fields.push("spec.ports[].nodePort");
        }
    }
}

/// A load balancer's addresses; `spec.loadBalancerIP` is granted, as most load balancers do.
fn balance(service: &mut Service, key: &str, pools: &mut Pools, fields: &mut Vec<&'static str>) {
    let Some(spec) = service
        .spec
        .as_ref()
        .filter(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
    else {
        return;
    };
    let given = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    if given.is_some() {
        return;
    }
    let asked = spec
        .load_balancer_ip
        .as_ref()
        .and_then(|ip| ip.parse::<IpAddr>().ok());
    let ips: Vec<IpAddr> = match asked {
        Some(ip) => vec![ip],
        None => {
            let Some(host) = pools.balancer.draw(key) else {
                return;
            };
            networks(spec, BALANCER)
                .into_iter()
                .map(|network| address(network, host))
                .collect()
        }
    };
    let ingress = ips.iter().map(|ip| LoadBalancerIngress {
        ip: Some(ip.to_string()),
        ..LoadBalancerIngress::default()
    });
    let ingress = ingress.collect();
    service
        .status
        .get_or_insert_default()
        .load_balancer
        .get_or_insert_default()
        .ingress = Some(ingress);
    fields.push("status.loadBalancer.ingress");
}
