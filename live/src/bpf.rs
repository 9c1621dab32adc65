//! The redirect in the kernel: the decision's programs, loaded, attached, fed with frontends.
//!
//! A [`Datapath`] belongs to one network namespace, the node's. [`Datapath::load`] brings programs
//! and maps into the kernel and changes nothing yet; frontends are put in; [`Datapath::attach`]
//! switches it on. With a folder for pins everything goes on when the process ends or is killed,
//! and the next [`Datapath::load`] with that folder finds the maps as they were and takes the
//! programs' places over without a gap; [`Datapath::detach`] ends it and leaves nothing. Without
//! one, everything ends with the value.
//!
//! `sk_lookup` picks listening sockets out of a table, and an entry goes when its socket closes.
//! So [`Datapath::take_sockets`] is called again whenever listeners have come or gone.

mod dry_run;
mod event;
mod link;
mod object;
mod pins;
mod sockets;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aya::maps::{HashMap, LpmTrie, MapData, PerCpuArray, RingBuf, SockHash};
use ipnet::IpNet;
use nodeway_core::datapath::Frontend;
use nodeway_core::frontend::{FrontendKey, SourceRanges};

use crate::cause::with_causes;
use crate::netns::{NetNs, NetNsError};
use link::{Attached, Device};
use table::{Frontends, ListenSockets, Sources};

pub use dry_run::{DryRun, DryRunError, LookUp, Ran};
pub use event::Event;
pub use link::{AttachError, TcHook};
pub use object::{Globals, LoadError, Object, ProgramName, is_built, read};
pub use pins::{PinError, Pins};
pub use sockets::SocketsError;
pub use table::{Counters, TableError};

/// The maps that a redirect's programs look into, by their numbers, as `bpftool map` knows them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapIds {
    /// Of frontends.
    pub frontends: u32,
    /// Of source ranges.
    pub sources: u32,
    /// The folder of their pins, if they are pinned: by a number a map is opened with `CAP_SYS_ADMIN`
    /// alone.
    #[serde(default)]
    pub pins: Option<PathBuf>,
}

impl MapIds {
    /// The frontends and source ranges in them, whichever process made them. Nothing is changed.
    ///
    /// # Errors
    /// When there are no such maps any more, or the kernel refuses.
    pub fn read(&self) -> Result<(BTreeMap<FrontendKey, Frontend>, SourceRanges), TableError> {
        let pin = |map| Some(Pins::found(self.pins.as_ref()?).map(map));
        let frontends = Frontends::open(self.frontends, pin("FRONTENDS").as_deref())?.all()?;
        let sources = Sources::open(self.sources, pin("SOURCES").as_deref())?;
        let mut ranges: BTreeMap<FrontendKey, Vec<IpNet>> = BTreeMap::new();
        for (key, range) in sources.all()? {
            ranges.entry(key).or_default().push(range);
        }
        let sorted = ranges.into_iter().map(|(key, mut all)| {
            all.sort();
            (key, all.into())
        });
        Ok((frontends, sorted.collect()))
    }
}

/// Which programs redirect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// tc for what is known, sk_lookup for what is new: the default.
    #[default]
    Both,
    /// tc alone.
    Tc,
    /// sk_lookup alone; each frontend address then needs a local route.
    SkLookup,
}

impl Mode {
    const fn has_tc(self) -> bool {
        matches!(self, Self::Both | Self::Tc)
    }

    const fn has_sk_lookup(self) -> bool {
        matches!(self, Self::Both | Self::SkLookup)
    }
}

/// How a [`Datapath`] is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Which programs.
    pub mode: Mode,
    /// How tc programs are attached.
    pub tc: TcHook,
    /// A cgroup of version 2 whose processes' connect calls are redirected too, where they are in
    /// the same network namespace.
    pub cgroup: Option<&'a Path>,
    /// A folder on a BPF file system, where everything outlives this process.
    pub pins: Option<&'a Path>,
    /// Whether each decision becomes an event; what is not traced costs nothing.
    pub trace: bool,
}

