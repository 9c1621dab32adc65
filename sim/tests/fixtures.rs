//! Every fixture, by every redirect: its expectations hold, and one seed gives one run.

use std::path::{Path, PathBuf};

use nodeway_sim::{Fixture, Redirect, Report, Row, RunOptions, Seen, run};
use rstest::rstest;

fn play(fixture: &Path, redirect: Redirect, seed: Option<u64>) -> Report {
    let fixture =
        Fixture::load(fixture.parent().unwrap()).unwrap_or_else(|errors| panic!("{errors}"));
    let options = RunOptions {
        redirect: Some(redirect),
        seed,
        trace: true,
        capture: false,
    };
    run(&fixture, options).unwrap_or_else(|error| panic!("{error}"))
}

/// What a run has asked: by `sidecar`, only what pods ask.
fn applicable(report: &Report) -> impl Iterator<Item = &Row> {
    report.requests.iter().filter(|row| row.applicable)
}

#[rstest]
fn every_expectation_of_a_fixture_holds(
    #[files("../fixtures/*/fixture.yaml")]
    #[files("../fixtures/faults/*/fixture.yaml")]
    fixture: PathBuf,
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
) {
    let report = play(&fixture, redirect, None);
    assert!(!report.requests.is_empty(), "a fixture asks for something");
    let mut broken = Vec::new();
    for row in applicable(&report) {
        assert!(
            !row.expectations.is_empty(),
            "`{}` expects something",
            row.name
        );
        for checked in row.expectations.iter().filter(|checked| !checked.held) {
            broken.push(format!(
                "{} ({} -> {}): {} is {}, not {}",
                row.name, row.client, row.url, checked.what, checked.got, checked.want
            ));
        }
    }
    assert!(broken.is_empty(), "{redirect}:\n{}", broken.join("\n"));
    assert_eq!(report.held, report.expectations);
}

#[rstest]
fn a_fixture_hangs_on_no_seed(
    #[files("../fixtures/*/fixture.yaml")]
    #[files("../fixtures/faults/*/fixture.yaml")]
    fixture: PathBuf,
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
) {
    for seed in 0..8 {
        let report = play(&fixture, redirect, Some(seed));
        let broken: Vec<_> = report.requests.iter().filter(|row| !row.holds()).collect();
        assert!(broken.is_empty(), "seed {seed}: {broken:?}");
    }
}

#[rstest]
fn one_seed_gives_one_run_byte_for_byte(
    #[files("../fixtures/*/fixture.yaml")]
    #[files("../fixtures/faults/*/fixture.yaml")]
    #[files("../fixtures/incidents/*/fixture.yaml")]
    fixture: PathBuf,
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
) {
    let bytes = |report: Report| serde_json::to_string(&report).unwrap();
    let once = play(&fixture, redirect, Some(7));
    assert!(!once.hops.is_empty(), "every hop of every packet is in it");
    assert_eq!(bytes(once), bytes(play(&fixture, redirect, Some(7))));
}

#[rstest]
fn another_seed_gives_another_timing(
    #[files("../fixtures/*/fixture.yaml")] fixture: PathBuf,
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
) {
    let times = |seed| -> Vec<f64> {
        let report = play(&fixture, redirect, Some(seed));
        applicable(&report).map(|row| row.time_ms).collect()
    };
    let (seven, eight) = (times(7), times(8));
    assert!(seven.iter().all(|time| *time > 0.0), "{seven:?}");
    assert_ne!(seven, eight);
}

#[rstest]
fn the_ways_per_node_agree_on_everything_but_time(
    #[files("../fixtures/*/fixture.yaml")] fixture: PathBuf,
    #[values(Redirect::SkLookup, Redirect::Iptables)] other: Redirect,
) {
    let [tc, other] = [Redirect::Tc, other].map(|redirect| {
        let rows = play(&fixture, redirect, Some(7)).requests;
        rows.iter().map(answer).collect::<Vec<_>>()
    });
    assert_eq!(tc, other);
}

#[rstest]
fn a_pods_own_proxy_gives_the_answer_that_its_nodes_would(
    #[files("../fixtures/*/fixture.yaml")] fixture: PathBuf,
) {
    let [tc, sidecar] =
        [Redirect::Tc, Redirect::Sidecar].map(|redirect| play(&fixture, redirect, Some(7)));
    for (row, own) in tc.requests.iter().zip(&sidecar.requests) {
        let from_pod = !row.client.starts_with("node/") && !row.client.starts_with("outside");
        assert_eq!(own.applicable, from_pod, "{}", own.client);
        if !from_pod {
            assert_eq!((own.status, own.failure), (None, None), "nothing was asked");
            continue;
        }
        let name = |seen: &Option<Seen>| {
            let seen = seen.as_ref().filter(|_| row.status.is_some());
            seen.map(|seen| (seen.address.ip(), seen.name.clone()))
        };
        let answer = |row: &Row| {
            let listener = (row.redirected, row.listener.clone(), row.route.clone());
            (row.url.clone(), row.status, listener, name(&row.client_saw))
        };
        assert_eq!(answer(row), answer(own));
        if row.redirected {
            assert_eq!(name(&row.proxy_saw), name(&own.proxy_saw), "{}", row.name);
            assert_eq!(own.proxy_pod.as_ref(), Some(&own.client), "{}", row.name);
            assert_eq!(own.proxy_node, row.proxy_node, "{}", row.name);
        }
        if let Some(pod) = &own.pod {
            // One proxy more, one connection more, and `lo` at both ends.
            let more = if row.redirected { 1 } else { 2 };
            assert_eq!(own.proxies, row.proxies + more, "{}", row.name);
            assert_eq!(own.connections, row.connections + more, "{}", row.name);
            let hops = if own.client == *pod {
                own.hops
            } else {
                row.hops + 2
            };
            assert_eq!(own.hops, hops, "{}", row.name);
        }
    }
}

/// What does not depend on how packets come to the listener.
fn answer(row: &Row) -> String {
    let seen = |seen: &Option<Seen>| {
        let seen = seen.as_ref();
        // A connect hook leads the node's own calls over loopback, a look-up of sockets does not:
        // the same node under another address.
        let address = seen.map(|seen| seen.address.ip());
        let address = address.filter(|_| !row.client.starts_with("node/"));
        (address, seen.and_then(|seen| seen.name.clone()))
    };
    format!(
        "{} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        row.url,
        row.status,
        row.failure,
        row.listener,
        row.route,
        row.cluster,
        row.endpoint,
        seen(&row.client_saw),
        seen(&row.proxy_saw),
        seen(&row.backend_saw),
    )
}
