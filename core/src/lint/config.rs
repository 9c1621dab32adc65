//! A config with its resources read, whatever nodes it applies on.

use std::sync::Arc;

use crate::envoy::{self, ResourceKind};
use crate::object::{EnvoyConfig, Object, ObjectRef, Objects};
use crate::proxy::{Listener, RouteSource, RouteTable, Terminal};

/// A config that nothing is refused of.
pub(super) struct Config {
    pub(super) reference: ObjectRef,
    /// Its resources in the order of `spec.resources`.
    pub(super) resources: Vec<Read>,
}

/// A resource as the lints need it.
pub(super) struct Read {
    /// Tables of routes, each with its path from the config on.
    pub(super) tables: Vec<(String, Arc<RouteTable>)>,
}

impl Config {
    /// Every config of both kinds that reads without a mistake; of the others the plan tells.
    pub(super) fn all(objects: &Objects) -> Vec<Self> {
        let configs = objects.iter().filter_map(|(reference, entry)| {
            let source = match &entry.object {
                Object::CiliumEnvoyConfig(source)
                | Object::CiliumClusterwideEnvoyConfig(source) => source,
                _ => return None,
            };
            Some(Self {
                reference: reference.clone(),
                resources: read(reference, source)?,
            })
        });
        configs.collect()
    }
}

fn read(reference: &ObjectRef, source: &EnvoyConfig) -> Option<Vec<Read>> {
    let decoded = source.spec.resources.iter().map(envoy::decode);
    let decoded = decoded.collect::<Result<Vec<_>, _>>().ok()?;
    let completed = envoy::complete(reference, decoded);
    let numbered = completed.iter().enumerate();
    numbered
        .map(|(index, resource)| Read::of(index, resource))
        .collect()
}

impl Read {
    fn of(index: usize, resource: &envoy::Resource) -> Option<Self> {
        let at = format!("spec.resources[{index}]");
        let message = &resource.message;
        let mut tables = Vec::new();
        match resource.kind {
            ResourceKind::RouteConfiguration => {
                let table = RouteTable::read(message).ok()?;
                tables.push((at, Arc::new(table)));
            }
            ResourceKind::Listener => {
                let listener = Listener::read(message).ok()?;
                let numbered = listener.filter_chains.iter().enumerate();
                let chains = numbered.map(|(n, chain)| (format!("{at}.filterChains[{n}]"), chain));
                let last = listener.default_filter_chain.iter();
                let last = last.map(|chain| (format!("{at}.defaultFilterChain"), chain));
                for (path, chain) in chains.chain(last) {
                    if let Terminal::Http(manager) = &chain.terminal
                        && let RouteSource::Inline(table) = &manager.routes
                    {
                        tables.push((path, Arc::new(RouteTable::clone(table))));
                    }
                }
            }
            ResourceKind::Cluster | ResourceKind::ClusterLoadAssignment | ResourceKind::Secret => {}
        }
        Some(Self { tables })
    }
}
