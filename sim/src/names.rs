//! Who has which address, and which address a name has: the cluster's DNS and an address book.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use nodeway_core::address::{node_port_addresses, pod_addresses};
use nodeway_core::object::{Kind, ObjectRef, Objects};
use nodeway_core::plan::FrontendKind;
use nodeway_core::service;
use nodeway_core::trace::Name;

use crate::cluster::Family;
use crate::net::Place;
use crate::reply::Seen;

/// The addresses of a cluster and of the hosts outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    owners: BTreeMap<IpAddr, ObjectRef>,
    outside: BTreeMap<IpAddr, String>,
    services: BTreeMap<ObjectRef, Addresses>,
    nodes: BTreeMap<String, Vec<IpAddr>>,
    /// Where every name leads that is nobody's, if anywhere.
    anywhere: Vec<IpAddr>,
}

/// What a Service is reached at.
#[derive(Clone, Debug, Default)]
struct Addresses {
    cluster: Vec<IpAddr>,
    balancer: Vec<IpAddr>,
    external_name: bool,
}

/// From where a name is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View<'a> {
    /// From a pod or node, in a namespace.
    Cluster(&'a str),
    /// From a host outside, which has LoadBalancer and node addresses only.
    Outside,
}

impl<'a> View<'a> {
    /// How a place sees names.
    pub(crate) fn of(place: &'a Place) -> Self {
        match place {
            Place::Pod(path) => Self::Cluster(path.split_once('/').map_or("default", |(ns, _)| ns)),
            Place::Node(_) => Self::Cluster("default"),
            Place::Outside(_) => Self::Outside,
        }
    }
}

impl Names {
    pub(crate) fn of(objects: &Objects) -> Self {
        let mut names = Self::default();
        for node in objects.nodes() {
            let name = node.metadata.name.clone().unwrap_or_default();
            let addresses: Vec<IpAddr> = node_port_addresses(node).collect();
            for address in &addresses {
                names
                    .owners
                    .insert(*address, ObjectRef::cluster(Kind::Node, &name));
            }
            names.nodes.insert(name, addresses);
        }
        for pod in objects.pods() {
            let reference = ObjectRef::of(Kind::Pod, &pod.metadata);
            for address in pod_addresses(pod) {
                // A pod in its node's network has the node's address, which stays the node's.
                names
                    .owners
                    .entry(address)
                    .or_insert_with(|| reference.clone());
            }
        }
        for object in objects.services() {
            names.add_service(object);
        }
        names
    }

    fn add_service(&mut self, object: &std::sync::Arc<k8s_openapi::api::core::v1::Service>) {
        let reference = service::reference(object);
        let mut addresses = Addresses {
            external_name: object.spec.as_ref().and_then(|spec| spec.type_.as_deref())
                == Some("ExternalName"),
            ..Addresses::default()
        };
        for (key, kind, _) in service::frontends(object, []) {
            let list = match kind {
                FrontendKind::ClusterIp => &mut addresses.cluster,
                FrontendKind::LoadBalancer | FrontendKind::ExternalIp => &mut addresses.balancer,
                FrontendKind::NodePort => continue,
            };
            if !list.contains(&key.address) {
                list.push(key.address);
            }
            self.owners.insert(key.address, reference.clone());
        }
        self.services.insert(reference, addresses);
    }

    /// The objects have changed; the hosts outside have not.
    pub(crate) fn update(&mut self, objects: &Objects) {
        let outside = std::mem::take(&mut self.outside);
        let anywhere = std::mem::take(&mut self.anywhere);
        *self = Self {
            outside,
            anywhere,
            ..Self::of(objects)
        };
    }

    /// From now on every name that is nobody's has these addresses, and so has loopback, which
    /// means the host of an Envoy's dump and not the client's own.
    pub(crate) fn lead_all_to(&mut self, addresses: Vec<IpAddr>) {
        self.anywhere = addresses;
    }

    /// Hosts outside have addresses too.
    pub(crate) fn add_outside(&mut self, name: &str, addresses: &[IpAddr]) {
        for address in addresses {
            self.outside.insert(*address, name.to_owned());
        }
    }

