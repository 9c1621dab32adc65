//! At which devices of a node its clients' packets come in: those that lead to its pods, and those
//! that lead out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Error, Handle, RouteMessageBuilder};

use crate::netns::NetNs;
use crate::routes::{self, RoutesError};

const LOOPBACK: &str = "lo";

/// What a node's network namespace has, as far as clients are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Devices {
    /// Every device but `lo`, with its addresses.
    addresses: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Which device leads where.
    routes: Vec<(IpNet, String)>,
}

impl Devices {
    /// Asks the kernel.
    pub(super) fn read(netns: &NetNs) -> Result<Self, RoutesError> {
        let name = netns.name().to_owned();
        routes::inside(netns, async move |handle| {
            let read = Self::ask(&handle).await;
            let what = "devices and their routes".to_owned();
            read.map_err(|error| routes::refused("read", what, &name)(routes::io_error(error)))
        })
    }

    async fn ask(handle: &Handle) -> Result<Self, Error> {
        let mut names = BTreeMap::new();
        let mut links = handle.link().get().execute();
        while let Some(link) = links.try_next().await? {
            let name = link.attributes.into_iter().find_map(|one| match one {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            });
            names.extend(name.map(|name| (link.header.index, name)));
        }
        let mut own = Self::default();
        let outer = names.values().filter(|name| *name != LOOPBACK);
        own.addresses = outer.map(|name| (name.clone(), BTreeSet::new())).collect();
        let mut addresses = handle.address().get().execute();
        while let Some(address) = addresses.try_next().await? {
            let device = names.get(&address.header.index);
            let of_device = device.and_then(|device| own.addresses.get_mut(device));
            if let Some(of_device) = of_device {
                of_device.extend(address.attributes.iter().filter_map(|one| match one {
                    AddressAttribute::Address(ip) => Some(*ip),
                    _ => None,
                }));
            }
        }
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for family in [v4, v6] {
            let mut routes = handle.route().get(family).execute();
            while let Some(route) = routes.try_next().await? {
                own.routes.extend(leads(&route, &names));
            }
        }
        Ok(own)
    }

    /// The node's own addresses among those that are given: the ones that devices here have.
    pub(super) fn own(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
        let here = |address: &IpAddr| self.addresses.values().any(|of| of.contains(address));
        addresses.into_iter().filter(here).collect()
    }

    /// The devices at which packets of these pods and of hosts outside come in.
    pub(super) fn of_clients(&self, pods: impl IntoIterator<Item = IpAddr>) -> BTreeSet<String> {
        let to_pods = pods.into_iter().filter_map(|pod| self.device_to(pod));
        let outside = self.routes.iter().filter(|(to, _)| to.prefix_len() == 0);
        let outside = outside.map(|(_, device)| device.as_str());
        let all = to_pods.chain(outside);
        all.filter(|device| self.addresses.contains_key(*device))
            .map(str::to_owned)
            .collect()
    }

    fn device_to(&self, pod: IpAddr) -> Option<&str> {
        let routes = self.routes.iter().filter(|(to, _)| to.contains(&pod));
        let route = routes.max_by_key(|(to, _)| to.prefix_len())?;
        Some(&route.1)
    }
}

/// Where a route leads: only those to other machines count.
fn leads(route: &RouteMessage, names: &BTreeMap<u32, String>) -> Option<(IpNet, String)> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let length = route.header.destination_prefix_length;
    let attributes = || route.attributes.iter();
    let to = attributes().find_map(|one| match one {
        RouteAttribute::Destination(RouteAddress::Inet(to)) => Some(IpAddr::V4(*to)),
        RouteAttribute::Destination(RouteAddress::Inet6(to)) => Some(IpAddr::V6(*to)),
        _ => None,
    });
    let everything = || match route.header.address_family {
        rtnetlink::packet_route::AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let device = attributes().find_map(|one| match one {
        RouteAttribute::Oif(device) => names.get(device),
        _ => None,
    })?;
    let to = IpNet::new(to.unwrap_or_else(everything), length).ok()?;
    Some((to, device.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Devices {
        let device = |name: &str, addresses: &[&str]| {
            let addresses = addresses.iter().map(|it| it.parse().unwrap());
            (name.to_owned(), addresses.collect())
        };
        let route = |to: &str, device: &str| (to.parse().unwrap(), device.to_owned());
        Devices {
            addresses: [
                device("eth0", &["172.18.0.2", "fd00::2"]),
                device("veth1", &[]),
                device("veth2", &["10.244.0.1"]),
                device("docker0", &["172.17.0.1"]),
            ]
            .into(),
            routes: vec![
                route("0.0.0.0/0", "eth0"),
                route("172.18.0.0/16", "eth0"),
                route("172.17.0.0/16", "docker0"),
                route("10.244.0.5/32", "veth1"),
                route("10.244.0.0/24", "veth2"),
            ],
        }
    }

    #[test]
    fn clients_come_in_where_pods_are_and_where_the_way_out_is() {
        let pods = ["10.244.0.5", "10.244.0.6"].map(|it| it.parse().unwrap());
        let devices = node().of_clients(pods);
        assert_eq!(
            devices,
            ["eth0", "veth1", "veth2"].map(str::to_owned).into()
        );
    }

    #[test]
    fn the_nodes_own_addresses_are_those_that_devices_have() {
        let said = ["172.18.0.2", "192.0.2.1"].map(|it| it.parse().unwrap());
        assert_eq!(node().own(said), [said[0]]);
    }
}
