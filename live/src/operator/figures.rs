//! What an operator says of itself to whoever asks over HTTP: `/metrics`, `/healthz`, `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use k8s_openapi::jiff::Timestamp;
use nodeway_core::object::Kind;
use tokio::runtime::Runtime;
use tokio::sync::watch::{Receiver, Sender, channel};

use crate::clock::Clock;
use crate::http::{Answer, PortError, not_found, serve_at, text, with_type};
use crate::metrics::{CONTENT, Counters, Gauges, Metrics, set};

/// A turn of the operator's loop is bounded; one that takes longer hangs.
const HANGS: Duration = Duration::from_secs(60);

/// What is counted.
pub(super) struct Figures {
    metrics: Arc<Metrics>,
    objects: Gauges,
    writes: Counters,
    leads: Gauges,
    lease_changes: Counters,
    problems: Gauges,
    source_error: Gauges,
    cilium: Gauges,
    errors: Counters,
    last_error: Gauges,
    /// None before it has listed all.
    health: Sender<Option<Health>>,
    clock: Clock,
}

/// How it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// When its loop turned last.
    pub(super) turned_at: Duration,
    /// Whether it has the Lease.
    pub(super) leads: bool,
    /// Whether the API server tells of all that is watched.
    pub(super) follows: bool,
    /// How much of Cilium's is there.
    pub(super) cilium: usize,
    /// How much is wrong with the Ingresses.
    pub(super) problems: usize,
}

impl Figures {
    pub(super) fn new(clock: Clock) -> Self {
        let mut metrics = Metrics::new();
        let help = "Objects that must be there, and those of them that are not written yet";
        let objects = metrics.gauges("operator_objects", help);
        let help = "Writes to the API server";
        let writes = metrics.counters("operator_writes", help);
        let leads = metrics.gauges("operator_leads", "Whether this operator has the Lease");
        let help = "How often this operator got or lost the Lease";
        let lease_changes = metrics.counters("operator_lease_changes", help);
        let problems = metrics.gauges("problems", "What is wrong with the objects");
        let help = "Whether the source cannot be taken";
        let source_error = metrics.gauges("source_error", help);
        let help = "What of Cilium's has come into the cluster";
        let cilium = metrics.gauges("cilium", help);
        let help = "What was refused, or not answered in time";
        let errors = metrics.counters("operator_errors", help);
        let help = "When something was refused last, in seconds since 1970";
        let last_error = metrics.gauges("operator_last_error_timestamp_seconds", help);
        Self {
            metrics: Arc::new(metrics),
            objects,
            writes,
            leads,
            lease_changes,
            problems,
            source_error,
            cilium,
            errors,
            last_error,
            health: channel(None).0,
            clock,
        }
    }

    /// Answers at an address from then on.
    pub(super) fn serve(&self, runtime: &Runtime, address: SocketAddr) -> Result<(), PortError> {
        let (metrics, health) = (Arc::clone(&self.metrics), self.health.subscribe());
        let clock = self.clock;
        serve_at(runtime, address, move |asked| {
            let (metrics, health) = (Arc::clone(&metrics), health.clone());
            async move { answer(asked.path(), &metrics, &health, clock.now()) }
        })
    }

    /// An object was written, or not.
    pub(super) fn wrote(&self, kind: &'static str, operation: &'static str, done: bool) {
        let outcome = if done { "done" } else { "refused" };
        let labels = vec![
            ("kind", kind.to_owned()),
            ("operation", operation.to_owned()),
            ("outcome", outcome.to_owned()),
        ];
        self.writes.get_or_create(&labels).inc();
        if !done {
            self.failed("write");
        }
    }

    /// Something went wrong.
    pub(super) fn failed(&self, what: &'static str) {
        let labels = vec![("what", what.to_owned())];
        self.errors.get_or_create(&labels).inc();
        let now = Timestamp::now().as_second();
        self.last_error.get_or_create(&labels).set(now);
    }

    /// It has the Lease since now, or has lost it.
    pub(super) fn lease_changed(&self) {
        self.lease_changes.get_or_create(&vec![]).inc();
    }

    /// How many objects of a kind must be there, and how many of them wait to be written.
    pub(super) fn objects(&self, kind: Kind, wanted: usize, waiting: usize) {
        for (state, count) in [("wanted", wanted), ("waiting", waiting)] {
            let labels = vec![
                ("kind", kind.name().to_owned()),
                ("state", state.to_owned()),
            ];
            set(&self.objects, labels, count);
        }
    }