    /// The object that has an address.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<&ObjectRef> {
        self.owners.get(&address)
    }

    /// An address with the name of its holder; a Service's with the port, which is part of its name.
    pub(crate) fn seen(&self, address: SocketAddr) -> Seen {
        let owner = self.owners.get(&address.ip());
        let name = match (owner, self.outside.get(&address.ip())) {
            (Some(owner), _) if owner.kind == Kind::Service => {
                Some(format!("{owner}:{}", address.port()))
            }
            (Some(owner), _) => Some(owner.to_string()),
            (None, Some(host)) => Some(format!("outside/{host}")),
            (None, None) => None,
        };
        Seen { address, name }
    }

    /// Every name that has an address, in every form, with its addresses of both families.
    pub(crate) fn hosts(&self, view: View<'_>) -> Vec<(IpAddr, String)> {
        let mut names: Vec<String> = self.nodes.keys().cloned().collect();
        for service in self.services.keys() {
            let full = format!("{}.{}", service.name, service.namespace);
            names.push(service.name.clone());
            names.extend(["", ".svc", ".svc.cluster.local"].map(|end| format!("{full}{end}")));
        }
        names.sort();
        names.dedup();
        let mut hosts = Vec::new();
        for name in names {
            for family in [Family::Ipv4, Family::Ipv6] {
                match self.resolve(&name, view, family) {
                    Name::Service { address, .. } | Name::Address { address, .. } => {
                        hosts.push((address, name.clone()));
                    }
                    Name::Unknown { .. } => {}
                }
            }
        }
        hosts
    }

    /// Resolves a host of a URL, preferring one family.
    pub(crate) fn resolve(&self, host: &str, view: View<'_>, family: Family) -> Name {
        let literal = host.parse::<IpAddr>().ok();
        let elsewhere = view == View::Outside
            && literal.is_none_or(|address| address.is_loopback() || address.is_unspecified());
        if let (true, Some(address)) = (elsewhere, choose(&self.anywhere, family)) {
            let owner = self.owners.get(&address).cloned();
            return Name::Address { address, owner };
        }
        if let Some(address) = literal {
            return Name::Address {
                address,
                owner: self.owners.get(&address).cloned(),
            };
        }
        if let Some(address) = self.nodes.get(host).and_then(|all| choose(all, family)) {
            let owner = Some(ObjectRef::cluster(Kind::Node, host));
            return Name::Address { address, owner };
        }
        if let Some(address) = choose(&self.anywhere, family) {
            let owner = self.owners.get(&address).cloned();
            return Name::Address { address, owner };
        }
        let Some(service) = self.service_of(host, view) else {
            let close = self.close(host);
            let why = format!("no Service and no node is named {host}");
            return Name::Unknown {
                service: None,
                close,
                why,
            };
        };
        let Some(addresses) = self.services.get(&service) else {
            let close = self.close(&service.name);
            return Name::Unknown {
                close,
                why: format!("there is no {service}"),
                service: Some(service),
            };
        };
        let (list, missing) = match view {
            View::Cluster(_) if addresses.cluster.is_empty() && !addresses.external_name => (
                &addresses.cluster,
                "is headless: it has no address of its own",
            ),
            View::Cluster(_) => (&addresses.cluster, "has no address in the cluster"),
            View::Outside => (&addresses.balancer, "has no LoadBalancer address"),
        };
        match choose(list, family) {
            Some(address) => Name::Service { service, address },
            None => Name::Unknown {
                close: Vec::new(),
                why: format!("{service} {missing}{}", of(family)),
                service: Some(service),
            },
        }
    }

    /// `service`, `service.namespace`, `service.namespace.svc`, `….svc.cluster.local`.
    fn service_of(&self, host: &str, view: View<'_>) -> Option<ObjectRef> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let host = host.strip_suffix(".cluster.local").unwrap_or(&host);
        let host = host.strip_suffix(".svc").unwrap_or(host);
        let (name, namespace) = match (host.split_once('.'), view) {
            (Some((name, namespace)), _) => (name, namespace),
            (None, View::Cluster(namespace)) => (host, namespace),
            // From outside a bare name may stand for the one Service of that name.
            (None, View::Outside) => {
                let mut named = self.services.keys().filter(|service| service.name == host);
                return match (named.next(), named.next()) {
                    (Some(service), None) => Some(service.clone()),
                    _ => Some(ObjectRef::new(Kind::Service, "default", host)),
                };
            }
        };
        (!namespace.contains('.')).then(|| ObjectRef::new(Kind::Service, namespace, name))
    }

    /// Services whose names are nearest, at most three edits away.
    fn close(&self, name: &str) -> Vec<String> {
        let mut near: Vec<(usize, &str)> = self
            .services
            .keys()
            .map(|service| {
                (
                    strsim::levenshtein(&service.name, name),
                    service.name.as_str(),
                )
            })
            .filter(|(distance, _)| *distance <= 3)
            .collect();
        near.sort_unstable();
        near.into_iter()
            .take(3)
            .map(|(_, name)| name.to_owned())
            .collect()
    }
}

/// How a message names a family that was asked for.
fn of(family: Family) -> &'static str {
    match family {
        Family::Any => "",
        Family::Ipv4 => " of IPv4",
        Family::Ipv6 => " of IPv6",
    }
}

/// The first address of that family.
fn choose(addresses: &[IpAddr], family: Family) -> Option<IpAddr> {
    let wanted = |address: &&IpAddr| match family {
        Family::Any => true,
        Family::Ipv4 => address.is_ipv4(),
        Family::Ipv6 => address.is_ipv6(),
    };
    addresses.iter().find(wanted).copied()
}
