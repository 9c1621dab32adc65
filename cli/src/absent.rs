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

/// The failure to report when the arguments name such a command; none when something else is wrong with them.
pub(crate) fn failure(error: &clap::Error) -> Option<Failure> {
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    LIVE.contains(&named.as_str()).then(|| {
        Failure::argument(
            format!("`nodeway {named}` acts on a real kernel or cluster, and this `nodeway` was built without the feature `live`"),
            "build it on Linux with: cargo install --path cli --features live (in a checkout, after ci/setup: cargo build --features live)",
        )
    })
}
