//! A simulated cluster: objects, plans, machines and the programs on them, on one virtual clock.

mod builder;
mod external;
mod fault;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use nodeway_core::config_dump::ConfigDump;
use nodeway_core::in_force::InForce;
use nodeway_core::lint::lint;
use nodeway_core::object::{Change, Kind, ObjectRef, Objects, Provenance};
use nodeway_core::plan::{NodePlan, PlanDelta, Planner};
use nodeway_core::problem::Problem;
use nodeway_core::source::Known;

use crate::assembly::{Options, services};
use crate::backend::Backend;
use crate::chosen::ChosenBy;
use crate::cluster::{AskError, tell};
use crate::dumped;
use crate::envoy::NodeProxy;
use crate::names::Names;
use crate::net::{CapturedInterface, Hop, Place, ServiceTable, Settings, Topology};
use crate::process::WayId;
use crate::proxies::{self, places};
use crate::reply::Seen;
use crate::visit::Visits;
use crate::workload::backends;
use crate::world::{ProcessId, World};

pub use builder::SimBuilder;
pub use external::{AnsweredBy, Reachable, ServedBy};
use fault::Faults;
pub use fault::Injected;
pub use request::{Errand, UnderWay};

/// A simulated cluster.
///
/// When a test that holds one fails, the way of the last request is printed, with the seed and the
/// command that replays it.
pub struct Sim {
    objects: Arc<Objects>,
    /// The Envoy's dump that it was made of, if it was.
    dump: Option<Arc<ConfigDump>>,
    planners: BTreeMap<String, Planner>,
    ingress_problems: Vec<Problem>,
    topology: Topology,
    names: Names,
    world: World,
    proxies: BTreeMap<Place, ProcessId>,
    /// Of the newest proxy: each start is another one.
    generation: u32,
    clients: BTreeMap<Place, ProcessId>,
    /// The way on which a client's kept connection was opened.
    opened: BTreeMap<(ProcessId, String), WayId>,
    options: Options,
    faults: Faults,
    source: String,
    chosen_by: ChosenBy,
    /// Whether the first host outside is not simulated.
    external: bool,
    visits: Visits,
    /// What nodes have that were looked at, in the place of what is planned for them.
    in_force: Vec<InForce>,
    last: Option<Last>,
}

/// The last request, for the message of a failing test.
struct Last {
    from: String,
    url: String,
    way: WayId,
}

impl Sim {
    /// Who chose the redirect.
    #[must_use]
    pub fn redirect_chosen_by(&self) -> &ChosenBy {
        &self.chosen_by
    }

    /// What is in force on nodes that were looked at.
    #[must_use]
    pub fn in_force(&self) -> &[InForce] {
        &self.in_force
    }

    /// The objects, with what was derived.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// What it was made of, with what was derived: what a way's evidence is in.
    #[must_use]
    pub fn known(&self) -> Known {
        match &self.dump {
            Some(dump) => Known::Dump(Arc::clone(dump)),
            None => Known::Objects(Arc::clone(&self.objects)),
        }
    }

    /// Each node's plan, by the node's name.
    pub fn plans(&self) -> impl Iterator<Item = (&str, &NodePlan)> {
        let planners = self.planners.iter();
        planners.map(|(node, planner)| (node.as_str(), planner.plan()))
    }

    /// The plan of a node.
    #[must_use]
    pub fn plan(&self, node: &str) -> Option<&NodePlan> {
        self.planners.get(node).map(Planner::plan)
    }

