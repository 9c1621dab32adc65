//! A dump becomes the plan of a node: each listener has a port, and addresses that lead to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::ConfigDump;
use crate::object::{Kind, ObjectRef};
use crate::plan::{FrontendKey, FrontendKind, Ledger, NodePlan, PlannedFrontend, ResourceName};

/// Ports for the simulated sockets, above those from which connections come: what the listeners'
/// real ports are is the frontends' affair.
const PORTS: (u16, u16) = (61_000, u16::MAX);

impl ConfigDump {
    /// The plan of the node that serves the dump. `own` are the node's addresses: names lead there;
    /// `reached` others that a client asks for and at which only listeners on all addresses listen.
    #[must_use]
    pub fn serve(&self, own: &[IpAddr], reached: &[IpAddr]) -> NodePlan {
        let mut plan = self.plan.clone();
        let mut ledger = Ledger::with_range(PORTS.0, PORTS.1);
        for (name, listener) in &mut plan.listeners {
            if let Some(port) = ledger.port(name) {
                Arc::make_mut(listener).port = port;
            }
        }
        for (key, listener) in self.addresses(own, reached) {
            let Some(port) = plan.listeners.get(&listener).map(|it| it.port) else {
                continue;
            };
            let frontend = PlannedFrontend {
                ranges: None,
                kind: FrontendKind::ExternalIp,
                listener,
                listener_port: port,
                service: ObjectRef::cluster(Kind::Node, super::NODE),
                service_port: key.port,
                config: Self::reference(),
            };
            plan.frontends.insert(key, frontend);
        }
        plan
    }

    /// Which listener has a connection to which address: one on that very address before one on
    /// all. At the node's own addresses, which stand for every name, a port that only one listener
    /// has leads to it, wherever that one listens.
    fn addresses(&self, own: &[IpAddr], reached: &[IpAddr]) -> BTreeMap<FrontendKey, ResourceName> {
        let mut found: BTreeMap<FrontendKey, ResourceName> = BTreeMap::new();
        let all = || {
            self.listens
                .iter()
                .flat_map(|(name, addresses)| addresses.iter().map(move |at| (name, at)))
        };
        for (name, at) in all().filter(|(_, at)| !at.ip().is_unspecified()) {
            let (address, port) = (at.ip(), at.port());
            found
                .entry(FrontendKey { address, port })
                .or_insert_with(|| Arc::clone(name));
        }
        // `::` takes IPv4 too, where no other listener has `0.0.0.0`.
        let mut anywhere: Vec<_> = all().filter(|(_, at)| at.ip().is_unspecified()).collect();
        anywhere.sort_by_key(|(_, at)| at.is_ipv6());
        for (name, at) in anywhere {
            let both = at.is_ipv6();
            for address in own.iter().chain(reached).copied() {
                if both || address.is_ipv4() {
                    let port = at.port();
                    found
                        .entry(FrontendKey { address, port })
                        .or_insert_with(|| Arc::clone(name));
                }
            }
        }
        let mut by_port: BTreeMap<u16, Vec<&ResourceName>> = BTreeMap::new();
        for (name, at) in all() {
            let names = by_port.entry(at.port()).or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        for (port, names) in by_port {
            let [name] = names.as_slice() else { continue };
            for address in own.iter().copied() {
                found
                    .entry(FrontendKey { address, port })
                    .or_insert_with(|| Arc::clone(name));
            }
        }
        found
    }
}
