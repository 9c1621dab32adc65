//! The device's addresses and routes, and whether they would get in the way of this machine's own.
//!
//! Each address of the cluster gets a route of its own (`/32`, `/128`) through the device, with the
//! host's address as source. An address that this machine has, or that a route other than the
//! default one leads to, is refused: a simulation must not take real packets.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::runtime::{Builder, Runtime};

/// Why addresses or routes cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is a device of that name.
    #[error(
        "there is a network device `{0}` already; choose another name, or take it away with `ip link delete {0}`"
    )]
    Exists(String),
    /// Something on this machine has one of the cluster's addresses.
    #[error(
        "the cluster's address {address} is taken on this machine: {route}; give the cluster other addresses, or run it in a network namespace of its own: unshare --net nodeway sim …"
    )]
    Taken {
        /// The cluster's address.
        address: IpAddr,
        /// What is here.
        route: Route,
    },
    /// The kernel refused.
    #[error("cannot {action}: {cause}{}", hint(cause))]
    Refused {
        /// `give nw0 the address 203.0.113.1`
        action: String,
        /// What the kernel said.
        cause: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run as root, or with CAP_NET_ADMIN",
        _ => "",
    }
}

/// A route of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub to: IpNet,
    /// Over which device; none for one that drops.
    pub device: Option<String>,
    /// Whether the address is this machine's own.
    pub local: bool,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (to, device) = (&self.to, self.device.as_deref());
        match (self.local, device) {
            (true, Some(device)) => write!(f, "{to} is an address of its device {device}"),
            (true, None) => write!(f, "{to} is an address of its own"),
            (false, Some(device)) => write!(f, "it has a route to {to} over {device}"),
            (false, None) => write!(f, "it has a route to {to}"),
        }
    }
}

/// The kernel's addresses and routes, in one network namespace.
pub(super) struct Network {
    runtime: Runtime,
    handle: Handle,
}

impl Network {
    /// Of the calling thread's namespace.
    pub(super) fn open() -> Result<Self, LinkError> {
        let action = || "speak to the kernel about routes (netlink)".to_owned();
        let refused = |cause| LinkError::Refused {
            action: action(),
            cause,
        };
        let runtime = Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(refused)?;
        let inside = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection().map_err(refused)?;
        runtime.spawn(connection);
        drop(inside);
        Ok(Self { runtime, handle })
    }

    /// Does one thing, and says what it was where it fails.
    fn try_to<T>(
        &self,
        action: impl FnOnce() -> String,
        what: impl Future<Output = Result<T, rtnetlink::Error>>,
    ) -> Result<T, LinkError> {
        let done = self.runtime.block_on(what);
        done.map_err(|error| LinkError::Refused {
            action: action(),
            cause: said(error),
        })
    }

    /// Whether device and addresses are free.
    pub(super) fn check(
        &self,
        device: &str,
        own: &[IpAddr],
        inside: &[IpAddr],
    ) -> Result<(), LinkError> {
        let devices = self.devices()?;
        if devices.iter().any(|(_, name)| name == device) {
            return Err(LinkError::Exists(device.to_owned()));
        }
        let routes = self.routes(&devices)?;
        for address in own.iter().chain(inside) {
            // The most telling one: the most specific.
            let there = routes.iter().filter(|route| route.to.contains(address));
            if let Some(route) = there.max_by_key(|route| (route.to.prefix_len(), route.local)) {
                return Err(LinkError::Taken {
                    address: *address,
                    route: route.clone(),
                });
            }
        }
        Ok(())
    }

    /// Every device by number.
    fn devices(&self) -> Result<Vec<(u32, String)>, LinkError> {
        let links = self.handle.link().get().execute();
        let links: Vec<_> = self.try_to(|| "list devices".to_owned(), links.try_collect())?;
        let named = links.into_iter().filter_map(|link| {
            let name = link.attributes.into_iter().find_map(|one| match one {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            })?;
            Some((link.header.index, name))
        });
        Ok(named.collect())
    }

