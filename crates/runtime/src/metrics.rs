//! The metrics of a process, in the OpenMetrics text format. Names come out as `tombolo_<part>_<name>`; label values come from enums, never from
//! what a peer sent.

use prometheus_client::{
    encoding::text,
    metrics::{family::Family, gauge::Gauge},
    registry::{Metric, Registry},
};
use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

/// What [`Metrics::encode`] makes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry of a process.
pub struct Metrics(Mutex<Registry>);

impl Metrics {
    /// An empty registry for a part (`controller`, `agent`, `gateway`), with `tombolo_<part>_build_info{version=…} 1` in it.
    #[must_use]
    pub fn new(part: &str) -> Self {
        let mut registry = Registry::with_prefix(format!("tombolo_{part}"));
        let build: Family<[(&'static str, &'static str); 1], Gauge> = Family::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        registry.register("build_info", "The version that runs", build);
        Self(Mutex::new(registry))
    }

    /// Adds a metric, and gives it back to be counted with. `help` is a sentence without a dot at its end.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.with(|registry| registry.register(name, help, metric.clone()));
        metric
    }

    /// Works on the registry itself: sub-registries, collectors.
    pub fn with<T>(&self, work: impl FnOnce(&mut Registry) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All metrics as text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail; a metric that can't be written is left out with what follows it.
        let _ = self.with(|registry| text::encode(&mut text, registry));
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn counts_under_the_part() {
        let metrics = Metrics::new("gateway");
        let refused: Counter = metrics.register("refusals", "Requests refused", Counter::default());
        refused.inc();
        let text = metrics.encode();
        assert!(text.contains("tombolo_gateway_refusals_total 1"), "{text}");
        assert!(text.contains("tombolo_gateway_build_info{version="), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
