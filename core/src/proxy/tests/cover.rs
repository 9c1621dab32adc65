//! A route that another covers is never taken: by table, and by drawing routes and requests.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn pair(first: &Value, second: &Value) -> RouteTable {
    routes(json!([
        {"match": first, "directResponse": {"status": 200}},
        {"match": second, "directResponse": {"status": 201}},
    ]))
}

fn covers(first: &Value, second: &Value) -> bool {
    let table = pair(first, second);
    let found = &table.virtual_hosts[0].routes;
    found[0].matches.covers(&found[1].matches)
}

#[rstest]
#[case::same(json!({"prefix": "/a"}), json!({"prefix": "/a"}), true)]
#[case::longer(json!({"prefix": "/a"}), json!({"prefix": "/ab"}), true)]
#[case::shorter(json!({"prefix": "/ab"}), json!({"prefix": "/a"}), false)]
#[case::exact_under_prefix(json!({"prefix": "/a"}), json!({"path": "/ab"}), true)]
#[case::a_prefix_never_ends_at_an_exact_path(json!({"path": "/a"}), json!({"prefix": "/a"}), false)]
#[case::segments(json!({"pathSeparatedPrefix": "/a"}), json!({"pathSeparatedPrefix": "/a/b"}), true)]
#[case::half_a_segment(json!({"pathSeparatedPrefix": "/a"}), json!({"pathSeparatedPrefix": "/ab"}), false)]
#[case::segments_leave_the_rest_of_a_prefix(json!({"pathSeparatedPrefix": "/a"}), json!({"prefix": "/a"}), false)]
#[case::prefix_below_segments(json!({"pathSeparatedPrefix": "/a"}), json!({"prefix": "/a/"}), true)]
#[case::everything(json!({"safeRegex": {"regex": "/.*"}}), json!({"prefix": "/a"}), true)]
#[case::alternatives_begin_with_nothing(json!({"prefix": "/a"}), json!({"safeRegex": {"regex": "/a|/b"}}), false)]
#[case::regex_with_a_literal_head(json!({"prefix": "/a"}), json!({"safeRegex": {"regex": "/ab+"}}), true)]
#[case::the_last_letter_may_be_absent(json!({"prefix": "/a"}), json!({"safeRegex": {"regex": "/a*"}}), false)]
#[case::regex_takes_an_exact_path(json!({"safeRegex": {"regex": "/[ab]+"}}), json!({"path": "/ab"}), true)]
#[case::regex_leaves_a_prefix(json!({"safeRegex": {"regex": "/[ab]+"}}), json!({"prefix": "/ab"}), false)]
#[case::same_path(json!({"path": "/a"}), json!({"path": "/a"}), true)]
#[case::a_path_is_not_what_goes_on_below_it(json!({"path": "/a"}), json!({"pathSeparatedPrefix": "/a"}), false)]
#[case::what_goes_on_below_is_not_the_path(json!({"prefix": "/a/"}), json!({"pathSeparatedPrefix": "/a"}), false)]
#[case::same_regex(json!({"safeRegex": {"regex": "/[ab]+"}}), json!({"safeRegex": {"regex": "/[ab]+"}}), true)]
#[case::another_regex(json!({"safeRegex": {"regex": "/[ab]+"}}), json!({"safeRegex": {"regex": "/[bc]+"}}), false)]
#[case::regex_leaves_an_exact_path(json!({"safeRegex": {"regex": "/[0-9]+"}}), json!({"path": "/ab"}), false)]
#[case::regex_takes_what_has_no_case(json!({"safeRegex": {"regex": "/[0-9]+"}}), json!({"path": "/12", "caseSensitive": false}), true)]
#[case::a_class_before_the_rest_is_no_text(json!({"safeRegex": {"regex": "/[ab].*"}}), json!({"prefix": "/[ab]"}), false)]
#[case::any_case_covers_any(json!({"prefix": "/a", "caseSensitive": false}), json!({"prefix": "/A", "caseSensitive": false}), true)]
#[case::what_has_no_letter_has_no_case(json!({"prefix": "/1"}), json!({"prefix": "/1", "caseSensitive": false}), true)]
#[case::any_case_covers_one(json!({"prefix": "/a", "caseSensitive": false}), json!({"prefix": "/A"}), true)]
#[case::one_case_leaves_the_other(json!({"prefix": "/a"}), json!({"prefix": "/a", "caseSensitive": false}), false)]
#[case::more_conditions(json!({"prefix": "/", "headers": [{"name": "x"}]}), json!({"prefix": "/"}), false)]
#[case::same_conditions(json!({"prefix": "/", "headers": [{"name": "x"}]}), json!({"prefix": "/a", "headers": [{"name": "x"}]}), true)]
#[case::a_share(json!({"prefix": "/", "runtimeFraction": {"defaultValue": {"numerator": 50}}}), json!({"prefix": "/"}), false)]
fn a_match_covers_another_only_if_it_takes_all_of_it(
    #[case] first: Value,
    #[case] second: Value,
    #[case] want: bool,
) {
    assert_eq!(covers(&first, &second), want);
}

