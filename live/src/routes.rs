//! Policy routing of our own, told from that of others by its protocol number.
//!
//! What is marked is delivered to the node by a rule and a table with one route; an address that
//! no device has is delivered by a local route, and one that a process must be able to send from
//! stands on `lo`. The kernel is asked each time, so what a killed
//! process left is found and kept, changed or taken away like our own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use futures_util::TryStreamExt as _;
use nix::errno::Errno;
use nodeway_core::datapath::Family;
use nodeway_core::netfilter::{LocalRoute, PolicyRule, Routing};
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, route::RouteHeader};
use rtnetlink::{Error, Handle, IpVersion, RouteMessageBuilder};

use crate::netns::{NetNs, NetNsError};

/// `proto 78` in `ip rule` and `ip route`: no daemon's number.
pub const PROTOCOL: u8 = 78;
/// `lo` is the first device of every namespace.
const LOOPBACK: u32 = 1;
const TABLE_LOCAL: u32 = 255;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// What can go wrong with rules and routes.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// The kernel refused one.
    #[error(
        "cannot {action} {what} in namespace `{namespace}`: {cause}{}",
        hint(cause)
    )]
    Refused {
        /// `add`, `take away`, `read`
        action: &'static str,
        /// As `ip` would spell it.
        what: String,
        /// The namespace.
        namespace: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENETDOWN) => "; `lo` is down: ip link set lo up",
        Some(Errno::EINVAL) => "; the source must be an address of the node itself",
        Some(Errno::EPERM) => "; run as root, or with CAP_NET_ADMIN",
        _ => "",
    }
}

/// What a namespace has of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Own {
    /// Family, preference, mark, mask, table.
    rules: BTreeSet<(Family, u32, u32, u32, u32)>,
    /// Tables whose one route delivers everything here.
    tables: BTreeSet<(Family, u32)>,
    /// Addresses that are delivered here.
    local: BTreeSet<LocalRoute>,
    /// Addresses of `lo`.
    addresses: BTreeSet<IpAddr>,
}

/// A policy rule of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForeignRule {
    pub(crate) family: Family,
    pub(crate) preference: u32,
    /// What it wants of a mark; none if it does not look.
    pub(crate) mark: Option<(u32, u32)>,
    pub(crate) table: u32,
}

/// What a namespace has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    own: Own,
    pub(crate) foreign_rules: Vec<ForeignRule>,
    /// How many routes of others a table has.
    pub(crate) foreign_routes: BTreeMap<(Family, u32), usize>,
}

impl Own {
    fn of(routing: &Routing, addresses: &BTreeSet<IpAddr>, has_v6: bool) -> Self {
        let families = || {
            FAMILIES
                .into_iter()
                .filter(move |it| has_v6 || *it == Family::V4)
        };
        let mut own = Self::default();
        for family in families() {
            for rule in &routing.rules {
                own.rules.insert(key(family, rule));
                own.tables.insert((family, rule.table));
            }
        }
        let local = routing.local.iter().copied();
        own.local = local.filter(|it| has_v6 || it.address.is_ipv4()).collect();
        let addresses = addresses.iter().copied();
        own.addresses = addresses.filter(|it| has_v6 || it.is_ipv4()).collect();
        own
    }
}

fn key(family: Family, rule: &PolicyRule) -> (Family, u32, u32, u32, u32) {
    (family, rule.preference, rule.mark, rule.mask, rule.table)
}

/// Makes a namespace have these rules and routes of ours, and these addresses on `lo`, and no others;
/// those of others stay.
///
/// # Errors
/// When the kernel refuses one. What was there before is then there again, as far as it can be.
pub fn apply(
    netns: &NetNs,
    routing: &Routing,
    addresses: &BTreeSet<IpAddr>,
) -> Result<(), RoutesError> {
    let (routing, addresses) = (routing.clone(), addresses.clone());
    let name = netns.name();
    inside(netns, async move |handle| {
        let before = read_own(&handle, name).await?.own;
        let wanted = Own::of(&routing, &addresses, has_v6());
        let changed = change(&handle, name, &before, &wanted).await;
        if changed.is_err() {
            let half = read_own(&handle, name).await?.own;
            // The first error is the one to tell.
            let _ = change(&handle, name, &half, &before).await;
        }
        changed
    })
}

/// Takes all rules and routes of ours away.
///
/// # Errors
/// When the kernel refuses.
pub fn remove(netns: &NetNs) -> Result<(), RoutesError> {
    apply(netns, &Routing::default(), &BTreeSet::new())
}

/// What a namespace has.
pub(crate) fn read(netns: &NetNs) -> Result<Found, RoutesError> {
    let name = netns.name();
    inside(netns, async move |handle| read_own(&handle, name).await)
}

