//! The test bed: a node with one Envoy, a client's pod, and for `sidecar` pods with an Envoy of
//! their own. A way is installed, measured and taken away again; Envoy and the client stay, so that
//! two ways differ in nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nodeway_core::datapath::{Frontend, FrontendState};
use nodeway_core::frontend::FrontendKey;
use nodeway_core::netfilter::Marking;
use nodeway_core::plan::{Ledger, NodePlan, plan};
use nodeway_core::redirect::Redirect;
use nodeway_core::source::{SourceError, Text, read};
use nodeway_live::bpf::{
    AttachError, Datapath, DetachError, LoadError as ProgramError, Mode, Options, SocketsError,
    TableError,
};
use nodeway_live::envoy::{Envoy, EnvoyError, EnvoyOptions};
use nodeway_live::lab::machines::{MachineError, Machines};
use nodeway_live::lab::wiring::devices;
use nodeway_live::netfilter::{Netfilter, NetfilterError, Owner, Wanted};
use nodeway_live::netns::{NetNs, NetNsError};
use nodeway_sim::{NodeSpec, Place, PodSpec, Topology};

use super::cpu::{self, Cores};
use super::ground::Ground;
use super::load::{Connections, Load, LoadError};
use super::sample::Sample;
use super::way::Way;
use crate::differential::decision;

const NODE: &str = "node-1";
const NODE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 18, 0, 2));
/// Where Envoy listens for clients that come straight to it; `objects.yaml` says so too.
const STRAIGHT: SocketAddr = SocketAddr::new(NODE_ADDRESS, 8080);
const CLIENT: &str = "bench/client";

/// What a client's namespace needs so that new connections do not run out of ports: nearly all of
/// them, and one that was closed a second ago may be used again.
const PORTS: [(&str, &str); 2] = [("ip_local_port_range", "1024 65535"), ("tcp_tw_reuse", "1")];

