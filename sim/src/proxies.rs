//! The proxies of a cluster: one a node, or by `sidecar` one in each of its pods.
//!
//! A pod in its node's network has none of its own, as nobody would put one there: its rules would
//! be the node's.

use std::net::IpAddr;

use nodeway_core::datapath::Family;
use nodeway_core::netfilter::sidecar;
use nodeway_core::redirect::Redirect;

use crate::asker::place;
use crate::cluster::AskError;
use crate::envoy::NodeProxy;
use crate::net::{Place, Topology};
use crate::sim::Sim;
use crate::world::World;

/// Where the proxies of a node run.
pub(crate) fn places(topology: &Topology, redirect: Redirect, node: &str) -> Vec<Place> {
    if redirect != Redirect::Sidecar {
        return vec![Place::Node(node.to_owned())];
    }
    let pods = topology.node(node).into_iter().flat_map(|node| &node.pods);
    pods.filter(|pod| !pod.host_network)
        .map(|pod| Place::Pod(pod.name.clone()))
        .collect()
}

/// The proxy of a place on a node, without any resource. In a pod, the rules that lead to it too.
pub(crate) fn proxy(world: &mut World, node: &str, place: &Place, generation: u32) -> NodeProxy {
    let stack = world.stack(place);
    let addresses = stack.map(|stack| world.addresses(stack).to_vec());
    let addresses = addresses.unwrap_or_default();
    let Place::Pod(pod) = place else {
        return NodeProxy::new(node, generation).at(&addresses);
    };
    if let Some(stack) = stack {
        let [v4, v6] = [Family::V4, Family::V6].map(|family| sidecar::rules(family, &[]));
        // Rules that our own generator writes are valid: a test holds that.
        let guarded = world.guard(stack, v4, v6);
        debug_assert_eq!(guarded, Ok(()));
        // All of 127.0.0.0/8 is the pod's own; of IPv6 only what it is given.
        if addresses.iter().any(IpAddr::is_ipv6) {
            world.add_address(stack, sidecar::FROM_PROXY_V6.into());
        }
    }
    NodeProxy::sidecar(node, pod, generation).at(&addresses)
}

impl Sim {
    /// Where the proxies run that serve a node's plan: at the node, or by `sidecar` in its pods.
    #[must_use]
    pub fn proxy_places(&self, node: &str) -> Vec<Place> {
        places(self.topology(), self.settings().redirect, node)
    }

    /// Why a client has no sidecar, where that is the redirect.
    pub(crate) fn without_sidecar(&self, from: &str) -> Result<Option<String>, AskError> {
        if self.settings().redirect != Redirect::Sidecar {
            return Ok(None);
        }
        let what = match place(from, self.objects(), self.topology())? {
            Place::Pod(pod) if !self.in_host_network(&pod) => return Ok(None),
            Place::Pod(_) => "a pod in its node's network",
            Place::Node(_) => "a node",
            Place::Outside(_) => "a host outside",
        };
        Ok(Some(format!("{from} is {what}, which has no sidecar")))
    }

    fn in_host_network(&self, name: &str) -> bool {
        let found = self.topology().pod(name);
        found.is_some_and(|(_, pod)| pod.host_network)
    }
}
