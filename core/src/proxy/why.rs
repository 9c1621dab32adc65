//! Candidates that were not taken, and why. Text is made only when it is printed.

use std::fmt;
use std::sync::Arc;

/// A candidate that was not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its name or what it matches (`path_separated_prefix /details`).
    pub candidate: Arc<str>,
    /// Why it was not taken.
    pub why: Why,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.candidate, self.why)
    }
}

/// Why a candidate was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The path is another one.
    Path {
        /// The request's path, without its query.
        path: Arc<str>,
        /// What the candidate wants (`prefix /details`).
        wants: Arc<str>,
    },
    /// A header is absent or another one.
    Header {
        /// What the candidate wants (`header x exact "1"`).
        wants: Arc<str>,
        /// The header's value, when there is one.
        found: Option<Arc<str>>,
    },
    /// A query parameter, a cookie or metadata is absent or another one.
    Part {
        /// What the candidate wants.
        wants: Arc<str>,
    },
    /// The request's random number is not in the candidate's share.
    Draw {
        /// How many of `of` requests the candidate takes.
        share: u32,
        /// Hundred, ten thousand or a million.
        of: u32,
        /// The number drawn.
        drawn: u64,
    },
    /// Another candidate is more specific.
    LessSpecific(Arc<str>),
    /// One of the reasons without details.
    Stated(&'static str),
    /// A property of the connection is another one.
    Differs {
        /// Which property (`server name`).
        what: &'static str,
        /// The connection's.
        is: Arc<str>,
        /// The candidate's.
        wants: Arc<str>,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { path, wants } => write!(f, "path {path} does not match {wants}"),
            Self::Header {
                wants,
                found: Some(found),
            } => write!(f, "{wants} is not met by `{found}`"),
            Self::Header { wants, found: None } => {
                write!(f, "{wants} is not met: there is no such header")
            }
            Self::Part { wants } => write!(f, "{wants} is not met"),
            Self::Draw { share, of, drawn } => {
                write!(
                    f,
                    "takes {share} of {of} requests, and this one drew {}",
                    drawn % u64::from((*of).max(1))
                )
            }
            Self::LessSpecific(than) => write!(f, "less specific than {than}"),
            Self::Stated(text) => f.write_str(text),
            Self::Differs { what, is, wants } if is.is_empty() => {
                write!(f, "the connection has no {what}, the chain wants {wants}")
            }
            Self::Differs { what, is, wants } => {
                write!(f, "{what} is {is}, the chain wants {wants}")
            }
        }
    }
}
