//! A node's redirect in the kernel: the rules, routes and programs of one way, for these frontends.
//!
//! A change goes in in the order in which no new connection is lost. For frontends that are led on it
//! is the sets that keep replies untracked, then the programs' tables or the rules of the listener's
//! port, then routes, then the sets that keep others off: what is untracked and has nothing that takes
//! it is refused. For those that drain it is the other way round: what no program takes must be
//! others' by then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use nodeway_core::datapath::layout::Fault;
use nodeway_core::datapath::{Frontend, FrontendState};
use nodeway_core::frontend::{FrontendKey, SourceRanges};
use nodeway_core::recording::Decision;
use nodeway_core::redirect::Redirect;

use crate::bpf::{
    self, AgainError, AttachError, Counters, Datapath, DetachError, LoadError, MapIds, Mode,
    Options, PinError, Pins, SocketsError, TableError,
};
use crate::netfilter::{Netfilter, NetfilterError, Owner, Wanted};
use crate::netns::{NetNs, NetNsError};

/// Why packets cannot be led.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// Rules.
    #[error(transparent)]
    Rules(#[from] Box<NetfilterError>),
    /// The kernel's programs cannot be loaded.
    #[error(transparent)]
    Load(#[from] Box<LoadError>),
    /// They cannot be attached.
    #[error(transparent)]
    Attach(#[from] Box<AttachError>),
    /// Others cannot take over.
    #[error(transparent)]
    Again(#[from] Box<AgainError>),
    /// They cannot be taken away.
    #[error(transparent)]
    Detach(#[from] Box<DetachError>),
    /// Those of another way cannot.
    #[error(transparent)]
    Pins(#[from] Box<PinError>),
    /// A frontend cannot be put into their table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A listener's socket cannot be put there.
    #[error(transparent)]
    Sockets(#[from] Box<SocketsError>),
    /// The node's namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// There is no cgroup that all processes are in.
    #[error(
        "no cgroup file system of version 2 is mounted, and calls of a node itself hang on one; mount it: mount -t cgroup2 none /sys/fs/cgroup; or where version 1 is there: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NoCgroup,
}

macro_rules! boxed {
    ($($error:ty),*) => {
        $(impl From<$error> for RedirectError {
            fn from(error: $error) -> Self {
                Box::new(error).into()
            }
        })*
    };
}

boxed!(
    NetfilterError,
    LoadError,
    AttachError,
    DetachError,
    SocketsError
);

/// Where a redirect stands.
#[derive(Clone, Debug)]
pub struct Site<'a> {
    /// The node's network namespace.
    pub netns: &'a NetNs,
    /// The node's own addresses.
    pub addresses: &'a [IpAddr],
    /// The devices at which clients' packets come in: its pods' and its uplinks.
    pub devices: &'a [String],
    /// A folder on a BPF file system, where programs and maps outlive this process.
    pub pins: Option<&'a Path>,
}

/// A node's redirect, in force.
#[derive(Debug)]
pub struct NodeRedirect {
    redirect: Redirect,
    netns: NetNs,
    addresses: Vec<IpAddr>,
    rules: Netfilter,
    programs: Option<Datapath>,
    frontends: BTreeMap<FrontendKey, Frontend>,
    ranges: SourceRanges,
}

impl NodeRedirect {
    /// Leads packets of these frontends from now on; those that are `ranged` have ranges. What an earlier process left of the same
    /// redirect is taken up, and goes on all the while.
    ///
    /// # Errors
    /// When the kernel, a tool or somebody else's rules refuse. What was put in place by then stays
    /// until the next start.
    pub fn start(
        redirect: Redirect,
        site: &Site<'_>,
        frontends: BTreeMap<FrontendKey, Frontend>,
        ranges: SourceRanges,
    ) -> Result<Self, RedirectError> {
        // What can be refused before anything is another comes first.
        let mut programs = programs(redirect, site)?;
        let mut own = Self {
            redirect,
            netns: site.netns.try_clone()?,
            addresses: site.addresses.to_vec(),
            rules: Netfilter::new(Owner::Nodeway),
            programs: None,
            frontends,
            ranges,
        };
        let ports = ports(&own.frontends);
        own.rule(&own.frontends.clone(), &ports, &own.ranges.clone())?;
        match (&mut programs, site.pins) {
            (Some(programs), _) => own.switch_on(programs, site)?,
            (None, Some(pins)) => remove_programs(pins)?,
            (None, None) => {}
        }
        own.programs = programs;
        Ok(own)
    }

    fn switch_on(&self, programs: &mut Datapath, site: &Site<'_>) -> Result<(), RedirectError> {
        let stale = programs.frontends()?.into_keys();
        for key in stale.filter(|key| !self.frontends.contains_key(key)) {
            programs.remove(key)?;
        }
        programs.take_sockets(&listed(&ports(&self.frontends)))?;
        admit(programs, &self.ranges)?;
        for (key, frontend) in &self.frontends {
            programs.put(*key, frontend)?;
        }
        admit_no_others(programs, &self.ranges)?;
        let devices: Vec<&str> = site.devices.iter().map(String::as_str).collect();
        Ok(programs.attach(&devices)?)
    }

    /// Changes frontends; none takes one out. `ranges` are those of all frontends then.
    ///
    /// # Errors
    /// When the kernel or a tool refuses. Some of the programs' tables and rules may have changed by
    /// then, each as a whole, and the same call again does the rest.
    pub fn change(
        &mut self,
        changes: &BTreeMap<FrontendKey, Option<Frontend>>,
        ranges: SourceRanges,
    ) -> Result<(), RedirectError> {
        let mut next = self.frontends.clone();
        let mut meanwhile = self.frontends.clone();
        for (key, change) in changes {
            match change {
                Some(frontend) => {
                    next.insert(*key, *frontend);
                    meanwhile.insert(*key, *frontend);
                }
                None => {
                    next.remove(key);
                }
            }
        }
        let (before, after) = (ports(&self.frontends), ports(&next));
        let all: BTreeSet<u16> = before.union(&after).copied().collect();
        let leads_on = |change: &Option<Frontend>| {
            change.is_some_and(|frontend| frontend.state != FrontendState::Draining)
        };
        if let Some(programs) = &mut self.programs {
            programs.take_sockets(&listed(&all))?;
            if ranges != self.ranges {
                admit(programs, &ranges)?;
            }
        }
        self.announce(changes.keys().filter(|key| next.contains_key(*key)))?;
        self.put_in_programs(changes.iter().filter(|(_, change)| leads_on(change)))?;
        if self.redirect == Redirect::Iptables && all != before {
            self.rule(&self.frontends.clone(), &all, &self.ranges.clone())?;
        }
        if meanwhile != self.frontends || ranges != self.ranges {
            self.rule(&meanwhile, &all, &ranges)?;
        }
        self.put_in_programs(changes.iter().filter(|(_, change)| !leads_on(change)))?;
        if next != meanwhile {
            self.rule(&next, &all, &ranges)?;
        }
        if self.redirect == Redirect::Iptables && all != after {
            self.rule(&next, &after, &ranges)?;
        }
        if let (Some(programs), true) = (&mut self.programs, ranges != self.ranges) {
            admit_no_others(programs, &ranges)?;
        }
        self.frontends = next;
        self.ranges = ranges;
        self.take_sockets()?;
        Ok(())
    }

    /// Makes new frontends known to the rules, before programs lead them.
    fn announce<'a>(
        &mut self,
        keys: impl Iterator<Item = &'a FrontendKey>,
    ) -> Result<(), RedirectError> {
        let new = keys.filter(|key| !self.frontends.contains_key(*key));
        let new: Vec<FrontendKey> = new.copied().collect();
        if new.is_empty() || self.programs.is_none() {
            return Ok(());
        }
        let wanted = self.wanted(&self.frontends, &ports(&self.frontends), &self.ranges);
        Ok(self.rules.apply(&self.netns, &wanted.announcing(new))?)
    }

    fn put_in_programs<'a>(
        &mut self,
        changes: impl Iterator<Item = (&'a FrontendKey, &'a Option<Frontend>)>,
    ) -> Result<(), TableError> {
        let Some(programs) = &mut self.programs else {
            return Ok(());
        };
        for (key, change) in changes {
            match change {
                Some(frontend) => programs.put(*key, frontend)?,
                None => programs.remove(*key)?,
            }
        }
        Ok(())
    }

    /// Leads to the sockets that the listeners have now: to be called when some have come or gone.
    /// Says where nobody listens.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_sockets(&mut self) -> Result<Vec<SocketAddr>, RedirectError> {
        let ports = ports(&self.frontends);
        match &mut self.programs {
            Some(programs) => Ok(programs.take_sockets(&listed(&ports))?),
            None => Ok(Vec::new()),
        }
    }

    /// Attaches to one more device: a pod has come.
    ///
    /// # Errors
    /// When there is no such device, or the kernel refuses.
    pub fn add_device(&mut self, device: &str) -> Result<(), RedirectError> {
        match &mut self.programs {
            Some(programs) => Ok(programs.add_device(device)?),
            None => Ok(()),
        }
    }

    /// Takes the program off a device, which may be gone with its pod.
    ///
    /// # Errors
    /// When its pin cannot be removed.
    pub fn remove_device(&mut self, device: &str) -> Result<(), RedirectError> {
        match &mut self.programs {
            Some(programs) => Ok(programs.remove_device(device)?),
            None => Ok(()),
        }
    }

    /// Which maps the programs look into; none for a way of rules.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn map_ids(&self) -> Result<Option<MapIds>, RedirectError> {
        let ids = self.programs.as_ref().map(Datapath::map_ids);
        Ok(ids.transpose()?)
    }

    /// How often each hook gave each reason; none for a way of rules.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn counters(&self) -> Result<Option<Counters>, RedirectError> {
        let counters = self.programs.as_ref().map(Datapath::counters);
        Ok(counters.transpose()?)
    }

    /// Has the programs tell each decision, or none any more. False for a way of rules, and where
    /// nothing is pinned: nobody tells there.
    ///
    /// # Errors
    /// When the kernel refuses; it is led on as before.
    pub fn trace(&mut self, trace: bool) -> Result<bool, RedirectError> {
        let Some(programs) = &self.programs else {
            return Ok(false);
        };
        let Some(next) = programs.again(trace).map_err(Box::new)? else {
            return Ok(false);
        };
        self.programs = Some(next);
        Ok(true)
    }

    /// What was decided since the last call, while decisions are told.
    pub fn decisions(&mut self) -> Vec<Decision> {
        let programs = self.programs.as_mut();
        let events = programs.map(Datapath::events).unwrap_or_default();
        events.iter().map(bpf::Event::decision).collect()
    }

    /// How many decisions the kernel could not tell, since its maps were made.
    #[must_use]
    pub fn lost_decisions(&self) -> u64 {
        let counters = self.counters().ok().flatten();
        let faults = counters.map(|it| it.faults).unwrap_or_default();
        faults.get(&Fault::EventLost).copied().unwrap_or(0)
    }

    /// The way.
    #[must_use]
    pub const fn redirect(&self) -> Redirect {
        self.redirect
    }

    /// What is led where.
    #[must_use]
    pub const fn frontends(&self) -> &BTreeMap<FrontendKey, Frontend> {
        &self.frontends
    }

    /// Leads nothing any more, and leaves nothing behind.
    ///
    /// # Errors
    /// When a rule or pin stays.
    pub fn stop(mut self) -> Result<(), RedirectError> {
        if let Some(programs) = self.programs.take() {
            programs.detach()?;
        }
        Ok(self.rules.remove(&self.netns)?)
    }

    /// Has rules for these frontends, which lead to listeners on those ports.
    fn rule(
        &mut self,
        frontends: &BTreeMap<FrontendKey, Frontend>,
        ports: &BTreeSet<u16>,
        ranges: &SourceRanges,
    ) -> Result<(), RedirectError> {
        let wanted = self.wanted(frontends, ports, ranges);
        Ok(self.rules.apply(&self.netns, &wanted)?)
    }

    fn wanted(
        &self,
        frontends: &BTreeMap<FrontendKey, Frontend>,
        ports: &BTreeSet<u16>,
        ranges: &SourceRanges,
    ) -> Wanted {
        let frontends: Vec<_> = frontends.iter().map(|(key, it)| (*key, *it)).collect();
        let wanted = Wanted::node_leading(self.redirect, &frontends, ports, &self.addresses);
        wanted.guarded(self.redirect, ranges)
    }
}

