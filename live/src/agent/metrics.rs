//! A status as Prometheus reads it.

use super::status::Status;
use crate::metrics::{Metrics, set};

/// All metrics of a status.
pub(super) fn text(status: &Status) -> String {
    let mut metrics = Metrics::new();
    frontends(&mut metrics, status);
    envoys(&mut metrics, status);
    health(&mut metrics, status);
    decisions(&mut metrics, status);
    metrics.text()
}

fn frontends(metrics: &mut Metrics, status: &Status) {
    let led = metrics.gauges("frontends", "Frontends that lead to a listener");
    for it in &status.frontends {
        let labels = vec![("state", it.state.name().to_owned())];
        led.get_or_create(&labels).inc();
    }
    let help = "Frontends of the plan whose listener no Envoy has";
    let unserved = metrics.gauges("frontends_unserved", help);
    set(&unserved, vec![], status.unserved.len());
}

fn envoys(metrics: &mut Metrics, status: &Status) {
    let help = "Resources that Envoys are told, by whether they have what is planned";
    let resources = metrics.gauges("xds_resources", help);
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
    let running = metrics.gauges("envoys", "Envoys of this node, by phase");
    let help = "Clients' connections, by Envoy";
    let connections = metrics.gauges("envoy_connections", help);
    for it in &status.generations {
        let labels = vec![("phase", it.phase.clone())];
        running.get_or_create(&labels).inc();
        if let Some(open) = it.connections {
            let open = usize::try_from(open).unwrap_or(usize::MAX);
            set(&connections, vec![("generation", it.id.clone())], open);
        }
    }
}

fn health(metrics: &mut Metrics, status: &Status) {
    let problems = metrics.gauges("problems", "What is wrong with the objects");
    set(&problems, vec![], status.problems.len());
    let source = metrics.gauges("source_error", "Whether the source cannot be taken");
    set(&source, vec![], usize::from(status.source.error.is_some()));
    let help = "What of Cilium's has come into the cluster";
    let cilium = metrics.gauges("cilium", help);
    set(&cilium, vec![], status.cilium.len());
    let help = "Whether the kernel lacks some of the plan";
    let datapath = metrics.gauges("datapath_error", help);
    set(
        &datapath,
        vec![],
        usize::from(status.datapath_error.is_some()),
    );
}

fn decisions(metrics: &mut Metrics, status: &Status) {
    let decisions = metrics.counters("decisions", "Decisions of the kernel's hooks");
    for (hook, reasons) in &status.counters {
        for (reason, count) in reasons {
            let labels = vec![("hook", hook.clone()), ("reason", reason.clone())];
            decisions.get_or_create(&labels).inc_by(*count);
        }
    }
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
