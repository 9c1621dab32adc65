//! What leads packets to the listeners of a lab's nodes, and kube-proxy's rules beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use nodeway_core::datapath::{Frontend, FrontendState};
use nodeway_core::plan::{FrontendKey, NodePlan};
use nodeway_sim::{NodeSpec, Place, Redirect, Sim};

use super::machines::Machines;
use super::wiring::devices;
use crate::bpf::{AttachError, Datapath, LoadError, Mode, Options, SocketsError, TableError};
use crate::netfilter::{Netfilter, NetfilterError, Owner, Wanted};
use crate::netns::{NetNs, NetNsError};

/// Why packets cannot be led.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// Rules.
    #[error("{place}: {source}")]
    Rules {
        /// The node or pod.
        place: Place,
        /// Why.
        source: Box<NetfilterError>,
    },
    /// The kernel's programs cannot be loaded.
    #[error("{place}: {source}")]
    Load {
        /// The node.
        place: Place,
        /// Why.
        source: Box<LoadError>,
    },
    /// They cannot be attached.
    #[error("{place}: {source}")]
    Attach {
        /// The node.
        place: Place,
        /// Why.
        source: Box<AttachError>,
    },
    /// A frontend cannot be put into their table.
    #[error("{place}: {source}")]
    Table {
        /// The node.
        place: Place,
        /// Why.
        source: Box<TableError>,
    },
    /// A listener's socket cannot be put there.
    #[error("{place}: {source}")]
    Sockets {
        /// The node.
        place: Place,
        /// Why.
        source: Box<SocketsError>,
    },
    /// The node's namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// There is no cgroup that all processes are in.
    #[error(
        "no cgroup file system of version 2 is mounted, and calls of a node itself hang on one; mount it: mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NoCgroup,
}

/// What stands: rules go away with their namespaces, programs with this.
#[derive(Debug)]
pub(super) struct Redirected {
    rules: Vec<Netfilter>,
    programs: BTreeMap<String, Programs>,
}

/// The kernel's programs of a node, and the ports of the listeners that they lead to.
#[derive(Debug)]
struct Programs {
    datapath: Datapath,
    ports: Vec<u16>,
}

impl Redirected {
    /// Leads the packets of every node's frontends to its listeners, whose sockets listen.
    pub(super) fn install(model: &Sim, machines: &Machines) -> Result<Self, RedirectError> {
        let mut own = Self {
            rules: Vec::new(),
            programs: BTreeMap::new(),
        };
        for spec in &model.topology().nodes {
            let place = Place::Node(spec.name.clone());
            if let (Some(netns), Some(plan)) = (machines.get(&place), model.plan(&spec.name)) {
                own.rules.extend(kube_proxy(model, spec, netns)?);
                own.rules.extend(on_node(model, spec, plan, netns)?);
                if let Some(programs) = programs(model, spec, plan, netns)? {
                    own.programs.insert(spec.name.clone(), programs);
                }
            }
            for place in model.proxy_places(&spec.name) {
                if let (Place::Pod(_), Some(netns)) = (&place, machines.get(&place)) {
                    let wanted = Wanted::sidecar(&[]);
                    let rules = rules(Owner::Nodeway, &wanted, &place, netns)?;
                    own.rules.push(rules);
                }
            }
        }
        Ok(own)
    }

    /// Leads to the sockets that a node's listeners have now: another Envoy has others.
    pub(super) fn take_sockets(&mut self, node: &str) -> Result<(), RedirectError> {
        match self.programs.get_mut(node) {
            Some(programs) => programs.take_sockets(&Place::Node(node.to_owned())),
            None => Ok(()),
        }
    }
}

impl Programs {
    fn take_sockets(&mut self, place: &Place) -> Result<(), RedirectError> {
        // Where nobody listens packets are met with what the redirect declares for that.
        let taken = self.datapath.take_sockets(&self.ports);
        taken.map_err(|source| RedirectError::Sockets {
            place: place.clone(),
            source: Box::new(source),
        })?;
        Ok(())
    }
}

/// The kernel's programs of a node, switched on; none for a way of rules.
fn programs(
    model: &Sim,
    spec: &NodeSpec,
    plan: &NodePlan,
    netns: &NetNs,
) -> Result<Option<Programs>, RedirectError> {
    let mode = match model.settings().redirect {
        Redirect::Tc => Mode::Both,
        Redirect::SkLookup => Mode::SkLookup,
        Redirect::Iptables | Redirect::Sidecar => return Ok(None),
    };
    let place = Place::Node(spec.name.clone());
    // sk_lookup sees what the node itself sends; tc does not.
    let cgroup = match mode {
        Mode::Both | Mode::Tc => Some(cgroup().ok_or(RedirectError::NoCgroup)?),
        Mode::SkLookup => None,
    };
    let options = Options {
        mode,
        cgroup: cgroup.as_deref(),
        ..Options::default()
    };
    let loaded = Datapath::load(NetNs::open(netns.name())?, &options);
    let mut datapath = loaded.map_err(|source| RedirectError::Load {
        place: place.clone(),
        source: Box::new(source),
    })?;
    let frontends = frontends(plan);
    for (key, frontend) in &frontends {
        let put = datapath.put(*key, frontend);
        put.map_err(|source| RedirectError::Table {
            place: place.clone(),
            source: Box::new(source),
        })?;
    }
    let ports: BTreeSet<u16> = frontends.iter().map(|(_, it)| it.listener_port).collect();
    let mut programs = Programs {
        datapath,
        ports: ports.into_iter().collect(),
    };
    programs.take_sockets(&place)?;
    let devices = devices(spec);
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let attached = programs.datapath.attach(&devices);
    attached.map_err(|source| RedirectError::Attach {
        place,
        source: Box::new(source),
    })?;
    Ok(Some(programs))
}

/// The cgroup that every process is in, by the list of mounts.
fn cgroup() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mut mounts = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mounts.find(|fields| fields.get(2) == Some(&"cgroup2"))?;
    mount.get(1).map(PathBuf::from)
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

/// The rules of a node's way, or those that its programs need beside them.
fn on_node(
    model: &Sim,
    spec: &NodeSpec,
    plan: &NodePlan,
    netns: &Arc<NetNs>,
) -> Result<Option<Netfilter>, RedirectError> {
    let redirect = model.settings().redirect;
    if redirect == Redirect::Sidecar {
        // Its rules are those of pods.
        return Ok(None);
    }
    let wanted = Wanted::node(redirect, &frontends(plan), &spec.addresses);
    let place = Place::Node(spec.name.clone());
    rules(Owner::Nodeway, &wanted, &place, netns).map(Some)
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
        source: Box::new(source),
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
