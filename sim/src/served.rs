//! What the steps of a way say of who served it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use nodeway_core::netfilter::BuiltIn;
use nodeway_core::netfilter::sidecar::{FROM_PROXY_V4, FROM_PROXY_V6};
use nodeway_core::object::{Kind, ObjectRef};
use nodeway_core::plan::ResourceName;
use nodeway_core::trace::{
    HandshakeStep, Name, NameStep, ReplyStep, SidecarStep, Step, Taken, Way,
};

use crate::reply::Seen;

/// What the steps of a way say of who served it.
#[derive(Default)]
pub(crate) struct Served {
    pub(crate) service: Option<ObjectRef>,
    pub(crate) pod: Option<ObjectRef>,
    pub(crate) endpoint: Option<SocketAddr>,
    /// The node whose proxy accepted the connection.
    pub(crate) proxy: Option<String>,
    /// The pod whose own proxy that was, or to whose own proxy rules lead, though it is not there.
    pub(crate) proxy_pod: Option<String>,
    /// The pod whose own proxy passed the connection in.
    passed_in: Option<Arc<str>>,
    /// The node whose table, or the rules of whose pod, lead the connection, whether a proxy was
    /// there or not.
    pub(crate) led_by: Option<String>,
    pub(crate) proxy_peer: Option<SocketAddr>,
    pub(crate) proxy_destination: Option<SocketAddr>,
    pub(crate) listener: Option<ResourceName>,
    pub(crate) route: Option<String>,
    pub(crate) cluster: Option<ResourceName>,
    /// The last answer to a TLS hello.
    pub(crate) handshake: Option<HandshakeStep>,
    pub(crate) answered_by_proxy: bool,
}

impl Served {
    pub(crate) fn of(way: Option<&Way>) -> Self {
        let mut served = Self::default();
        for (_, step) in way.iter().flat_map(|way| &way.steps) {
            match step {
                Step::Name(NameStep {
                    found: Name::Address { owner, .. },
                    ..
                }) => {
                    // A pod that is asked by its address needs nobody to choose it.
                    let pod = owner.as_ref().filter(|owner| owner.kind == Kind::Pod);
                    served.pod = pod.cloned();
                }
                Step::Frontend(step) if step.leads() => {
                    served.led_by.get_or_insert_with(|| step.node.to_string());
                }
                // A rule for what the client's pod sends.
                Step::Rule(step) if step.pod.is_some() && step.hook == BuiltIn::Output => {
                    served.led_by.get_or_insert_with(|| step.node.to_string());
                    let pod = step.pod.as_ref().map(ToString::to_string);
                    served.proxy_pod = served.proxy_pod.or(pod);
                }
                Step::Sidecar(step) => served.captured(step),
                Step::Translation(step) => {
                    served.service = Some(step.service.clone());
                    served.endpoint = step.to.as_ref().map(|to| to.address);
                    served.pod = step.to.as_ref().and_then(|to| to.pod.clone());
                }
                Step::Listener(step) => {
                    served.proxy = Some(step.node.to_string());
                    served.listener = Some(step.listener.clone());
                    served.proxy_peer = Some(step.peer);
                    served.proxy_destination = Some(step.destination);
                }
                Step::Handshake(step) => served.handshake = Some(step.clone()),
                Step::Route(step) => {
                    let route = step
                        .choice
                        .as_ref()
                        .and_then(|choice| choice.route.as_ref());
                    served.route = route.map(|route| route.description.to_string());
                }
                Step::Cluster(step) => served.cluster = Some(step.cluster.clone()),
                Step::Endpoint(step) => {
                    served.service = step.service.clone();
                    served.endpoint = step.chosen.as_ref().map(|chosen| chosen.address);
                    served.pod = step.chosen.as_ref().and_then(|chosen| chosen.pod.clone());
                }
                Step::Reply(ReplyStep::Proxy { .. }) => served.answered_by_proxy = true,
                _ => {}
            }
        }
        served
    }

    /// A pod's own proxy has the connection: its client's, or that of who serves.
    fn captured(&mut self, step: &SidecarStep) {
        if matches!(step.taken, Taken::PassedIn { .. }) {
            self.passed_in = Some(Arc::clone(&step.pod));
            return;
        }
        self.proxy = Some(step.node.to_string());
        self.proxy_pod = Some(step.pod.to_string());
        self.proxy_peer = Some(step.peer);
        self.proxy_destination = Some(step.meant);
    }

    /// The peer that a backend saw, where that is its pod's own proxy and no other address.
    pub(crate) fn own_proxy(&self, peer: SocketAddr) -> Option<Seen> {
        let own = [IpAddr::V4(FROM_PROXY_V4), IpAddr::V6(FROM_PROXY_V6)];
        let pod = self.passed_in.as_ref().filter(|_| own.contains(&peer.ip()));
        pod.map(|pod| Seen {
            address: peer,
            name: Some(format!("{} {pod}", Kind::Pod)),
        })
    }
}
