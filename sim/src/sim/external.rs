//! A simulated cluster with one host outside that is not simulated: this machine's kernel, say.
//!
//! Whoever runs it carries packets: [`Sim::take_in`] what that host sends, [`Sim::run_until`] the
//! present, [`Sim::take_out`] what has arrived there. The clock is still virtual; the one who calls
//! says what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nodeway_core::object::Kind;
use nodeway_core::plan::{FrontendKey, FrontendKind};
use nodeway_core::service;
use nodeway_core::trace::{NameStep, Step};

use super::Sim;
use crate::assembly::services;
use crate::cluster::Family;
use crate::names::View;
use crate::net::{HostSpec, Place, ServiceTable};
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
    /// The TCP ports, in order.
    pub ports: Vec<u16>,
    /// Who answers there.
    pub by: AnsweredBy,
    /// Its addresses, in order.
    pub addresses: Vec<IpAddr>,
}

/// Who answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnsweredBy {
    /// The Envoy of a node: the address is a frontend of a plan.
    Envoy,
    /// So many pods: the one itself, or a Service's endpoints by kube-proxy's rules.
    Pods(usize),
    /// Nobody: the connection is refused.
    Nobody,
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

    /// The host that is not simulated, if [`SimBuilder::external`](crate::SimBuilder::external) was asked for.
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

    /// A line for each Service, kind of address, and who answers at which ports.
    fn reachable_services(&self) -> Vec<Reachable> {
        let nodes: Vec<_> = self.objects.nodes().collect();
        let table = services(&self.objects);
        // By Service, kind and address: ports by who answers there.
        let mut ports = BTreeMap::<_, BTreeMap<AnsweredBy, BTreeSet<u16>>>::new();
        for one in self.objects.services() {
            let object = service::reference(one).to_string();
            for (key, kind, _) in service::frontends(one, nodes.iter().map(|node| node.as_ref())) {
                let there = ports
                    .entry((object.clone(), kind, key.address))
                    .or_default();
                let by = self.answered_by(key, &table);
                there.entry(by).or_default().insert(key.port);
            }
        }
        let mut all = BTreeMap::<_, Vec<IpAddr>>::new();
        for ((object, kind, address), there) in ports {
            for (by, ports) in there {
                let same = all.entry((object.clone(), kind, by, ports)).or_default();
                same.push(address);
            }
        }
        let lines = all.into_iter();
        lines
            .map(|((object, kind, by, ports), addresses)| Reachable {
                object,
                kind: Some(kind),
                ports: ports.into_iter().collect(),
                by,
                addresses,
            })
            .collect()
    }

    fn answered_by(&self, key: FrontendKey, table: &ServiceTable) -> AnsweredBy {
        let mut plans = self.plans();
        if plans.any(|(_, plan)| plan.frontends.contains_key(&key)) {
            return AnsweredBy::Envoy;
        }
        let entry = table.entries.get(&(key.address, key.port));
        let stands = self.world.settings().kube_proxy.translates();
        match entry.map_or(0, |entry| entry.endpoints.len()) {
            endpoints if stands && endpoints > 0 => AnsweredBy::Pods(endpoints),
            _ => AnsweredBy::Nobody,
        }
    }

    /// The pods in which somebody listens. One in its node's network has no address of its own.
    fn reachable_pods(&self) -> impl Iterator<Item = Reachable> + '_ {
        let pods = self.topology.nodes.iter().flat_map(|node| &node.pods);
        pods.filter(|pod| !pod.host_network).filter_map(|pod| {
            let stack = self.world.stack(&Place::Pod(pod.name.clone()))?;
            let ports = self.world.listening(stack);
            (!ports.is_empty()).then(|| Reachable {
                object: format!("{} {}", Kind::Pod, pod.name),
                kind: None,
                ports,
                by: AnsweredBy::Pods(1),
                addresses: pod.addresses.clone(),
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

    /// When something will happen next.
    #[must_use]
    pub fn next_at(&self) -> Option<Time> {
        let fault = self.faults.next_at();
        [self.world.next_at(), fault].into_iter().flatten().min()
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