    /// How it stands after a turn.
    pub(super) fn turned(&self, mut health: Health) {
        health.turned_at = self.clock.now();
        set(&self.leads, vec![], usize::from(health.leads));
        set(&self.problems, vec![], health.problems);
        set(&self.source_error, vec![], usize::from(!health.follows));
        set(&self.cilium, vec![], health.cilium);
        self.health.send_replace(Some(health));
    }
}

fn answer(
    path: &str,
    metrics: &Metrics,
    health: &Receiver<Option<Health>>,
    now: Duration,
) -> Answer {
    let health = *health.borrow();
    // How long the first lists may take is bounded elsewhere.
    let hangs = |it: Health| now.saturating_sub(it.turned_at) > HANGS;
    match path {
        "/healthz" if health.is_some_and(hangs) => {
            text(StatusCode::SERVICE_UNAVAILABLE, "the operator hangs\n")
        }
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => ready(health),
        "/metrics" => with_type(StatusCode::OK, CONTENT, metrics.text()),
        _ => not_found(),
    }
}

/// One that waits for the Lease is as ready as one that has it.
fn ready(health: Option<Health>) -> Answer {
    let Some(health) = health else {
        let why = "not all is listed yet\n";
        return text(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    if health.cilium > 0 {
        let why = "Cilium is in this cluster: nothing is written\n";
        return text(StatusCode::SERVICE_UNAVAILABLE, why);
    }
    let role = if health.leads {
        "has the Lease"
    } else {
        "waits for the Lease"
    };
    let follows = if health.follows {
        ""
    } else {
        "; the API server does not tell of all"
    };
    text(StatusCode::OK, format!("ready; {role}{follows}\n"))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use rstest::rstest;

    use super::*;

    fn figures() -> Figures {
        Figures::new(Clock::start())
    }

    fn answered(figures: &Figures, path: &str, now: Duration) -> (u16, String) {
        let answer = answer(path, &figures.metrics, &figures.health.subscribe(), now);
        let status = answer.status().as_u16();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let body = runtime
            .build()
            .unwrap()
            .block_on(answer.into_body().collect());
        let body = body.unwrap().to_bytes().to_vec();
        (status, String::from_utf8(body).unwrap())
    }

    #[test]
    fn what_is_counted_is_text_that_prometheus_reads() {
        let figures = figures();
        figures.wrote("CiliumEnvoyConfig", "apply", true);
        figures.wrote("Ingress", "status", true);
        figures.objects(Kind::Service, 3, 1);
        figures.lease_changed();
        figures.turned(Health {
            leads: true,
            follows: true,
            problems: 2,
            ..Health::default()
        });
        let (_, text) = answered(&figures, "/metrics", Duration::ZERO);
        // Those of one name are in no order.
        let mut lines: Vec<&str> = text.lines().filter(|it| !it.starts_with('#')).collect();
        lines.sort_unstable();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn what_is_refused_is_counted_with_its_time() {
        let figures = figures();
        figures.wrote("Service", "delete", false);
        let (_, text) = answered(&figures, "/metrics", Duration::ZERO);
        let line = r#"nodeway_operator_last_error_timestamp_seconds{what="write"} "#;
        let at = text.lines().find_map(|it| it.strip_prefix(line));
        assert!(at.unwrap().parse::<i64>().unwrap() > 1_700_000_000);
        assert!(text.contains(r#"nodeway_operator_errors_total{what="write"} 1"#));
    }

    #[rstest]
    #[case::with_the_lease(Health { leads: true, follows: true, ..Health::default() }, 200, "ready; has the Lease\n")]
    #[case::without(Health { follows: true, ..Health::default() }, 200, "ready; waits for the Lease\n")]
    #[case::cut_off(
        Health::default(),
        200,
        "ready; waits for the Lease; the API server does not tell of all\n"
    )]
    #[case::beside_cilium(Health { leads: true, follows: true, cilium: 1, ..Health::default() }, 503, "Cilium is in this cluster: nothing is written\n")]
    fn it_says_whether_it_is_ready(
        #[case] health: Health,
        #[case] status: u16,
        #[case] words: &str,
    ) {
        let figures = figures();
        figures.turned(health);
        let answered = answered(&figures, "/readyz", Duration::ZERO);
        assert_eq!(answered, (status, words.to_owned()));
    }

    #[test]
    fn before_all_is_listed_it_is_not_ready() {
        assert_eq!(answered(&figures(), "/readyz", Duration::ZERO).0, 503);
    }

    #[test]
    fn a_loop_that_does_not_turn_is_not_healthy() {
        let figures = figures();
        figures.turned(Health::default());
        assert_eq!(answered(&figures, "/healthz", Duration::ZERO).0, 200);
        let later = HANGS + Duration::from_secs(10);
        assert_eq!(answered(&figures, "/healthz", later).0, 503);
    }
}
