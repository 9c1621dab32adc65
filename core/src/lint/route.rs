//! Routes that are never taken: Envoy takes the first whose conditions hold, not the best.

use crate::problem::{Code, Problem, Severity};
use crate::proxy::{Route, VirtualHost};

use super::config::Config;

/// Routes of a config that earlier ones of their virtual host leave nothing to.
pub(super) fn unreachable(config: &Config<'_>) -> Vec<Problem> {
    let tables = config.resources.iter().flat_map(|read| &read.tables);
    let hosts = tables.flat_map(|(at, table)| {
        let numbered = table.virtual_hosts.iter().enumerate();
        numbered.map(move |(n, host)| (format!("{at}.virtualHosts[{n}]"), host))
    });
    hosts
        .flat_map(|(at, host)| in_host(&at, host))
        .map(|(field, found)| found.problem(config, field))
        .collect()
}

/// What an earlier route leaves to a later one.
enum Left<'a> {
    Nothing(usize, &'a Route, &'a Route),
    LongerPaths(usize, &'a Route, &'a Route),
}

fn in_host<'a>(at: &str, host: &'a VirtualHost) -> Vec<(String, Left<'a>)> {
    // Where something else than the order chooses a route, the order says nothing.
    if !host.undecided.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (index, later) in host.routes.iter().enumerate() {
        let earlier = || host.routes.iter().take(index).enumerate();
        let covered = earlier()
            .find(|(_, route)| route.matches.covers(&later.matches))
            .map(|(by, route)| Left::Nothing(by, route, later));
        let left = covered.or_else(|| {
            earlier()
                .find(|(_, route)| route.matches.hides_prefix_of(&later.matches))
                .map(|(by, route)| Left::LongerPaths(by, route, later))
        });
        found.extend(left.map(|left| (format!("{at}.routes[{index}]"), left)));
    }
    found
}

impl Left<'_> {
    fn problem(&self, config: &Config<'_>, field: String) -> Problem {
        let (severity, reason, fix) = match self {
            Self::Nothing(by, earlier, later) => (
                // Twice the same thing is no more than too much text.
                if earlier.action == later.action {
                    Severity::Warning
                } else {
                    Severity::Error
                },
                format!(
                    "`{}` is never reached: `{}` of routes[{by}] before it takes all of its requests",
                    later.matches.description, earlier.matches.description
                ),
                "move it before that route, or take it out",
            ),
            Self::LongerPaths(by, earlier, later) => (
                Severity::Warning,
                format!(
                    "`{}` does not get the path it names: `{}` of routes[{by}] before it takes it",
                    later.matches.description, earlier.matches.description
                ),
                "move it before that route, or narrow the regular expression",
            ),
        };
        Problem {
            code: Code::UnreachableRoute,
            severity,
            object: config.reference.clone(),
            field,
            reason,
            fix: fix.to_owned(),
        }
    }
}