/// Why there is nothing to measure.
#[derive(Debug, thiserror::Error)]
pub enum BedError {
    /// What Envoy serves.
    #[error("objects.yaml: {0}")]
    Objects(String),
    /// The namespaces.
    #[error(transparent)]
    Machines(#[from] MachineError),
    /// One of them.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// A setting of the kernel, a clock or a core.
    #[error("cannot {action}: {source}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// An Envoy.
    #[error(transparent)]
    Envoy(#[from] EnvoyError),
    /// Rules.
    #[error(transparent)]
    Rules(#[from] Box<NetfilterError>),
    /// Programs.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Their hooks.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Their table of frontends.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Their table of sockets.
    #[error(transparent)]
    Sockets(#[from] SocketsError),
    /// They do not go.
    #[error(transparent)]
    Detach(#[from] DetachError),
    /// The connect hooks have no place.
    #[error("{0}")]
    NoCgroup(decision::Trouble),
    /// A way does not lead to Envoy.
    #[error("{way} does not lead to Envoy: {to} gave {what}", way = way.name())]
    NotLed {
        /// Which.
        way: Way,
        /// Where the client connected to.
        to: SocketAddr,
        /// What came.
        what: String,
    },
    /// The load generator.
    #[error(transparent)]
    Load(#[from] LoadError),
}

fn kernel(action: &'static str) -> impl FnOnce(io::Error) -> BedError {
    move |source| BedError::Kernel { action, source }
}

/// The node, its Envoy and its clients.
pub struct Bed {
    cores: Cores,
    machines: Machines,
    devices: Vec<String>,
    plan: NodePlan,
    envoy: Envoy,
    /// By number of frontends.
    sidecars: BTreeMap<u32, Sidecar>,
}

/// A pod with an Envoy of its own. The rules go with the namespace.
struct Sidecar {
    pod: String,
    envoy: Envoy,
}

impl Bed {
    /// Makes it, with a pod by `sidecar` for each number of frontends.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn new(
        ground: &Ground,
        program: &Path,
        cores: Cores,
        frontends: &[u32],
    ) -> Result<Self, BedError> {
        let node = node(frontends);
        let topology = Topology {
            nodes: vec![node.clone()],
            ..Topology::default()
        };
        let machines = Machines::create(&topology, ground.name())?;
        let plan = planned()?;
        let folder = |what: &str| ground.folder().join(what);
        let options = EnvoyOptions::new(program.to_owned(), folder("envoy"), NODE);
        let netns = machine(&machines, &Place::Node(NODE.to_owned()))?;
        let envoy = start(netns, &plan, options, cores)?;
        let mut sidecars = BTreeMap::new();
        for count in frontends {
            let pod = sidecar_pod(*count);
            let netns = machine(&machines, &Place::Pod(pod.clone()))?;
            let options = EnvoyOptions::sidecar(program.to_owned(), folder(&pod), &pod);
            let envoy = start(netns, &with_frontends(&plan, *count), options, cores)?;
            apply(
                &mut Netfilter::new(Owner::Nodeway),
                netns,
                &Wanted::sidecar(&[]),
            )?;
            sidecars.insert(*count, Sidecar { pod, envoy });
        }
        for pod in &node.pods {
            let netns = machine(&machines, &Place::Pod(pod.name.clone()))?;
            netns
                .run(many_ports)?
                .map_err(kernel("widen a client's range of ports"))?;
        }
        Ok(Self {
            cores,
            machines,
            devices: devices(&node),
            plan,
            envoy,
            sidecars,
        })
    }

    /// The node's namespace.
    ///
    /// # Errors
    /// When it is gone.
    pub fn node(&self) -> Result<&Arc<NetNs>, BedError> {
        Ok(machine(&self.machines, &Place::Node(NODE.to_owned()))?)
    }

    /// Gives the node what kube-proxy would have there for no service.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn install_kube_proxy(&self) -> Result<(), BedError> {
        let mut rules = Netfilter::new(Owner::KubeProxy);
        apply(&mut rules, self.node()?, &Wanted::kube_proxy(&[]))
    }

    /// Which core does what.
    #[must_use]
    pub const fn cores(&self) -> Cores {
        self.cores
    }

    /// The frontends, all led to the one listener.
    #[must_use]
    pub fn frontends(&self, count: u32) -> Vec<(FrontendKey, Frontend)> {
        let template = self.plan.frontends.values().next();
        let listener_port = template.map_or(0, |it| it.listener_port);
        let state = FrontendState::Active;
        let frontend = Frontend {
            listener_port,
            state,
            ranged: false,
        };
        keys(count).map(|key| (key, frontend)).collect()
    }

    /// Installs a way for that many frontends.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn install(&self, way: Way, count: u32) -> Result<Installed<'_>, BedError> {
        let mut installed = Installed {
            bed: self,
            way,
            count,
            rules: None,
            datapath: None,
        };
        let frontends = self.frontends(count);
        let own = [NODE_ADDRESS];
        let wanted = match way {
            // What a sidecar has stands in its pod, and meets nobody else.
            Way::Straight | Way::Sidecar => return Ok(installed),
            Way::Tc | Way::TcSkLookup => Wanted::node(Redirect::Tc, &frontends, &own),
            Way::SkLookup => Wanted::node(Redirect::SkLookup, &frontends, &own),
            Way::Iptables => Wanted::tproxy(&frontends, &Marking::default()),
        };
        let mut rules = Netfilter::new(Owner::Nodeway);
        apply(&mut rules, self.node()?, &wanted)?;
        installed.rules = Some(rules);
        if let Some(mode) = mode(way) {
            installed.datapath = Some(self.datapath(mode, &frontends)?);
        }
        Ok(installed)
    }

    /// The programs as a node has them: with connect hooks where sk_lookup alone would not do.
    fn datapath(
        &self,
        mode: Mode,
        frontends: &[(FrontendKey, Frontend)],
    ) -> Result<Datapath, BedError> {
        let cgroup = match mode {
            Mode::SkLookup => None,
            Mode::Both | Mode::Tc => Some(decision::cgroup().map_err(BedError::NoCgroup)?),
        };
        let options = Options {
            mode,
            cgroup: cgroup.as_deref().map(Path::new),
            ..Options::default()
        };
        let mut datapath = Datapath::load(NetNs::open(self.node()?.name())?, &options)?;
        for (key, frontend) in frontends {
            datapath.put(*key, frontend)?;
        }
        let ports: Vec<u16> = frontends
            .iter()
            .take(1)
            .map(|it| it.1.listener_port)
            .collect();
        datapath.take_sockets(&ports)?;
        let devices: Vec<&str> = self.devices.iter().map(String::as_str).collect();
        datapath.attach(&devices)?;
        Ok(datapath)
    }
}

/// A way that is installed. Without [`Installed::remove`] it goes with the bed.
pub struct Installed<'a> {
    bed: &'a Bed,
    way: Way,
    count: u32,
    rules: Option<Netfilter>,
    /// The programs, of a way that has some.
    pub datapath: Option<Datapath>,
}

impl Installed<'_> {
    /// Who asks, and whom; another frontend each round.
    ///
    /// # Errors
    /// When the client's namespace is gone.
    pub fn path(&self, round: usize) -> Result<(&Arc<NetNs>, SocketAddr), BedError> {
        let sidecar = self.bed.sidecars.get(&self.count);
        let pod = match (self.way, sidecar) {
            (Way::Sidecar, Some(sidecar)) => &sidecar.pod,
            _ => CLIENT,
        };
        let netns = machine(&self.bed.machines, &Place::Pod(pod.to_owned()))?;
        let nth = round.checked_rem(usize::try_from(self.count).unwrap_or(1));
        let led = keys(self.count).nth(nth.unwrap_or(0));
        let led = led.map(|key| SocketAddr::new(key.address, key.port));
        match (self.way, led) {
            (Way::Straight, _) | (_, None) => Ok((netns, STRAIGHT)),
            (_, Some(led)) => Ok((netns, led)),
        }
    }

    /// Asks once: nobody else would answer at that address.
    ///
    /// # Errors
    /// When it is not Envoy that answers, with success.
    pub fn check(&self, round: usize) -> Result<(), BedError> {
        let (netns, to) = self.path(round)?;
        let what = match netns.run(|| ask(to))? {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") && answer.contains("envoy") => {
                return Ok(());
            }
            Ok(answer) => format!("`{}`", answer.lines().next().unwrap_or_default()),
            Err(error) => error.to_string(),
        };
        let way = self.way;
        Err(BedError::NotLed { way, to, what })
    }

