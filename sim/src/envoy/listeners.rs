//! The proxy's listening sockets: one on each loopback address for each planned listener; in a pod,
//! one for all that it sends and one for all that it gets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use nodeway_core::netfilter::sidecar::{INBOUND, OUTBOUND};
use nodeway_core::plan::ResourceName;

use super::resources::Resources;
use crate::process::{CallError, ListenSocketId, Os};

const LOOPBACKS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// What Istio calls the listeners of a pod's two ports.
pub(super) const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
const VIRTUAL_INBOUND: &str = "virtualInbound";

/// The sockets that listen.
#[derive(Default)]
pub(super) struct Listening {
    /// The listener of a socket.
    names: BTreeMap<ListenSocketId, ResourceName>,
    /// The port and the sockets of a listener.
    sockets: BTreeMap<ResourceName, (u16, Vec<ListenSocketId>)>,
    refused: BTreeMap<ResourceName, CallError>,
}

impl Listening {
    /// The listener of a socket.
    pub(super) fn name(&self, socket: ListenSocketId) -> Option<&ResourceName> {
        self.names.get(&socket)
    }

    pub(super) fn refused(&self) -> &BTreeMap<ResourceName, CallError> {
        &self.refused
    }

    /// Closes what is not planned any more, opens what is not open yet.
    pub(super) fn follow(&mut self, resources: &Resources, os: &mut dyn Os) {
        let planned = |name: &ResourceName| resources.listeners.get(name).map(|it| it.port);
        let gone: Vec<ResourceName> = self
            .sockets
            .iter()
            .filter(|(name, (port, _))| planned(name) != Some(*port))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for name in gone {
            self.close(&name, os);
        }
        self.refused.clear();
        for (name, listener) in &resources.listeners {
            if !self.sockets.contains_key(name) {
                self.open(name, listener.port, os);
            }
        }
    }

    /// Opens the two ports that a pod's rules lead to, if they are not open yet.
    pub(super) fn capture(&mut self, os: &mut dyn Os) {
        self.refused.clear();
        for (name, port) in [(VIRTUAL_OUTBOUND, OUTBOUND), (VIRTUAL_INBOUND, INBOUND)] {
            let name: ResourceName = name.into();
            if self.sockets.contains_key(&name) {
                continue;
            }
            match os.listen(None, port) {
                Ok(socket) => {
                    self.names.insert(socket, Arc::clone(&name));
                    self.sockets.insert(name, (port, vec![socket]));
                }
                Err(error) => {
                    self.refused.insert(name, error);
                }
            }
        }
    }

    fn open(&mut self, name: &ResourceName, port: u16, os: &mut dyn Os) {
        let mut sockets = Vec::new();
        let mut refusal = None;
        for address in LOOPBACKS {
            match os.listen(Some(address), port) {
                Ok(socket) => sockets.push(socket),
                // A node of one family has one loopback address.
                Err(CallError::NoAddress) => {}
                Err(error) => refusal = Some(error),
            }
        }
        if sockets.is_empty() {
            refusal = refusal.or(Some(CallError::NoAddress));
        }
        if let Some(error) = refusal {
            // All or nothing, as an Envoy with additional addresses does.
            for socket in sockets {
                os.unlisten(socket);
            }
            self.refused.insert(Arc::clone(name), error);
            return;
        }
        for socket in &sockets {
            self.names.insert(*socket, Arc::clone(name));
        }
        self.sockets.insert(Arc::clone(name), (port, sockets));
    }

    fn close(&mut self, name: &ResourceName, os: &mut dyn Os) {
        let (_, sockets) = self.sockets.remove(name).unwrap_or_default();
        for socket in sockets {
            self.names.remove(&socket);
            os.unlisten(socket);
        }
    }
}
