//! What the controller counts.

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use tombolo_runtime::metrics::Metrics;

/// Of the reconciler.
#[derive(Clone, Debug)]
pub(crate) struct Reconciled {
    /// Passes made.
    pub(crate) passes: Counter,
    /// Passes that failed.
    pub(crate) failures: Counter,
    /// How long they took.
    pub(crate) seconds: Histogram,
    /// New states published to clusters.
    pub(crate) published: Counter,
    /// Names without a virtual IP because the pool is used up.
    pub(crate) vips_exhausted: Gauge,
}

/// Of the agents' side.
#[derive(Clone, Debug)]
pub(crate) struct Agents {
    /// Feeds open here.
    pub(crate) feeds: Gauge,
    /// Lines sent, by kind.
    pub(crate) lines: Family<[(&'static str, &'static str); 1], Counter>,
    /// Bytes sent on feeds, by the kind of line.
    pub(crate) bytes: Family<[(&'static str, &'static str); 1], Counter>,
    /// From the publishing of a generation to its acknowledgement, where both happen at this replica.
    pub(crate) lag_seconds: Histogram,
    /// Joins, by outcome.
    pub(crate) joins: Family<[(&'static str, &'static str); 1], Counter>,
    /// Inventory updates, by outcome.
    pub(crate) inventories: Family<[(&'static str, &'static str); 1], Counter>,
}

/// Of the HTTPS listener.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    /// Connections open.
    pub(crate) connections: Gauge,
    /// Handshakes that failed.
    pub(crate) handshakes_failed: Counter,
    /// Requests that were refused, by the kind of problem.
    pub(crate) requests_refused: Family<[(&'static str, &'static str); 1], Counter>,
    /// Connections that were closed because an answer was not taken.
    pub(crate) stalled: Counter,
    /// Connections that there was no place for, by what was full.
    pub(crate) refused: Family<[(&'static str, &'static str); 1], Counter>,
}

/// Of the pool of database connections.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    /// Connections open.
    pub(crate) open: Gauge,
    /// Of those, not in use.
    pub(crate) idle: Gauge,
}

fn seconds() -> Histogram {
    Histogram::new([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
}

impl Reconciled {
    /// Registers them.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            passes: metrics.register("reconcile_passes", "Passes of the reconciler", Counter::default()),
            failures: metrics.register(
                "reconcile_failures",
                "Passes of the reconciler that failed",
                Counter::default(),
            ),
            seconds: metrics.register("reconcile_seconds", "Time a pass of the reconciler takes", seconds()),
            published: metrics.register("published", "New states published to clusters", Counter::default()),
            vips_exhausted: metrics.register(
                "vips_exhausted",
                "Names without a virtual IP because the pool is used up",
                Gauge::default(),
            ),
        }
    }
}

impl Agents {
    /// Registers them.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            feeds: metrics.register("feeds", "Feeds of agents open at this replica", Gauge::default()),
            lines: metrics.register("feed_lines", "Lines sent on feeds, by kind", Family::default()),
            bytes: metrics.register(
                "feed_bytes",
                "Bytes sent on feeds, by the kind of line",
                Family::default(),
            ),
            lag_seconds: metrics.register(
                "feed_lag_seconds",
                "From publishing a generation to its acknowledgement",
                seconds(),
            ),
            joins: metrics.register("joins", "Requests to join, by outcome", Family::default()),
            inventories: metrics.register(
                "inventory_updates",
                "Inventory updates, by outcome",
                Family::default(),
            ),
        }
    }
}

impl Listener {
    /// Registers them.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            connections: metrics.register("connections", "HTTPS connections open", Gauge::default()),
            handshakes_failed: metrics.register(
                "handshakes_failed",
                "TLS handshakes that failed",
                Counter::default(),
            ),
            requests_refused: metrics.register(
                "requests_refused",
                "Requests that were refused, by the kind of problem",
                Family::default(),
            ),
            stalled: metrics.register(
                "connections_stalled",
                "Connections closed because an answer waited for its reader for too long",
                Counter::default(),
            ),
            refused: metrics.register(
                "connections_refused",
                "Connections that there was no place for, by what was full",
                Family::default(),
            ),
        }
    }
}

impl Pool {
    /// Registers them.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            open: metrics.register("database_connections", "Database connections open", Gauge::default()),
            idle: metrics.register(
                "database_connections_idle",
                "Database connections not in use",
                Gauge::default(),
            ),
        }
    }
}
