//! The name of a lab, and the names that its parts get from it: several labs stand side by side.
//!
//! Devices need no lab in their names, as each is born in a namespace of its lab; namespaces do.

use std::fmt;

use nodeway_sim::Place;

/// The longest name of a lab: names of namespaces stay readable.
const LONGEST: usize = 32;

/// What all namespaces of all labs begin with.
const PREFIX: &str = "nodeway";

/// A lab's name: letters, digits and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabName(String);

/// A text that is no name of a lab.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name of a lab; use at most {LONGEST} lower-case letters, digits and `-`, a letter or digit first"
)]
pub struct BadName(String);

impl LabName {
    /// Takes a name.
    ///
    /// # Errors
    /// When it could not be part of a namespace's name.
    pub fn new(name: &str) -> Result<Self, BadName> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = name.len() <= LONGEST
            && name.bytes().next().is_some_and(allowed)
            && name.bytes().all(|byte| allowed(byte) || byte == b'-');
        good.then(|| Self(name.to_owned()))
            .ok_or_else(|| BadName(name.to_owned()))
    }

    /// The name that a folder's own name gives (`fixtures/bookinfo` is `bookinfo`).
    #[must_use]
    pub fn of_folder(folder: &std::path::Path) -> Option<Self> {
        let folder = folder.canonicalize().ok()?;
        let name = folder.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let name: String = name.trim_matches('-').chars().take(LONGEST).collect();
        Self::new(&name).ok()
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The namespace of a place. A pod in its node's network has none of its own.
    #[must_use]
    pub fn namespace(&self, place: &Place) -> String {
        let (kind, name) = match place {
            Place::Pod(path) => ("pod", path.replace('/', ".")),
            Place::Node(name) => ("node", name.clone()),
            // An endpoint of an Envoy's dump is called by its address.
            Place::Outside(name) => ("outside", name.replace([':', '/'], ".")),
        };
        format!("{PREFIX}.{}.{kind}.{name}", self.0)
    }

    /// Whether a namespace is one of this lab's.
    #[must_use]
    pub fn owns(&self, namespace: &str) -> bool {
        let rest = namespace.strip_prefix(PREFIX);
        let rest = rest.and_then(|it| it.strip_prefix('.')?.strip_prefix(self.as_str()));
        // No lab's name has a dot: what follows is never the rest of a longer name.
        rest.is_some_and(|it| it.starts_with('.'))
    }

    /// The namespace of the fabric, which stands between nodes and hosts outside.
    #[must_use]
    pub fn fabric(&self) -> String {
        format!("{PREFIX}.{}.fabric", self.0)
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("bookinfo", true)]
    #[case("lab-4711", true)]
    #[case("0", true)]
    #[case("", false)]
    #[case("-x", false)]
    #[case("a/b", false)]
    #[case("a.b", false)]
    #[case("Bookinfo", false)]
    #[case("a-name-of-more-than-thirty-two-bytes", false)]
    fn a_name_can_be_part_of_a_namespaces_name(#[case] name: &str, #[case] good: bool) {
        assert_eq!(LabName::new(name).is_ok(), good);
    }

    #[test]
    fn a_fixture_gives_its_lab_a_name() {
        let folder = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../fixtures/two-ingresses/"
        ));
        assert_eq!(
            LabName::of_folder(folder).unwrap().as_str(),
            "two-ingresses"
        );
    }

    #[test]
    fn one_labs_namespaces_are_never_anothers() {
        let of = |lab: &str, name: &str| {
            let lab = LabName::new(lab).unwrap();
            lab.namespace(&Place::Node(name.to_owned()))
        };
        assert_ne!(of("a", "b-c"), of("a-b", "c"));
        let lab = LabName::new("a").unwrap();
        assert!(lab.owns(&of("a", "b")) && lab.owns(&lab.fabric()));
        assert!(!lab.owns(&of("a-b", "c")) && !lab.owns("nodeway.a"));
    }
}
