//! A cluster about to be simulated: what of, and what with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nodeway_core::address::{node_port_addresses, pod_addresses};
use nodeway_core::in_force::InForce;
use nodeway_core::netfilter::kube_proxy;
use nodeway_core::object::Objects;
use nodeway_core::plan::{Ledger, Planner};
use nodeway_core::recording::Recording;
use nodeway_core::redirect::Redirect;
use nodeway_core::source::{Known, SourceError};

use super::Sim;
use super::fault::Faults;
use crate::assembly::{Assembly, Options};
use crate::chosen::{ChosenBy, by_cluster};
use crate::fixture::Fixture;
use crate::net::{Datapath, LinkSpec, NodewayDatapath, Settings, TopologyError};
use crate::seed::Seed;
use crate::source::{LoadError, LoadErrors, Source, objects};
use crate::visit::Visits;
use crate::world::World;

/// A cluster about to be simulated.
pub struct SimBuilder {
    known: Known,
    options: Options,
    settings: Settings,
    datapath: Box<dyn Datapath>,
    source: String,
    chosen_by: ChosenBy,
    external: bool,
    in_force: Vec<InForce>,
}

impl SimBuilder {
    /// How packets come to the listener; `tc` unless the fixture or a dumped cluster's own config
    /// says otherwise.
    #[must_use]
    pub fn redirect(mut self, redirect: Redirect) -> Self {
        self.settings.redirect = redirect;
        self.chosen_by = ChosenBy::Asked;
        self
    }

    /// Lets clients ask for an address that stands in no object: one of many at which an Envoy of a
    /// dump takes connections.
    #[must_use]
    pub fn reaching(mut self, address: IpAddr) -> Self {
        self.options.reached.push(address);
        self
    }

    /// Where luck comes from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Seed(seed);
        self
    }

    /// How kube-proxy runs on every node beside the redirect: by rules of iptables unless the
    /// fixture says otherwise.
    #[must_use]
    pub fn kube_proxy(mut self, mode: kube_proxy::Mode) -> Self {
        self.settings.kube_proxy = mode;
        self
    }

    /// Keeps every hop of every packet.
    #[must_use]
    pub fn trace_packets(mut self) -> Self {
        self.settings.trace_packets = true;
        self
    }

    /// Keeps the bytes of every packet for each interface.
    #[must_use]
    pub fn capture_packets(mut self) -> Self {
        self.settings.capture_packets = true;
        self
    }

    /// Puts another packet decision under test.
    #[must_use]
    pub fn with_datapath(mut self, datapath: Box<dyn Datapath>) -> Self {
        self.datapath = datapath;
        self
    }

    /// How the cluster is put together.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

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

    /// Gives a node what is in force there in the place of what is planned for it, and all of them
    /// its redirect. To be called for each node that was looked at.
    #[must_use]
    pub fn in_force(mut self, redirect: Redirect, in_force: InForce) -> Self {
        self.settings.redirect = redirect;
        self.chosen_by = ChosenBy::Node(in_force.node.to_string());
        self.in_force.push(in_force);
        self
    }

    /// How the command that replays a failure names the source.
    #[must_use]
    pub fn named(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// Builds the machines and starts what runs on them.
    ///
    /// # Errors
    /// When the objects give no network: two pods with one address, say.
    pub fn start(self) -> Result<Sim, TopologyError> {
        let options = self.options;
        let Assembly {
            objects,
            dump,
            mut planners,
            ingress_problems,
            topology,
            services,
            names,
        } = Assembly::of(self.known, &options);
        for InForce { node, plan, .. } in &self.in_force {
            let planner = Planner::with_plan(node, plan.clone());
            planners.insert(node.to_string(), planner);
        }
        let world = World::new(&topology, self.settings, self.datapath)?;
        let mut sim = Sim {
            objects: Arc::new(objects),
            dump,
            planners,
            ingress_problems,
            topology,
            names,
            world,
            proxies: BTreeMap::new(),
            generation: 0,
            clients: BTreeMap::new(),
            opened: BTreeMap::new(),
            options,
            faults: Faults::default(),
            source: self.source,
            chosen_by: self.chosen_by,
            external: false,
            visits: Visits::default(),
            in_force: self.in_force,
            last: None,
        };
        if self.external {
            sim.make_external();
        }
        sim.start_programs(None);
        let nodes: Vec<String> = sim.planners.keys().cloned().collect();
        for node in nodes {
            sim.start_proxies(&node);
        }
        for InForce {
            node, switching, ..
        } in &sim.in_force
        {
            sim.world.halt(node, switching);
        }
        let _ = sim.world.translate_services(None, services);
        Ok(sim)
    }
}

impl Sim {
    /// Loads a fixture, a folder of manifests, or a file.
    ///
    /// # Errors
    /// All that is wrong with it, at once.
    pub fn load(path: impl AsRef<Path>) -> Result<SimBuilder, LoadErrors> {
        Self::from_source(&Source::load(&[path.as_ref().to_owned()], None)?)
    }

    /// The cluster of what a user named; of a fixture, with its redirect, seed and options.
    ///
    /// # Errors
    /// All that is wrong with its manifests, at once.
    pub fn from_source(source: &Source) -> Result<SimBuilder, LoadErrors> {
        let builder = match &source.fixture {
            Some(fixture) => Self::from_fixture(fixture)?,
            None if source.recordings.is_empty() => Self::from_known(source.known()?),
            None => Self::from_recordings(&source.recordings)?,
        };
        Ok(builder.named(source.name.clone()))
    }

