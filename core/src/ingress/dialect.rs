//! Which Cilium's `CiliumEnvoyConfig` is written.
//!
//! What an Ingress means has not changed; what it looks like as Envoy resources has, a lot.

use std::fmt;
use std::str::FromStr;

/// The form of a generated `CiliumEnvoyConfig`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// What Cilium's main branch writes: one listener for plain text and TLS, path-separated
    /// prefixes, clusters per service port.
    #[default]
    Today,
    /// What Cilium 1.11 wrote: everything named after the config, prefix matches, clusters per
    /// service. It knows dedicated Ingresses only.
    V1_11,
}

/// A text that names no dialect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no dialect {0:?}; use `today` or `1.11`")]
pub struct UnknownDialect(String);

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "today" => Ok(Self::Today),
            "1.11" => Ok(Self::V1_11),
            other => Err(UnknownDialect(other.to_owned())),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Today => "today",
            Self::V1_11 => "1.11",
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("today", Dialect::Today)]
    #[case("1.11", Dialect::V1_11)]
    fn a_dialect_is_read_as_it_is_printed(#[case] text: &str, #[case] dialect: Dialect) {
        assert_eq!(text.parse(), Ok(dialect));
        assert_eq!(dialect.to_string(), text);
    }

    #[test]
    fn an_unknown_dialect_names_those_there_are() {
        let error = "1.12".parse::<Dialect>().unwrap_err().to_string();
        assert_eq!(error, "there is no dialect \"1.12\"; use `today` or `1.11`");
    }
}
