//! The JSON form of a report is a promise: its page in the book names every field and every failure.

use std::collections::BTreeSet;

use nodeway_sim::{Failure, Fixture, RunOptions, run};
use serde_json::Value;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures");

fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                // The keys of `listeners` are names of listeners.
                if !key.contains('/') {
                    found.insert(key.clone());
                }
                keys(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        _ => {}
    }
}

#[test]
fn every_field_of_a_report_stands_in_the_book() {
    let page = include_str!("../../book/src/json.md");
    let mut found = BTreeSet::new();
    for name in ["bookinfo", "no-endpoints"] {
        let fixture = Fixture::load(format!("{FIXTURES}/{name}")).unwrap();
        let options = RunOptions {
            trace: true,
            ..RunOptions::default()
        };
        let report = run(&fixture, options).unwrap();
        keys(&serde_json::to_value(&report).unwrap(), &mut found);
    }
    let wanted = [
        "client", "url", "redirect", "listener", "route", "cluster", "endpoint", "status",
    ];
    for key in wanted
        .iter()
        .chain(&["client_saw", "proxy_saw", "backend_saw"])
    {
        assert!(found.contains(*key), "a row has `{key}`");
    }
    let is_told = |key: &&String| {
        let ways = [
            format!("`{key}`"),
            format!("`{key}[]`"),
            format!("\"{key}\""),
        ];
        ways.iter().any(|way| page.contains(way))
    };
    let missing: Vec<&String> = found.iter().filter(|key| !is_told(key)).collect();
    assert!(
        missing.is_empty(),
        "book/src/json.md does not say what these are: {missing:?}"
    );
}

#[test]
fn every_failure_stands_in_the_book() {
    let page = include_str!("../../book/src/json.md");
    let failures = [
        Failure::UnknownName,
        Failure::Unreachable,
        Failure::ConnectionRefused,
        Failure::ConnectionReset,
        Failure::TimedOut,
        Failure::ConnectionClosed,
        Failure::NotHttp,
    ];
    for failure in failures {
        assert!(
            page.contains(&format!("`{}`", failure.name())),
            "{failure:?}"
        );
    }
}
