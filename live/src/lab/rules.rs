//! Rules in a lab that no agent of it installs: kube-proxy's on nodes, and a sidecar's in pods.

use nodeway_core::netfilter::kube_proxy::Mode;
use nodeway_sim::{Place, Sim};

use super::machines::Machines;
use crate::netfilter::{Netfilter, NetfilterError, Owner, Wanted, put_kube_proxys_table};
use crate::netns::NetNs;

/// Why rules cannot be installed at a node or pod.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {cause}")]
pub struct NotRuled {
    place: Place,
    cause: Box<NetfilterError>,
}

/// What stands beside the agents' own, and goes away with its namespaces.
#[derive(Debug, Default)]
pub(super) struct Rules(Vec<Netfilter>);

impl Rules {
    /// Installs them at every node and pod that has some.
    pub(super) fn install(model: &Sim, machines: &Machines) -> Result<Self, NotRuled> {
        let mut own = Self::default();
        for spec in &model.topology().nodes {
            let place = Place::Node(spec.name.clone());
            if let Some(netns) = machines.get(&place) {
                let services = model.services().on(&spec.name);
                match model.settings().kube_proxy {
                    Mode::None => {}
                    Mode::Iptables => {
                        let wanted = Wanted::kube_proxy(&services);
                        own.put(Owner::KubeProxy, &wanted, &place, netns)?;
                    }
                    Mode::Nftables => {
                        let put = put_kube_proxys_table(netns, &services, &spec.addresses);
                        put.map_err(not_ruled(&place))?;
                    }
                }
            }
            for place in model.proxy_places(&spec.name) {
                if let (Place::Pod(_), Some(netns)) = (&place, machines.get(&place)) {
                    own.put(Owner::Nodeway, &Wanted::sidecar(&[]), &place, netns)?;
                }
            }
        }
        Ok(own)
    }

    fn put(
        &mut self,
        owner: Owner,
        wanted: &Wanted,
        place: &Place,
        netns: &NetNs,
    ) -> Result<(), NotRuled> {
        let mut netfilter = Netfilter::new(owner);
        let applied = netfilter.apply(netns, wanted);
        applied.map_err(not_ruled(place))?;
        self.0.push(netfilter);
        Ok(())
    }
}

fn not_ruled(place: &Place) -> impl FnOnce(NetfilterError) -> NotRuled {
    let place = place.clone();
    move |cause| NotRuled {
        place,
        cause: Box::new(cause),
    }
}
