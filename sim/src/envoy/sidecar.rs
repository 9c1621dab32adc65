//! A pod's own proxy: all that the pod sends and gets comes here by rules, and connection tracking
//! says where it was meant to go.
//!
//! What the pod sends to a frontend of the plan, the frontend's listener has, as on the node. All
//! else is passed on as it is: what the pod sends, to where it was meant to go (Istio's
//! `PassthroughCluster`); what it gets, to its own port (`InboundPassthroughCluster`), from an address
//! that the rules leave alone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nodeway_core::datapath::FrontendState;
use nodeway_core::netfilter::sidecar::{FROM_PROXY_V4, FROM_PROXY_V6, INBOUND, OUTBOUND};
use nodeway_core::plan::{FrontendKey, ResourceName};
use nodeway_core::trace::{FrontendStep, SidecarStep, Step, Taken};

use super::NodeProxy;
use super::downstream::{Entry, Stage};
use super::listeners::VIRTUAL_OUTBOUND;
use super::relay::Relay;
use crate::http::Pipe;
use crate::process::{Os, SocketId, WayId};

/// How long a connection that is passed on may take to stand; what Istio gives its clusters.
const CONNECT: Duration = Duration::from_secs(10);

/// How a connection came into a pod's proxy, and what that does with it.
pub(super) struct Captured {
    step: SidecarStep,
    /// Whether a listener has the address; of what the pod sends.
    frontend: Option<FrontendStep>,
}

impl Captured {
    /// Where it was meant to go.
    pub(super) fn meant(&self) -> SocketAddr {
        self.step.meant
    }

    /// The proxy's port.
    pub(super) fn port(&self) -> u16 {
        self.step.port
    }

    pub(super) fn note(&self, way: Option<WayId>, os: &mut dyn Os) {
        if let Some(way) = way {
            os.note(way, Step::Sidecar(self.step.clone()));
            if let Some(frontend) = &self.frontend {
                os.note(way, Step::Frontend(frontend.clone()));
            }
        }
    }
}

impl NodeProxy {
    /// Takes a connection that rules have led to one of the pod's two ports.
    pub(super) fn capture(
        &mut self,
        socket: SocketId,
        by: &ResourceName,
        pod: Arc<str>,
        os: &mut dyn Os,
    ) {
        let (Some(meant), Some(peer)) = (os.original_destination(socket), os.peer(socket)) else {
            // Nobody was led here. Who asks for the port itself would be passed on to it for ever.
            os.abort(socket);
            return;
        };
        let outbound = &**by == VIRTUAL_OUTBOUND;
        let mut captured = Captured {
            step: SidecarStep {
                node: Arc::clone(&self.node),
                pod,
                port: if outbound { OUTBOUND } else { INBOUND },
                peer,
                meant,
                taken: Taken::PassedOut,
            },
            frontend: outbound.then(|| self.look_up(meant, peer.ip())),
        };
        if !outbound {
            let from = match meant {
                SocketAddr::V4(_) => IpAddr::V4(FROM_PROXY_V4),
                SocketAddr::V6(_) => IpAddr::V6(FROM_PROXY_V6),
            };
            captured.step.taken = Taken::PassedIn { from };
        }
        // What a pod sends from outside of a frontend's source ranges goes on as it is, to its node,
        // where it is kube-proxy's, which drops it.
        let found = captured.frontend.as_ref().filter(|step| step.leads());
        let found = found.and_then(|step| step.frontend.as_ref());
        let listener = found.and_then(|it| self.resources.listeners.get_key_value(&it.listener));
        let stage = match listener {
            Some((name, listener)) => {
                captured.step.taken = Taken::Listened;
                Stage::Opening(Box::new(Entry {
                    name: Arc::clone(name),
                    listener: Arc::clone(listener),
                    captured: Some(captured),
                }))
            }
            None => self.pass_on(socket, captured, os),
        };
        self.admit(socket, stage, os);
    }

    /// What the plan has for an address; its packets come in by this proxy's own port.
    fn look_up(&self, meant: SocketAddr, client: IpAddr) -> FrontendStep {
        let address = FrontendKey {
            address: meant.ip(),
            port: meant.port(),
        };
        let mut frontend = self.resources.frontend(address).cloned();
        if let Some(frontend) = &mut frontend {
            frontend.listener_port = OUTBOUND;
        }
        FrontendStep {
            node: Arc::clone(&self.node),
            address,
            frontend,
            state: FrontendState::Active,
            source: client,
        }
    }

    /// Begins to pass bytes on to where they were meant to go.
    fn pass_on(&mut self, socket: SocketId, captured: Captured, os: &mut dyn Os) -> Stage {
        let (way, meant) = (os.way(socket), captured.step.meant);
        let (cluster, begun) = match captured.step.taken {
            Taken::PassedIn { from } => (
                "InboundPassthroughCluster",
                os.connect_from(from, meant, way),
            ),
            Taken::Listened | Taken::PassedOut => ("PassthroughCluster", os.connect(meant, way)),
        };
        let Ok(upstream) = begun else {
            captured.note(way, os);
            return Stage::Gone;
        };
        let pipe = Pipe::new(upstream);
        self.hold((cluster.into(), meant), pipe, socket, Some(CONNECT), os);
        Stage::Tcp(Relay::captured(upstream, captured))
    }
}