    /// Every route of both families but the default ones, from all tables.
    fn routes(&self, devices: &[(u32, String)]) -> Result<Vec<Route>, LinkError> {
        let mut all = Vec::new();
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for family in [v4, v6] {
            let routes = self.handle.route().get(family).execute();
            let routes: Vec<_> = self.try_to(|| "list routes".to_owned(), routes.try_collect())?;
            all.extend(routes.iter().filter_map(|route| read(route, devices)));
        }
        Ok(all)
    }

    /// Gives the device its addresses, length and routes, and switches it on. Says whether that
    /// could be done for IPv6 too.
    pub(super) fn set_up(
        &self,
        device: &str,
        mtu: usize,
        own: &[IpAddr],
        inside: &[IpAddr],
    ) -> Result<bool, LinkError> {
        let ipv6 = has_ipv6(device);
        if ipv6 {
            stay_silent(device);
        }
        let devices = self.devices()?;
        let index = devices.iter().find(|(_, name)| name == device);
        let index = index.map_or(0, |(index, _)| *index);
        for address in own.iter().filter(|it| it.is_ipv4() || ipv6) {
            let mut add = self.handle.address().add(index, *address, bits(*address));
            // Nobody on this link could have it too, and until that is sure no route may name it.
            add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            self.try_to(
                || format!("give {device} the address {address}"),
                add.execute(),
            )?;
        }
        let up = LinkUnspec::new_with_index(index)
            .mtu(u32::try_from(mtu).unwrap_or(u32::MAX))
            .up()
            .build();
        let up = self.handle.link().set(up).execute();
        self.try_to(|| format!("switch {device} on"), up)?;
        for to in inside.iter().filter(|it| it.is_ipv4() || ipv6) {
            let from = own.iter().find(|it| it.is_ipv4() == to.is_ipv4());
            let route = route(index, *to, from.copied());
            let add = self.handle.route().add(route).execute();
            self.try_to(|| format!("lead {to} through {device}"), add)?;
        }
        Ok(ipv6)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn route(device: u32, to: IpAddr, from: Option<IpAddr>) -> RouteMessage {
    match (to, from) {
        (IpAddr::V4(to), from) => {
            let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to, 32)
                .scope(RouteScope::Link)
                .output_interface(device);
            if let Some(IpAddr::V4(from)) = from {
                route = route.pref_source(from);
            }
            route.build()
        }
        (IpAddr::V6(to), from) => {
            let mut route = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to, 128)
                .output_interface(device);
            if let Some(IpAddr::V6(from)) = from {
                route = route.pref_source(from);
            }
            route.build()
        }
    }
}

/// A route that could take a packet of ours. The default ones take what nobody else does.
fn read(route: &RouteMessage, devices: &[(u32, String)]) -> Option<Route> {
    let length = route.header.destination_prefix_length;
    if length == 0 || route.header.kind == RouteType::Throw {
        return None;
    }
    let to = route.attributes.iter().find_map(|one| match one {
        RouteAttribute::Destination(RouteAddress::Inet(to)) => Some(IpAddr::V4(*to)),
        RouteAttribute::Destination(RouteAddress::Inet6(to)) => Some(IpAddr::V6(*to)),
        _ => None,
    })?;
    let device = route.attributes.iter().find_map(|one| match one {
        RouteAttribute::Oif(device) => Some(*device),
        _ => None,
    });
    let name = devices.iter().find(|(index, _)| Some(*index) == device);
    Some(Route {
        to: IpNet::new(to, length).ok()?,
        device: name.map(|(_, name)| name.clone()),
        local: route.header.kind == RouteType::Local,
    })
}

/// Whether the kernel has IPv6, and not switched it off for the device.
fn has_ipv6(device: &str) -> bool {
    let off = std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"));
    off.is_ok_and(|off| off.trim() == "0")
}

/// Lets the kernel neither make up an address for the device nor ask for routers through it: nobody
/// is there. Where it does not take that, it asks in vain.
fn stay_silent(device: &str) {
    let conf = format!("/proc/sys/net/ipv6/conf/{device}");
    let _ = std::fs::write(format!("{conf}/addr_gen_mode"), "1");
    let _ = std::fs::write(format!("{conf}/router_solicitations"), "0");
}

/// What the kernel said.
fn said(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