    /// Loads it for a while.
    ///
    /// # Errors
    /// When the load generator fails.
    pub fn measure(
        &self,
        round: usize,
        load: Load,
        connections: Connections,
    ) -> Result<Sample, BedError> {
        let (netns, to) = self.path(round)?;
        let before = self.clocks()?;
        let loaded = cpu::on_core(self.bed.cores.load, || load.run(netns, to, connections));
        let loaded = loaded.map_err(kernel("keep the load generator on one core"))??;
        let after = self.clocks()?;
        let [envoy, load, machine] = std::array::from_fn(|it| {
            let ends = before.get(it).zip(after.get(it));
            ends.map_or(Duration::ZERO, |(from, to)| to.saturating_sub(*from))
        });
        Ok(Sample::of(&loaded, envoy, load, machine))
    }

    /// Of Envoy, of load generators that have ended, and of all CPUs.
    fn clocks(&self) -> Result<[Duration; 3], BedError> {
        let sidecar = self.bed.sidecars.get(&self.count);
        let envoy = match (self.way, sidecar) {
            (Way::Sidecar, Some(sidecar)) => &sidecar.envoy,
            _ => &self.bed.envoy,
        };
        let clocks = || -> io::Result<_> {
            let envoy = cpu::of_process(envoy.pid())?;
            Ok([envoy, cpu::of_ended_children()?, cpu::of_machine()?])
        };
        clocks().map_err(kernel("read the clocks of CPUs"))
    }

    /// Takes it away.
    ///
    /// # Errors
    /// When something does not go.
    pub fn remove(mut self) -> Result<(), BedError> {
        if let Some(datapath) = self.datapath.take() {
            datapath.detach()?;
        }
        if let Some(mut rules) = self.rules.take() {
            rules.remove(self.bed.node()?).map_err(Box::new)?;
        }
        Ok(())
    }
}

const fn mode(way: Way) -> Option<Mode> {
    match way {
        Way::Tc => Some(Mode::Tc),
        Way::TcSkLookup => Some(Mode::Both),
        Way::SkLookup => Some(Mode::SkLookup),
        Way::Straight | Way::Iptables | Way::Sidecar => None,
    }
}

