//! Every fixture's plans start a real Envoy: it says so itself, with `--mode validate`.

use std::path::{Path, PathBuf};

use nodeway_core::envoy::bootstrap::Placement;
use nodeway_core::plan::NodePlan;
use nodeway_live::envoy::{EnvoyOptions, find, validate};
use nodeway_sim::{Fixture, Sim};
use rstest::rstest;

fn plans(fixture: &Path) -> Vec<(String, NodePlan)> {
    let fixture = Fixture::load(fixture.parent().unwrap()).unwrap();
    let sim = Sim::from_fixture(&fixture).unwrap().start().unwrap();
    let plans = sim.plans();
    plans
        .map(|(node, plan)| (node.to_owned(), plan.clone()))
        .collect()
}

#[rstest]
fn envoy_takes_the_plan_of_every_node(
    #[files("../fixtures/*/fixture.yaml")]
    #[files("../fixtures/incidents/*/fixture.yaml")]
    fixture: PathBuf,
    #[values(Placement::Node, Placement::Sidecar)] placement: Placement,
) {
    let program = find(None).unwrap_or_else(|error| panic!("{error}"));
    let folder = tempfile::tempdir().unwrap();
    for (node, plan) in plans(&fixture) {
        let options = EnvoyOptions {
            placement,
            ..EnvoyOptions::new(program.clone(), folder.path().join(&node), &node)
        };
        validate(&plan, &options).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn envoy_refuses_a_plan_that_is_none_in_its_own_words() {
    let program = find(None).unwrap_or_else(|error| panic!("{error}"));
    let folder = tempfile::tempdir().unwrap();
    let fixture = PathBuf::from("../fixtures/bookinfo/fixture.yaml");
    let (node, mut plan) = plans(&fixture).remove(0);
    // A second cluster under the name of the first.
    let twin = plan.clusters.values().next().unwrap().clone();
    plan.clusters.insert("twin".into(), twin);
    let options = EnvoyOptions::new(program, folder.path().join(&node), &node);
    let error = validate(&plan, &options).unwrap_err();
    assert!(error.to_string().contains("duplicate cluster"), "{error}");
    assert!(!options.folder.exists());
}
