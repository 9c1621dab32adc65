//! Ctrl-C in the middle: something is still to be cleaned up.

use std::io;
use std::thread;

use nix::sys::signal::SigSet;
pub use nix::sys::signal::Signal;

fn interrupts() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect()
}

/// Lets signals end this process at once, though its parent holds them back: that is inherited.
///
/// # Errors
/// When the kernel refuses.
pub fn accept() -> io::Result<()> {
    Ok(interrupts().thread_unblock()?)
}

/// Lets a thread of its own wait for SIGINT, SIGTERM and SIGHUP and do something at each, for as
/// long as it returns true. Call it before other threads begin.
///
/// # Errors
/// When the kernel refuses.
pub fn on_each(mut what: impl FnMut(Signal) -> bool + Send + 'static) -> io::Result<()> {
    let signals = interrupts();
    signals.thread_block()?;
    thread::spawn(move || while signals.wait().is_ok_and(&mut what) {});
    Ok(())
}

/// Lets a thread of its own wait for SIGINT, SIGTERM and SIGHUP and then do something, which ends
/// the process. Call it before other threads begin: those that are there already still end the
/// process at once.
///
/// # Errors
/// When the kernel refuses.
pub fn on_interrupt(what: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut what = Some(what);
    on_each(move |_| {
        if let Some(what) = what.take() {
            what();
        }
        false
    })
}
