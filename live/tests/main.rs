//! Real kernels and real Envoys: namespaces, programs, rules, labs. Needs root, and what `ci/setup` installs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test's own set-up may fail loudly"
)]

mod agent;
mod bed;
mod bootstrap;
mod bpf;
mod bpf_net;
mod bpf_packets;
mod bpf_verifier;
mod envoy;
mod generation;
mod in_force;
mod lab;
mod lab_network;
mod life;
mod netfilter;
mod netns;
mod record;
mod sidecar;
mod tun;
mod xds;
mod xds_clients;
