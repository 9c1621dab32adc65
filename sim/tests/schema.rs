//! The JSON form of a report is a promise: its page in the book names every field, and no other.

use std::collections::BTreeSet;

use nodeway_sim::{Fixture, RunOptions, run};
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
    let missing: Vec<&String> = found
        .iter()
        .filter(|key| !page.contains(&format!("`{key}`")) && !page.contains(&format!("\"{key}\"")))
        .collect();
    assert!(
        missing.is_empty(),
        "book/src/json.md does not say what these are: {missing:?}"
    );
}
