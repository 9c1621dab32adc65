//! `nodeway explain --live`: a node as it is in the place of one as it should be.

use std::path::{Path, PathBuf};

use miette::miette;
use nodeway_core::in_force::Difference;
use nodeway_live::agent::SourceError;
use nodeway_live::in_force::{LookError, Looked, look};
use nodeway_live::netns::NetNs;
use nodeway_sim::{Sim, SimBuilder};
use serde::Serialize;

use crate::failure::Failure;
use crate::paint::{BAD, FAINT, paint};
use crate::screen::say;

/// Where to look.
#[derive(clap::Args)]
pub(crate) struct Where {
    /// Looks at this node: its kernel's tables and rules, and the config_dump of its Envoys. To be
    /// run on the node, or in its network namespace.
    #[arg(long, conflicts_with_all = ["sources", "redirect", "at"])]
    live: bool,
    /// The run directory of the node's agent.
    #[arg(
        long,
        value_name = "FOLDER",
        default_value = "/run/nodeway",
        requires = "live"
    )]
    run_dir: PathBuf,
}

/// What was seen of the node, beside the way of the request.
#[derive(Serialize)]
pub(super) struct Seen {
    node: String,
    /// Where what is in force is not what was planned.
    differences: Vec<String>,
    /// What the agent says is not in sync.
    out_of_sync: Vec<String>,
}

impl Where {
    pub(super) fn is_asked(&self) -> bool {
        self.live
    }

    /// The node, with all else that its agent's objects have around it.
    pub(super) fn simulation(&self) -> Result<(SimBuilder, Seen), Failure> {
        let netns = NetNs::current().map_err(|error| Failure::from(miette!("{error}")))?;
        let looked = look(&self.run_dir, &netns).map_err(|error| failed(error, &self.run_dir))?;
        let Looked {
            status,
            redirect,
            objects,
            in_force,
            ..
        } = looked;
        let differences = in_force.differences.iter();
        let seen = Seen {
            node: status.node.clone(),
            differences: differences
                .map(|Difference { what, .. }| what.clone())
                .collect(),
            out_of_sync: status.out_of_sync(),
        };
        let builder = Sim::from_dump(objects).in_force(redirect, in_force);
        let command = format!("--live --run-dir {}", self.run_dir.display());
        Ok((builder.named(command), seen))
    }
}

impl Seen {
    /// Whether the node does what is planned.
    pub(super) fn is_as_planned(&self) -> bool {
        self.differences.is_empty() && self.out_of_sync.is_empty()
    }

    pub(super) fn print(&self) {
        let node = &self.node;
        let text = format!("{node} as it is now; all else is simulated from its agent's objects");
        say!("{}", paint(FAINT, text));
        for line in &self.differences {
            say!("{} {line}", paint(BAD, "not as planned:"));
        }
        for line in &self.out_of_sync {
            say!("{} {line}", paint(BAD, "not in sync:"));
        }
    }
}

fn failed(error: LookError, run: &Path) -> Failure {
    let fix = match error {
        LookError::Objects(SourceError::Folder(errors)) => return Failure::load(*errors),
        LookError::Agent(_) => format!(
            "run it where the node's agent runs, as its user, and name its run directory if that is not {}: --run-dir",
            run.display()
        ),
        LookError::Dump { .. } => {
            "look whether that Envoy still runs: nodeway status; then ask again".to_owned()
        }
        _ => "run it as root, in the node's network namespace".to_owned(),
    };
    Failure::from(miette!(help = fix, "{error}"))
}