#[rstest]
#[case::its_own_text(json!({"safeRegex": {"regex": "/[a-z]+"}}), json!({"prefix": "/api"}), true)]
#[case::other_text(json!({"safeRegex": {"regex": "/[0-9]+"}}), json!({"prefix": "/api"}), false)]
#[case::no_regex(json!({"path": "/api"}), json!({"prefix": "/api"}), false)]
#[case::only_with_a_header(json!({"safeRegex": {"regex": "/[a-z]+"}, "headers": [{"name": "x"}]}), json!({"prefix": "/api"}), false)]
fn a_regex_hides_a_prefix_whose_text_it_takes(
    #[case] first: Value,
    #[case] second: Value,
    #[case] want: bool,
) {
    let table = pair(&first, &second);
    let found = &table.virtual_hosts[0].routes;
    assert_eq!(found[0].matches.hides_prefix_of(&found[1].matches), want);
}

/// Short paths over few letters: most pairs have something to do with each other.
fn path() -> impl Strategy<Value = String> {
    "(/[abAB]{0,2}){1,3}"
}

fn one_match() -> impl Strategy<Value = Value> {
    let regex = prop_oneof![
        path(),
        path().prop_map(|it| format!("{it}.*")),
        path().prop_map(|it| format!("{it}*")),
        (path(), path()).prop_map(|(a, b)| format!("{a}|{b}")),
        Just("/[ab]+".to_owned()),
        Just("(?i)/a.*".to_owned()),
    ];
    let path = prop_oneof![
        path().prop_map(|it| json!({"prefix": it})),
        path().prop_map(|it| json!({"path": it})),
        path()
            .prop_filter("ends in a segment", |it| !it.ends_with('/'))
            .prop_map(|it| json!({"pathSeparatedPrefix": it})),
        regex.prop_map(|it| json!({"safeRegex": {"regex": it}})),
    ];
    (
        path,
        any::<bool>(),
        prop::sample::subsequence(vec!["x", "y"], 0..=2),
    )
        .prop_map(|(mut value, case, headers)| {
            value["caseSensitive"] = json!(case);
            let named = headers.iter().map(|name| json!({"name": name}));
            value["headers"] = named.collect();
            value
        })
}

proptest! {
    #[test]
    fn a_route_that_another_covers_is_never_taken(
        matches in prop::collection::vec(one_match(), 2..6),
        asked in prop::collection::vec((path(), prop::sample::subsequence(vec!["x", "y"], 0..=2)), 24),
    ) {
        let list: Vec<Value> = matches
            .iter()
            .map(|it| json!({"match": it, "directResponse": {"status": 200}}))
            .collect();
        let table = routes(Value::Array(list));
        let found = &table.virtual_hosts[0].routes;
        for (path, headers) in asked {
            let headers: Vec<_> = headers.iter().map(|name| (*name, "1")).collect();
            let Some(taken) = table.route(&get("a", &path, &headers)).route else { continue };
            let cover = found[..taken.index]
                .iter()
                .position(|it| it.matches.covers(&found[taken.index].matches));
            prop_assert_eq!(cover, None, "{} went to route {} of {:?}", path, taken.index, matches);
        }
    }
}
