//! Whether a route leaves anything to a later one: conditions as sets of requests.
//!
//! All answers are one-sided: a `true` is proved, a `false` may only mean that no proof is tried.
//! Who tells users that a route is never taken must never be wrong.

use super::string_match::starts_with;
use super::{PathMatcher, RouteMatch};

impl RouteMatch {
    /// Whether every request that meets `later` meets this too.
    #[must_use]
    pub fn covers(&self, later: &Self) -> bool {
        self.asks_no_more_than(later)
            && paths(&self.path, self.case_sensitive)
                .is_some_and(|mine| mine.covers(&later.path, later.case_sensitive))
    }

    /// Whether this is a regular expression that takes the very path that `later` has as its
    /// prefix, so that only longer paths can be left to it.
    #[must_use]
    pub fn hides_prefix_of(&self, later: &Self) -> bool {
        let (PathMatcher::Regex(pattern), Some(prefix)) = (&self.path, later.path.prefix()) else {
            return false;
        };
        self.asks_no_more_than(later) && pattern.matches(prefix)
    }

    /// Whether each of its conditions beside the path is one of `later`'s too.
    fn asks_no_more_than(&self, later: &Self) -> bool {
        self.not_simulated.is_empty()
            && self.draw.is_none()
            && self.headers.iter().all(|it| later.headers.contains(it))
            && self.parts.iter().all(|it| later.parts.contains(it))
            && self.metadata.iter().all(|it| later.metadata.contains(it))
            && (!self.grpc || later.grpc)
            && (!self.filter_state || later.filter_state)
    }
}

impl PathMatcher {
    /// The text with which all its paths begin, and which is one of them.
    fn prefix(&self) -> Option<&str> {
        match self {
            Self::Prefix(prefix) | Self::SeparatedPrefix(prefix) => Some(prefix),
            _ => None,
        }
    }
}

/// A set of paths of a simple form.
struct Paths<'a> {
    form: Form<'a>,
    case_sensitive: bool,
}

#[derive(Clone, Copy)]
enum Form<'a> {
    Prefix(&'a str),
    SeparatedPrefix(&'a str),
    Exact(&'a str),
    Regex(&'a super::Pattern),
}

/// The paths that a condition takes; none where no proof is tried.
fn paths(matcher: &PathMatcher, case_sensitive: bool) -> Option<Paths<'_>> {
    let form = match matcher {
        PathMatcher::Prefix(text) => Form::Prefix(text),
        PathMatcher::SeparatedPrefix(text) => Form::SeparatedPrefix(text),
        PathMatcher::Exact(text) => Form::Exact(text),
        PathMatcher::Regex(pattern) => match pattern.source().strip_suffix(".*") {
            // A path holds no line break, which is all that `.` leaves out.
            Some(head) if head == literal_head(head) => {
                return Some(Paths {
                    form: Form::Prefix(head),
                    case_sensitive: true,
                });
            }
            _ => Form::Regex(pattern),
        },
        PathMatcher::Connect | PathMatcher::Template(_) | PathMatcher::Other => return None,
    };
    Some(Paths {
        form,
        case_sensitive,
    })
}

impl Paths<'_> {
    fn covers(&self, later: &PathMatcher, later_case_sensitive: bool) -> bool {
        match (self.form, later) {
            (Form::Regex(mine), PathMatcher::Regex(other)) => mine == other,
            (Form::Regex(mine), PathMatcher::Exact(path)) => {
                (later_case_sensitive || has_no_letter(path)) && mine.matches(path)
            }
            (_, PathMatcher::Regex(other)) => self.has_all_after(literal_head(other.source())),
            // Written in whichever case: this must then take it in any.
            (_, _) if !later_case_sensitive && !self.takes_any_case() => false,
            (_, PathMatcher::Exact(path)) => self.has(path),
            (_, PathMatcher::Prefix(text)) => self.has_all_after(text),
            (_, PathMatcher::SeparatedPrefix(text)) => self.has(text) && self.has_below(text),
            _ => false,
        }
    }

    fn text(&self) -> &str {
        match self.form {
            Form::Prefix(text) | Form::SeparatedPrefix(text) | Form::Exact(text) => text,
            Form::Regex(pattern) => pattern.source(),
        }
    }

    fn takes_any_case(&self) -> bool {
        !self.case_sensitive || has_no_letter(self.text())
    }

    /// Whether a path is in the set.
    fn has(&self, path: &str) -> bool {
        let text = self.text();
        starts_with(path, text, !self.case_sensitive)
            && match self.form {
                Form::Prefix(_) => true,
                Form::SeparatedPrefix(_) => {
                    matches!(path.as_bytes().get(text.len()), None | Some(b'/'))
                }
                Form::Exact(_) => path.len() == text.len(),
                Form::Regex(_) => false,
            }
    }

    /// Whether every path that begins with a text is in the set.
    fn has_all_after(&self, text: &str) -> bool {
        match self.form {
            Form::Prefix(_) => self.has(text),
            Form::SeparatedPrefix(mine) => text.len() > mine.len() && self.has(text),
            Form::Exact(_) | Form::Regex(_) => false,
        }
    }

    /// Whether every path that goes on with a slash after a text is in the set.
    fn has_below(&self, text: &str) -> bool {
        self.has_all_after(&format!("{text}/"))
    }
}

fn has_no_letter(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// A text with which everything begins that a regular expression matches; empty when none is found.
fn literal_head(source: &str) -> &str {
    if source.contains('|') {
        return "";
    }
    let end = source
        .find(|c: char| r"\.+*?()[]{}^$".contains(c))
        .unwrap_or(source.len());
    let head = source.get(..end).unwrap_or_default();
    // What is repeated may be there no time at all.
    let repeated = source
        .get(end..)
        .is_some_and(|rest| rest.starts_with(['*', '?', '{']));
    let mut chars = head.chars();
    if repeated {
        chars.next_back();
    }
    chars.as_str()
}