/// Whether the namespace that this thread is in has IPv6, and on `lo`.
fn has_v6() -> bool {
    let off = Path::new("/proc/sys/net/ipv6/conf/lo/disable_ipv6");
    std::fs::read_to_string(off).is_ok_and(|text| text.trim() == "0")
}

/// Runs a conversation with the kernel inside a namespace.
pub(crate) fn inside<T: Send>(
    netns: &NetNs,
    talk: impl AsyncFnOnce(Handle) -> Result<T, RoutesError> + Send,
) -> Result<T, RoutesError> {
    let name = netns.name().to_owned();
    netns.run(move || {
        let refused = |cause| refused("read", "rules and routes".to_owned(), &name)(cause);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(refused)?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().map_err(refused)?;
            let connection = tokio::spawn(connection);
            let outcome = talk(handle).await;
            connection.abort();
            outcome
        })
    })?
}

pub(crate) fn refused(
    action: &'static str,
    what: String,
    namespace: &str,
) -> impl FnOnce(io::Error) -> RoutesError {
    let namespace = namespace.to_owned();
    move |cause| RoutesError::Refused {
        action,
        what,
        namespace,
        cause,
    }
}

pub(crate) fn io_error(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

async fn read_own(handle: &Handle, name: &str) -> Result<Found, RoutesError> {
    let mut found = Found::default();
    for family in FAMILIES {
        let failed = |error| refused("read", "rules and routes".to_owned(), name)(io_error(error));
        let version = match family {
            Family::V4 => IpVersion::V4,
            Family::V6 => IpVersion::V6,
        };
        let rules: Vec<RuleMessage> = match handle.rule().get(version).execute().try_collect().await
        {
            Ok(rules) => rules,
            // A kernel without IPv6 has none of its rules.
            Err(_) if family == Family::V6 && !has_v6() => continue,
            Err(error) => return Err(failed(error)),
        };
        rules.iter().for_each(|rule| found.rule(family, rule));
        let mut every = RouteMessage::default();
        every.header.address_family = address_family(family);
        let routes: Vec<RouteMessage> = handle
            .route()
            .get(every)
            .execute()
            .try_collect()
            .await
            .map_err(failed)?;
        routes.iter().for_each(|route| found.route(family, route));
    }
    let addresses = handle.address().get().set_link_index_filter(LOOPBACK);
    let addresses: Vec<AddressMessage> = addresses
        .execute()
        .try_collect()
        .await
        .map_err(|error| refused("read", "addresses".to_owned(), name)(io_error(error)))?;
    found.own.addresses = addresses.iter().filter_map(own_address).collect();
    Ok(found)
}

impl Found {
    fn rule(&mut self, family: Family, message: &RuleMessage) {
        let (mut preference, mut mark, mut mask) = (0, None, None);
        let mut table = u32::from(message.header.table);
        let mut ours = false;
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(it) => preference = *it,
                RuleAttribute::FwMark(it) => mark = Some(*it),
                RuleAttribute::FwMask(it) => mask = Some(*it),
                RuleAttribute::Table(it) => table = *it,
                RuleAttribute::Protocol(it) => ours = u8::from(*it) == PROTOCOL,
                _ => {}
            }
        }
        let mask = mask.unwrap_or(u32::MAX);
        match (ours, mark) {
            (true, Some(mark)) => {
                self.own
                    .rules
                    .insert((family, preference, mark, mask, table));
            }
            _ => self.foreign_rules.push(ForeignRule {
                family,
                preference,
                mark: mark.map(|mark| (mark, mask)),
                table,
            }),
        }
    }

    fn route(&mut self, family: Family, message: &RouteMessage) {
        let mut table = u32::from(message.header.table);
        let (mut address, mut source) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(it) => table = *it,
                RouteAttribute::Destination(it) => address = ip(it),
                RouteAttribute::PrefSource(it) => source = ip(it),
                _ => {}
            }
        }
        let ours = u8::from(message.header.protocol) == PROTOCOL;
        match (ours, address, source) {
            (true, None, _) => {
                self.own.tables.insert((family, table));
            }
            (true, Some(address), Some(source)) => {
                self.own.local.insert(LocalRoute { address, source });
            }
            _ => *self.foreign_routes.entry((family, table)).or_default() += 1,
        }
    }
}

/// An address of `lo` that is ours.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let (mut address, mut ours) = (None, false);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(it) => address = Some(*it),
            AddressAttribute::Protocol(it) => ours = u8::from(*it) == PROTOCOL,
            _ => {}
        }
    }
    address.filter(|_| ours)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// A table is filled before a rule leads to it, and emptied after.
