//! How a run ends: by a signal, which is waited for like a packet, or in time.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that end a run.
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Why a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to go on for so long.
    InTime,
    /// Whoever was told had enough.
    Enough,
    /// By a signal.
    Signal(Signal),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InTime => f.write_str("its time is over"),
            Self::Enough => f.write_str("enough was seen"),
            Self::Signal(signal) => write!(f, "{signal}"),
        }
    }
}

/// Takes the place of what these signals usually do, in the thread that made it and those that it
/// makes.
#[derive(Debug)]
pub(super) struct Ending {
    signals: SignalFd,
    /// What the thread blocked before.
    before: SigSet,
}

impl Ending {
    pub(super) fn new() -> io::Result<Self> {
        let mask: SigSet = SIGNALS.into_iter().collect();
        let before = mask.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        match SignalFd::with_flags(&mask, flags) {
            Ok(signals) => Ok(Self { signals, before }),
            Err(errno) => {
                before.thread_set_mask()?;
                Err(errno.into())
            }
        }
    }

    /// The signal that came, if one did.
    pub(super) fn signal(&self) -> io::Result<Option<Signal>> {
        let Some(info) = self.signals.read_signal()? else {
            return Ok(None);
        };
        let number = i32::try_from(info.ssi_signo).unwrap_or_default();
        Ok(Some(Signal::try_from(number)?))
    }
}

impl AsFd for Ending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Nothing can be done about a kernel that does not take its own mask back.
        let _ = self.before.thread_set_mask();
    }
}
