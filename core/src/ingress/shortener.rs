//! Names that would be too long for a DNS label, shortened without two of them becoming one.
//!
//! A long name keeps its beginning and gets a hash of the whole in place of its end. The hash is
//! written in an alphabet without vowels and look-alikes, so that no word appears by accident.

use sha2::{Digest, Sha256};

/// The longest name of a Service: a DNS label.
pub const DNS_LABEL: usize = 63;

/// How many characters of the hash stand in a shortened name.
const HASH: usize = 10;

/// The name itself if it fits into `limit` bytes, else its beginning, a dash and its hash.
#[must_use]
pub fn shorten(name: &str, limit: usize) -> String {
    if name.len() <= limit {
        return name.to_owned();
    }
    let room = limit.saturating_sub(HASH + 1);
    let mut kept = String::with_capacity(limit);
    for character in name.chars() {
        if kept.len() + character.len_utf8() > room {
            break;
        }
        kept.push(character);
    }
    format!("{kept}-{}", hash(name))
}

/// The first hexadecimal digits of the SHA-256, spelt so that they make no word.
fn hash(name: &str) -> String {
    hex(Sha256::digest(name.as_bytes()).as_slice())
        .chars()
        .take(HASH)
        .map(spell)
        .collect()
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn spell(digit: char) -> char {
    match digit {
        '0' => 'g',
        '1' => 'h',
        '3' => 'k',
        'a' => 'm',
        'e' => 't',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a", 63)]
    #[case("exactly-ten", 11)]
    fn a_name_that_fits_is_left_alone(#[case] name: &str, #[case] limit: usize) {
        assert_eq!(shorten(name, limit), name);
    }

    #[test]
    fn two_long_names_with_one_beginning_stay_two() {
        let long = "x".repeat(70);
        let other = format!("{long}y");
        assert_ne!(shorten(&long, DNS_LABEL), shorten(&other, DNS_LABEL));
    }

    proptest! {
        #[test]
        fn a_shortened_name_has_exactly_the_limit_and_no_vowel_in_its_hash(name in "[a-z0-9-]{64,200}") {
            let short = shorten(&name, DNS_LABEL);
            prop_assert_eq!(short.len(), DNS_LABEL);
            let (kept, hash) = short.rsplit_once('-').unwrap();
            prop_assert!(name.starts_with(kept));
            prop_assert!(hash.chars().all(|c| !"aeiou013".contains(c)));
        }

        #[test]
        fn any_text_and_any_limit_are_taken(name in ".{0,40}", limit in 0_usize..40) {
            let short = shorten(&name, limit);
            prop_assert!(short.len() <= limit.max(HASH + 1));
        }
    }
}
