//! A config with its resources read, whatever nodes it applies on.

use prost_reflect::DynamicMessage;

use crate::envoy::{self, ResourceKind};
use crate::object::{EnvoyConfig, Object, ObjectRef, Objects};
use crate::proxy::{self, RouteSource, RouteTable, Terminal};

/// A config that nothing is refused of.
pub(super) struct Config<'a> {
    pub(super) reference: ObjectRef,
    pub(super) source: &'a EnvoyConfig,
    /// Its resources in the order of `spec.resources`.
    pub(super) resources: Vec<Read>,
}

/// A resource as the lints need it.
#[derive(Default)]
pub(super) struct Read {
    /// Tables of routes, each with its path from the config on.
    pub(super) tables: Vec<(String, RouteTable)>,
    pub(super) listener: Option<Listener>,
    /// Of a Cluster, the qualified name and the completed message.
    pub(super) cluster: Option<(String, DynamicMessage)>,
}

/// How packets may come to a listener.
pub(super) struct Listener {
    /// Its name as the config spells it.
    pub(super) short: String,
    /// Whether it has an address, of whichever kind, so that it needs no Service to lead to it.
    pub(super) has_address: bool,
}

impl<'a> Config<'a> {
    /// Every config of both kinds that reads without a mistake; of the others the plan tells.
    pub(super) fn all(objects: &'a Objects) -> Vec<Self> {
        let configs = objects.iter().filter_map(|(reference, entry)| {
            let source = match &entry.object {
                Object::CiliumEnvoyConfig(source)
                | Object::CiliumClusterwideEnvoyConfig(source) => source,
                _ => return None,
            };
            Some(Self {
                reference: reference.clone(),
                source,
                resources: read(reference, source)?,
            })
        });
        configs.collect()
    }
}

fn read(reference: &ObjectRef, source: &EnvoyConfig) -> Option<Vec<Read>> {
    let decoded = source.spec.resources.iter().map(envoy::decode);
    let decoded = decoded.collect::<Result<Vec<_>, _>>().ok()?;
    let short: Vec<String> = decoded.iter().map(|it| it.name.clone()).collect();
    let completed = envoy::complete(reference, decoded).into_iter();
    let named = short.into_iter().zip(completed).enumerate();
    named
        .map(|(index, (short, resource))| Read::of(index, short, resource))
        .collect()
}

impl Read {
    fn of(index: usize, short: String, resource: envoy::Resource) -> Option<Self> {
        let at = format!("spec.resources[{index}]");
        let message = &resource.message;
        let mut read = Self::default();
        match resource.kind {
            ResourceKind::RouteConfiguration => {
                read.tables.push((at, RouteTable::read(message).ok()?));
            }
            ResourceKind::Listener => {
                read.tables = inline_tables(&at, &proxy::Listener::read(message).ok()?);
                read.listener = Some(Listener {
                    short,
                    has_address: ["address", "internal_listener"]
                        .into_iter()
                        .any(|field| message.has_field_by_name(field)),
                });
            }
            ResourceKind::Cluster => {
                proxy::Cluster::read(message).ok()?;
                read.cluster = Some((resource.name, resource.message));
            }
            ResourceKind::ClusterLoadAssignment | ResourceKind::Secret => {}
        }
        Some(read)
    }
}

/// The tables that stand in a listener itself.
fn inline_tables(at: &str, listener: &proxy::Listener) -> Vec<(String, RouteTable)> {
    let numbered = listener.filter_chains.iter().enumerate();
    let chains = numbered.map(|(n, chain)| (format!("{at}.filterChains[{n}]"), chain));
    let last = listener.default_filter_chain.iter();
    let last = last.map(|chain| (format!("{at}.defaultFilterChain"), chain));
    let inline = chains.chain(last).filter_map(|(path, chain)| {
        let Terminal::Http(manager) = &chain.terminal else {
            return None;
        };
        match &manager.routes {
            RouteSource::Inline(table) => Some((path, RouteTable::clone(table))),
            _ => None,
        }
    });
    inline.collect()
}