/// Why other programs cannot take over.
#[derive(Debug, thiserror::Error)]
pub enum AgainError {
    /// They cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// They cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The network namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

/// Why it cannot be taken away as a whole.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// A pin stays.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// A filter stays.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

/// The redirect of one network namespace.
pub struct Datapath {
    netns: NetNs,
    mode: Mode,
    hook: TcHook,
    pins: Option<Pins>,
    cgroup: Option<PathBuf>,
    object: Object,
    frontends: Frontends,
    sources: Sources,
    sockets: ListenSockets,
    counters: PerCpuArray<MapData, u64>,
    events: RingBuf<MapData>,
    /// By device, and what is attached elsewhere.
    devices: BTreeMap<String, (Device, Attached)>,
    others: Vec<Attached>,
}

impl Datapath {
    /// Brings programs and maps into the kernel; nothing is redirected yet. With a folder for pins,
    /// the maps are those that an earlier process left there.
    ///
    /// # Errors
    /// When this build has no programs, without privileges, on an older kernel, or when the folder
    /// is on no BPF file system.
    pub fn load(netns: NetNs, options: &Options<'_>) -> Result<Self, LoadError> {
        let globals = Globals {
            sk_lookup: options.mode.has_sk_lookup(),
            trace: options.trace,
            netns_cookie: object::cookie(&netns)?,
        };
        let pins = options.pins.map(Pins::in_folder).transpose()?;
        let mut object = Object::open(globals, pins.as_ref())?;
        for program in wanted(options) {
            object.load(program)?;
        }
        Ok(Self {
            netns,
            mode: options.mode,
            hook: options.tc,
            pins,
            cgroup: options.cgroup.map(Path::to_path_buf),
            frontends: Frontends(HashMap::try_from(take(&mut object, "FRONTENDS")?).map_err(map)?),
            sources: Sources(LpmTrie::try_from(take(&mut object, "SOURCES")?).map_err(map)?),
            sockets: ListenSockets(
                SockHash::try_from(take(&mut object, "LISTEN_SOCKETS")?).map_err(map)?,
            ),
            counters: PerCpuArray::try_from(take(&mut object, "COUNTERS")?).map_err(map)?,
            events: RingBuf::try_from(take(&mut object, "EVENTS")?).map_err(map)?,
            object,
            devices: BTreeMap::new(),
            others: Vec::new(),
        })
    }

    /// Switches the redirect on, at these devices and no others: what an earlier process left at
    /// others is taken away. Where it left something, the new programs take the old ones' places
    /// without a gap.
    ///
    /// # Errors
    /// When a device or the cgroup is not there, or the kernel refuses. What is attached by then
    /// stays; [`Datapath::detach`] takes it away.
    pub fn attach(&mut self, devices: &[&str]) -> Result<(), AttachError> {
        for device in devices {
            self.add_device(device)?;
        }
        if self.mode.has_sk_lookup() {
            let link = link::sk_lookup(&mut self.object, &self.netns, self.pins.as_ref())?;
            self.others.push(link);
        }
        self.attach_calls()?;
        self.remove_leftovers()
    }

    /// The same redirect by programs that tell each decision, or that tell none any more: they take
    /// the places of these without a gap, on the same maps. None where nothing is pinned, and so
    /// nothing can be taken over.
    ///
    /// # Errors
    /// When the kernel refuses. Some places may have the new programs then; they decide alike.
    pub fn again(&self, trace: bool) -> Result<Option<Self>, AgainError> {
        let Some(pins) = &self.pins else {
            return Ok(None);
        };
        let options = Options {
            mode: self.mode,
            tc: self.hook,
            cgroup: self.cgroup.as_deref(),
            pins: Some(pins.folder()),
            trace,
        };
        let mut next = Self::load(self.netns.try_clone()?, &options)?;
        let devices: Vec<&str> = self.devices.keys().map(String::as_str).collect();
        next.attach(&devices)?;
        Ok(Some(next))
    }

    /// Attaches to the calls of the cgroup's processes alone, if there is a cgroup.
    ///
    /// # Errors
    /// When the cgroup is not there, or the kernel refuses.
    pub fn attach_calls(&mut self) -> Result<(), AttachError> {
        if let Some(cgroup) = &self.cgroup {
            for program in ProgramName::CALLS {
                let link = link::calls(&mut self.object, cgroup, program, self.pins.as_ref())?;
                self.others.push(link);
            }
        }
        Ok(())
    }

    /// Attaches to one more device. In the mode without tc there is nothing to do.
    ///
    /// # Errors
    /// When there is no such device, or the kernel refuses.
    pub fn add_device(&mut self, device: &str) -> Result<(), AttachError> {
        if !self.mode.has_tc() {
            return Ok(());
        }
        let device = Device::find(&self.netns, device)?;
        let link = link::tc(
            &mut self.object,
            &self.netns,
            &device,
            self.hook,
            self.pins.as_ref(),
        )?;
        self.devices.insert(device.name.clone(), (device, link));
        Ok(())
    }

    /// Takes the program off a device, which may be gone.
    ///
    /// # Errors
    /// When the pin cannot be removed.
    pub fn remove_device(&mut self, device: &str) -> Result<(), AttachError> {
        let Some((device, link)) = self.devices.remove(device) else {
            return Ok(());
        };
        if matches!(link, Attached::Filter) {
            link::remove_filter(&self.netns, &device.name)?;
        }
        drop(link);
        if let Some(pins) = &self.pins {
            // The program may stay at other devices: what counts is this one.
            let unpinned = pins::remove(&[pins.link(&device.link())])?;
            unpinned.until_none(|| link::attached(&self.netns, &device.name))?;
        }
        Ok(())
    }

    /// Takes away what is pinned and not in use: an earlier process's other devices and hooks, and
    /// everything of another layout.
    fn remove_leftovers(&self) -> Result<(), AttachError> {
        let Some(pins) = &self.pins else {
            return Ok(());
        };
        let mut used: Vec<String> = self.devices.values().map(|(it, _)| it.link()).collect();
        if self.mode.has_sk_lookup() {
            used.push("sk_lookup".to_owned());
        }
        if self.cgroup.is_some() {
            used.extend(ProgramName::CALLS.map(|program| program.to_string()));
        }
        let mut unused = pins.links()?;
        unused.retain(|link| !used.contains(link));
        let unused: Vec<PathBuf> = unused.iter().map(|link| pins.link(link)).collect();
        // These hold programs of an earlier process.
        pins::remove(&unused)?.wait()?;
        Ok(pins.remove_others()?.wait()?)
    }

