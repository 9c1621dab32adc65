//! A cluster where a source could stand, `kube`: which one it is. Nothing is ever written there.

use std::path::Path;
#[cfg(feature = "live")]
use std::path::PathBuf;

use nodeway_sim::Source;

#[cfg(not(feature = "live"))]
use crate::absent;
use crate::failure::Failure;

/// What stands for a cluster where a source could stand; a folder of that name is `./kube`.
pub(crate) const KUBE: &str = "kube";

/// Which cluster `kube` is.
#[derive(Default, clap::Args)]
pub(crate) struct Cluster {
    /// The kubeconfig of the cluster that `kube` is; that of `KUBECONFIG`, or that this runs in, if
    /// absent.
    #[cfg(feature = "live")]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Asks a cluster only to get, list and watch. It is so without this, too.
    #[cfg(feature = "live")]
    #[arg(long)]
    read_only: bool,
}

#[cfg(feature = "live")]
impl Cluster {
    /// The kubeconfig that was named.
    pub(crate) fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// The cluster, if it is the one that is named; a kubeconfig is for nothing else.
    pub(crate) fn source(&self, sources: &[String]) -> Result<Option<Source>, Failure> {
        let is_cluster = matches!(sources, [only] if only == KUBE);
        if !is_cluster {
            return match &self.kubeconfig {
                None => Ok(None),
                Some(_) => Err(Failure::argument(
                    "--kubeconfig: no cluster is asked for".to_owned(),
                    "name `kube` as the only source, or leave --kubeconfig out",
                )),
            };
        }
        let texts = nodeway_live::kube::listed(self.kubeconfig());
        Ok(Some(Source {
            name: KUBE.to_owned(),
            fixture: None,
            recordings: Vec::new(),
            texts: texts.map_err(miette::Report::from_err)?,
        }))
    }
}

#[cfg(not(feature = "live"))]
impl Cluster {
    /// No cluster: there is none to ask without the feature `live`, and who names one is told so.
    #[expect(clippy::unused_self, reason = "with the feature it has options")]
    pub(crate) fn source(&self, sources: &[String]) -> Result<Option<Source>, Failure> {
        match sources {
            [only] if only == KUBE && !Path::new(KUBE).exists() => Err(absent::acts(KUBE)),
            _ => Ok(None),
        }
    }
}

#[cfg(all(test, feature = "live"))]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_is_for_a_cluster_alone() {
        let cluster = Cluster {
            kubeconfig: Some("admin.conf".into()),
            read_only: true,
        };
        assert!(cluster.source(&["manifests".to_owned()]).is_err());
        let cluster = Cluster {
            kubeconfig: None,
            read_only: true,
        };
        let source = cluster.source(&["manifests".to_owned()]);
        assert!(source.is_ok_and(|it| it.is_none()));
    }
}
