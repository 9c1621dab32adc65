//! What `iptables-save` and `ipset save` print.

use nodeway_core::datapath::Family;
use nodeway_core::netfilter::Ruleset;
use nodeway_core::netfilter::text::{parse, parse_sets, ruleset, sets as printed};

/// Rules that were read are printed as what is read as the same rules.
pub(crate) fn rules(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for family in [Family::V4, Family::V6] {
        let (rules, errors) = parse(text, family);
        assert!(
            errors.iter().all(|error| error.line > 0),
            "a line: {errors:?}"
        );
        let again = ruleset(&rules);
        let (read, errors) = parse(&again, family);
        assert_eq!(errors, [], "what is printed is read: {again}");
        assert_eq!(read.normal(), rules.normal(), "and as it was: {again}");
    }
}

/// The same of sets.
pub(crate) fn sets(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for family in [Family::V4, Family::V6] {
        let mut rules = Ruleset::new(family);
        let errors = parse_sets(text, &mut rules);
        assert!(
            errors.iter().all(|error| error.line > 0),
            "a line: {errors:?}"
        );
        let again = printed(&rules);
        let mut read = Ruleset::new(family);
        assert_eq!(
            parse_sets(&again, &mut read),
            [],
            "what is printed is read: {again}"
        );
        assert_eq!(read.normal(), rules.normal(), "and as it was: {again}");
    }
}
