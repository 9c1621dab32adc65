//! What a lab's nodes are asked and told: their agents and their Envoys.

use std::path::Path;

use nodeway_sim::Place;

use super::Lab;
use super::error::LabError;
use super::proxied::Proxied;
use crate::agent::status::Status;
use crate::in_force::Looked;

impl Lab {
    /// How a node stands, by its agent's word.
    ///
    /// # Errors
    /// When it has no agent, as by `sidecar`, or that one says nothing.
    pub fn status(&self, node: &str) -> Result<Status, LabError> {
        let known = self.model.0.plan(node).map(|_| self.proxied.get(node));
        let unknown = || self.model.0.unknown_node(node);
        match known.ok_or_else(unknown)? {
            Some(proxied) => Ok(proxied.status()?),
            None => Err(LabError::NoAgent(node.to_owned())),
        }
    }

    /// What a node really does: by its kernel, its Envoys and its agent's word.
    ///
    /// # Errors
    /// When it has no agent, as by `sidecar`, or something of it cannot be read.
    pub fn look(&self, node: &str) -> Result<Looked, LabError> {
        let place = Place::Node(node.to_owned());
        match (self.proxied.get(node), self.machines.get(&place)) {
            (Some(proxied), Some(netns)) => Ok(proxied.look(netns).map_err(Box::new)?),
            _ => Err(LabError::NoAgent(node.to_owned())),
        }
    }

    /// The run directory of a node's agent; none as by `sidecar`.
    #[must_use]
    pub fn run_dir(&self, node: &str) -> Option<&Path> {
        self.proxied.get(node).map(Proxied::run)
    }

    /// Kills a node's agent. Nothing that it led depends on it.
    ///
    /// # Errors
    /// When it has none, or another process keeps the lab.
    pub fn kill_agent(&mut self, node: &str) -> Result<(), LabError> {
        Ok(self.proxied(node)?.kill_agent()?)
    }

    /// Ends a node's agent in peace. What it led goes on.
    ///
    /// # Errors
    /// When it has none, or another process keeps the lab.
    pub fn end_agent(&mut self, node: &str) -> Result<(), LabError> {
        Ok(self.proxied(node)?.end_agent()?)
    }

    /// Waits until a node's Envoy has answered to all that is planned, and the kernel leads to it.
    ///
    /// # Errors
    /// When it has none, or that is not so in time.
    pub fn settle(&mut self, node: &str) -> Result<(), LabError> {
        Ok(self.proxied(node)?.settle()?)
    }

    /// Starts a node's agent again.
    ///
    /// # Errors
    /// When it does not start, or another process keeps the lab.
    pub fn start_agent(&mut self, node: &str) -> Result<(), LabError> {
        Ok(self.proxied(node)?.start_agent()?)
    }

    /// Has another Envoy in the place of a node's, which drains.
    ///
    /// # Errors
    /// When it has none, or another process keeps the lab.
    pub fn upgrade_envoy(&mut self, node: &str) -> Result<(), LabError> {
        Ok(self.proxied(node)?.upgrade()?)
    }

    /// Kills a node's Envoy; its supervisor starts another.
    ///
    /// # Errors
    /// When it has none, or it does not go.
    pub fn kill_envoy(&mut self, node: &str) -> Result<(), LabError> {
        Ok(self.proxied(node)?.kill_envoys()?)
    }

    fn proxied(&mut self, node: &str) -> Result<&mut Proxied, LabError> {
        let proxied = self.proxied.get_mut(node);
        proxied.ok_or_else(|| LabError::NoAgent(node.to_owned()))
    }
}
