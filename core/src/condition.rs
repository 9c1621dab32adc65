//! What a config's status says: four conditions, each with the reasons that stand behind it.
//!
//! | condition | is about |
//! |---|---|
//! | `Accepted` | what the config says by itself |
//! | `ResolvedRefs` | what it names: clusters, Services and their ports, Secrets |
//! | `Conflicted` | what an older config has ([`crate::plan`]); true is bad |
//! | `Programmed` | a node's Envoy and kernel have it |
//!
//! The reason is the name of the first finding's code, the message its number, words and fix. What the
//! nodes say of a config is put together in [`overall`].

mod overall;

use std::fmt;

pub use overall::{NodeSays, Overall, overall};

use crate::object::ObjectRef;
use crate::problem::{Code, Problem, Severity};

/// The reason of what comes by itself.
const PENDING: &str = "Pending";
/// The findings that one message tells; of the others it tells the number.
const MOST_TOLD: usize = 8;
/// The longest message that Kubernetes' conditions take, in bytes.
const LONGEST: usize = 32_768;

/// What a condition is about. Its name is the `type` of Kubernetes' conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The config is right by itself.
    Accepted,
    /// What it names is there.
    ResolvedRefs,
    /// An older config has what it claims.
    Conflicted,
    /// The node has it.
    Programmed,
}

impl ConditionType {
    /// All, in the order in which they are told.
    pub const ALL: [Self; 4] = [
        Self::Accepted,
        Self::ResolvedRefs,
        Self::Conflicted,
        Self::Programmed,
    ];

    /// Whether it is bad that such a condition holds, or does not.
    #[must_use]
    pub const fn is_bad(self, holds: bool) -> bool {
        holds == matches!(self, Self::Conflicted)
    }

    /// The condition that a finding belongs to.
    #[must_use]
    pub const fn of(code: Code) -> Self {
        match code {
            Code::MissingCluster
            | Code::MissingService
            | Code::MissingPort
            | Code::NoEndpoints
            | Code::MissingSecret
            | Code::ServiceWithoutPort
            | Code::BadCertificate => Self::ResolvedRefs,
            Code::FrontendClaimedTwice | Code::RouteClaimedTwice | Code::ClusterDefinedTwice => {
                Self::Conflicted
            }
            Code::RefusedByEnvoy | Code::PortsExhausted => Self::Programmed,
            Code::EnvoyResource
            | Code::MissingListener
            | Code::MissingRouteConfiguration
            | Code::DuplicateResource
            | Code::BadHost
            | Code::BadPath
            | Code::BadBackend
            | Code::ForeignIngressClass
            | Code::BadAnnotation
            | Code::BadNodeSelector
            | Code::Refused
            | Code::Unsupported
            | Code::UnreachableRoute
            | Code::WithoutEffect
            | Code::NoSuchNode
            | Code::TooLarge
            | Code::BadSourceRange
            | Code::BeyondNamespace => Self::Accepted,
        }
    }

    /// The reason while there is no finding.
    const fn unbothered(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Conflicted => "NoConflict",
            Self::Programmed => "Programmed",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One condition of a config on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What it is about.
    pub about: ConditionType,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: String,
    /// Why, in sentences; empty if there is nothing to say.
    pub message: String,
}

/// The conditions of a config on one node, by the findings of that node and by what its Envoy and
/// kernel do not have yet, one line each.
#[must_use]
pub fn conditions<'a>(
    config: &ObjectRef,
    findings: impl IntoIterator<Item = &'a Problem>,
    awaited: &[String],
) -> [Condition; 4] {
    let own = findings.into_iter().filter(|it| it.object == *config);
    let mut own: Vec<&Problem> = own.collect();
    // The worst stand first, and each once.
    own.sort_by_key(|it| (it.severity, *it));
    own.dedup();
    let of = |about| {
        let all = own.iter().copied();
        let all: Vec<&Problem> = all
            .filter(|it| ConditionType::of(it.code) == about)
            .collect();
        condition(about, &all)
    };
    let [accepted, resolved, conflicted, mut programmed] = ConditionType::ALL.map(of);
    // What is refused does not come by itself.
    if programmed.holds && !awaited.is_empty() {
        programmed.holds = false;
        PENDING.clone_into(&mut programmed.reason);
        programmed.message = told(awaited.iter().cloned());
    }
    if programmed.holds && !accepted.holds {
        programmed.holds = false;
        "NotAccepted".clone_into(&mut programmed.reason);
        "what is not accepted is left out".clone_into(&mut programmed.message);
    }
    [accepted, resolved, conflicted, programmed]
}

fn condition(about: ConditionType, findings: &[&Problem]) -> Condition {
    let bad = findings.iter().any(|it| it.severity == Severity::Error);
    // Of two that claim one thing, the one that is told has lost it, also where that is mostly meant.
    let bad = bad || (about == ConditionType::Conflicted && !findings.is_empty());
    let first = findings.first().filter(|_| bad);
    let reason = first.map_or_else(
        || about.unbothered().to_owned(),
        |it| format!("{:?}", it.code),
    );
    let texts = findings.iter().map(|it| {
        let field = if it.field.is_empty() { "" } else { " " };
        format!("{}{field}{}: {}; {}", it.code, it.field, it.reason, it.fix)
    });
    Condition {
        about,
        holds: bad == about.is_bad(true),
        reason,
        message: told(texts),
    }
}

