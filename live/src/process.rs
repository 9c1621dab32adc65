//! A process by its number and the moment it began: another one of the same number is not it.

use nix::sys::signal::{Signal, kill};
use serde::{Deserialize, Serialize};

/// A process that may outlive us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub started: u64,
}

impl Process {
    /// The process that runs this.
    #[must_use]
    pub fn own() -> Self {
        let pid = std::process::id();
        Self::of(pid).unwrap_or(Self { pid, started: 0 })
    }

    /// The process of that number, if there is one that has not ended: one that nobody collected
    /// yet has, when the last of its threads is gone. Until then its sockets are open.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name, which may hold anything; field 3 is the state, 20 the number
        // of threads, 22 the start.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let threads: u32 = fields.nth(16)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        let ended = matches!(state, "Z" | "X") && threads <= 1;
        (!ended).then_some(Self { pid, started })
    }

    /// Whether that very process runs.
    #[must_use]
    pub fn lives(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// Sends it a signal, if it runs.
    pub(crate) fn signal(&self, signal: Signal) {
        if let (true, Ok(pid)) = (self.lives(), i32::try_from(self.pid)) {
            // It may have ended since.
            let _ = kill(nix::unistd::Pid::from_raw(pid), signal);
        }
    }

    /// One that is not there.
    #[cfg(test)]
    pub(crate) fn gone() -> Self {
        Self {
            started: 1,
            ..Self::own()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_one_that_began_at_another_time_does_not() {
        assert!(Process::own().lives());
        assert!(!Process::gone().lives());
    }

    #[test]
    fn a_process_that_nobody_collected_has_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = Process::of(child.id());
        while Process::of(child.id()).is_some() {
            std::thread::yield_now();
        }
        assert!(process.is_none_or(|it| !it.lives()));
        child.wait().unwrap();
    }
}
