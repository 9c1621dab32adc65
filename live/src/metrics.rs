//! Figures as Prometheus reads them. Labels are the project's own words: no name of a user's object is
//! among them.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The form of the text.
pub(crate) const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) type Labels = Vec<(&'static str, String)>;
pub(crate) type Gauges = Family<Labels, Gauge>;
pub(crate) type Counters = Family<Labels, Counter>;

/// Some figures, each with its name and what it means.
#[derive(Debug)]
pub(crate) struct Metrics(Registry);

impl Metrics {
    pub(crate) fn new() -> Self {
        Self(Registry::with_prefix("nodeway"))
    }

    /// What goes up and down.
    pub(crate) fn gauges(&mut self, name: &str, help: &str) -> Gauges {
        let family = Gauges::default();
        self.0.register(name, help, family.clone());
        family
    }

    /// What only goes up.
    pub(crate) fn counters(&mut self, name: &str, help: &str) -> Counters {
        let family = Counters::default();
        self.0.register(name, help, family.clone());
        family
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // A string takes everything.
        let _ = encode(&mut text, &self.0);
        text
    }
}

pub(crate) fn set(gauges: &Gauges, labels: Labels, value: usize) {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    gauges.get_or_create(&labels).set(value);
}
