//! The command as its users run it: a process, by what it is told, what it prints and how it ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own set-up may fail loudly"
)]

mod answers;
#[cfg(feature = "live")]
mod api_server;
mod bad_input;
mod captures;
mod causes;
mod check;
mod completions;
mod dumps;
mod help;
mod inject;
mod man;
mod process;
mod record;
mod rules;
// Needs root, and a `nodeway` that has `--tun`.
#[cfg(feature = "live")]
mod tun;
