//! A simulated cluster with one host outside that is not simulated: this machine's kernel, say.
//!
//! Whoever runs it carries packets: [`Sim::take_in`] what that host sends, [`Sim::run_to`] the
//! present, [`Sim::take_out`] what has arrived there. The clock is still virtual; the one who calls
//! says what time it is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodeway_core::object::Object;
use nodeway_core::plan::{FrontendKey, FrontendKind};
use nodeway_core::service;
use nodeway_core::trace::{NameStep, Step};

use super::{Sim, SimBuilder, address};
use crate::asker::place;
use crate::cluster::{Ask, Family};
use crate::names::View;
use crate::net::{HostSpec, LinkSpec, Place};
use crate::process::WayId;
use crate::served::Served;
use crate::time::Time;
use crate::visit::{Over, Visit};

/// Something that the external host can ask for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reachable {
    /// `Service default/details`, `Pod default/details-v1`
    pub object: String,
    /// Which of a Service's addresses; none for a pod's.
    pub kind: Option<FrontendKind>,
    /// Where.
    pub address: IpAddr,
    /// The TCP ports at which somebody answers there, in order.
    pub ports: Vec<u16>,
    /// Whether packets to it are led to an Envoy.
    pub redirected: bool,
}

/// Who served a request of the external host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedBy {
    /// The node whose Envoy took it; none where no Envoy was asked.
    pub proxy_node: Option<String>,
    /// The route, in words.
    pub route: Option<String>,
    /// `namespace/name` of the Service whose endpoint answered.
    pub service: Option<String>,
    /// `namespace/name` of the pod that answered.
    pub pod: Option<String>,
    /// The node of that pod.
    pub node: Option<String>,
    /// Whether the Envoy answered itself.
    pub by_proxy: bool,
}

impl SimBuilder {
    /// Makes the first host outside external: whoever runs the simulation is its network stack. The
    /// first node by name is its gateway.
    ///
    /// Links have no latency and no limit then, and packets are as long as IP allows: what is
    /// simulated is the cluster, and this machine is as fast as it is.
    #[must_use]
    pub fn external(mut self) -> Self {
        const FAST: LinkSpec = LinkSpec {
            latency: Duration::ZERO,
            bits_per_second: u64::MAX,
        };
        self.external = true;
        if self.options.outside.is_empty() {
            self.options.outside.push("outside".to_owned());
        }
        self.settings.veth = FAST;
        self.settings.uplink = FAST;
        self.settings.loopback = FAST;
        self.settings.mtu = 65_535;
        self.settings.buffer = 512 * 1024;
        self
    }
}

impl Sim {
    /// Makes the first host outside external; a cluster without a node has nobody to hear it.
    pub(super) fn make_external(&mut self) {
        let host = self.topology.outside.first();
        let gateway = self.topology.nodes.first();
        if let (Some(host), Some(gateway)) = (host, gateway) {
            let place = Place::Outside(host.name.clone());
            self.external = self.world.make_external(&place, &gateway.name);
        }
    }

    /// The host that is not simulated, if [`SimBuilder::external`] was asked for.
    #[must_use]
    pub fn external_host(&self) -> Option<&HostSpec> {
        self.topology.outside.first().filter(|_| self.external)
    }

    /// What the external host can ask for, sorted by object.
    #[must_use]
    pub fn reachable(&self) -> Vec<Reachable> {
        let mut all = self.reachable_services();
        all.extend(self.reachable_pods());
        all.sort();
        all
    }

    fn reachable_services(&self) -> Vec<Reachable> {
        let nodes: Vec<_> = self.objects.nodes().collect();
        let mut all: Vec<Reachable> = Vec::new();
        for one in self.objects.services() {
            let object = service::reference(one).to_string();
            for (key, kind, _) in service::frontends(one, nodes.iter().map(|node| node.as_ref())) {
                let redirected = self.redirects(key);
                let same = all.iter_mut().find(|it| {
                    it.object == object
                        && it.kind == Some(kind)
                        && it.address == key.address
                        && it.redirected == redirected
                });
                match same {
                    Some(same) => same.ports.push(key.port),
                    None => all.push(Reachable {
                        object: object.clone(),
                        kind: Some(kind),
                        address: key.address,
                        ports: vec![key.port],
                        redirected,
                    }),
                }
            }
        }
        all
    }