    /// Puts a frontend into the table, or changes it.
    ///
    /// # Errors
    /// When the table is full.
    pub fn put(&mut self, key: FrontendKey, frontend: &Frontend) -> Result<(), TableError> {
        self.frontends.put(key, *frontend)
    }

    /// Takes a frontend out of the table, if it is there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self, key: FrontendKey) -> Result<(), TableError> {
        self.frontends.remove(key)
    }

    /// The table, as the programs see it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn frontends(&self) -> Result<BTreeMap<FrontendKey, Frontend>, TableError> {
        self.frontends.all()
    }

    /// Lets sources of that range come by a frontend that is `ranged`; the two are of one family.
    ///
    /// # Errors
    /// When the table is full.
    pub fn admit(&mut self, key: FrontendKey, range: IpNet) -> Result<(), TableError> {
        self.sources.put(key, range)
    }

    /// Takes a range of a frontend back, if it is there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn admit_no_more(&mut self, key: FrontendKey, range: IpNet) -> Result<(), TableError> {
        self.sources.remove(key, range)
    }

    /// The table of source ranges, as the programs see it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn admitted(&self) -> Result<Vec<(FrontendKey, IpNet)>, TableError> {
        self.sources.all()
    }

    /// Which maps the programs look into.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn map_ids(&self) -> Result<MapIds, TableError> {
        Ok(MapIds {
            frontends: self.frontends.id()?,
            sources: self.sources.id()?,
            pins: self.pins.as_ref().map(|it| it.folder().to_owned()),
        })
    }

    /// How often each hook gave each reason, since the maps were made.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn counters(&self) -> Result<Counters, TableError> {
        Counters::read(&self.counters)
    }

    /// The decisions since the last call, oldest first, if tracing is on. At most 14,563 wait; what
    /// comes then is counted as `event-lost`.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(item) = self.events.next() {
            events.extend(Event::read(&item));
        }
        events
    }

    /// The programs, for tests that run them by hand.
    pub const fn object(&mut self) -> &mut Object {
        &mut self.object
    }

    /// Switches the redirect off and takes everything away: programs, maps, pins. Connections that
    /// exist go on where the kernel finds their sockets by itself.
    ///
    /// # Errors
    /// When a pin cannot be removed; the rest is gone.
    pub fn detach(mut self) -> Result<(), DetachError> {
        self.remove_filters()?;
        let pins = self.pins.clone();
        let unpinned = pins.as_ref().map(Pins::remove_all).transpose()?;
        // With the programs' last holder, so that they can go.
        drop(self);
        Ok(unpinned.unwrap_or_default().wait()?)
    }

    fn remove_filters(&mut self) -> Result<(), NetNsError> {
        for (device, link) in std::mem::take(&mut self.devices).into_values() {
            if matches!(link, Attached::Filter) {
                link::remove_filter(&self.netns, &device.name)?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Datapath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datapath")
            .field("netns", &self.netns.name())
            .field("mode", &self.mode)
            .field("devices", &self.devices.keys())
            .finish_non_exhaustive()
    }
}

impl Drop for Datapath {
    /// Links end with the value, unless they are pinned; so do filters.
    fn drop(&mut self) {
        if self.pins.is_none() {
            // Nobody is left to hear of it.
            let _ = self.remove_filters();
        }
    }
}

/// Takes away what earlier processes left of a redirect in a namespace, whatever their mode and
/// version was: filters of every device, and all that is pinned in the folder.
///
/// # Errors
/// When a pin cannot be removed; the rest is gone.
pub fn remove_all(netns: &NetNs, pins: &Path) -> Result<(), DetachError> {
    for device in netns.devices()? {
        link::remove_filter(netns, &device)?;
    }
    if pins.is_dir() {
        Pins::in_folder(pins)?.remove_all()?.wait()?;
    }
    Ok(())
}

/// The programs that these options need.
fn wanted(options: &Options<'_>) -> Vec<ProgramName> {
    let mut wanted = vec![ProgramName::Stash];
    if options.mode.has_tc() {
        wanted.extend([ProgramName::TcEthernet, ProgramName::TcAny]);
    }
    if options.mode.has_sk_lookup() {
        wanted.push(ProgramName::SkLookup);
    }
    if options.cgroup.is_some() {
        wanted.extend(ProgramName::CALLS);
    }
    wanted
}

fn take(object: &mut Object, name: &'static str) -> Result<aya::maps::Map, LoadError> {
    let map = object.maps().take_map(name);
    map.ok_or(LoadError::Missing(name))
}

fn map(error: aya::maps::MapError) -> LoadError {
    LoadError::Maps {
        said: with_causes(&error),
    }
}