async fn change(handle: &Handle, name: &str, from: &Own, to: &Own) -> Result<(), RoutesError> {
    for (family, table) in to.tables.difference(&from.tables) {
        let route = everything(*family, *table);
        let what = format!(
            "{} route local default dev lo table {table}",
            ip_of(*family)
        );
        add_route(handle, route, what, name).await?;
    }
    for rule in to.rules.difference(&from.rules) {
        let what = rule_text(rule);
        let mut request = handle.rule().add();
        *request.message_mut() = rule_message(rule);
        let added = request.execute().await;
        added.map_err(|error| refused("add", what, name)(io_error(error)))?;
    }
    // A changed source is a route that goes and one that comes.
    for route in from.local.difference(&to.local) {
        delete_route(handle, local(route), route_text(route), name).await?;
    }
    for route in to.local.difference(&from.local) {
        add_route(handle, local(route), route_text(route), name).await?;
    }
    for rule in from.rules.difference(&to.rules) {
        let what = rule_text(rule);
        let deleted = handle.rule().del(rule_message(rule)).execute().await;
        deleted.map_err(|error| refused("take away", what, name)(io_error(error)))?;
    }
    for address in to.addresses.difference(&from.addresses) {
        let mut request = handle.address().add(LOOPBACK, *address, bits(address));
        let ours = AddressAttribute::Protocol(PROTOCOL.into());
        request.message_mut().attributes.push(ours);
        // Nobody else has it: it may be used at once.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        let added = request.execute().await;
        let what = address_text(address);
        added.map_err(|error| refused("add", what, name)(io_error(error)))?;
    }
    for address in from.addresses.difference(&to.addresses) {
        let mut message = AddressMessage::default();
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.prefix_len = bits(address);
        message.header.index = LOOPBACK;
        message.attributes = vec![
            AddressAttribute::Local(*address),
            AddressAttribute::Address(*address),
        ];
        let deleted = handle.address().del(message).execute().await;
        let what = address_text(address);
        deleted.map_err(|error| refused("take away", what, name)(io_error(error)))?;
    }
    for (family, table) in from.tables.difference(&to.tables) {
        let what = format!(
            "{} route local default dev lo table {table}",
            ip_of(*family)
        );
        delete_route(handle, everything(*family, *table), what, name).await?;
    }
    Ok(())
}

async fn add_route(
    handle: &Handle,
    route: RouteMessage,
    what: String,
    name: &str,
) -> Result<(), RoutesError> {
    let added = handle.route().add(route).execute().await;
    added.map_err(|error| refused("add", what, name)(io_error(error)))
}

async fn delete_route(
    handle: &Handle,
    route: RouteMessage,
    what: String,
    name: &str,
) -> Result<(), RoutesError> {
    let deleted = handle.route().del(route).execute().await;
    deleted.map_err(|error| refused("take away", what, name)(io_error(error)))
}

fn rule_message(rule: &(Family, u32, u32, u32, u32)) -> RuleMessage {
    let (family, preference, mark, mask, table) = *rule;
    let mut message = RuleMessage::default();
    message.header.family = address_family(family);
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes = vec![
        RuleAttribute::Priority(preference),
        RuleAttribute::FwMark(mark),
        RuleAttribute::FwMask(mask),
        RuleAttribute::Table(table),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    message
}

fn everything(family: Family, table: u32) -> RouteMessage {
    match family {
        Family::V4 => to_this_node(RouteMessageBuilder::<Ipv4Addr>::new(), table).build(),
        Family::V6 => to_this_node(RouteMessageBuilder::<Ipv6Addr>::new(), table).build(),
    }
}

fn local(route: &LocalRoute) -> RouteMessage {
    let mut message = match route.address {
        IpAddr::V4(address) => {
            let route = to_this_node(RouteMessageBuilder::<Ipv4Addr>::new(), TABLE_LOCAL);
            route.destination_prefix(address, 32).build()
        }
        IpAddr::V6(address) => {
            let route = to_this_node(RouteMessageBuilder::<Ipv6Addr>::new(), TABLE_LOCAL);
            route.destination_prefix(address, 128).build()
        }
    };
    let source = RouteAttribute::PrefSource(route.source.into());
    message.attributes.push(source);
    message
}

fn to_this_node<T>(route: RouteMessageBuilder<T>, table: u32) -> RouteMessageBuilder<T> {
    route
        .table_id(table)
        .kind(RouteType::Local)
        .scope(RouteScope::Host)
        .protocol(RouteProtocol::Other(PROTOCOL))
        .output_interface(LOOPBACK)
}

const fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

pub(crate) const fn ip_of(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip -6",
    }
}

fn rule_text((family, preference, mark, mask, table): &(Family, u32, u32, u32, u32)) -> String {
    let ip = ip_of(*family);
    format!("{ip} rule fwmark {mark:#x}/{mask:#x} lookup {table} pref {preference}")
}

const fn bits(address: &IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn address_text(address: &IpAddr) -> String {
    format!("ip addr {address}/{} dev lo", bits(address))
}

fn route_text(route: &LocalRoute) -> String {
    let LocalRoute { address, source } = route;
    format!("ip route local {address} dev lo src {source}")
}
