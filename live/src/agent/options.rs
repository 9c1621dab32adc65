//! What an agent is told, and how `nodeway agent` is told the same.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nodeway_core::redirect::Redirect;

use super::From;

/// What an agent is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentOptions {
    /// Where the cluster's objects come from.
    pub from: From,
    /// The node that this machine is.
    pub node: String,
    /// How frontends' packets are led.
    pub redirect: Redirect,
    /// Where this agent, its Envoys and their supervisor meet.
    pub run: PathBuf,
    /// A folder on a BPF file system, where programs outlive this process.
    pub pins: Option<PathBuf>,
    /// Whether Envoys write a line for each request.
    pub access_log: bool,
    /// Where metrics and health are served; none for nowhere.
    pub metrics: Option<SocketAddr>,
    /// For how long at most older connections of a frontend are left alone when it is switched on.
    pub arming: Duration,
    /// For how long at most a frontend that is switched off serves the connections that it has.
    pub draining: Duration,
}

impl AgentOptions {
    /// What stands after `nodeway agent`.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let seconds = |it: Duration| it.as_secs().to_string().into();
        let mut all: Vec<OsString> = vec!["--from".into(), self.from.argument()];
        if let From::Kube(Some(kubeconfig)) = &self.from {
            all.extend(["--kubeconfig".into(), kubeconfig.into()]);
        }
        all.extend(["--node".into(), (&self.node).into()]);
        all.extend(["--redirect".into(), self.redirect.name().into()]);
        all.extend(["--run-dir".into(), (&self.run).into()]);
        if let Some(pins) = &self.pins {
            all.extend(["--pins".into(), pins.into()]);
        }
        if self.access_log {
            all.push("--access-log".into());
        }
        if let Some(metrics) = self.metrics {
            all.extend(["--metrics".into(), metrics.to_string().into()]);
        }
        all.extend(["--arming".into(), seconds(self.arming)]);
        all.extend(["--draining".into(), seconds(self.draining)]);
        all
    }
}