/// Some sentences of many.
fn told(mut texts: impl ExactSizeIterator<Item = String>) -> String {
    let more = texts.len().saturating_sub(MOST_TOLD);
    let some: Vec<String> = texts.by_ref().take(MOST_TOLD).collect();
    let mut message = some.join("\n");
    let rest = match more {
        0 => String::new(),
        more => format!("\nand {more} more"),
    };
    message.truncate(message.floor_char_boundary(LONGEST.saturating_sub(rest.len())));
    message + &rest
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::object::Kind;

    pub(super) fn config() -> ObjectRef {
        ObjectRef::new(Kind::CiliumEnvoyConfig, "shop", "web")
    }

    pub(super) fn finding(code: Code, severity: Severity) -> Problem {
        Problem {
            code,
            severity,
            object: config(),
            field: "spec.services[0]".to_owned(),
            reason: "it is not there".to_owned(),
            fix: "write it".to_owned(),
        }
    }

    /// As `Accepted=True/Accepted`, one a condition.
    fn told_of(findings: &[Problem], awaited: &[String]) -> String {
        let all = conditions(&config(), findings, awaited);
        let all = all.map(|it| {
            let holds = if it.holds { "+" } else { "-" };
            format!("{holds}{}", it.reason)
        });
        all.join(" ")
    }

    #[test]
    fn a_config_that_is_all_right_has_four_good_conditions_and_no_words() {
        let all = conditions(&config(), &[], &[]);
        assert!(all.iter().all(|it| it.message.is_empty()));
        assert_eq!(
            told_of(&[], &[]),
            "+Accepted +ResolvedRefs -NoConflict +Programmed"
        );
    }

    #[rstest]
    #[case::itself(
        Code::EnvoyResource,
        "-EnvoyResource +ResolvedRefs -NoConflict -NotAccepted"
    )]
    #[case::what_it_names(
        Code::MissingService,
        "+Accepted -MissingService -NoConflict +Programmed"
    )]
    #[case::an_older_one(
        Code::FrontendClaimedTwice,
        "+Accepted +ResolvedRefs +FrontendClaimedTwice +Programmed"
    )]
    #[case::envoy(
        Code::RefusedByEnvoy,
        "+Accepted +ResolvedRefs -NoConflict -RefusedByEnvoy"
    )]
    fn an_error_is_told_by_its_condition(#[case] code: Code, #[case] want: &str) {
        assert_eq!(told_of(&[finding(code, Severity::Error)], &[]), want);
    }

    #[test]
    fn a_warning_is_told_and_changes_no_condition_but_that_of_conflicts() {
        let warnings = [
            finding(Code::NoEndpoints, Severity::Warning),
            finding(Code::ClusterDefinedTwice, Severity::Warning),
        ];
        assert_eq!(
            told_of(&warnings, &[]),
            "+Accepted +ResolvedRefs +ClusterDefinedTwice +Programmed"
        );
        let [_, resolved, ..] = conditions(&config(), &warnings, &[]);
        assert_eq!(
            resolved.message,
            "NW0006 spec.services[0]: it is not there; write it"
        );
    }

    #[test]
    fn what_is_awaited_is_pending_unless_envoy_has_refused_it() {
        let awaited = ["Listener shop/web".to_owned()];
        let [.., programmed] = conditions(&config(), &[], &awaited);
        assert_eq!(
            (programmed.holds, &*programmed.reason, &*programmed.message),
            (false, "Pending", "Listener shop/web")
        );
        let refused = finding(Code::RefusedByEnvoy, Severity::Error);
        let [.., programmed] = conditions(&config(), [&refused], &awaited);
        assert_eq!(programmed.reason, "RefusedByEnvoy");
    }

    #[test]
    fn findings_of_others_are_not_told_and_an_error_comes_before_a_warning() {
        let mut other = finding(Code::EnvoyResource, Severity::Error);
        other.object.name = "other".to_owned();
        let warning = finding(Code::EnvoyResource, Severity::Warning);
        let error = finding(Code::MissingListener, Severity::Error);
        let all = [other, warning, error];
        let [accepted, ..] = conditions(&config(), &all, &[]);
        assert_eq!(accepted.reason, "MissingListener");
        assert_eq!(accepted.message.lines().count(), 2);
    }

    #[test]
    fn a_message_is_as_long_as_kubernetes_takes_and_tells_how_many_are_left_out() {
        let many = (0..20).map(|number| Problem {
            reason: format!("{number} {}", "ü".repeat(4000)),
            ..finding(Code::EnvoyResource, Severity::Error)
        });
        let many: Vec<Problem> = many.collect();
        let [accepted, ..] = conditions(&config(), &many, &[]);
        assert!(accepted.message.len() <= LONGEST);
        assert!(accepted.message.ends_with("and 12 more"));
    }
}
