//! The kernel's side: the programs run by hand on each case, and what their events say.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nodeway_core::frontend::FrontendKey;
use nodeway_live::bpf::{Datapath, DryRun, Event, Mode, Options, Pins, ProgramName, Ran};
use nodeway_live::netns::NetNs;

use super::case::{Case, Input, Outcome};
use super::tables::{LISTENERS, Tables, address_of};
use super::{Trouble, connect, faults};

/// A BPF file system of this process's own, gone with the value.
pub(super) struct Scratch {
    folder: tempfile::TempDir,
    pins: Pins,
}

impl Scratch {
    /// Mounts one.
    pub(super) fn mount() -> Result<Self, Trouble> {
        let folder = tempfile::tempdir()?;
        let kind = Some("bpf");
        mount(kind, folder.path(), kind, MsFlags::empty(), None::<&str>).map_err(|error| {
            format!("a BPF file system cannot be mounted ({error}): run as root")
        })?;
        let pins = Pins::in_folder(folder.path())?;
        Ok(Self { folder, pins })
    }

    pub(super) const fn pins(&self) -> &Pins {
        &self.pins
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
    }
}

/// A datapath and its programs, to be run by hand.
struct Side {
    datapath: Datapath,
    ethernet: DryRun,
    any: DryRun,
}

impl Side {
    fn load(
        netns: &str,
        tables: &Tables,
        scratch: &Pins,
        options: &Options<'_>,
    ) -> Result<Self, Trouble> {
        let mut datapath = Datapath::load(NetNs::open(netns)?, options)?;
        for (at, frontend) in &tables.frontends {
            let (family, address, port) = *at;
            let address = address_of(family, address);
            let key = FrontendKey { address, port };
            for range in tables.ranges.get(at).into_iter().flatten() {
                datapath.admit(key, *range)?;
            }
            datapath.put(key, frontend)?;
        }
        datapath.take_sockets(&LISTENERS)?;
        let ethernet = DryRun::of(datapath.object(), ProgramName::TcEthernet, scratch)?;
        let any = DryRun::of(datapath.object(), ProgramName::TcAny, scratch)?;
        Ok(Self {
            datapath,
            ethernet,
            any,
        })
    }
}

/// tc beside sk_lookup with everything else, and tc alone.
pub(super) struct Kernels {
    both: Side,
    alone: Side,
    sk_lookup: DryRun,
}

impl Kernels {
    /// Loads the programs and fills their tables. With `is_attached` the sk_lookup program also
    /// stands at its hook, where it answers the look-ups of the tc programs.
    pub(super) fn load(
        netns: &str,
        tables: &Tables,
        scratch: &Pins,
        is_attached: bool,
    ) -> Result<Self, Trouble> {
        let cgroup = cgroup()?;
        let options = Options {
            trace: true,
            cgroup: Some(Path::new(&cgroup)),
            ..Options::default()
        };
        let mut both = Side::load(netns, tables, scratch, &options)?;
        let sk_lookup = DryRun::of(both.datapath.object(), ProgramName::SkLookup, scratch)?;
        if is_attached {
            both.datapath.attach(&[])?;
        } else {
            both.datapath.attach_calls()?;
        }
        let options = Options {
            mode: Mode::Tc,
            trace: true,
            ..Options::default()
        };
        let alone = Side::load(netns, tables, scratch, &options)?;
        Ok(Self {
            both,
            alone,
            sk_lookup,
        })
    }

    /// Runs cases in the calling thread's namespace.
    pub(super) fn run(&mut self, cases: &[Case]) -> Result<Vec<Outcome>, Trouble> {
        let mut ran = Vec::with_capacity(cases.len());
        for case in cases {
            ran.push(match &case.input {
                Input::Frame {
                    frame,
                    sk_lookup,
                    ethernet,
                } => {
                    let side = if *sk_lookup { &self.both } else { &self.alone };
                    let program = if *ethernet { &side.ethernet } else { &side.any };
                    program.packet(&frame.bytes(), 1)?
                }
                Input::LookUp(look_up) => self.sk_lookup.look_up(look_up, 1)?,
                Input::Call { to, is_tcp } => connect::call(*to, *is_tcp)?,
            });
        }
        let mut both = self.both.datapath.events().into_iter();
        let mut alone = self.alone.datapath.events().into_iter();
        cases
            .iter()
            .zip(ran)
            .map(|(case, ran)| {
                let is_alone = matches!(
                    case.input,
                    Input::Frame {
                        sk_lookup: false,
                        ..
                    }
                );
                let events = if is_alone { &mut alone } else { &mut both };
                // An attached sk_lookup program also reports the look-ups of tc and of TCP.
                let event = events.find(|event| event.hook == case.hook() && is_of(case, event));
                let event = event.ok_or_else(|| format!("no event of {case}"))?;
                Ok(outcome(&event, ran))
            })
            .collect()
    }

    /// Checks that the kernel refused to assign as often as was decided to.
    pub(super) fn refusals(&self, assigns: u64) -> Result<(), Trouble> {
        faults(&[&self.both.datapath, &self.alone.datapath], assigns)
    }
}

/// Whether an event can be a case's own: one of a look-up by hand names its addresses.
fn is_of(case: &Case, event: &Event) -> bool {
    match &case.input {
        Input::LookUp(look_up) => {
            event.raw.dst == look_up.local
                && event.raw.src == look_up.remote
                && event.raw.sport == look_up.remote_port
                && event.raw.dport == look_up.local_port
                && u32::from(event.raw.protocol) == look_up.protocol
        }
        Input::Frame { .. } | Input::Call { .. } => true,
    }
}

fn outcome(event: &Event, ran: Ran) -> Outcome {
    let raw = &event.raw;
    Outcome {
        returned: ran.returned,
        mark: ran.mark,
        verdict: raw.verdict,
        reason: event.reason,
        read: (raw.family, raw.packet, raw.protocol, raw.tcp_flags),
        src: (raw.src, raw.sport),
        dst: (raw.dst, raw.dport),
        socket: (raw.socket_state, raw.socket_port),
        listener: raw.listener_port,
    }
}

/// The machine's cgroups of version 2.
pub(crate) fn cgroup() -> Result<String, Trouble> {
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let path = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let path = words.next()?;
        (words.next()? == "cgroup2").then(|| path.to_owned())
    });
    path.ok_or_else(|| "no cgroup2 is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup".into())
}
