//! Why there is no lab.

use std::path::PathBuf;

use nodeway_sim::{AskError, LoadErrors, Redirect, TopologyError};

use super::machines::MachineError;
use super::name::LabName;
use super::pins::PinsError;
use super::programs::ProgramError;
use super::proxied::ProxiedError;
use super::rules::NotRuled;
use super::site::SiteError;
use super::state::StateError;
use crate::backend::BackendError;
use crate::envoy::EnvoyError;
use crate::in_force::LookError;
use crate::netns::NetNsError;

/// Why there is no lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The fixture.
    #[error(transparent)]
    Load(#[from] LoadErrors),
    /// Its objects give no network.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// Its folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its BPF file system.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// Its machines.
    #[error(transparent)]
    Machines(#[from] MachineError),
    /// A namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// A pod's program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A pod's server.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A node's agent, or its Envoy.
    #[error(transparent)]
    Proxied(#[from] ProxiedError),
    /// A node that cannot be looked at.
    #[error(transparent)]
    Look(#[from] Box<LookError>),
    /// A pod's Envoy.
    #[error(transparent)]
    Envoy(#[from] EnvoyError),
    /// Rules of pods, or kube-proxy's.
    #[error(transparent)]
    Rules(#[from] NotRuled),
    /// By `sidecar`, nodes have none.
    #[error("node {0} has no agent: by `sidecar` each pod has an Envoy of its own")]
    NoAgent(String),
    /// It is not ready, or was not made whole.
    #[error(
        "the lab `{0}` does not stand whole: it is being made, or whoever made it crashed; `nodeway lab down {0}` takes away what there is"
    )]
    NotReady(LabName),
    /// Nobody is called so.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// A place cannot be entered.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// A fixture with faults or with times.
    #[error("the fixture has {0}, which a lab cannot do yet; run it with `nodeway sim`")]
    NotYet(String),
    /// It is there with something else.
    #[error(
        "the lab `{name}` runs {fixture} with redirect {redirect}; end it with `nodeway lab down {name}`, or give this one another --name",
        fixture = fixture.display()
    )]
    Another {
        /// Its name.
        name: LabName,
        /// What it runs.
        fixture: PathBuf,
        /// And how.
        redirect: Redirect,
    },
    /// The process that keeps it does not end.
    #[error("process {0} keeps the lab and does not end; look at it with `ps {0}`")]
    Keeper(u32),
}
