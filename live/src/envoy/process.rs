//! The process of an Envoy, which may be a child of ours to be collected.

use std::process::Child;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::clock::Deadline;
use crate::process::Process;

/// How long a process may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// A process, and whether it is ours to collect.
#[derive(Debug)]
pub(super) struct Pid {
    process: Process,
    child: Option<Child>,
}

impl Pid {
    pub(super) fn of_child(child: Child) -> Self {
        let pid = child.id();
        Self {
            // One that was gone before we could look lives no more.
            process: Process::of(pid).unwrap_or(Process { pid, started: 0 }),
            child: Some(child),
        }
    }

    pub(super) const fn of(process: Process) -> Self {
        Self {
            process,
            child: None,
        }
    }

    /// `NUMBER STARTED`
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let (number, started) = text.trim().split_once(' ')?;
        Some(Self::of(Process {
            pid: number.parse().ok()?,
            started: started.parse().ok()?,
        }))
    }

    pub(super) fn to_text(&self) -> String {
        format!("{} {}\n", self.process.pid, self.process.started)
    }

    pub(super) const fn process(&self) -> Process {
        self.process
    }

    /// Whether it runs: a process that ended and that nobody collected does not.
    pub(super) fn lives(&self) -> bool {
        self.process.lives()
    }

    /// Asks it to end, and makes it end.
    pub(super) fn end(&mut self) {
        self.process.signal(Signal::SIGTERM);
        self.wait(GRACE);
        self.kill();
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.wait(GRACE);
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(Some(_)))
        {
            // It cannot refuse SIGKILL; a pause in the kernel is all that is left.
            let _ = child.wait();
        }
    }

    fn wait(&self, within: Duration) {
        let deadline = Deadline::within(within);
        while self.lives() && deadline.pause(Duration::from_millis(2)) {}
    }
}
