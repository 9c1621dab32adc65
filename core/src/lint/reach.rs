//! Configs that do nothing: no packet comes to their listeners, or there is nothing in them.

use crate::object::EnvoyConfig;
use crate::problem::{Code, Problem, Severity};

use super::config::Config;

/// What keeps a config from having any effect.
pub(super) fn without_effect(config: &Config<'_>) -> Option<Problem> {
    let spec = &config.source.spec;
    let problem = |field: &str, reason: String, fix: &str| Problem {
        code: Code::WithoutEffect,
        severity: Severity::Warning,
        object: config.reference.clone(),
        field: field.to_owned(),
        reason,
        fix: fix.to_owned(),
    };
    if says_nothing(config.source) {
        return Some(problem(
            "spec.resources",
            "the config has no resources and names no Service, so it does nothing".to_owned(),
            "add resources, or delete the config",
        ));
    }
    if !spec.services.is_empty() {
        return None;
    }
    let listeners: Vec<&str> = config
        .resources
        .iter()
        .filter_map(|read| read.listener.as_ref())
        .map(|listener| listener.short.as_str())
        .collect();
    let closed = config
        .resources
        .iter()
        .filter_map(|read| read.listener.as_ref())
        .all(|listener| !listener.has_address);
    (closed && !listeners.is_empty()).then(|| {
        problem(
            "spec.services",
            format!(
                "no packet comes to {}: `spec.services` is empty and no listener has an address of its own",
                listeners.join(", ")
            ),
            "name the Services in `spec.services`; only where a network policy names the listener is it right without",
        )
    })
}

fn says_nothing(source: &EnvoyConfig) -> bool {
    let spec = &source.spec;
    spec.resources.is_empty() && spec.services.is_empty() && spec.backend_services.is_empty()
}
