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
    frontends(&mut registry, status);
    envoys(&mut registry, status);
    health(&mut registry, status);
    decisions(&mut registry, status);
    let mut text = String::new();
    // A string takes everything.
    let _ = encode(&mut text, &registry);
    text
}

fn gauges(registry: &mut Registry, name: &str, help: &str) -> Family<Labels, Gauge> {
    let family = Family::default();
    registry.register(name, help, Family::clone(&family));
    family
}

fn frontends(registry: &mut Registry, status: &Status) {
    let led = gauges(registry, "frontends", "Frontends that lead to a listener");
    for it in &status.frontends {
        let labels = vec![("state", it.state.name().to_owned())];
        led.get_or_create(&labels).inc();
    }
    let help = "Frontends of the plan whose listener no Envoy has";
    let unserved = gauges(registry, "frontends_unserved", help);
    set(&unserved, vec![], status.unserved.len());
}

fn envoys(registry: &mut Registry, status: &Status) {
    let help = "Resources that Envoys are told, by whether they have what is planned";
    let resources = gauges(registry, "xds_resources", help);
    for it in &status.resources {
        let state = match (&it.rejected, it.is_in_sync()) {
            (Some(_), _) => "rejected",
            (None, true) if !it.is_asked_for() => "unasked",
            (None, true) => "in_sync",
            (None, false) => "pending",
        };
        let labels = vec![("kind", it.kind.clone()), ("state", state.to_owned())];
        resources.get_or_create(&labels).inc();
    }
    let running = gauges(registry, "envoys", "Envoys of this node, by phase");
    let help = "Clients' connections, by Envoy";
    let connections = gauges(registry, "envoy_connections", help);
    for it in &status.generations {
        let labels = vec![("phase", it.phase.clone())];
        running.get_or_create(&labels).inc();
        if let Some(open) = it.connections {
            let open = usize::try_from(open).unwrap_or(usize::MAX);
            set(&connections, vec![("generation", it.id.clone())], open);
        }
    }
}

fn health(registry: &mut Registry, status: &Status) {
    let problems = gauges(registry, "problems", "What is wrong with the objects");
    set(&problems, vec![], status.problems.len());
    let source = gauges(
        registry,
        "source_error",
        "Whether the source cannot be taken",
    );
    set(&source, vec![], usize::from(status.source.error.is_some()));
    let help = "Whether the kernel lacks some of the plan";
    let datapath = gauges(registry, "datapath_error", help);
    set(
        &datapath,
        vec![],
        usize::from(status.datapath_error.is_some()),
    );
}

fn decisions(registry: &mut Registry, status: &Status) {
    let decisions = Family::<Labels, Counter>::default();
    let help = "Decisions of the kernel's hooks";
    registry.register("decisions", help, decisions.clone());
    for (hook, reasons) in &status.counters {
        for (reason, count) in reasons {
            let labels = vec![("hook", hook.clone()), ("reason", reason.clone())];
            decisions.get_or_create(&labels).inc_by(*count);
        }
    }
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
                state: nodeway_core::datapath::FrontendState::Active,
            }],
            counters: [("tc".to_owned(), [("new".to_owned(), 7)].into())].into(),
            ..Status::default()
        };
        let text = text(&status);
        assert!(!text.contains("default/web"), "{text}");
        insta::assert_snapshot!(text);
    }
}