fn sidecar_pod(frontends: u32) -> String {
    format!("bench/sidecar-{frontends}")
}

/// The node, with a client's pod and one by `sidecar` for each number of frontends.
fn node(frontends: &[u32]) -> NodeSpec {
    let names = frontends.iter().map(|count| sidecar_pod(*count));
    let names = std::iter::once(CLIENT.to_owned()).chain(names);
    let pod = |(last, name)| PodSpec {
        name,
        addresses: vec![Ipv4Addr::new(10, 244, 0, last).into()],
        host_network: false,
    };
    NodeSpec {
        name: NODE.to_owned(),
        addresses: vec![NODE_ADDRESS],
        pods: (2..=254).zip(names).map(pod).collect(),
    }
}

fn machine<'a>(machines: &'a Machines, place: &Place) -> Result<&'a Arc<NetNs>, NetNsError> {
    let missing = || NetNsError::Missing(place.to_string());
    machines.get(place).ok_or_else(missing)
}

/// What Envoy serves.
fn planned() -> Result<NodePlan, BedError> {
    let text = Text::new("objects.yaml", include_str!("objects.yaml"));
    let objects = read(&[text]).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(SourceError::to_string).collect();
        BedError::Objects(texts.join("; "))
    })?;
    let plan = plan(&objects, NODE, Ledger::default());
    if plan.frontends.is_empty() || !plan.problems.is_empty() {
        let problems = &plan.problems;
        return Err(BedError::Objects(format!("no listener: {problems:?}")));
    }
    Ok(plan)
}

/// 10.96.0.1 and on, port 80.
fn keys(count: u32) -> impl Iterator<Item = FrontendKey> {
    let first = u32::from(Ipv4Addr::new(10, 96, 0, 1));
    (first..first + count).map(|address| FrontendKey {
        address: Ipv4Addr::from_bits(address).into(),
        port: 80,
    })
}

/// The plan with that many frontends, which lead to its one listener.
fn with_frontends(plan: &NodePlan, count: u32) -> NodePlan {
    let mut plan = plan.clone();
    if let Some(template) = plan.frontends.values().next().cloned() {
        plan.frontends = keys(count).map(|key| (key, template.clone())).collect();
    }
    plan
}

/// An Envoy with one worker on one core, without an access log.
fn start(
    netns: &NetNs,
    plan: &NodePlan,
    options: EnvoyOptions,
    cores: Cores,
) -> Result<Envoy, BedError> {
    let options = EnvoyOptions {
        access_log: false,
        within: Duration::from_secs(60),
        ..options
    };
    let started = cpu::on_core(cores.envoy, || Envoy::start(netns, plan, &options));
    Ok(started.map_err(kernel("keep Envoy on one core"))??)
}

fn apply(rules: &mut Netfilter, netns: &NetNs, wanted: &Wanted) -> Result<(), BedError> {
    Ok(rules.apply(netns, wanted).map_err(Box::new)?)
}

fn many_ports() -> io::Result<()> {
    let folder = PathBuf::from("/proc/sys/net/ipv4");
    let mut settings = PORTS.into_iter();
    settings.try_for_each(|(name, value)| fs::write(folder.join(name), value))
}

fn ask(to: SocketAddr) -> io::Result<String> {
    let patience = Duration::from_secs(3);
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_envoy_serves_is_planned_without_a_problem() {
        let plan = planned().unwrap();
        assert_eq!((plan.listeners.len(), plan.frontends.len()), (2, 1));
        let many = with_frontends(&plan, 10_000);
        assert_eq!(many.frontends.len(), 10_000);
        assert_eq!(keys(10_000).last().unwrap().to_string(), "10.96.39.16:80");
    }

    #[test]
    fn each_number_of_frontends_has_a_pod_of_its_own() {
        let names: Vec<String> = node(&[10, 1_000])
            .pods
            .into_iter()
            .map(|it| it.name)
            .collect();
        assert_eq!(
            names,
            ["bench/client", "bench/sidecar-10", "bench/sidecar-1000"]
        );
    }
}
