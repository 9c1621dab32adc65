//! A status as Prometheus reads it. Labels are the node's own words: no name of a user's object is
//! among them.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::status::Status;

/// The form of the text.
pub(super) const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

/// All metrics of a status.
pub(super) fn text(status: &Status) -> String {
    let mut registry = Registry::with_prefix("nodeway");
    let gauges = |registry: &mut Registry, name: &str, help: &str| {
        let family = Family::<Labels, Gauge>::default();
        registry.register(name, help, family.clone());
        family
    };
    let frontends = gauges(
        &mut registry,
        "frontends",
        "Frontends that lead to a listener",
    );
    for it in &status.frontends {
        frontends
            .get_or_create(&vec![("state", it.state.clone())])
            .inc();
    }
    let unserved = gauges(
        &mut registry,
        "frontends_unserved",
        "Frontends of the plan whose listener no Envoy has",
    );
    set(&unserved, vec![], status.unserved.len());
    let resources = gauges(
        &mut registry,
        "xds_resources",
        "Resources that Envoys are told, by whether they have what is planned",
    );
    for it in &status.resources {
        let state = match (&it.rejected, it.is_in_sync()) {
            (Some(_), _) => "rejected",
            (None, true) => "in_sync",
            (None, false) => "pending",
        };
        let labels = vec![("kind", it.kind.clone()), ("state", state.to_owned())];
        resources.get_or_create(&labels).inc();
    }
    let connected = gauges(&mut registry, "envoys", "Envoys of this node, by phase");
    let connections = gauges(
        &mut registry,
        "envoy_connections",
        "Clients' connections, by Envoy",
    );
    for it in &status.generations {
        connected
            .get_or_create(&vec![("phase", it.phase.clone())])
            .inc();
        if let Some(open) = it.connections {
            let open = usize::try_from(open).unwrap_or(usize::MAX);
            set(&connections, vec![("generation", it.id.clone())], open);
        }
    }
    let problems = gauges(&mut registry, "problems", "What is wrong with the objects");
    set(&problems, vec![], status.problems.len());
    let errors = [
        (
            "source_error",
            "Whether the source cannot be taken",
            &status.source.error,
        ),
        (
            "datapath_error",
            "Whether the kernel lacks some of the plan",
            &status.datapath_error,
        ),
    ];
    for (name, help, error) in errors {
        let gauge = gauges(&mut registry, name, help);
        set(&gauge, vec![], usize::from(error.is_some()));
    }
    let decisions = Family::<Labels, Counter>::default();
    registry.register(
        "decisions",
        "Decisions of the kernel's hooks",
        decisions.clone(),
    );
    for (hook, reasons) in &status.counters {
        for (reason, count) in reasons {
            let labels = vec![("hook", hook.clone()), ("reason", reason.clone())];
            decisions.get_or_create(&labels).inc_by(*count);
        }
    }
    let mut text = String::new();
    // A string takes everything.
    let _ = encode(&mut text, &registry);
    text
}

fn set(family: &Family<Labels, Gauge>, labels: Labels, value: usize) {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    family.get_or_create(&labels).set(value);
}

#[cfg(test)]
mod tests {
    use super::super::status::{FrontendStatus, GenerationStatus};
    use super::*;

    #[test]
    fn a_status_is_text_that_prometheus_reads() {
        let status = Status {
            generations: vec![GenerationStatus {
                id: "g1".to_owned(),
                phase: "serving".to_owned(),
                connections: Some(3),
                ..GenerationStatus::default()
            }],
            frontends: vec![FrontendStatus {
                address: "10.96.0.1:80".parse().unwrap(),
                service: Some("default/web".to_owned()),
                listener: "default/web/web".to_owned(),
                generation: "g1".to_owned(),
                port: 10_000,
                state: "active".to_owned(),
            }],
            counters: [("tc".to_owned(), [("new".to_owned(), 7)].into())].into(),
            ..Status::default()
        };
        let text = text(&status);
        assert!(!text.contains("default/web"), "{text}");
        insta::assert_snapshot!(text);
    }
}
