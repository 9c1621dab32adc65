//! A simulated cluster behind a TUN device: real programs on this machine talk to simulated pods.
//!
//! This machine's kernel is the network stack of the cluster's first host outside. The device has
//! that host's addresses, and a route for each address of the cluster, no more: so nothing else on
//! this machine changes its way. What the kernel sends into the device goes into the simulation at
//! the present moment of its clock, which follows the wall's; what arrives at the host comes out.
//!
//! Nothing outlives the process: the device is not persistent, and its addresses and routes go with it,
//! also when the process is killed.

mod ending;
mod link;
mod present;

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use nodeway_sim::{Sim, Time, Visit};
use tun_rs::{DeviceBuilder, SyncDevice};

pub use ending::Ended;
use ending::Ending;
pub use link::LinkError;
use present::Present;

/// The longest packet that IP has.
const LONGEST: usize = 65_535;

/// Packets that are read before the simulation goes on.
const BURST: usize = 64;

/// How long nothing happens at most, so that a clock never jumps far.
const IDLE: Duration = Duration::from_secs(60);

/// Why a cluster cannot be put behind a device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The name is none that Linux allows.
    #[error(
        "`{0}` is no name of a network device; use 1 to 15 characters without spaces, `/` and `:`, say `nw0`"
    )]
    Name(String),
    /// There is no TUN driver.
    #[error(
        "there is no /dev/net/tun: the kernel has no TUN driver; load it with `modprobe tun`, or give the container `--device /dev/net/tun`"
    )]
    NoDriver,
    /// The kernel refused to make the device.
    #[error("cannot make the network device `{name}`: {cause}{}", hint(cause))]
    Device {
        /// The device.
        name: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Addresses and routes cannot be set.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Nobody in the cluster could hear this machine.
    #[error("the cluster has no node: nobody would take this machine's packets; give it one")]
    NoNode,
    /// The device is gone, or does not work any more.
    #[error(
        "the network device `{name}` stopped to work: {cause}; was it taken away by somebody else?"
    )]
    Broken {
        /// The device.
        name: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Signals cannot be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run as root, or with CAP_NET_ADMIN",
        _ => "",
    }
}

/// What is told while a cluster runs.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A request came, and what came of it.
    Visit(&'a Visit),
    /// Something of the cluster broke, or was mended.
    Fault(&'a str),
}

/// What went through a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets from this machine.
    pub packets_in: u64,
    /// Their bytes, from the IP header on.
    pub bytes_in: u64,
    /// Packets to this machine.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
}

/// A simulated cluster behind a device of this machine.
pub struct Tun {
    name: String,
    sim: Sim,
    device: SyncDevice,
    ending: Ending,
    present: Present,
    /// Whether this machine has IPv6.
    ipv6: bool,
    traffic: Traffic,
    /// How many faults were told.
    told: usize,
    buffer: Vec<u8>,
}

impl Tun {
    /// Makes the device, in the calling thread's network namespace, with addresses and routes.
    /// SIGINT, SIGTERM and SIGHUP only end [`Tun::run`] from now on, until this is dropped.
    ///
    /// # Errors
    /// When the kernel refuses, or an address of the cluster is one of this machine's or has a route
    /// here already. Nothing is left behind then.
    pub fn open(name: &str, sim: Sim) -> Result<Self, TunError> {
        if !is_name(name) {
            return Err(TunError::Name(name.to_owned()));
        }
        let host = sim.external_host().ok_or(TunError::NoNode)?;
        let (own, inside) = (host.addresses.clone(), sim.inside());
        // `tun-rs` would make the device node itself, and leave it behind.
        if !std::fs::exists("/dev/net/tun").unwrap_or(false) {
            return Err(TunError::NoDriver);
        }
        let network = link::Network::open()?;
        network.check(name, &own, &inside)?;
        let broken = |cause| TunError::Device {
            name: name.to_owned(),
            cause,
        };
        let ending = Ending::new().map_err(TunError::Signals)?;
        let device = DeviceBuilder::new()
            .name(name)
            .inherit_enable_state()
            .build_sync()
            .map_err(broken)?;
        device.set_nonblocking(true).map_err(broken)?;
        let ipv6 = network.set_up(name, sim.settings().mtu, &own, &inside)?;
        Ok(Self {
            name: name.to_owned(),
            present: Present::from(sim.world().now()),
            sim,
            device,
            ending,
            ipv6,
            traffic: Traffic::default(),
            told: 0,
            buffer: vec![0; LONGEST],
        })
    }

