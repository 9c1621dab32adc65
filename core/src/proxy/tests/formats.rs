//! Envoy's format strings, by what they make of a request.

use rstest::rstest;

use super::*;

fn text(format: &str) -> Option<String> {
    let request = get(
        "h",
        "/now?q",
        &[("x-a", "there"), ("x-envoy-original-path", "/first?p")],
    );
    let context = Context {
        remote: Some("192.0.2.7:5000".parse().unwrap()),
        trace_id: Some("7f".to_owned()),
        ..Context::default()
    };
    Format::parse(format).unwrap().text(&request, &context)
}

#[rstest]
#[case::header("%REQ(x-a)%", "there")]
#[case::the_first_header_that_is_there("%REQ(x-b?x-a)%", "there")]
#[case::cut("%REQ(x-a):2%", "th")]
#[case::client("%DOWNSTREAM_REMOTE_ADDRESS%", "192.0.2.7:5000")]
#[case::clients_address("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "192.0.2.7")]
#[case::trace("%TRACE_ID%", "7f")]
#[case::path("%PATH%", "/first?p")]
#[case::path_with_its_query("%PATH(WQ)%", "/first?p")]
#[case::path_without_its_query("%PATH(NQ)%", "/first")]
#[case::path_as_it_is("%PATH(WQ:PATH)%", "/now?q")]
#[case::path_as_it_came("%PATH(NQ:ORIG)%", "/first")]
#[case::path_as_it_came_if_it_was_another("%PATH(:ORIG_OR_PATH)%", "/first?p")]
fn a_format_is_filled_in(#[case] format: &str, #[case] wanted: &str) {
    assert_eq!(text(format).as_deref(), Some(wanted));
}

/// Within parentheses a percent sign closes nothing.
#[rstest]
#[case::time("%START_TIME(%Y/%m)%")]
#[case::path_of_a_length("%PATH(NQ):3%")]
#[case::nested("%COALESCE({\"x\": \"(%)\"})%")]
fn a_command_that_is_not_modelled_is_not_guessed(#[case] format: &str) {
    assert_eq!(text(&format!("a{format}b")), None);
}

#[test]
fn a_path_as_it_came_is_nothing_where_it_was_never_another() {
    let format = Format::parse("[%PATH(WQ:ORIG)%]").unwrap();
    let text = format.text(&get("h", "/now", &[]), &Context::default());
    assert_eq!(text.as_deref(), Some("[]"));
}
