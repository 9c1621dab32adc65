//! Hosts and paths that are claimed twice.
//!
//! Within one config two routes with one match are merged, and their backends share the requests
//! at random: rarely what somebody meant, and never said. Dedicated Ingresses have addresses
//! of their own and cannot collide with each other.

use std::collections::BTreeMap;

use super::ingest::{Claim, Ingested};
use super::model::{PathMatch, SecretName};
use crate::object::ObjectRef;
use crate::problem::{Code, Problem, Severity};

type Key<'a> = (&'a str, Option<&'a PathMatch>);

fn key(claim: &Claim) -> Key<'_> {
    (&claim.host, claim.path.as_ref())
}

/// Claims that one Ingress makes twice.
#[must_use]
pub fn within(ingress: &ObjectRef, claims: &[Claim]) -> Vec<Problem> {
    let mut first: BTreeMap<Key<'_>, &Claim> = BTreeMap::new();
    let mut problems = Vec::new();
    for claim in claims {
        match first.get(&key(claim)) {
            Some(other) => problems.push(problem(ingress, claim, &other.field)),
            None => {
                first.insert(key(claim), claim);
            }
        }
    }
    problems
}

/// Claims of one Ingress that another one makes too; the Ingress that comes first has none.
#[must_use]
pub fn between<'a>(ingresses: impl Iterator<Item = (&'a ObjectRef, &'a [Claim])>) -> Vec<Problem> {
    let mut first: BTreeMap<Key<'a>, &'a ObjectRef> = BTreeMap::new();
    let mut problems = Vec::new();
    for (ingress, claims) in ingresses {
        for claim in claims {
            let holder = *first.entry(key(claim)).or_insert(ingress);
            if holder != ingress {
                problems.push(problem(ingress, claim, &holder.to_string()));
            }
        }
    }
    problems
}

/// Server names of TLS that several Ingresses want differently: each can have one certificate, or
/// be passed through.
#[must_use]
pub fn server_names<'a>(
    ingresses: impl Iterator<Item = (&'a ObjectRef, &'a Ingested)>,
) -> Vec<Problem> {
    let mut first: BTreeMap<&str, (Option<&SecretName>, &ObjectRef)> = BTreeMap::new();
    let mut problems = Vec::new();
    for (ingress, ingested) in ingresses {
        let ended = ingested
            .model
            .http
            .iter()
            .filter_map(|listener| Some((&listener.hostname, listener.tls.first()?)));
        let passed = ingested
            .model
            .tls_passthrough
            .iter()
            .map(|listener| &listener.hostname);
        let wishes = ended
            .map(|(host, secret)| (host, Some(secret)))
            .chain(passed.map(|host| (host, None)));
        for (host, wish) in wishes {
            let (held, holder) = *first.entry(host).or_insert((wish, ingress));
            // That two pass one host through is a claim of theirs already.
            if holder != ingress && held != wish {
                problems.push(two_wishes(ingress, host, wish, ingested, holder));
            }
        }
    }
    problems
}

fn two_wishes(
    ingress: &ObjectRef,
    host: &str,
    wish: Option<&SecretName>,
    ingested: &Ingested,
    holder: &ObjectRef,
) -> Problem {
    let field = match wish {
        Some(wish) => ingested
            .secrets
            .iter()
            .find(|(secret, _)| secret == wish)
            .map(|(_, field)| field),
        None => ingested
            .claims
            .iter()
            .find(|claim| claim.host == host)
            .map(|claim| &claim.field),
    };
    Problem {
        code: Code::RouteClaimedTwice,
        severity: Severity::Error,
        object: ingress.clone(),
        field: field.cloned().unwrap_or_default(),
        reason: format!("TLS of host `{host}` is wanted differently by {holder}, and a server name has one certificate"),
        fix: "name the same Secret in both, or give the Ingress an address of its own with loadbalancer-mode: dedicated".into(),
    }
}

fn problem(ingress: &ObjectRef, claim: &Claim, other: &str) -> Problem {
    let (what, so) = match &claim.path {
        Some(path) => (
            format!("{path} of host `{}`", claim.host),
            "both backends share the requests at random",
        ),
        None => (
            format!("TLS of host `{}`", claim.host),
            "only one of the backends is used",
        ),
    };
    Problem {
        code: Code::RouteClaimedTwice,
        severity: Severity::Warning,
        object: ingress.clone(),
        field: claim.field.clone(),
        reason: format!("{what} is also claimed by {other}, so {so}"),
        fix: "keep one of the two, or give the Ingress an address of its own with loadbalancer-mode: dedicated".into(),
    }
}
