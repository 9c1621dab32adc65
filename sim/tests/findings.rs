//! Every numbered problem: a fixture shows what its users suffer, and a corrected twin is clean.

use std::path::{Path, PathBuf};

use nodeway_core::problem::{Code, Problem, Severity};
use nodeway_core::source::Text;
use nodeway_sim::{Fixture, Nodes, Redirect, Report, RunOptions, Sim, run};
use rstest::rstest;

/// What no manifest of a readable size can show; a test below makes its source.
const GENERATED: [Code; 2] = [Code::PortsExhausted, Code::TooLarge];

/// What only a real Envoy says; `live/tests/xds.rs` has it say so.
const LIVE: [Code; 1] = [Code::RefusedByEnvoy];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn play(fixture: &Fixture, redirect: Redirect) -> Report {
    let options = RunOptions {
        redirect: Some(redirect),
        ..RunOptions::default()
    };
    run(fixture, options).unwrap_or_else(|it| panic!("{:?}: {it}", fixture.folder))
}

/// The report of a fixture whose expectations all hold.
fn as_expected(folder: &Path, redirect: Redirect) -> Report {
    let fixture = Fixture::load(folder).unwrap_or_else(|it| panic!("{folder:?}: {it}"));
    let report = play(&fixture, redirect);
    assert!(report.expectations > 0, "{folder:?} expects something");
    let broken: Vec<_> = report
        .requests
        .iter()
        .filter(|row| !row.holds())
        .map(|row| format!("{}: {:?}", row.name, row.expectations))
        .collect();
    assert!(broken.is_empty(), "{redirect}:\n{}", broken.join("\n"));
    report
}

/// What `nodeway check` tells of a fixture: lints too, which no run looks for.
fn findings(folder: &Path) -> Vec<Problem> {
    Sim::load(folder).unwrap().start().unwrap().findings()
}

#[test]
fn every_code_has_a_fixture_with_its_twin_and_a_page_that_the_book_lists() {
    let folders: Vec<String> = std::fs::read_dir(root().join("fixtures/findings"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let (summary, index) = (read("book/src/SUMMARY.md"), read("book/src/problems.md"));
    for code in Code::ALL {
        let page = format!("findings/{code}.md");
        let text = read(&format!("book/src/{page}"));
        assert!(text.starts_with(&format!("# {code}: ")), "{page}");
        assert!(summary.contains(&format!("({page})")), "SUMMARY: {code}");
        assert!(index.contains(&format!("({page})")), "problems.md: {code}");
        let mine = folders
            .iter()
            .filter(|it| it.starts_with(&format!("{code}-")));
        let mine: Vec<_> = mine.collect();
        if GENERATED.contains(&code) || LIVE.contains(&code) {
            assert!(mine.is_empty(), "{code} has both a test and a folder");
            continue;
        }
        assert_eq!(mine.len(), 1, "{code} has one folder in fixtures/findings");
        for twin in ["broken", "fixed"] {
            let file = format!("fixtures/findings/{}/{twin}/fixture.yaml", mine[0]);
            assert!(root().join(&file).is_file(), "{file} is missing");
            let shown = format!("$ nodeway sim fixtures/findings/{}/{twin} ", mine[0]);
            assert!(text.contains(&shown), "{page} does not show {shown}");
        }
    }
}

#[rstest]
fn a_broken_fixture_has_its_problem_and_its_effect(
    #[files("../fixtures/findings/*/broken/fixture.yaml")] file: PathBuf,
) {
    let folder = file.parent().unwrap();
    let name = folder.parent().unwrap().file_name().unwrap();
    let wanted = &name.to_str().unwrap()[..6];
    for redirect in Redirect::ALL {
        as_expected(folder, *redirect);
    }
    let found = findings(folder);
    let codes: Vec<String> = found.iter().map(|it| it.code.to_string()).collect();
    assert!(codes.iter().any(|it| it == wanted), "{wanted}: {codes:?}");
}

#[rstest]
fn a_fixed_twin_has_no_problem_and_does_what_was_meant(
    #[files("../fixtures/findings/*/fixed/fixture.yaml")] file: PathBuf,
) {
    for redirect in Redirect::ALL {
        let report = as_expected(file.parent().unwrap(), *redirect);
        assert_eq!(report.problems, [], "{redirect}");
    }
    assert_eq!(findings(file.parent().unwrap()), []);
}

/// One Service led to the last of so many listeners of one config; the listeners carry bare TCP.
fn many_listeners(count: usize) -> Fixture {
    let listeners: String = (0..count)
        .map(|n| {
            format!(
                r#"
    - {{"@type": type.googleapis.com/envoy.config.listener.v3.Listener, name: l{n:05}, filterChains: [
        {{filters: [{{name: tcp, typedConfig: {{
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy,
          statPrefix: tcp, cluster: default/green}}}}]}}]}}"#
            )
        })
        .collect();
    let last = count - 1;
    let config = format!(
        r#"apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata:
  name: many
spec:
  services: [{{ name: blue, namespace: default, listener: l{last:05} }}]
  backendServices: [{{ name: green, namespace: default }}]
  resources:
    - {{"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: default/green, type: EDS}}{listeners}
"#
    );
    let twin = root().join("fixtures/findings/NW0001-misspelt-field/fixed");
    let mut fixture = Fixture::load(twin).unwrap();
    for text in &mut fixture.manifests {
        if text.name.ends_with("config.yaml") {
            *text = Text::new("config.yaml", config.as_str());
        }
    }
    fixture.nodes = Nodes::count(1);
    fixture
}

#[test]
fn the_one_listener_more_than_there_are_ports_gets_no_request() {
    let report = play(&many_listeners(10_002), Redirect::Tc);
    let codes: Vec<Code> = report.problems.iter().map(|it| it.code).collect();
    assert_eq!(codes, [Code::PortsExhausted], "10,001 have theirs");
    assert_eq!(report.requests[0].listener, None);
}

/// A config with an annotation of so many bytes.
fn of_size(bytes: usize) -> Vec<Problem> {
    let twin = root().join("fixtures/findings/NW0001-misspelt-field/fixed");
    let mut fixture = Fixture::load(twin).unwrap();
    for text in &mut fixture.manifests {
        if text.name.ends_with("config.yaml") {
            let note = format!(
                "metadata:\n  annotations: {{ note: {} }}\n",
                "n".repeat(bytes)
            );
            *text = Text::new(
                "config.yaml",
                text.content.replacen("metadata:\n", &note, 1),
            );
        }
    }
    let sim = Sim::from_fixture(&fixture).unwrap().start().unwrap();
    sim.findings()
}

#[rstest]
#[case::small(1_000, None)]
#[case::near(1_100_000, Some(Severity::Warning))]
#[case::over(1_600_000, Some(Severity::Error))]
fn an_object_as_large_as_a_cluster_takes_is_told_before_it_is_applied(
    #[case] bytes: usize,
    #[case] want: Option<Severity>,
) {
    let found = of_size(bytes);
    let told: Vec<_> = found.iter().map(|it| (it.code, it.severity)).collect();
    let want: Vec<_> = want.map(|it| (Code::TooLarge, it)).into_iter().collect();
    assert_eq!(told, want);
}