    /// Whether some node leads that address to its Envoy.
    fn redirects(&self, key: FrontendKey) -> bool {
        self.plans()
            .any(|(_, plan)| plan.frontends.contains_key(&key))
    }

    fn reachable_pods(&self) -> impl Iterator<Item = Reachable> + '_ {
        self.objects.pods().flat_map(|pod| {
            let reference = Object::Pod(pod.clone()).reference();
            let spec = pod.spec.as_ref();
            let own = spec.and_then(|spec| spec.host_network) != Some(true);
            let stack = self.world.stack(&Place::Pod(reference.path()));
            let ports = stack.map(|stack| self.world.listening(stack));
            let ports = ports.filter(|ports| own && !ports.is_empty());
            let object = reference.to_string();
            ports.into_iter().flat_map(move |ports| {
                service::pod_addresses(pod).map({
                    let object = object.clone();
                    move |address| Reachable {
                        object: object.clone(),
                        kind: None,
                        address,
                        ports: ports.clone(),
                        redirected: false,
                    }
                })
            })
        })
    }

    /// Every address that leads into the cluster: of Services, pods and nodes.
    #[must_use]
    pub fn inside(&self) -> Vec<IpAddr> {
        let services = self
            .objects
            .services()
            .flat_map(|one| service::frontends(one, []))
            .map(|(key, _, _)| key.address);
        let pods = self.topology.nodes.iter().flat_map(|node| &node.pods);
        let pods = pods.flat_map(|pod| pod.addresses.iter().copied());
        let nodes = self.topology.nodes.iter();
        let nodes = nodes.flat_map(|node| node.addresses.iter().copied());
        let mut all: Vec<IpAddr> = services.chain(pods).chain(nodes).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Where a request goes, by the names that its sender knows; none if it cannot be sent.
    #[must_use]
    pub fn resolve(&self, from: &str, ask: &Ask) -> Option<SocketAddr> {
        let place = place(from, &self.objects, &self.topology).ok()?;
        let target = ask.target().ok()?;
        let found = self
            .names
            .resolve(&target.host, View::of(&place), ask.family);
        Some(SocketAddr::new(address(&found)?, target.port))
    }

    /// Takes the requests of the external host that were answered, or came to nothing.
    pub fn take_visits(&mut self) -> Vec<Visit> {
        let over = self.visits.take();
        over.into_iter()
            .map(|Over { visit, way }| Visit {
                served: self.served_by(way),
                ..visit
            })
            .collect()
    }

    /// Says who served a request, and forgets its way.
    fn served_by(&mut self, way: WayId) -> ServedBy {
        let served = Served::of(Some(&self.world.take_way(way)));
        let by_proxy = served.answered_by_proxy;
        let pod = served.pod.filter(|_| !by_proxy);
        let node = pod.as_ref().and_then(|pod| {
            let pod = self.objects.pod(&pod.namespace, &pod.name)?;
            pod.spec.as_ref()?.node_name.clone()
        });
        let service = served.service.filter(|_| !by_proxy);
        ServedBy {
            proxy_node: served.proxy,
            route: served.route,
            service: service.map(|service| service.path()),
            pod: pod.map(|pod| pod.path()),
            node,
            by_proxy,
        }
    }

    /// The external host sends an IP packet, now.
    pub fn take_in(&mut self, packet: &[u8]) {
        let (world, names) = (&mut self.world, &self.names);
        let now = world.now();
        let way = self.visits.comes(packet, now, &mut |to| {
            let way = world.open_way();
            let asked = to.ip().to_string();
            let found = names.resolve(&asked, View::Outside, Family::Any);
            world.note(way, Step::Name(NameStep { asked, found }));
            way
        });
        self.world.take_in(packet, way);
    }

    /// Lets everything happen up to that moment.
    pub fn run_to(&mut self, now: Time) {
        self.world.run_until(now, |_| false);
    }

    /// When something will happen next.
    #[must_use]
    pub fn next_at(&self) -> Option<Time> {
        self.world.next_at()
    }

    /// Takes the next IP packet that has arrived at the external host.
    pub fn take_out(&mut self) -> Option<Vec<u8>> {
        let packet = self.world.take_out()?;
        self.visits.goes(&packet, self.world.now());
        Some(packet)
    }

    /// Gives a packet's buffer back.
    pub fn recycle(&mut self, packet: Vec<u8>) {
        self.world.recycle(packet);
    }
}
