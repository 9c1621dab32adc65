//! What leads packets to the listeners of a lab's nodes, and kube-proxy's rules beside it.

use std::sync::Arc;

use nodeway_core::datapath::{Frontend, FrontendState};
use nodeway_core::netfilter::Marking;
use nodeway_core::plan::{FrontendKey, NodePlan};
use nodeway_sim::{NodeSpec, Place, Redirect, Sim};

use super::machines::Machines;
use crate::netfilter::{Netfilter, NetfilterError, Owner, Wanted};
use crate::netns::NetNs;

/// Why packets cannot be led.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// Rules.
    #[error("{place}: {source}")]
    Rules {
        /// The node or pod.
        place: Place,
        /// Why.
        source: NetfilterError,
    },
    /// A way that is not there yet.
    #[error("a lab has no redirect `{0}` yet; take `iptables`, or `nodeway sim` for the others")]
    NotYet(Redirect),
}

/// What stands: rules of namespaces. It goes away with them.
#[derive(Debug)]
pub(super) struct Redirected {
    _stands: Vec<Netfilter>,
}

impl Redirected {
    /// Leads the packets of every node's frontends to its listeners, whose sockets listen.
    pub(super) fn install(model: &Sim, machines: &Machines) -> Result<Self, RedirectError> {
        let mut stands = Vec::new();
        for spec in &model.topology().nodes {
            let place = Place::Node(spec.name.clone());
            if let (Some(netns), Some(plan)) = (machines.get(&place), model.plan(&spec.name)) {
                stands.extend(kube_proxy(model, spec, netns)?);
                stands.extend(on_node(model, plan, &place, netns)?);
            }
            for place in model.proxy_places(&spec.name) {
                if let (Place::Pod(_), Some(netns)) = (&place, machines.get(&place)) {
                    let wanted = Wanted::sidecar(&[]);
                    stands.push(rules(Owner::Nodeway, &wanted, &place, netns)?);
                }
            }
        }
        Ok(Self { _stands: stands })
    }
}

/// kube-proxy's rules, if the fixture has them.
fn kube_proxy(
    model: &Sim,
    spec: &NodeSpec,
    netns: &Arc<NetNs>,
) -> Result<Option<Netfilter>, RedirectError> {
    if !model.settings().kube_proxy {
        return Ok(None);
    }
    let services = model.services().on(&spec.name);
    let wanted = Wanted::kube_proxy(&services);
    let place = Place::Node(spec.name.clone());
    rules(Owner::KubeProxy, &wanted, &place, netns).map(Some)
}

/// The way of a node.
fn on_node(
    model: &Sim,
    plan: &NodePlan,
    place: &Place,
    netns: &Arc<NetNs>,
) -> Result<Option<Netfilter>, RedirectError> {
    let frontends = frontends(plan);
    let wanted = match model.settings().redirect {
        Redirect::Iptables => Wanted::tproxy(&frontends, &Marking::default()),
        // Its rules are those of pods.
        Redirect::Sidecar => return Ok(None),
        other => return Err(RedirectError::NotYet(other)),
    };
    rules(Owner::Nodeway, &wanted, place, netns).map(Some)
}

fn rules(
    owner: Owner,
    wanted: &Wanted,
    place: &Place,
    netns: &Arc<NetNs>,
) -> Result<Netfilter, RedirectError> {
    let mut netfilter = Netfilter::new(owner);
    let applied = netfilter.apply(netns, wanted);
    applied.map_err(|source| RedirectError::Rules {
        place: place.clone(),
        source,
    })?;
    Ok(netfilter)
}

/// The frontends of a plan, all in force.
fn frontends(plan: &NodePlan) -> Vec<(FrontendKey, Frontend)> {
    let frontends = plan.frontends.iter();
    frontends
        .map(|(key, planned)| {
            let frontend = Frontend {
                listener_port: planned.listener_port,
                state: FrontendState::Active,
            };
            (*key, frontend)
        })
        .collect()
}
