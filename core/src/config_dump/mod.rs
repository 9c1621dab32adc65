//! Envoy's `config_dump`: what a running Envoy says it has, from the listener on.
//!
//! The dump of any Envoy (`GET /config_dump`, better `?include_eds`) becomes a [`NodePlan`] that one
//! simulated node serves: static and dynamic listeners, route configurations and clusters, endpoints
//! written in clusters or dumped. There is no second evaluation: the node's proxy decides as it
//! does for a plan that was made of objects. A newer Envoy, or one with extensions of somebody
//! else's, has fields and types that are not known here: those are taken out and named.

mod reading;
mod resource;
mod serving;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::object::{Kind, ObjectRef};
use crate::plan::{NodePlan, ResourceName};
use crate::proxy::Discovery;
use crate::source::{SourceError, Text};

pub(crate) use reading::read;

/// The name of the node that serves a dump.
pub const NODE: &str = "envoy";

/// A dump, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigDump {
    /// The file, as the user named it.
    pub file: Arc<str>,
    /// Listeners, routes and clusters; neither ports nor frontends are given yet.
    pub plan: NodePlan,
    /// Where each listener listens; those that listen on no IP address are not here.
    pub listens: BTreeMap<ResourceName, Vec<SocketAddr>>,
    /// Host names that clusters look up, by the address that stands for each here.
    pub looked_up: BTreeMap<IpAddr, String>,
    /// Whether endpoints were dumped: without `?include_eds` they are not.
    pub has_endpoints: bool,
    /// What was left out of a resource before it could be read, by the resource's kind and name.
    pub left_out: BTreeMap<(&'static str, String), Vec<String>>,
    /// What Envoy refused, and whole resources that could not be read.
    pub notes: Vec<String>,
}

impl ConfigDump {
    /// Reads what an Envoy that is known to serve says it has. It may have no listener yet.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn of_running(text: &Text) -> Result<Self, Box<SourceError>> {
        reading::parse(text)
    }

    /// Whether a text is a dump: one JSON object with `configs` of Envoy's admin messages.
    #[must_use]
    pub fn is_one(content: &str) -> bool {
        /// The first `@type` stands at the very beginning; what precedes it is white space.
        const LOOK: usize = 4096;
        let content = content.trim_start_matches('\u{feff}').trim_start();
        let end = (0..=content.len().min(LOOK))
            .rev()
            .find(|end| content.is_char_boundary(*end))
            .unwrap_or(0);
        let start = content.get(..end).unwrap_or_default();
        start.starts_with('{')
            && start.contains("\"configs\"")
            && (start.contains("envoy.admin.") || start.contains("\"@type\""))
    }

    /// The endpoints of its clusters, each with the clusters that have it.
    #[must_use]
    pub fn endpoints(&self) -> BTreeMap<SocketAddr, Vec<String>> {
        let mut all: BTreeMap<SocketAddr, Vec<String>> = BTreeMap::new();
        for (name, cluster) in &self.plan.clusters {
            if let Discovery::Static(written) = &cluster.model.discovery {
                for endpoint in &written.endpoints {
                    let clusters = all.entry(endpoint.address).or_default();
                    if clusters.last().is_none_or(|last| **last != **name) {
                        clusters.push(name.to_string());
                    }
                }
            }
        }
        all
    }

    /// What was left out of a resource.
    #[must_use]
    pub fn left_out_of(&self, kind: &'static str, name: &str) -> &[String] {
        self.left_out
            .get(&(kind, name.to_owned()))
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// What stands for the dump where a plan names the config of a resource.
    pub(crate) fn reference() -> ObjectRef {
        ObjectRef::cluster(Kind::CiliumClusterwideEnvoyConfig, "config_dump")
    }
}
