//! Whether Ingresses share one address: an operator's default, an annotation's choice.

use std::fmt;

/// Whether an Ingress has an address of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// A Service and a config of its own.
    #[default]
    Dedicated,
    /// One Service and one config together with all other shared Ingresses.
    Shared,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dedicated => "dedicated",
            Self::Shared => "shared",
        })
    }
}
