//! What leads packets to the listeners of a lab's nodes, and kube-proxy's rules beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use nodeway_core::datapath::{Frontend, FrontendState};
use nodeway_core::frontend::SourceRanges;
use nodeway_core::plan::{FrontendKey, NodePlan};
use nodeway_sim::{NodeSpec, Place, Redirect, Sim};

use super::machines::Machines;
use super::wiring::devices;
use crate::netfilter::{Netfilter, Owner, Wanted};
use crate::netns::NetNs;
use crate::redirect::{NodeRedirect, RedirectError, Site};

/// Why packets cannot be led at a node or pod.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {source}")]
pub struct NotRedirected {
    place: Place,
    source: RedirectError,
}

fn at(place: &Place) -> impl FnOnce(RedirectError) -> NotRedirected {
    let place = place.clone();
    move |source| NotRedirected { place, source }
}

/// What stands: rules go away with their namespaces, programs with this.
#[derive(Debug)]
pub(super) struct Redirected {
    rules: Vec<Netfilter>,
    nodes: BTreeMap<String, NodeRedirect>,
}

impl Redirected {
    /// Leads the packets of every node's frontends to its listeners, whose sockets listen.
    pub(super) fn install(model: &Sim, machines: &Machines) -> Result<Self, NotRedirected> {
        let mut own = Self {
            rules: Vec::new(),
            nodes: BTreeMap::new(),
        };
        for spec in &model.topology().nodes {
            let place = Place::Node(spec.name.clone());
            if let (Some(netns), Some(plan)) = (machines.get(&place), model.plan(&spec.name)) {
                own.kube_proxy(model, spec, netns)?;
                own.node(model, spec, plan, netns)?;
            }
            for place in model.proxy_places(&spec.name) {
                if let (Place::Pod(_), Some(netns)) = (&place, machines.get(&place)) {
                    own.rules(Owner::Nodeway, &Wanted::sidecar(&[]), &place, netns)?;
                }
            }
        }
        Ok(own)
    }

    /// Leads to the sockets that a node's listeners have now: another Envoy has others.
    pub(super) fn take_sockets(&mut self, node: &str) -> Result<(), NotRedirected> {
        if let Some(redirect) = self.nodes.get_mut(node) {
            // Where nobody listens packets are met with what the redirect declares for that.
            let taken = redirect.take_sockets();
            taken.map_err(at(&Place::Node(node.to_owned())))?;
        }
        Ok(())
    }

    /// kube-proxy's rules, if the fixture has them.
    fn kube_proxy(
        &mut self,
        model: &Sim,
        spec: &NodeSpec,
        netns: &Arc<NetNs>,
    ) -> Result<(), NotRedirected> {
        if !model.settings().kube_proxy {
            return Ok(());
        }
        let services = model.services().on(&spec.name);
        let wanted = Wanted::kube_proxy(&services);
        let place = Place::Node(spec.name.clone());
        self.rules(Owner::KubeProxy, &wanted, &place, netns)
    }

    /// The node's way; a sidecar's is that of pods.
    fn node(
        &mut self,
        model: &Sim,
        spec: &NodeSpec,
        plan: &NodePlan,
        netns: &NetNs,
    ) -> Result<(), NotRedirected> {
        let redirect = model.settings().redirect;
        if redirect == Redirect::Sidecar {
            return Ok(());
        }
        let site = Site {
            netns,
            addresses: &spec.addresses,
            devices: &devices(spec),
            pins: None,
        };
        let started = NodeRedirect::start(redirect, &site, frontends(plan), ranges(plan));
        let started = started.map_err(at(&Place::Node(spec.name.clone())))?;
        self.nodes.insert(spec.name.clone(), started);
        Ok(())
    }

    fn rules(
        &mut self,
        owner: Owner,
        wanted: &Wanted,
        place: &Place,
        netns: &NetNs,
    ) -> Result<(), NotRedirected> {
        let mut netfilter = Netfilter::new(owner);
        let applied = netfilter.apply(netns, wanted);
        applied.map_err(|error| at(place)(error.into()))?;
        self.rules.push(netfilter);
        Ok(())
    }
}

/// The frontends of a plan, all in force.
fn frontends(plan: &NodePlan) -> BTreeMap<FrontendKey, Frontend> {
    let frontends = plan.frontends.iter();
    frontends
        .map(|(key, planned)| {
            let frontend = Frontend {
                listener_port: planned.listener_port,
                state: FrontendState::Active,
                ranged: planned.ranges.is_some(),
            };
            (*key, frontend)
        })
        .collect()
}

/// Who may come by those that are open to some sources alone.
fn ranges(plan: &NodePlan) -> SourceRanges {
    let frontends = plan.frontends.iter();
    frontends
        .filter_map(|(key, planned)| Some((*key, Arc::clone(planned.ranges.as_ref()?))))
        .collect()
}
