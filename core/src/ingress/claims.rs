//! Hosts and paths that are claimed twice.
//!
//! Within one config two routes with one match are merged, and their backends share the requests
//! at random: rarely what somebody meant, and never said. Dedicated Ingresses have addresses
//! of their own and cannot collide with each other.

use std::collections::BTreeMap;

use super::ingest::Claim;
use super::model::PathMatch;
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

fn problem(ingress: &ObjectRef, claim: &Claim, other: &str) -> Problem {
    let what = match &claim.path {
        Some(path) => format!("{path} of host `{}`", claim.host),
        None => format!("TLS of host `{}`", claim.host),
    };
    Problem {
        code: Code::RouteClaimedTwice,
        severity: Severity::Warning,
        object: ingress.clone(),
        field: claim.field.clone(),
        reason: format!("{what} is also claimed by {other}, so both backends share the requests at random"),
        fix: "keep one of the two, or give the Ingress an address of its own with loadbalancer-mode: dedicated".into(),
    }
}
