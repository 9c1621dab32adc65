//! Links: what holds a program at its hook.
//!
//! A link without a pin ends with the process. A pinned one goes on, and a later process puts its
//! own program in the place of the old one: at tc in one step (`BPF_LINK_UPDATE`), elsewhere by
//! attaching the new one beside the old and then moving its pin over the old pin. Both programs
//! decide alike, so at no moment is a packet without a decision. Before Linux 6.6 there are no
//! links at tc: there the program is a filter of the `clsact` queueing discipline, which no
//! process holds; it is found again by its priority and handle.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact,
};
use aya::programs::{
    CgroupAttachMode, LinkOrder, ProgramError, ProgramInfo, SchedClassifier, TcAttachType,
};
use nix::ifaddrs::getifaddrs;

use super::object::{Object, ProgramName, permission};
use super::pins::{self, PinError, Pins};
use crate::cause::with_causes;
use crate::netns::{NetNs, NetNsError};

/// The filter's place among others of a `clsact` queueing discipline: "NW".
const PRIORITY: u16 = 0x4e57;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// Why a program cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The namespace has no such device.
    #[error(
        "the network namespace `{netns}` has no device `{device}`; `ip -n {netns} link` lists those that it has"
    )]
    NoDevice {
        /// The device.
        device: String,
        /// The namespace.
        netns: String,
    },
    /// The kernel refused.
    #[error("cannot attach `{program}` to {place}: {said}{}", permission(said))]
    Refused {
        /// The program.
        program: ProgramName,
        /// The device, the namespace or the cgroup.
        place: String,
        /// What the kernel said.
        said: String,
    },
    /// The folder is no cgroup of version 2.
    #[error("`{}` is no cgroup of version 2: {cause}; `mount -t cgroup2` lists those that there are", path.display())]
    NoCgroup {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The network namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// The pin.
    #[error(transparent)]
    Pin(#[from] PinError),
}

fn refused(
    program: ProgramName,
    place: impl Into<String>,
) -> impl FnOnce(&(dyn std::error::Error + 'static)) -> AttachError {
    let place = place.into();
    move |error| AttachError::Refused {
        program,
        place,
        said: with_causes(error),
    }
}

/// How tc programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcHook {
    /// TCX where the kernel has it (Linux 6.6), else clsact.
    #[default]
    Any,
    /// TCX.
    Tcx,
    /// A filter of the `clsact` queueing discipline.
    Clsact,
}

/// A program at its hook.
#[derive(Debug)]
#[expect(
    dead_code,
    reason = "a link holds its program for as long as it is kept"
)]
pub(super) enum Attached {
    /// For as long as the process lives.
    Held(FdLink),
    /// Until its pin is taken away.
    Pinned(PinnedLink),
    /// Until it is taken away.
    Filter,
}

/// A device as tc sees it.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) name: String,
    index: u32,
    program: ProgramName,
}

impl Device {
    /// Looks a device up, in its namespace.
    pub(super) fn find(netns: &NetNs, name: &str) -> Result<Self, AttachError> {
        let missing = || AttachError::NoDevice {
            device: name.to_owned(),
            netns: netns.name().to_owned(),
        };
        let find = || Some((nix::net::if_::if_nametoindex(name).ok()?, hardware(name)));
        let (index, hardware) = netns.run(find)?.ok_or_else(missing)?;
        // Only Ethernet devices (and loopback, which has the same header) are read directly.
        let program = match hardware {
            Some(nix::libc::ARPHRD_ETHER | nix::libc::ARPHRD_LOOPBACK) => ProgramName::TcEthernet,
            _ => ProgramName::TcAny,
        };
        Ok(Self {
            name: name.to_owned(),
            index,
            program,
        })
    }

    /// Its link's name. The index, not the device's name: names may have dots, pins may not.
    pub(super) fn link(&self) -> String {
        format!("tc_{}", self.index)
    }
}

