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
    #[error("node {node}: {source}")]
    Rules {
        /// The node.
        node: String,
        /// Why.
        source: NetfilterError,
    },
    /// A way that is not there yet.
    #[error("a lab has no redirect `{0}` yet; take `iptables`, or `nodeway sim` for the others")]
    NotYet(Redirect),
}

/// What stands on each node.
#[derive(Debug)]
pub(super) struct Redirected {
    _nodes: Vec<OnNode>,
}

/// What stands on a node.
#[derive(Debug)]
struct OnNode {
    _own: Netfilter,
    _kube_proxy: Netfilter,
}

impl Redirected {
    /// Leads the packets of every node's frontends to its listeners, whose sockets listen.
    pub(super) fn install(model: &Sim, machines: &Machines) -> Result<Self, RedirectError> {
        let mut nodes = Vec::new();
        for spec in &model.topology().nodes {
            let netns = machines.get(&Place::Node(spec.name.clone()));
            if let (Some(netns), Some(plan)) = (netns, model.plan(&spec.name)) {
                nodes.push(on_node(model, spec, plan, netns)?);
            }
        }
        Ok(Self { _nodes: nodes })
    }
}

fn on_node(
    model: &Sim,
    spec: &NodeSpec,
    plan: &NodePlan,
    netns: &Arc<NetNs>,
) -> Result<OnNode, RedirectError> {
    let failed = |source| RedirectError::Rules {
        node: spec.name.clone(),
        source,
    };
    let mut kube_proxy = Netfilter::new(Owner::KubeProxy);
    if model.settings().kube_proxy {
        let services = model.services().on(&spec.name);
        let wanted = Wanted::kube_proxy(&services);
        kube_proxy.apply(netns, &wanted).map_err(failed)?;
    }
    let frontends = frontends(plan);
    let mut own = Netfilter::new(Owner::Nodeway);
    let wanted = match model.settings().redirect {
        Redirect::Iptables => Wanted::tproxy(&frontends, &Marking::default()),
        other => return Err(RedirectError::NotYet(other)),
    };
    own.apply(netns, &wanted).map_err(failed)?;
    Ok(OnNode {
        _own: own,
        _kube_proxy: kube_proxy,
    })
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
