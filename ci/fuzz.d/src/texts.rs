//! What users write and machines print: manifests, fixtures, recordings, an Envoy's dump.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nodeway_core::controllers::Controllers;
use nodeway_core::lint::lint;
use nodeway_core::object::Objects;
use nodeway_core::plan::{Ledger, NodePlan, Planner, plan};
use nodeway_core::recording::{self, Recording};
use nodeway_core::source::{self, SourceError, Text};
use nodeway_sim::replay::replay;
use nodeway_sim::{Ask, Fixture, RunOptions, Sim, run};

/// The manifests of the fixtures that are made up here: the example of the book.
const BOOKINFO: &[(&str, &str)] = &[
    (
        "bookinfo.yaml",
        include_str!("../../../fixtures/bookinfo/manifests/bookinfo.yaml"),
    ),
    (
        "ingress.yaml",
        include_str!("../../../fixtures/bookinfo/manifests/ingress.yaml"),
    ),
];

/// A node with more than this takes longer to ask than it is worth.
const SMALL: usize = 12;

/// Manifests are read, completed, planned and looked through; what is kept of them is read again.
pub(crate) fn manifests(bytes: &[u8]) {
    let Some(objects) = objects(bytes) else {
        return;
    };
    let (objects, _) = Controllers::default().complete(objects);
    let nodes: Vec<String> = objects
        .nodes()
        .filter_map(|it| it.metadata.name.clone())
        .take(SMALL)
        .collect();
    let planners: Vec<Planner> = nodes
        .iter()
        .map(|node| Planner::with_objects(&objects, node, Ledger::default()))
        .collect();
    let plans = nodes
        .iter()
        .map(String::as_str)
        .zip(planners.iter().map(Planner::plan));
    for problem in lint(&objects, plans) {
        assert!(!problem.to_string().is_empty(), "a problem says what it is");
    }
    let kept: Vec<Text> = recording::manifests(&objects)
        .into_iter()
        .map(|(file, text)| Text::new(file, text))
        .collect();
    let again = source::read(&kept).map(|it| it.len());
    assert_eq!(
        again,
        Ok(objects.len()),
        "what is kept is read again: {kept:?}"
    );
}

/// A cluster of manifests starts or says why not, and whoever asks in it gets an answer or a failure.
pub(crate) fn cluster(bytes: &[u8]) {
    let Some(objects) = objects(bytes) else {
        return;
    };
    if objects.len() > SMALL {
        return;
    }
    let Ok(mut sim) = Sim::from_dump(objects).start() else {
        return;
    };
    let pods = names(sim.objects().pods().map(|it| &it.metadata));
    let services = names(sim.objects().services().map(|it| &it.metadata));
    for service in services.iter().take(2) {
        let (namespace, name) = service.split_once('/').unwrap_or(("default", service));
        for from in pods.iter().map(String::as_str).take(1).chain(["outside"]) {
            ask(&mut sim, from, &format!("http://{name}.{namespace}/"));
        }
    }
    sim.run_for(Duration::from_secs(1));
}

/// A request that was sent ends.
fn ask(sim: &mut Sim, from: &str, url: &str) {
    if let Ok(under_way) = sim.send(from, Ask::get(url)) {
        let _ = sim.finish(under_way);
    }
}

fn names<'a>(all: impl Iterator<Item = &'a ObjectMeta>) -> Vec<String> {
    let path = |it: &ObjectMeta| {
        let namespace = it.namespace.as_deref().unwrap_or("default");
        Some(format!("{namespace}/{}", it.name.as_deref()?))
    };
    all.filter_map(path).collect()
}

/// An Envoy's dump is read, and its first listeners are asked.
pub(crate) fn config_dump(bytes: &[u8]) {
    let Some(text) = text("config_dump.json", bytes) else {
        return;
    };
    let known = match source::read_any(&[text]) {
        Ok(known) => known,
        Err(errors) => return refused(&errors),
    };
    let Ok(mut sim) = Sim::from_known(known).start() else {
        return;
    };
    let leading = sim.plans().flat_map(|(_, plan)| plan.frontends.keys());
    let addresses = leading
        .take(2)
        .map(|it| SocketAddr::new(it.address, it.port));
    let urls: Vec<String> = addresses.map(|it| format!("http://{it}/")).collect();
    for url in urls {
        ask(&mut sim, "outside", &url);
    }
}

/// A fixture of the example's manifests is refused, or runs to its end.
pub(crate) fn fixture(bytes: &[u8]) {
    let Some(text) = text("fixture.yaml", bytes) else {
        return;
    };
    let mut fixture = match source::read_one::<Fixture>(&text) {
        Ok(fixture) => fixture,
        Err(errors) => return refused(&errors),
    };
    fixture.manifests = bookinfo();
    if fixture.nodes.0.len() > SMALL || fixture.requests.len() > SMALL {
        return;
    }
    if let Err(error) = run(&fixture, RunOptions::default()) {
        assert!(
            !error.to_string().is_empty(),
            "a fixture that cannot run says why"
        );
    }
}

/// What the example's first node must have.
#[expect(clippy::expect_used, reason = "the example is the project's own")]
pub(crate) fn plan_of_bookinfo() -> NodePlan {
    let objects = source::read(&bookinfo()).expect("the example is read");
    let (objects, _) = Controllers::default().complete(objects);
    plan(&objects, "node-1", Ledger::default())
}

fn bookinfo() -> Vec<Text> {
    BOOKINFO
        .iter()
        .map(|(name, content)| Text::new(*name, *content))
        .collect()
}

/// A recording, its files one after another behind `=== PATH`, is refused or replayed.
pub(crate) fn recording(bytes: &[u8]) {
    let Ok(all) = std::str::from_utf8(bytes) else {
        return;
    };
    let files = all.split("=== ").filter_map(|file| file.split_once('\n'));
    let texts: Vec<Text> = files
        .map(|(name, content)| Text::new(name.trim(), content))
        .collect();
    match Recording::read("recording", &texts) {
        Ok(recording) => drop(replay(&[recording])),
        // A file that is missing has no line.
        Err(errors) => says_why(&errors),
    }
}

fn objects(bytes: &[u8]) -> Option<Objects> {
    let read = source::read(&[text("-", bytes)?]);
    read.inspect_err(|errors| refused(errors)).ok()
}

/// What is no text at all is refused by whoever reads the file.
fn text(name: &str, bytes: &[u8]) -> Option<Text> {
    let content = std::str::from_utf8(bytes).ok()?;
    Some(Text::new(name, content))
}

/// Every mistake says what is wrong, where and what to do.
fn refused(errors: &[SourceError]) {
    says_why(errors);
    let lines = errors.iter().map(|error| error.place.line);
    assert!(lines.min() > Some(0), "a line: {errors:?}");
}

fn says_why(errors: &[SourceError]) {
    assert!(
        !errors.is_empty(),
        "what is refused is refused for something"
    );
    for error in errors {
        assert!(
            !error.reason.is_empty() && !error.fix.is_empty(),
            "a reason and a fix: {error:?}"
        );
    }
}
