//! The project's fixtures in a cluster of kind: their manifests applied, their requests sent, and what
//! comes held against what they expect.
//!
//! Pods get the program that they have in a lab (`nodeway backend`); everything else is applied as it is
//! written. What a client cannot see (listener, route, what the proxy saw) is the lab's and the
//! simulator's to hold: here it is left out, and counted.

mod ask;
mod cluster;
mod manifests;

use std::path::Path;

use miette::{IntoDiagnostic as _, WrapErr as _, miette};
use nodeway_sim::{Fixture, Redirect, Sim};

use cluster::Cluster;

/// Fixtures that say nothing of a cluster of kind, each with the reason.
const LEFT_OUT: &[(&str, &str)] = &[
    ("beside-kube-proxy", "it names its cluster's own addresses"),
    (
        "beside-kube-proxy-nftables",
        "kube-proxy of this cluster writes rules of iptables",
    ),
    ("dual-stack", "this cluster has addresses of IPv4 alone"),
    (
        "source-ranges",
        "it names its cluster's own addresses, and there is no load balancer",
    ),
    (
        "tls-two-hosts",
        "one of its pods terminates TLS by itself, and ours speak plain text",
    ),
];

/// What came of one fixture.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Its name.
    pub fixture: String,
    /// Why it was not asked.
    pub left_out: Option<&'static str>,
    /// Requests that were sent.
    pub requests: usize,
    /// Expectations that were held against what came.
    pub held: usize,
    /// Expectations that a client cannot see.
    pub unseen: usize,
    /// What was not as expected, a line each.
    pub broken: Vec<String>,
}

/// Runs the fixtures of a folder in the cluster of `KUBECONFIG`, one after the other. Each is applied to
/// the namespace `default`, and taken away again.
///
/// # Errors
/// When a fixture cannot be read or applied, or something of the cluster does not get ready.
pub fn run(
    folder: &Path,
    image: &str,
    redirect: Redirect,
    tell: &mut dyn FnMut(&Outcome),
) -> miette::Result<()> {
    let cluster = Cluster::of_kubeconfig(image)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).into_diagnostic()? {
        let path = entry.into_diagnostic()?.path();
        if path.join("fixture.yaml").is_file() {
            names.push(path);
        }
    }
    names.sort();
    for path in names {
        tell(&one(&cluster, &path, redirect)?);
    }
    Ok(())
}

fn one(cluster: &Cluster, path: &Path, redirect: Redirect) -> miette::Result<Outcome> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut outcome = Outcome {
        fixture: name.clone().into_owned(),
        ..Outcome::default()
    };
    let left_out = LEFT_OUT.iter().find(|(own, _)| *own == name);
    if let Some((_, why)) = left_out {
        outcome.left_out = Some(why);
        return Ok(outcome);
    }
    let fixture = Fixture::load(path).map_err(|error| miette!("{error}"))?;
    let model = Sim::from_fixture(&fixture)
        .map_err(|error| miette!("{error}"))?
        .redirect(redirect)
        .start()
        .into_diagnostic()?;
    let text = manifests::for_cluster(&fixture, &model, &cluster.image)?;
    let applied = cluster
        .apply(&text)
        .wrap_err_with(|| name.clone().into_owned());
    let asked = applied.and_then(|()| {
        cluster.settle(&model)?;
        for request in &fixture.requests {
            ask::one(cluster, request, redirect, &mut outcome)?;
        }
        Ok(())
    });
    // Also after a failure: the next fixture has objects of the same names.
    let gone = cluster.delete(&text);
    asked.and(gone)?;
    Ok(outcome)
}
