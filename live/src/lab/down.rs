//! A lab is taken away: by its keeper, or after it.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::LabError;
use super::machines::Machines;
use super::name::LabName;
use super::pins;
use super::state::{Labs, StateError};
use crate::clock::Deadline;
use crate::netns::NetNs;
use crate::process::Process;

/// How long a lab's keeper may take to end.
const KEEPER_WITHIN: Duration = Duration::from_secs(15);

/// Takes a lab away, whoever made it: its keeper ends and cleans up, and what a crashed one left is
/// taken away here.
///
/// # Errors
/// When there is none, or something refuses to go.
pub fn down(labs: &Labs, name: &LabName) -> Result<(), LabError> {
    let state = labs.read(name);
    let left = NetNs::list()?;
    if !left.iter().any(|it| name.owns(it)) {
        // Without namespaces the folder alone must be there.
        if let Err(missing @ StateError::Missing { .. }) = state {
            return Err(missing.into());
        }
    }
    if let Ok(state) = &state {
        end(state.keeper)?;
    }
    take_away(labs, name)
}

/// The folder goes last: by it is found what the kernel refused to let go.
pub(super) fn take_away(labs: &Labs, name: &LabName) -> Result<(), LabError> {
    Machines::delete(name)?;
    pins::unmount(&labs.pins(name))?;
    labs.remove(name)?;
    Ok(())
}

/// Asks the process that keeps a lab to end, and waits for it.
fn end(keeper: Process) -> Result<(), LabError> {
    let Ok(pid) = i32::try_from(keeper.pid) else {
        return Ok(());
    };
    if !keeper.lives() || keeper.pid == std::process::id() {
        return Ok(());
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // One that has ended meanwhile is what we want.
        let _ = kill(Pid::from_raw(pid), signal);
        let deadline = Deadline::within(KEEPER_WITHIN);
        while keeper.lives() {
            if !deadline.pause(Duration::from_millis(20)) {
                break;
            }
        }
    }
    if keeper.lives() {
        return Err(LabError::Keeper(keeper.pid));
    }
    Ok(())
}
