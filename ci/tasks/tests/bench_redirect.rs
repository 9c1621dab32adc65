//! `ci/bench redirect` from end to end, as short as it can be. Needs root, Envoy in `$ENVOY` or on
//! `PATH`, `wrk` and `clang`: `ci/setup` gets them.

use std::process::{Command, Stdio};

use nodeway_live::netns::NetNs;
use serde_json::Value;

#[test]
fn each_way_is_measured_for_each_kind_of_connection_and_nothing_stays() {
    let child = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["redirect", "--rounds", "1", "--seconds", "1"])
        .args(["--frontends", "10", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let own = format!("nodeway.bench-{}.", child.id());
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");

    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2 * 6, "{report:#}");
    for row in rows {
        let figure = |name: &str| row["rounds"][0][name].as_f64().unwrap();
        assert!(figure("requests_per_second") > 0.0, "{row:#}");
        assert!(figure("p50_us") <= figure("p99_us"), "{row:#}");
        assert!(figure("envoy_us") > 0.0, "{row:#}");
        assert!(figure("envoy_us") < figure("both_us"), "{row:#}");
    }
    // By hand: that ours and the one in C decide alike is checked there.
    assert_eq!(report["programs"].as_array().unwrap().len(), 2 * 3);

    let left = NetNs::list().unwrap();
    let left: Vec<_> = left.iter().filter(|name| name.starts_with(&own)).collect();
    assert_eq!(left, Vec::<&String>::new());
}
