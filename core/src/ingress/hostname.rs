//! Host names with wildcards: which one is more specific, which two can mean one host.

use std::cmp::Ordering;
use std::net::IpAddr;

/// The host of a rule without one.
pub const ANY: &str = "*";

/// Whether one host can match both wildcard hosts.
///
/// `*` meets everything; otherwise both must be `*.` and a domain, one domain inside the other.
#[must_use]
pub fn wildcards_intersect(one: &str, other: &str) -> bool {
    if one == ANY || other == ANY {
        return true;
    }
    match (wildcard_domain(one), wildcard_domain(other)) {
        (Some(one), Some(other)) => one
            .split('.')
            .rev()
            .zip(other.split('.').rev())
            .all(|(a, b)| a == b),
        _ => false,
    }
}

/// The order from the most to the least specific: more labels first, `*` last.
///
/// A name without a wildcard comes before a longer one with a wildcard; equals are sorted by text.
#[must_use]
pub fn most_specific_first(one: &str, other: &str) -> Ordering {
    specificity(one)
        .cmp(&specificity(other))
        .then_with(|| one.cmp(other))
}

fn specificity(host: &str) -> (bool, bool, std::cmp::Reverse<usize>) {
    let wildcard = wildcard_domain(host).is_some();
    (
        host == ANY,
        wildcard,
        std::cmp::Reverse(host.split('.').count()),
    )
}

/// `example.com` of `*.example.com`; none for a host without a wildcard and for a bare `*.`.
#[must_use]
pub fn wildcard_domain(host: &str) -> Option<&str> {
    host.strip_prefix("*.").filter(|domain| !domain.is_empty())
}

/// The regular expression that an authority under a wildcard host matches: exactly one label
/// more than the domain. None for a host without a wildcard and for `*`.
#[must_use]
pub fn one_label_regex(host: &str) -> Option<String> {
    if host == ANY || !host.contains('*') {
        return None;
    }
    let dots = |text: &str| text.replace('.', "[.]");
    Some(match host.strip_prefix("*.") {
        Some(domain) => format!("^[^.]+[.]{}$", dots(domain)),
        None => format!("^{}$", dots(host)),
    })
}

/// Why a host is none that an Ingress may have; nothing if it is one.
#[must_use]
pub fn mistake(host: &str) -> Option<String> {
    if host.parse::<IpAddr>().is_ok() {
        return Some("is an IP address; an Ingress has host names only".to_owned());
    }
    let domain = match wildcard_domain(host) {
        Some(domain) => domain,
        None if host.contains('*') => {
            return Some("has a `*` elsewhere than alone in its first label".to_owned());
        }
        None => host,
    };
    if host.len() > 253 {
        return Some(format!(
            "has {} characters; a DNS name has at most 253",
            host.len()
        ));
    }
    domain.split('.').find_map(label_mistake)
}

fn label_mistake(label: &str) -> Option<String> {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if label.is_empty() {
        Some("has an empty label".to_owned())
    } else if let Some(c) = label.chars().find(|c| !ends(*c) && *c != '-') {
        Some(if c.is_ascii_uppercase() {
            format!("has the upper-case letter `{c}`")
        } else {
            format!("has the character {c:?}, which a DNS name has not")
        })
    } else if !label.starts_with(ends) || !label.ends_with(ends) {
        Some(format!(
            "has the label `{label}` with a dash at its end or beginning"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::any_and_a_name("*", "a.example", true)]
    #[case::one_inside_the_other("*.b.c", "*.c", true)]
    #[case::siblings("*.a.c", "*.b.c", false)]
    #[case::a_label_is_no_suffix("*.ab.c", "*.b.c", false)]
    #[case::bare("*.", "*.c", false)]
    #[case::no_wildcard("a.c", "*.c", false)]
    fn wildcards_intersect_when_one_domain_holds_the_other(
        #[case] one: &str,
        #[case] other: &str,
        #[case] want: bool,
    ) {
        assert_eq!(wildcards_intersect(one, other), want);
        assert_eq!(wildcards_intersect(other, one), want);
    }

    #[test]
    fn the_catch_all_comes_last_and_wildcards_after_names() {
        let mut hosts = vec![
            "*",
            "*.shop.example",
            "shop.example",
            "*.example",
            "www.shop.example",
        ];
        hosts.sort_by(|a, b| most_specific_first(a, b));
        assert_eq!(
            hosts,
            [
                "www.shop.example",
                "shop.example",
                "*.shop.example",
                "*.example",
                "*"
            ]
        );
    }

    #[rstest]
    #[case("*.shop.example", Some("^[^.]+[.]shop[.]example$"))]
    #[case("shop.example", None)]
    #[case("*", None)]
    fn a_wildcard_is_exactly_one_label(#[case] host: &str, #[case] want: Option<&str>) {
        assert_eq!(one_label_regex(host).as_deref(), want);
    }

    #[rstest]
    #[case("shop.example")]
    #[case("*.shop.example")]
    #[case("a")]
    #[case("1-2.x")]
    fn dns_names_are_hosts(#[case] host: &str) {
        assert_eq!(mistake(host), None);
    }

    #[rstest]
    #[case("*", "`*` elsewhere")]
    #[case("shop.*.example", "`*` elsewhere")]
    #[case("10.0.0.1", "IP address")]
    #[case("::1", "IP address")]
    #[case("Shop.example", "upper-case letter `S`")]
    #[case("shop..example", "empty label")]
    #[case("shop.example:80", "':'")]
    #[case("-shop.example", "dash")]
    #[case("", "empty label")]
    fn what_is_no_dns_name_is_no_host(#[case] host: &str, #[case] want: &str) {
        let got = mistake(host).unwrap();
        assert!(got.contains(want), "{got}");
    }

    proptest! {
        #[test]
        fn any_text_has_an_answer(host in ".{0,30}", other in ".{0,30}") {
            let _ = mistake(&host);
            prop_assert_eq!(wildcards_intersect(&host, &other), wildcards_intersect(&other, &host));
            prop_assert_eq!(most_specific_first(&host, &other), most_specific_first(&other, &host).reverse());
        }
    }
}