    /// What is wrong with the objects, sorted.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let planned = self.plans().flat_map(|(_, plan)| plan.problems.iter());
        let all: BTreeSet<&Problem> = planned.chain(&self.ingress_problems).collect();
        all.into_iter().cloned().collect()
    }

    /// [`problems`](Self::problems), and what is probably not meant though nothing is refused:
    /// what `nodeway check` tells.
    #[must_use]
    pub fn findings(&self) -> Vec<Problem> {
        let mut all: BTreeSet<Problem> = lint(&self.objects, self.plans());
        all.extend(self.problems());
        all.into_iter().collect()
    }

    /// Changes the cluster while it runs, as its API server would tell every node's agent: each
    /// plans anew what the change touches and applies no more than that.
    ///
    /// What was derived at the start does not follow: whoever deletes a pod changes its slice too.
    pub fn change(&mut self, change: &Change) {
        let objects = Arc::make_mut(&mut self.objects);
        match change {
            Change::Put(object) => {
                let file = Arc::from("a change");
                objects.insert(object.clone(), Provenance::Written { file, line: 1 });
            }
            Change::Delete(reference) => {
                objects.remove(reference);
            }
        }
        let nodes: Vec<String> = self.planners.keys().cloned().collect();
        for node in nodes {
            self.tell_agent(&node, change);
        }
        let _ = self.world.translate_services(None, services(&self.objects));
        self.names.update(&self.objects);
    }

    /// Lets a node's hook and proxy follow a change of its plan.
    fn apply(&mut self, node: &str, delta: &PlanDelta) {
        // The planners' nodes are the topology's: none is unknown.
        let _ = self.world.apply(node, delta);
        self.tell_proxy(node, delta);
    }

    fn tell_proxy(&mut self, node: &str, delta: &PlanDelta) {
        for place in places(&self.topology, self.settings().redirect, node) {
            let Some(id) = self.proxies.get(&place) else {
                continue;
            };
            if let Some(proxy) = self.world.process_mut::<NodeProxy>(*id) {
                proxy.apply(delta);
            }
            self.world.wake(*id);
        }
    }

    /// The machines.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// What stands behind each Service's addresses, as kube-proxy sees it.
    #[must_use]
    pub fn services(&self) -> ServiceTable {
        services(&self.objects)
    }

    /// What it runs with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        self.world.settings()
    }

    /// The world below: for looking closer.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Takes what every interface has seen so far, if [`SimBuilder::capture_packets`] was asked for.
    pub fn take_captures(&mut self) -> Vec<CapturedInterface> {
        self.world.take_captures()
    }

    /// Every hop of every packet so far, if [`SimBuilder::trace_packets`] was asked for.
    #[must_use]
    pub fn hops(&self) -> &[Hop] {
        self.world.hops()
    }

    /// What runs in the pods, and behind the endpoints of an Envoy's dump, each with its place.
    #[must_use]
    pub fn programs(&self) -> Vec<(Place, Backend)> {
        let mut all = Vec::new();
        for pod in self.objects.pods() {
            let reference = ObjectRef::of(Kind::Pod, &pod.metadata);
            let status = pod.status.as_ref();
            if status.and_then(|it| it.phase.as_deref()) == Some("Running") {
                let place = Place::Pod(reference.path());
                let programs = backends(pod, &reference, &self.objects);
                all.extend(programs.into_iter().map(|it| (place.clone(), it)));
            }
        }
        if let Some(dump) = &self.dump {
            all.extend(dumped::backends(dump, &self.topology));
        }
        all
    }

    /// Starts what runs in the pods, of one node or of all.
    fn start_programs(&mut self, node: Option<&str>) {
        for (place, backend) in self.programs() {
            let stack = self.world.stack(&place);
            let stack = stack.filter(|it| node.is_none_or(|node| self.world.is_on(node, *it)));
            if let Some(stack) = stack {
                self.world.spawn(stack, Box::new(backend));
            }
        }
    }

    /// Starts the proxies that somebody names: with the plan of their node, or without any resource
    /// while no agent is there to give them some.
    fn start_proxies(&mut self, of: &str) {
        for (node, place) in self.proxies_of(of).unwrap_or_default() {
            self.start_proxy(&node, &place);
        }
    }

    fn start_proxy(&mut self, node: &str, place: &Place) {
        let stack = self.world.stack(place);
        let (Some(stack), Some(planner)) = (stack, self.planners.get(node)) else {
            return;
        };
        let delta = planner.plan().as_delta();
        self.generation += 1;
        let mut proxy = proxies::proxy(&mut self.world, node, place, self.generation);
        let told = !self.faults.agent_is_down(node);
        if told {
            proxy.apply(&delta);
        } else {
            self.faults.proxy_knows_nothing(node);
        }
        let id = self.world.spawn(stack, Box::new(proxy));
        self.proxies.insert(place.clone(), id);
        if told {
            let _ = self.world.apply(node, &delta);
        }
    }

    /// The proxies that somebody names by their node, or one by its pod; each with its node.
    fn proxies_of(&self, name: &str) -> Result<Vec<(String, Place)>, AskError> {
        let redirect = self.settings().redirect;
        let mut found = Vec::new();
        for node in self.planners.keys() {
            for place in places(&self.topology, redirect, node) {
                let is_pod = matches!(&place, Place::Pod(pod) if pod == name);
                if node == name || is_pod {
                    found.push((node.clone(), place));
                }
            }
        }
        if found.is_empty() && !self.planners.contains_key(name) {
            return Err(self.unknown_node(name));
        }
        Ok(found)
    }

    /// An address with the name of its holder.
    #[must_use]
    pub fn seen(&self, address: SocketAddr) -> Seen {
        self.names.seen(address)
    }

    /// The error of a node that is not there.
    #[must_use]
    pub fn unknown_node(&self, node: &str) -> AskError {
        AskError::UnknownNode {
            node: node.to_owned(),
            nodes: self.planners.keys().cloned().collect(),
        }
    }
}

impl Drop for Sim {
    /// A failing test says how its last request went, and how to see that again.
    fn drop(&mut self) {
        let (true, Some(last)) = (std::thread::panicking(), &self.last) else {
            return;
        };
        let words = self.world.way(last.way).map(|way| tell(way, &self.known()));
        eprintln!(
            "the last request, from {} to {} with seed {}:\n{}replay: {}",
            last.from,
            last.url,
            self.world.settings().seed.0,
            words.unwrap_or_default(),
            self.replay(&last.from, &last.url)
        );
    }
}
