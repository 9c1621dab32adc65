//! Whole clusters, as users of the library have them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own set-up may fail loudly"
)]

mod beside_kube_proxy;
mod changes;
mod cluster;
mod external;
mod fates;
mod findings;
mod fixtures;
mod https;
mod incidents;
mod mangled;
mod schema;
mod sidecar;
mod storm;
