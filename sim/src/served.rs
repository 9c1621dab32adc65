//! What the steps of a way say of who served it.

use std::net::SocketAddr;

use nodeway_core::object::{Kind, ObjectRef};
use nodeway_core::plan::ResourceName;
use nodeway_core::trace::{HandshakeStep, Name, NameStep, ReplyStep, Step, Way};

/// What the steps of a way say of who served it.
#[derive(Default)]
pub(crate) struct Served {
    pub(crate) service: Option<ObjectRef>,
    pub(crate) pod: Option<ObjectRef>,
    pub(crate) endpoint: Option<SocketAddr>,
    /// The node whose proxy accepted the connection.
    pub(crate) proxy: Option<String>,
    /// The node whose table has the destination, whether a proxy was there or not.
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
                Step::Frontend(step) if step.frontend.is_some() => {
                    served.led_by.get_or_insert_with(|| step.node.to_string());
                }
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
}
