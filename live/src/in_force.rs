//! What a node really does, looked at by whoever may look and changed by nobody.
//!
//! ```text
//!  the agent        where its objects are, how it leads, which maps, which Envoys
//!  the kernel       frontends and ranges: maps of the programs, or ipsets; the packet filter's rules
//!  each Envoy       config_dump, by its admin socket
//! ```
//!
//! What comes of it is the core's to say ([`InForce`]).

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nodeway_core::address::node_port_addresses;
use nodeway_core::config_dump::ConfigDump;
use nodeway_core::datapath::Family;
use nodeway_core::in_force::{Dumped, InForce, Observed, Rules};
use nodeway_core::netfilter::frontends;
use nodeway_core::object::Objects;
use nodeway_core::plan::{Ledger, NodePlan, Planner};
use nodeway_core::redirect::{Redirect, UnknownRedirect};
use nodeway_core::source::{SourceError, Text};

use crate::agent::status::Status;
use crate::agent::{AskStatusError, SourceError as ObjectsError, ask_status, read_once};
use crate::bpf::TableError;
use crate::generation::{self, GenerationError, Record};
use crate::netfilter::{Netfilter, NetfilterError, Owner, Wanted};
use crate::netns::NetNs;

/// Why a node cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// No agent says where to look.
    #[error(transparent)]
    Agent(#[from] AskStatusError),
    /// An agent of another version.
    #[error(transparent)]
    Redirect(#[from] UnknownRedirect),
    /// Its objects.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// The programs' maps.
    #[error(transparent)]
    Maps(#[from] TableError),
    /// The packet filter.
    #[error(transparent)]
    Rules(#[from] Box<NetfilterError>),
    /// The Envoys' records.
    #[error(transparent)]
    Envoys(#[from] GenerationError),
    /// An Envoy that does not answer.
    #[error("the Envoy {generation} does not tell its config_dump at {folder}: {cause}", folder = folder.display())]
    Dump {
        /// Its generation.
        generation: String,
        /// Its folder, where its admin socket is.
        folder: PathBuf,
        /// What the kernel, or Envoy, said.
        cause: io::Error,
    },
    /// An Envoy that answers something else.
    #[error(transparent)]
    Dumped(#[from] Box<SourceError>),
}

/// A node that was looked at.
#[derive(Debug)]
pub struct Looked {
    /// What its agent says.
    pub status: Status,
    /// How it leads its frontends' packets.
    pub redirect: Redirect,
    /// The objects that its agent reads, completed as controllers would.
    pub objects: Objects,
    /// What its kernel and Envoys have.
    pub observed: Observed,
    /// What is in force.
    pub in_force: InForce,
    /// The dumps of its Envoys as they were, by generation.
    pub dumps: Vec<Said>,
}

/// A generation, and its dump as it was.
type Said = (String, String);

/// Looks at the node whose agent has that run directory and whose namespace that is.
///
/// # Errors
/// When something of it cannot be read. Nothing is changed.
pub fn look(run: &Path, netns: &NetNs) -> Result<Looked, LookError> {
    let status = ask_status(run)?;
    let redirect: Redirect = status.redirect.parse()?;
    let objects = read_once(&status.source)?;
    let planner = Planner::with_objects(&objects, &status.node, Ledger::default());
    let planned = planner.plan();
    let (envoys, dumps) = envoys(run)?.into_iter().unzip();
    let mut observed = Observed {
        node: status.node.as_str().into(),
        envoys,
        ..Observed::default()
    };
    let kernel = Kernel {
        netns,
        redirect,
        own: own_addresses(&objects, &status.node),
    };
    kernel.frontends(&mut observed, &status, planned)?;
    observed.rules = kernel.rules(&observed)?;
    let in_force = InForce::of(observed.clone(), planned, &objects);
    Ok(Looked {
        redirect,
        observed,
        in_force,
        dumps,
        objects,
        status,
    })
}

/// The Envoys that run, each with what it says it has, and how it said it.
fn envoys(run: &Path) -> Result<Vec<(Dumped, Said)>, LookError> {
    let mut all = Vec::new();
    for record in generation::list(run)? {
        all.push(dumped(&record)?);
    }
    Ok(all)
}

fn dumped(record: &Record) -> Result<(Dumped, Said), LookError> {
    let generation = record.id.clone();
    let dump = record.admin().get("/config_dump?include_eds");
    let dump = dump.map_err(|cause| LookError::Dump {
        generation: generation.clone(),
        folder: record.folder(),
        cause,
    })?;
    let text = Text::new(format!("config_dump of {generation}"), dump);
    let said = (generation.clone(), text.content.clone());
    let dump = ConfigDump::of_running(&text)?;
    Ok((Dumped { generation, dump }, said))
}

fn own_addresses(objects: &Objects, node: &str) -> Vec<IpAddr> {
    let node = objects.node("", node);
    node.map(|node| node_port_addresses(node).collect())
        .unwrap_or_default()
}

/// The kernel of a node.
struct Kernel<'a> {
    netns: &'a NetNs,
    redirect: Redirect,
    own: Vec<IpAddr>,
}

impl Kernel<'_> {
    /// What it leads: by the maps of the programs, or for want of some by the sets of the rules.
    fn frontends(
        &self,
        observed: &mut Observed,
        status: &Status,
        planned: &NodePlan,
    ) -> Result<(), LookError> {
        if let Some(maps) = &status.maps {
            (observed.frontends, observed.ranges) = maps.read()?;
            observed.table = format!("map {} (frontends)", maps.frontends);
            return Ok(());
        }
        let rules = Netfilter::new(Owner::Nodeway);
        observed.frontends = rules.frontends(self.netns).map_err(Box::new)?;
        observed.table = format!(
            "ipset {}, {}",
            frontends::active(Family::V4),
            frontends::active(Family::V6)
        );
        for (key, frontend) in &mut observed.frontends {
            // No set has the port of one that drains; its agent knows it.
            if frontend.listener_port == 0
                && let Some(led) = status.frontend(*key)
            {
                frontend.listener_port = led.port;
            }
            // Rules have ranges as rules: those are compared with the planned ones.
            let ranges = planned.frontends.get(key).and_then(|it| it.ranges.clone());
            if let (true, Some(ranges)) = (frontend.ranged, ranges) {
                observed.ranges.insert(*key, ranges);
            }
        }
        Ok(())
    }

    /// The rules, held against those that the frontends need; and what of others is in their way.
    fn rules(&self, observed: &Observed) -> Result<Rules, LookError> {
        let all = observed.frontends.iter();
        let all: Vec<_> = all.map(|(key, it)| (*key, *it)).collect();
        let ports: BTreeSet<u16> = all.iter().map(|(_, it)| it.listener_port).collect();
        let wanted = Wanted::node_leading(self.redirect, &all, &ports, &self.own);
        let wanted = wanted.guarded(self.redirect, &observed.ranges);
        let rules = Netfilter::new(Owner::Nodeway);
        let mut differences = rules.differences(self.netns, &wanted).map_err(Box::new)?;
        let obstacles = rules.obstacles(self.netns, &wanted).map_err(Box::new)?;
        differences.extend(obstacles.iter().map(ToString::to_string));
        Ok(Rules {
            read_by: "rules of iptables-save".to_owned(),
            differences,
        })
    }
}
