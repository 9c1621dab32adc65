//! Commands that this build does not have: those of the feature `live`, named so that a reader of the README who left it out is
//! told so, and not that the command is unknown.

use clap::error::{ContextKind, ContextValue};

use crate::failure::Failure;

/// What the feature `live` adds.
pub(crate) const LIVE: [&str; 9] = [
    "agent",
    "backend",
    "crds",
    "envoy",
    "lab",
    "operator",
    "sidecar",
    "status",
    "uninstall",
];

/// What it adds to the options of commands that are there without it.
pub(crate) const LIVE_OPTIONS: [&str; 3] = ["--kubeconfig", "--live", "--read-only"];

/// How to come by it.
const BUILD: &str = "build it on Linux with: cargo install --path cli --features live (in a checkout, after ci/setup: cargo build --features live)";

/// The failure to report when the arguments name such a command or option; none when something else is wrong with them.
pub(crate) fn failure(error: &clap::Error) -> Option<Failure> {
    let named = |kind| match error.get(kind) {
        Some(ContextValue::String(named)) => Some(named.as_str()),
        _ => None,
    };
    if let Some(command) = named(ContextKind::InvalidSubcommand)
        && LIVE.contains(&command)
    {
        return Some(acts(&format!("nodeway {command}")));
    }
    let option = named(ContextKind::InvalidArg)?;
    let is_absent = cfg!(not(feature = "live")) && LIVE_OPTIONS.contains(&option);
    is_absent.then(|| acts(option))
}

/// What is named acts on what this build cannot reach.
pub(crate) fn acts(named: &str) -> Failure {
    Failure::argument(
        format!(
            "`{named}` acts on a real kernel or cluster, and this `nodeway` was built without the feature `live`"
        ),
        BUILD,
    )
}
