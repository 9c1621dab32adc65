//! Which redirect a run has, and who chose it.

use std::fmt;

use nodeway_core::cilium_config::CiliumConfig;
use nodeway_core::redirect::Redirect;

/// Who chose the redirect of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ChosenBy {
    /// Nobody: it is the default.
    #[default]
    Default,
    /// Whoever asked for the run.
    Asked,
    /// The fixture.
    Fixture,
    /// The dumped cluster's `cilium-config`: the words that say what it has.
    Cluster(String),
    /// A node that was looked at: its name.
    Node(String),
}

impl fmt::Display for ChosenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Asked => f.write_str("asked for"),
            Self::Fixture => f.write_str("fixture"),
            Self::Cluster(words) => f.write_str(words),
            Self::Node(node) => write!(f, "the agent of {node}"),
        }
    }
}

/// The redirect that a dumped cluster uses: BPF programs where it says so, otherwise iptables, as
/// Cilium does by default.
pub(crate) fn by_cluster(config: &CiliumConfig) -> (Redirect, ChosenBy) {
    const KEY: &str = "enable-bpf-tproxy";
    let place = format!("{config}, {}:{}", config.file, config.line);
    let (wanted, says) = match config.bpf_tproxy() {
        Ok(true) => (Redirect::Tc, format!("{KEY} is true")),
        Ok(false) => (Redirect::Iptables, format!("{KEY} is not true")),
        Err(_) => (Redirect::Iptables, format!("{KEY} is no boolean")),
    };
    (wanted, ChosenBy::Cluster(format!("{place}: {says}")))
}