    /// The nodes that were recorded, as they were, with the objects of the last recording around
    /// them. Who asked there and is in no object is a host outside.
    ///
    /// # Errors
    /// All that is wrong with the objects, or what is with a recording.
    pub fn from_recordings(recordings: &[Recording]) -> Result<SimBuilder, LoadErrors> {
        let Some(newest) = recordings.last() else {
            return Ok(Self::from_objects(Objects::default()));
        };
        let objects = objects(&newest.manifests)?;
        let mut builder = Self::from_dump(objects.clone());
        builder.options.strangers = strangers(recordings, &objects);
        for recording in recordings {
            let node = &recording.header.node;
            let failed = |error: Box<SourceError>| LoadErrors::from(LoadError::Text(error));
            let observed = recording.observed().map_err(failed)?;
            let planner = Planner::with_objects(&objects, node, Ledger::default());
            let in_force = InForce::of(observed, planner.plan(), &objects);
            builder = builder
                .kube_proxy(recording.header.kube_proxy)
                .in_force(recording.header.redirect, in_force);
        }
        Ok(builder)
    }

    /// A fixture's cluster, with the fixture's redirect, seed and options.
    ///
    /// # Errors
    /// All that is wrong with its manifests, at once.
    pub fn from_fixture(fixture: &Fixture) -> Result<SimBuilder, LoadErrors> {
        let options = Options {
            controllers: fixture.controllers(),
            outside: fixture.outside.clone(),
            ..Options::default()
        };
        let mut builder = Self::from_objects(fixture.objects()?)
            .redirect(fixture.redirect)
            .kube_proxy(fixture.kube_proxy)
            .seed(fixture.seed)
            .options(options)
            .named(fixture.folder.display().to_string());
        builder.chosen_by = ChosenBy::Fixture;
        Ok(builder)
    }

    /// The cluster of what is known of one: [`Sim::from_dump`] of its objects, or the node that
    /// serves what an Envoy said it has.
    #[must_use]
    pub fn from_known(known: Known) -> SimBuilder {
        match known {
            Known::Objects(objects) => Self::from_dump(Arc::unwrap_or_clone(objects)),
            // A dump begins at its listeners: how packets come there is not in it, and this way
            // alone needs no address of a listener to be told from another.
            Known::Dump(_) => {
                let mut builder = Self::of(known);
                builder.settings.redirect = Redirect::SkLookup;
                builder
            }
        }
    }

    /// A cluster of what somebody dumped: with Cilium's own config among it, as that cluster is set
    /// up. A value of the config that cannot be read is noted.
    #[must_use]
    pub fn from_dump(mut objects: Objects) -> SimBuilder {
        let mut options = Options::default();
        let mut chosen = None;
        if let Some(config) = &objects.cilium_config {
            let mut bad = config.apply_to(&mut options.controllers.ingress);
            options.controllers.derive.ipv6 = options.controllers.ingress.ipv6;
            match config.ports() {
                Ok(ports) => options.ports = ports.unwrap_or(options.ports),
                Err(error) => bad.push(error),
            }
            bad.extend(config.bpf_tproxy().err());
            let notes = bad.iter().map(|bad| format!("{config} {bad}"));
            objects.notes.extend(notes.collect::<Vec<_>>());
            chosen = objects.cilium_config.as_ref().map(by_cluster);
        }
        let mut builder = Self::from_objects(objects).options(options);
        if let Some((redirect, by)) = chosen {
            builder.settings.redirect = redirect;
            builder.chosen_by = by;
        }
        builder
    }

    /// A cluster of these objects. What is missing is derived.
    #[must_use]
    pub fn from_objects(objects: Objects) -> SimBuilder {
        Self::of(objects.into())
    }

    fn of(known: Known) -> SimBuilder {
        SimBuilder {
            known,
            options: Options::default(),
            settings: Settings {
                seed: Seed(1),
                ..Settings::default()
            },
            datapath: Box::new(NodewayDatapath),
            source: "SOURCE".to_owned(),
            chosen_by: ChosenBy::Default,
            external: false,
            in_force: Vec::new(),
        }
    }
}

/// The addresses that asked at a recorded node and that no node or pod has.
fn strangers(recordings: &[Recording], objects: &Objects) -> Vec<IpAddr> {
    let pods = objects.pods().flat_map(|pod| pod_addresses(pod));
    let nodes = objects.nodes().flat_map(|node| node_port_addresses(node));
    let known: BTreeSet<IpAddr> = pods.chain(nodes).collect();
    let asked = recordings.iter().flat_map(|recording| {
        let decided = recording.decisions.iter().filter(|it| it.opens());
        let decided = decided.filter_map(|it| it.from);
        decided.chain(recording.requests.iter().map(|it| it.peer))
    });
    let asked: BTreeSet<IpAddr> = asked.map(|it| it.ip()).collect();
    let asked = asked.into_iter().filter(|it| !known.contains(it));
    asked
        .filter(|it| !it.is_loopback() && !it.is_unspecified() && !it.is_multicast())
        .collect()
}
