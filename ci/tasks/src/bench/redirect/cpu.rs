//! CPUs: who runs on which, and how long who has run.
//!
//! A process's clock counts nanoseconds, and what the kernel does in its context with it: on a veth
//! a packet's whole way is walked in the context of whoever sent it, so the client's and Envoy's
//! time together are the cost of a request. The machine's clock counts ticks of ten milliseconds, of
//! everybody.

use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// A tick of `/proc/stat`: part of the kernel's ABI.
const TICK: Duration = Duration::from_millis(10);

/// Which core does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Envoy's.
    pub envoy: usize,
    /// The load generator's.
    pub load: usize,
}

impl Cores {
    /// The first for the load generator, the second for Envoy, of those that we may run on; one
    /// for both where there is no other.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn choose() -> io::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let ours = |core: &usize| allowed.is_set(*core).unwrap_or(false);
        let mut cores = (0..CpuSet::count()).filter(ours);
        let load = cores.next().unwrap_or(0);
        let envoy = cores.next().unwrap_or(load);
        Ok(Self { envoy, load })
    }
}

/// Does something on one core; what it starts stays there.
///
/// # Errors
/// When the kernel has no such core for us.
pub fn on_core<T: Send>(core: usize, what: impl FnOnce() -> T + Send) -> io::Result<T> {
    let pinned = || -> io::Result<T> {
        let mut set = CpuSet::new();
        set.set(core)?;
        sched_setaffinity(Pid::from_raw(0), &set)?;
        Ok(what())
    };
    thread::scope(|scope| match scope.spawn(pinned).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// How long the threads of a process have run so far.
///
/// # Errors
/// When there is no such process.
pub fn of_process(pid: u32) -> io::Result<Duration> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    let clock = clock_getcpuclockid(Pid::from_raw(pid))?;
    Ok(clock_gettime(clock)?.into())
}

/// How long the processes have run that we started, and that have ended.
///
/// # Errors
/// When the kernel does not say.
pub fn of_ended_children() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let micros = micros(usage.user_time()) + micros(usage.system_time());
    Ok(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
}

/// How long all CPUs together have been busy so far, whoever kept them so.
///
/// # Errors
/// When `/proc` is not there.
pub fn of_machine() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    busy(&text).ok_or_else(|| io::Error::other("/proc/stat has no line `cpu`"))
}

/// user, nice, system, and after idle and iowait irq and softirq; what a host took away was nobody's.
fn busy(stat: &str) -> Option<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut fields = line.split_ascii_whitespace().map(str::parse::<u32>);
    let mut next = || fields.next()?.ok();
    let (user, nice, system) = (next()?, next()?, next()?);
    let (_idle, _iowait, irq, softirq) = (next()?, next()?, next()?, next()?);
    Some(TICK * (user + nice + system + irq + softirq))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_is_not_busy() {
        let stat = "cpu  10 1 5 999 99 2 3 77 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy(stat), Some(Duration::from_millis(210)));
        assert_eq!(busy("intr 1 2 3\n"), None);
    }

    #[test]
    fn what_runs_on_a_core_sees_no_other() {
        let core = Cores::choose().unwrap().envoy;
        let seen = on_core(core, || sched_getaffinity(Pid::from_raw(0)).unwrap()).unwrap();
        let seen: Vec<usize> = (0..CpuSet::count())
            .filter(|it| seen.is_set(*it).unwrap())
            .collect();
        assert_eq!(seen, [core]);
    }

    #[test]
    fn a_process_that_runs_has_run() {
        assert!(of_process(std::process::id()).unwrap() > Duration::ZERO);
        assert!(of_machine().unwrap() > Duration::ZERO);
    }
}
