//! The causes of an error that is not ours.
//!
//! An error of Nodeway says its cause in its own text, since logs and conditions print that alone; it
//! has no `source`, or a command would print the cause once more. Those of `kube` and `aya` name the
//! call that failed, and why only in their sources.

use std::error::Error;

/// An error with all its causes, in one line.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Said {
        said: &'static str,
        source: io::Error,
    }

    #[test]
    fn a_cause_that_the_text_has_is_not_said_again() {
        let refused = || io::Error::other("refused");
        let without = Said {
            said: "no call",
            source: refused(),
        };
        let with = Said {
            said: "no call (refused)",
            source: refused(),
        };
        assert_eq!(with_causes(&without), "no call: refused");
        assert_eq!(with_causes(&with), "no call (refused)");
    }
}
