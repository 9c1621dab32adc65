//! What the command answers, by exit code and by what it is told to look at.
//! Whole outputs are compared by the book (`ci/book`).

use std::process::{Output, Stdio};

use rstest::rstest;

use crate::process::{command, nodeway};

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

const DETAILS: &str = "http://cilium-ingress-basic-ingress/details/0";

fn explain(from: &str, to: &str, more: &[&str]) -> Output {
    let first = ["explain", "fixtures/bookinfo", "--from", from, "--to", to];
    nodeway(&[&first, more].concat())
}

#[rstest]
#[case::holds("status=200,service=details", 0)]
#[case::names(
    "client_saw=default/cilium-ingress-basic-ingress:80,proxy_node=node-1",
    0
)]
#[case::does_not_hold("status=404", 1)]
#[case::half("status=200,service=ratings", 1)]
fn an_expectation_decides_the_exit_code(#[case] expect: &str, #[case] code: i32) {
    let output = explain("default/client", DETAILS, &["--expect", expect]);
    assert_eq!(output.status.code(), Some(code), "{}", text(&output));
}

#[rstest]
#[case::pod("default/client", DETAILS)]
#[case::deployment("default/productpage-v1", DETAILS)]
#[case::short("client", DETAILS)]
#[case::outside("outside", DETAILS)]
#[case::outside_by_name("outside/client", DETAILS)]
#[case::node("node/node-2", DETAILS)]
#[case::address_of_a_node("172.18.0.2", DETAILS)]
fn whoever_asks_is_answered_by_details(
    #[case] from: &str,
    #[case] to: &str,
    #[values("tc", "sk-lookup")] redirect: &str,
) {
    let more = [
        "--redirect",
        redirect,
        "--expect",
        "status=200,service=details",
    ];
    let output = explain(from, to, &more);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn a_method_and_headers_reach_the_backend() {
    let more = [
        "-X",
        "POST",
        "-H",
        "x-answer-status: 418",
        "-d",
        "hello",
        "-o",
        "json",
    ];
    let output = nodeway(
        &[
            &[
                "explain",
                "fixtures/hosts",
                "--from",
                "client",
                "--to",
                "http://shop/",
            ],
            more.as_slice(),
        ]
        .concat(),
    );
    let answer: serde_json::Value = serde_json::from_str(&text(&output)).unwrap();
    assert_eq!(
        answer.pointer("/request/status"),
        Some(&418.into()),
        "{answer}"
    );
    assert_eq!(answer.pointer("/request/method"), Some(&"POST".into()));
}

#[test]
fn a_service_of_its_own_is_not_redirected_because_no_config_lists_it() {
    let output = text(&explain("default/client", "http://productpage:9080/", &[]));
    assert!(output.contains("nothing is redirected"), "{output}");
    let why = "no CiliumEnvoyConfig lists Service default/productpage under `services`";
    assert!(output.contains(why), "{output}");
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_gives_other_times() {
    let run = |seed| nodeway(&["sim", "fixtures/bookinfo", "--trace", "--seed", seed]);
    assert_eq!(text(&run("7")), text(&run("7")));
    let times = |seed| {
        let output = nodeway(&["sim", "fixtures/bookinfo", "-o", "json", "--seed", seed]);
        let report: serde_json::Value = serde_json::from_str(&text(&output)).unwrap();
        let rows = report
            .get("requests")
            .and_then(|rows| rows.as_array())
            .cloned()
            .unwrap();
        rows.iter()
            .map(|row| row.get("time_ms").cloned().unwrap())
            .collect::<Vec<_>>()
    };
    assert_ne!(times("7"), times("8"));
}

#[test]
fn all_redirects_stand_side_by_side() {
    let output = nodeway(&["sim", "fixtures/bookinfo", "--redirect", "all"]);
    assert_eq!(output.status.code(), Some(0));
    let text = text(&output);
    let line = |way: &str| {
        let mut lines = text.lines().filter(|line| line.contains(way));
        let words = lines.next().unwrap().split_whitespace();
        words.collect::<Vec<_>>().join(" ")
    };
    // Proxies, connections, hops: a pod's own proxies are two, and `lo` is at both ends.
    for way in ["tc", "sk-lookup", "iptables"] {
        let wanted = "200 details-v1-1 on node-2 on node-1 1 2 3 0.820 ms";
        assert_eq!(line(&format!(" {way} ")), format!("✓ {way} {wanted}"));
    }
    let wanted = "✓ sidecar 200 details-v1-1 on node-2 in client 2 3 5 0.906 ms";
    assert_eq!(line(" sidecar "), wanted);
    assert_eq!(text.matches("not applicable\n").count(), 2, "{text}");
}

#[test]
fn a_fixture_whose_expectation_does_not_hold_ends_with_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("manifests")).unwrap();
    for name in ["bookinfo.yaml", "client.yaml", "ingress.yaml"] {
        let from = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../fixtures/bookinfo/manifests"
        );
        let to = folder.path().join("manifests").join(name);
        std::fs::copy(std::path::Path::new(from).join(name), to).unwrap();
    }
    let fixture =
        format!("requests:\n- {{from: client, to: '{DETAILS}', expect: {{status: 500}}}}\n");
    std::fs::write(folder.path().join("fixture.yaml"), fixture).unwrap();
    let output = nodeway(&["sim", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("status is 200, expected 500"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_reader_who_has_seen_enough_ends_the_command_in_peace() {
    let mut child = command(&["sim", "fixtures/path-types", "--trace", "--redirect", "all"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}