fn ports(frontends: &BTreeMap<FrontendKey, Frontend>) -> BTreeSet<u16> {
    frontends.values().map(|it| it.listener_port).collect()
}

/// As the map of sockets is asked for them.
fn listed(ports: &BTreeSet<u16>) -> Vec<u16> {
    ports.iter().copied().collect()
}

/// Lets in who may come: before the frontends that ask for it.
fn admit(programs: &mut Datapath, ranges: &SourceRanges) -> Result<(), TableError> {
    let known: BTreeSet<_> = programs.admitted()?.into_iter().collect();
    for wanted in each(ranges).filter(|it| !known.contains(it)) {
        programs.admit(wanted.0, wanted.1)?;
    }
    Ok(())
}

/// Takes back the ranges that are no more, or that an earlier process left: after the frontends,
/// some of which may be open now.
fn admit_no_others(programs: &mut Datapath, ranges: &SourceRanges) -> Result<(), TableError> {
    let wanted: BTreeSet<_> = each(ranges).collect();
    let known = programs.admitted()?.into_iter();
    for (key, range) in known.filter(|it| !wanted.contains(it)) {
        programs.admit_no_more(key, range)?;
    }
    Ok(())
}

fn each(ranges: &SourceRanges) -> impl Iterator<Item = (FrontendKey, IpNet)> {
    let all = ranges.iter();
    all.flat_map(|(key, ranges)| ranges.iter().map(|range| (*key, *range)))
}

/// Takes away the programs that another way left pinned.
fn remove_programs(pins: &Path) -> Result<(), RedirectError> {
    if !pins.exists() {
        return Ok(());
    }
    let pins = Pins::in_folder(pins).map_err(Box::new)?;
    let removed = pins.remove_all().and_then(|removed| removed.wait());
    Ok(removed.map_err(Box::new)?)
}

/// The kernel's programs, not yet attached; none for a way of rules.
fn programs(redirect: Redirect, site: &Site<'_>) -> Result<Option<Datapath>, RedirectError> {
    let mode = match redirect {
        Redirect::Tc => Mode::Both,
        Redirect::SkLookup => Mode::SkLookup,
        Redirect::Iptables | Redirect::Sidecar => return Ok(None),
    };
    // sk_lookup sees what the node itself sends; tc does not.
    let cgroup = match mode {
        Mode::Both | Mode::Tc => Some(cgroup().ok_or(RedirectError::NoCgroup)?),
        Mode::SkLookup => None,
    };
    let options = Options {
        mode,
        cgroup: cgroup.as_deref(),
        pins: site.pins,
        ..Options::default()
    };
    Ok(Some(Datapath::load(site.netns.try_clone()?, &options)?))
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
