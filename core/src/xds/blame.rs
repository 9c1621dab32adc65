//! Whom Envoy means when it refuses a response.
//!
//! Of listeners and clusters Envoy lists each that it refuses, with its reason
//! (`Error adding/updating listener(s) shop/web/listener: …`). Of other kinds it says what it stumbled
//! over first, often without a name. A name in the middle of a reason proves nothing: it may be
//! another's.

use std::collections::BTreeSet;

use crate::plan::ResourceName;

/// How much of Envoy's words is looked at, in bytes. Who is named beyond that is found by the next
/// refusal.
const MOST_WORDS: usize = 1 << 16;

/// A judgement of Envoy's words.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// These are refused, each with the words about it.
    Refused(Vec<(ResourceName, String)>),
    /// One of these groups has the offender: try them one by one.
    Unclear(Vec<Vec<ResourceName>>),
}

/// Finds the offenders among those that changed, of which there is at least one.
pub(super) fn blame(changed: &[ResourceName], words: &str) -> Blame {
    let words = words.get(..words.floor_char_boundary(MOST_WORDS));
    let words = words.unwrap_or_default();
    if let [only] = changed {
        return Blame::Refused(vec![(only.clone(), said(words))]);
    }
    let mut listed: Vec<(usize, &ResourceName)> = Vec::new();
    let mut mentioned: Vec<&ResourceName> = Vec::new();
    for name in changed {
        let mut places = places(words, name).peekable();
        if places.peek().is_some() {
            mentioned.push(name);
        }
        if let Some(place) = places.find(|place| leads(words, *place, name)) {
            listed.push((place, name));
        }
    }
    if !listed.is_empty() {
        listed.sort();
        let ends = listed.iter().skip(1).map(|(place, _)| *place);
        let ends: Vec<usize> = ends.chain([words.len()]).collect();
        let clause = |((start, name), end): (&(usize, &ResourceName), usize)| {
            let clause = words.get(*start..end).unwrap_or_default();
            ((*name).clone(), said(clause))
        };
        return Blame::Refused(listed.iter().zip(ends).map(clause).collect());
    }
    if mentioned.is_empty() {
        return Blame::Unclear(halves(changed));
    }
    let tried: BTreeSet<&ResourceName> = mentioned.iter().copied().collect();
    let rest = changed.iter().filter(|name| !tried.contains(name));
    let rest: Vec<ResourceName> = rest.cloned().collect();
    let mut groups: Vec<Vec<ResourceName>> = mentioned
        .into_iter()
        .map(|name| vec![name.clone()])
        .collect();
    if !rest.is_empty() {
        groups.push(rest);
    }
    Blame::Unclear(groups)
}

fn halves(changed: &[ResourceName]) -> Vec<Vec<ResourceName>> {
    let (one, other) = changed.split_at(changed.len() / 2);
    vec![one.to_vec(), other.to_vec()]
}

/// Words without what stands between two items of a list.
fn said(words: &str) -> String {
    words.trim().trim_end_matches(',').to_owned()
}

/// Where a name stands as a whole, not as a part of a longer one.
fn places<'a>(words: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let of_name = |it: char| it.is_alphanumeric() || "/-_.*".contains(it);
    words.match_indices(name).filter_map(move |(place, _)| {
        let before = words.get(..place)?.chars().next_back();
        let mut after = words.get(place + name.len()..)?.chars();
        let end = match after.next() {
            // `default/details:9080` is another name than `default/details`.
            Some(':') => !after.next().is_some_and(of_name),
            // The end of a sentence.
            Some('.') => !after.next().is_some_and(of_name),
            Some(next) => !of_name(next),
            None => true,
        };
        (end && !before.is_some_and(of_name)).then_some(place)
    })
}

/// Whether a name leads a clause of Envoy's list of those that it refuses.
fn leads(words: &str, place: usize, name: &str) -> bool {
    let before = words.get(..place).unwrap_or_default();
    let after = words.get(place + name.len()..).unwrap_or_default();
    let starts = ["(s) ", "\n", ", "];
    after.starts_with(": ") && (before.is_empty() || starts.iter().any(|it| before.ends_with(it)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn names(text: &str) -> Vec<ResourceName> {
        text.split(' ').map(Into::into).collect()
    }

    #[rstest]
    #[case::one_of_two("a/b a/c", "Error adding/updating listener(s) a/c: no filter chains\n", &[("a/c", "a/c: no filter chains")])]
    #[case::not_the_shorter_name("a/b a/b:80", "Error adding/updating cluster(s) a/b:80: bad", &[("a/b:80", "a/b:80: bad")])]
    #[case::two_with_their_own_words("a b c", "Error adding/updating cluster(s) a: bad c, b: worse", &[("a", "a: bad c"), ("b", "b: worse")])]
    #[case::lines("a b c", "Error adding/updating listener(s) a: bad\nc: worse\n", &[("a", "a: bad"), ("c", "c: worse")])]
    #[case::the_only_one("a", "malformed", &[("a", "malformed")])]
    fn whom_envoy_lists_is_refused(
        #[case] changed: &str,
        #[case] words: &str,
        #[case] refused: &[(&str, &str)],
    ) {
        let refused = refused
            .iter()
            .map(|(name, words)| ((*name).into(), (*words).to_owned()))
            .collect();
        assert_eq!(blame(&names(changed), words), Blame::Refused(refused));
    }

    #[rstest]
    #[case::nobody_is_named("a b c", "malformed IP address", &["a", "b c"])]
    #[case::a_name_in_a_reason_is_tried_alone("a b c", "route: unknown cluster 'c'", &["c", "a b"])]
    #[case::a_part_of_a_name_is_none("a/b c", "no a/bc, no xc", &["a/b", "c"])]
    fn whom_envoy_does_not_list_is_tried(
        #[case] changed: &str,
        #[case] words: &str,
        #[case] groups: &[&str],
    ) {
        let groups = groups.iter().map(|group| names(group)).collect();
        assert_eq!(blame(&names(changed), words), Blame::Unclear(groups));
    }
}