    /// The cluster.
    #[must_use]
    pub fn sim(&self) -> &Sim {
        &self.sim
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the cluster's IPv6 addresses can be reached: not where IPv6 is switched off.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.ipv6
    }

    /// Lets real time go by in the cluster until a signal comes, for that long, or until whoever is
    /// told has enough.
    ///
    /// # Errors
    /// When the device stops to work.
    pub fn run(
        &mut self,
        duration: Option<Duration>,
        tell: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Ended, TunError> {
        let until = duration.map(|duration| self.present.now() + duration);
        loop {
            let now = self.present.now();
            self.sim.run_until(now);
            let more = self.read().map_err(|cause| self.broken(cause))?;
            // By the clock, so that a request takes the time that it took.
            self.sim.run_until(self.present.now());
            self.write().map_err(|cause| self.broken(cause))?;
            if self.tell(tell).is_break() {
                return Ok(Ended::Enough);
            }
            if until.is_some_and(|until| until <= now) {
                return Ok(Ended::InTime);
            }
            let wait = if more {
                Duration::ZERO
            } else {
                self.idle(until)
            };
            if self.wait(wait)?
                && let Some(signal) = self.ending.signal().map_err(TunError::Signals)?
            {
                return Ok(Ended::Signal(signal));
            }
        }
    }

    /// Tells what is new.
    fn tell(&mut self, tell: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        let happened = self.sim.happened();
        for (_, what) in happened.get(self.told..).unwrap_or_default() {
            tell(Event::Fault(what))?;
        }
        self.told = happened.len();
        for visit in self.sim.take_visits() {
            tell(Event::Visit(&visit))?;
        }
        ControlFlow::Continue(())
    }

    /// What went through the device so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    fn broken(&self, cause: io::Error) -> TunError {
        TunError::Broken {
            name: self.name.clone(),
            cause,
        }
    }

    /// Takes packets off the device; whether there may be more.
    fn read(&mut self) -> io::Result<bool> {
        for _ in 0..BURST {
            let length = match self.device.recv(&mut self.buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let packet = self.buffer.get(..length).unwrap_or_default();
            self.traffic.packets_in += 1;
            self.traffic.bytes_in += length as u64;
            self.sim.take_in(packet);
        }
        Ok(true)
    }

    /// Puts packets on the device.
    fn write(&mut self) -> io::Result<()> {
        while let Some(packet) = self.sim.take_out() {
            self.traffic.packets_out += 1;
            self.traffic.bytes_out += packet.len() as u64;
            match self.device.send(&packet) {
                Ok(_) => {}
                // The kernel has no room or does not like it: a link may lose packets.
                Err(error) if is_loss(&error) => {}
                Err(error) => return Err(error),
            }
            self.sim.recycle(packet);
        }
        Ok(())
    }

    /// Until something happens in the cluster.
    fn idle(&self, until: Option<Time>) -> Duration {
        let now = self.present.now();
        let next = [self.sim.next_at(), until].into_iter().flatten().min();
        next.map_or(IDLE, |next| (next - now).min(IDLE))
    }

    /// Sleeps until there is a packet or a signal, or that long; whether there is a signal.
    fn wait(&self, timeout: Duration) -> Result<bool, TunError> {
        let mut waiting = [
            PollFd::new(self.device.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.ending.as_fd(), PollFlags::POLLIN),
        ];
        match ppoll(&mut waiting, Some(TimeSpec::from(timeout)), None) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(self.broken(errno.into())),
        }
        let [_, signal] = waiting;
        Ok(signal.any().unwrap_or(false))
    }
}

/// What the kernel takes for the name of a device.
fn is_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && name
            .chars()
            .all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%'))
}

/// Whether a packet was lost, and the device goes on.
fn is_loss(error: &io::Error) -> bool {
    use nix::libc::{EAGAIN, EINVAL, ENOBUFS, ENOMEM};
    matches!(
        error.raw_os_error(),
        Some(EAGAIN | EINVAL | ENOBUFS | ENOMEM)
    )
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn a_name_is_what_the_kernel_takes_for_one() {
        for good in ["nw0", "a", "exactly15chars_", "nw0.1"] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            "sixteen_chars_xx",
            "a b",
            "a/b",
            "a:b",
            ".",
            "..",
            "nw%d",
            "gerät",
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
