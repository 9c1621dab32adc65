//! kube-proxy beside every way: what is redirected it never touches, and what is not it translates.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use nodeway_core::netfilter::kube_proxy::Mode;
use nodeway_sim::{Cluster, Fixture, Happening, Redirect, Sim};
use rstest::rstest;

fn start(file: &std::path::Path, redirect: Redirect, kube_proxy: Mode) -> (Fixture, Sim) {
    let fixture = Fixture::load(file.parent().unwrap()).unwrap_or_else(|it| panic!("{it}"));
    let sim = Sim::from_fixture(&fixture).unwrap();
    let sim = sim.redirect(redirect).kube_proxy(kube_proxy);
    (fixture, sim.trace_packets().start().unwrap())
}

fn frontends(sim: &Sim) -> BTreeSet<SocketAddr> {
    let keys = sim.plans().flat_map(|(_, plan)| plan.frontends.keys());
    keys.map(|key| SocketAddr::new(key.address, key.port))
        .collect()
}

#[rstest]
fn no_packet_of_a_frontend_is_translated_behind_our_back(
    #[files("../fixtures/*/fixture.yaml")] file: PathBuf,
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
    #[values(Mode::Iptables, Mode::Nftables)] kube_proxy: Mode,
) {
    let (fixture, mut sim) = start(&file, redirect, kube_proxy);
    for spec in &fixture.requests {
        let _ = sim.request(&spec.from, spec.ask());
    }
    let frontends = frontends(&sim);
    for hop in sim.hops() {
        let Happening::Translated { source, .. } = hop.what else {
            continue;
        };
        if !hop.place.starts_with("node/") {
            // A pod's own rules lead its packets to its own proxy.
            assert_eq!(redirect, Redirect::Sidecar);
            continue;
        }
        assert!(!frontends.contains(&source), "a reply was made up: {hop}");
        let before = hop.flow.map(|flow| {
            let packet = nodeway_core::netfilter::Packet::new(flow);
            (packet.source(), packet.destination())
        });
        let (from, to) = before.unwrap();
        assert!(!frontends.contains(&to), "led elsewhere: {hop}");
        assert!(!frontends.contains(&from), "a reply was changed: {hop}");
    }
}

#[rstest]
fn without_kube_proxy_only_what_is_redirected_arrives(
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
) {
    let file = PathBuf::from("../fixtures/bookinfo/fixture.yaml");
    let (fixture, mut sim) = start(&file, redirect, Mode::None);
    for spec in &fixture.requests {
        if redirect == Redirect::Sidecar && sim.not_applicable(&spec.from).unwrap().is_some() {
            continue;
        }
        let redirected = spec.expect.redirected == Some(true);
        let got = sim.request(&spec.from, spec.ask());
        assert_eq!(got.is_ok(), redirected, "{}", spec.name);
    }
}