/// A device's hardware type (`ARPHRD_…`); a device without addresses of its own shows none.
fn hardware(name: &str) -> Option<u16> {
    getifaddrs()
        .ok()?
        .filter(|device| device.interface_name == name)
        .find_map(|device| device.address?.as_link_addr().map(|it| it.hatype()))
}

/// Attaches to tc ingress of a device, in the place of what an earlier process left there.
pub(super) fn tc(
    object: &mut Object,
    netns: &NetNs,
    device: &Device,
    hook: TcHook,
    pins: Option<&Pins>,
) -> Result<Attached, AttachError> {
    match hook {
        TcHook::Tcx => tcx(object, netns, device, pins),
        TcHook::Clsact => clsact(object, netns, device),
        TcHook::Any => match tcx(object, netns, device, pins) {
            Err(AttachError::Refused { .. }) => clsact(object, netns, device),
            attached => attached,
        },
    }
}

fn tcx(
    object: &mut Object,
    netns: &NetNs,
    device: &Device,
    pins: Option<&Pins>,
) -> Result<Attached, AttachError> {
    let place = format!("device `{}`", device.name);
    let refuse =
        |error: &(dyn std::error::Error + 'static)| refused(device.program, &*place)(error);
    let program = object.tc(device.program).map_err(|error| refuse(&error))?;
    let pin = pins.map(|pins| pins.link(&device.link()));
    if let Some(pin) = &pin
        && let Some(old) = open(pin).map_err(|error| refuse(&error))?
    {
        // A link whose device is gone is of no use, and neither is one of another kind.
        let updated = SchedClassifierLink::try_from(FdLink::from(old))
            .map_err(ProgramErrorOrLink::Link)
            .and_then(|link| Ok(program.attach_to_link(link)?))
            .and_then(|id| Ok(FdLink::try_from(program.take_link(id)?)?));
        match updated {
            Ok(link) => return Ok(Attached::Held(link)),
            Err(_) => drop(pins::remove(std::slice::from_ref(pin))?),
        }
    }
    let link = netns.run(|| {
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program.attach_with_options(&device.name, TcAttachType::Ingress, order)?;
        Ok::<_, ProgramErrorOrLink>(FdLink::try_from(program.take_link(id)?)?)
    })?;
    keep(
        link.map_err(|error| refuse(&error))?,
        pin.as_deref(),
        refuse,
    )
}

#[derive(Debug, thiserror::Error)]
enum ProgramErrorOrLink {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// The pinned link, if there is one.
fn open(pin: &Path) -> Result<Option<PinnedLink>, LinkError> {
    if pin.exists() {
        PinnedLink::from_pin(pin).map(Some)
    } else {
        Ok(None)
    }
}

/// Pins a new link, over an older one's pin if there is one: that one ends with it.
fn keep(
    link: FdLink,
    pin: Option<&Path>,
    refuse: impl FnOnce(&(dyn std::error::Error + 'static)) -> AttachError,
) -> Result<Attached, AttachError> {
    let Some(pin) = pin else {
        return Ok(Attached::Held(link));
    };
    let mut beside = pin.as_os_str().to_owned();
    beside.push("_new");
    let beside = PathBuf::from(beside);
    // What a process left there that was killed between two lines of this function.
    drop(pins::remove(std::slice::from_ref(&beside))?);
    let pinned = link.pin(&beside).map_err(|error| refuse(&error))?;
    pins::replace(pin, &beside)?;
    Ok(Attached::Pinned(pinned))
}

fn clsact(object: &mut Object, netns: &NetNs, device: &Device) -> Result<Attached, AttachError> {
    let place = format!("device `{}`", device.name);
    let program = object
        .tc(device.program)
        .map_err(|error| refused(device.program, &*place)(&error))?;
    let attached = netns.run(|| {
        // There may be one already; if it could not be made, attaching says so.
        let _ = qdisc_add_clsact(&device.name);
        let replaced = filter(&device.name)
            .map_err(ProgramError::IOError)
            .and_then(|old| program.attach_to_link(old));
        let id = match replaced {
            Ok(id) => id,
            Err(_) => program.attach_with_options(
                &device.name,
                TcAttachType::Ingress,
                TcAttachOptions::Netlink(NlOptions {
                    priority: PRIORITY,
                    handle: HANDLE,
                    classid: None,
                }),
            )?,
        };
        // The filter stays until it is taken away: dropping the link would do that, and on a
        // thread that is in another namespace.
        std::mem::forget(program.take_link(id)?);
        Ok::<_, ProgramError>(())
    })?;
    attached.map_err(|error| refused(device.program, place)(&error))?;
    Ok(Attached::Filter)
}

fn filter(device: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(device, TcAttachType::Ingress, PRIORITY, HANDLE, None)
}

/// Takes our filter off a device, and the queueing discipline with its last filter. A device that
/// is gone took both with it.
pub(super) fn remove_filter(netns: &NetNs, device: &str) -> Result<(), NetNsError> {
    use aya::programs::links::Link;
    netns.run(|| {
        if let Ok(filter) = filter(device)
            && filter.detach().is_ok()
        {
            let filters = |direction| {
                Command::new("tc")
                    .args(["filter", "show", "dev", device, direction])
                    .output()
            };
            let is_empty = |direction| filters(direction).is_ok_and(|said| said.stdout.is_empty());
            if is_empty("ingress") && is_empty("egress") {
                let _ = Command::new("tc")
                    .args(["qdisc", "del", "dev", device, "clsact"])
                    .output();
            }
        }
    })
}

/// The programs at tc ingress of a device, by number; none of a device that is gone.
pub(super) fn attached(netns: &NetNs, device: &str) -> Vec<u32> {
    let query = || SchedClassifier::query_tcx(device, TcAttachType::Ingress);
    match netns.run(query) {
        Ok(Ok((_, programs))) => programs.iter().map(ProgramInfo::id).collect(),
        _ => Vec::new(),
    }
}

/// Attaches to the look-ups of a network namespace.
pub(super) fn sk_lookup(
    object: &mut Object,
    netns: &NetNs,
    pins: Option<&Pins>,
) -> Result<Attached, AttachError> {
    let place = format!("the network namespace `{}`", netns.name());
    let refuse =
        |error: &(dyn std::error::Error + 'static)| refused(ProgramName::SkLookup, &*place)(error);
    let program = object.sk_lookup().map_err(|error| refuse(&error))?;
    let link = program
        .attach(netns)
        .and_then(|id| program.take_link(id))
        .map_err(|error| refuse(&error))?;
    let pin = pins.map(|pins| pins.link("sk_lookup"));
    keep(FdLink::from(link), pin.as_deref(), refuse)
}

/// Attaches to the calls of a cgroup's processes.
pub(super) fn calls(
    object: &mut Object,
    cgroup: &Path,
    name: ProgramName,
    pins: Option<&Pins>,
) -> Result<Attached, AttachError> {
    let no_cgroup = |cause| AttachError::NoCgroup {
        path: cgroup.to_owned(),
        cause,
    };
    let folder = File::open(cgroup).map_err(no_cgroup)?;
    if !cgroup.join("cgroup.procs").exists() || !cgroup.join("cgroup.controllers").exists() {
        return Err(no_cgroup(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    let place = format!("cgroup `{}`", cgroup.display());
    let refuse = |error: &(dyn std::error::Error + 'static)| refused(name, &*place)(error);
    let program = object.call(name).map_err(|error| refuse(&error))?;
    // A link always stands beside others; the flag that asks for it is for those without links.
    let link = program
        .attach(folder, CgroupAttachMode::Single)
        .and_then(|id| program.take_link(id))
        .map_err(ProgramErrorOrLink::Program)
        .and_then(|link| Ok(FdLink::try_from(link)?))
        .map_err(|error| refuse(&error))?;
    let pin = pins.map(|pins| pins.link(name.as_str()));
    keep(link, pin.as_deref(), refuse)
}
