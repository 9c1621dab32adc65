//! The differences that are known, each with its reason: one checked-in list that only shrinks.

use std::collections::BTreeSet;
use std::path::Path;

use miette::{IntoDiagnostic, WrapErr, miette};
use serde::Deserialize;

/// A difference that is known. What is absent means all of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The fixture's folder below `fixtures`, or a folder of fixtures.
    pub fixture: Option<String>,
    /// The redirect.
    pub redirect: Option<String>,
    /// The request's name.
    pub request: Option<String>,
    /// What differs.
    pub field: String,
    /// Whether it hangs on chance.
    #[serde(default)]
    pub sometimes: bool,
    /// Why it does, and why that stays so for now.
    pub reason: String,
}

impl Known {
    fn has_fixture(&self, fixture: &str) -> bool {
        self.fixture.as_deref().is_none_or(|own| {
            let below = fixture.strip_prefix(own);
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

/// Where a difference was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The fixture's folder below `fixtures`.
    pub fixture: String,
    /// The redirect.
    pub redirect: String,
    /// The request's name; empty for the lab as a whole.
    pub request: String,
}

/// The list, and which of it was of use.
#[derive(Debug)]
pub struct List {
    entries: Vec<Known>,
    used: BTreeSet<usize>,
}

impl List {
    /// Reads `ci/differential.known.yaml`.
    ///
    /// # Errors
    /// When it is missing or no list of known differences.
    pub fn read() -> miette::Result<Self> {
        const NAME: &str = "ci/differential.known.yaml";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../differential.known.yaml");
        let text = std::fs::read_to_string(&path)
            .into_diagnostic()
            .wrap_err(NAME)?;
        let entries = serde_saphyr::from_str(&text).map_err(|error| miette!("{NAME}: {error}"))?;
        Ok(Self::new(entries))
    }

    /// A list of these.
    #[must_use]
    pub fn new(entries: Vec<Known>) -> Self {
        Self {
            entries,
            used: BTreeSet::new(),
        }
    }

    /// The reason of a difference, if it is known.
    pub fn reason(&mut self, at: &Place, field: &str) -> Option<&str> {
        let all = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|it| it == is);
        let index = self.entries.iter().position(|known| {
            known.field == field
                && known.has_fixture(&at.fixture)
                && all(&known.redirect, &at.redirect)
                && all(&known.request, &at.request)
        })?;
        self.used.insert(index);
        self.entries.get(index).map(|known| known.reason.as_str())
    }

    /// Entries of which nothing differs any more, among the fixtures that were run.
    pub fn useless(&self, ran: &[&str]) -> Vec<&Known> {
        let entries = self.entries.iter().enumerate();
        let useless = entries.filter(|(index, known)| {
            let ran = ran.iter().any(|fixture| known.has_fixture(fixture));
            ran && !known.sometimes && !self.used.contains(index)
        });
        useless.map(|(_, known)| known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> List {
        let text = "
- { fixture: bookinfo, field: status, reason: one }
- { redirect: tc, request: first, field: route, reason: two }
";
        List::new(serde_saphyr::from_str(text).unwrap())
    }

    fn at(fixture: &str, redirect: &str, request: &str) -> Place {
        Place {
            fixture: fixture.to_owned(),
            redirect: redirect.to_owned(),
            request: request.to_owned(),
        }
    }

    #[test]
    fn what_an_entry_does_not_say_may_be_anything() {
        let mut list = list();
        assert_eq!(
            list.reason(&at("bookinfo", "tc", "x"), "status"),
            Some("one")
        );
        assert_eq!(
            list.reason(&at("hosts", "tc", "first"), "route"),
            Some("two")
        );
        assert_eq!(list.reason(&at("hosts", "tc", "x"), "status"), None);
        assert_eq!(
            list.reason(&at("hosts", "iptables", "first"), "route"),
            None
        );
    }

    #[test]
    fn an_entry_of_which_nothing_differs_any_more_is_told() {
        let mut list = list();
        let _ = list.reason(&at("bookinfo", "tc", "x"), "status");
        let reasons: Vec<_> = list
            .useless(&["bookinfo", "hosts"])
            .iter()
            .map(|it| &*it.reason)
            .collect();
        assert_eq!(reasons, ["two"]);
    }

    #[test]
    fn the_checked_in_list_can_be_read() {
        let list = List::read().unwrap();
        assert!(list.entries.iter().all(|it| !it.reason.is_empty()));
    }
}
