//! What the admin port shows: metrics read off the live state at each scrape, and dumps that people can read.

use crate::{
    certificate::{Authority, seconds},
    engine::Source,
    gateways::Hub,
    health::Results,
    state::Membership,
    status::Reporting,
    synthesis::Presence,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
};
use serde_json::{Value, json};
use std::{fmt, sync::Arc};
use tokio::sync::watch;
use tombolo_feed::{State, Status};
use tombolo_model::{inventory::Inventory, snapshot::ClusterResource};
use tombolo_runtime::admin::{Answer, Routes};

/// Everything that is shown.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) membership: Arc<Membership>,
    pub(crate) snapshot: watch::Receiver<Arc<State<ClusterResource>>>,
    pub(crate) feed: watch::Receiver<Status>,
    pub(crate) source: watch::Receiver<Source>,
    pub(crate) checks: watch::Receiver<Arc<Results>>,
    pub(crate) inventory: watch::Receiver<Option<Arc<Inventory>>>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) reporting: Reporting,
}

impl Shown {
    /// The dumps.
    pub(crate) fn routes(&self) -> Routes {
        let show = |f: fn(&Self, &str) -> Answer| {
            let this = self.clone();
            move |query: &str| f(&this, query)
        };
        Routes::new()
            .get("/dump", "the agent's state in short", show(|s, _| Answer::json(&s.state())))
            .get("/dump/snapshot", "the controller's snapshot in force", show(|s, _| s.resources()))
            .get("/dump/endpoints", "the services here, and which endpoints pass", show(|s, _| s.endpoints()))
            .get("/dump/inventory", "what is reported to the controller", show(|s, _| s.reported()))
            .get("/dump/gateways", "the gateways of this cluster", show(|s, _| Answer::json(&s.hub.dump())))
            .get("/dump/gateway", "what ?instance=NAME is told", show(Self::gateway))
            .get("/dump/status", "the status as the controller gets it", show(|s, _| s.status()))
    }

    fn state(&self) -> Value {
        let feed = self.feed.borrow();
        let intermediate = self.authority.intermediate();
        json!({
            "membership": *self.membership,
            "controller": {
                "connected": feed.connected,
                "generation": feed.generation,
                "newest": feed.newest,
                "lag": feed.lag(),
                "failures": feed.failures,
                "error": feed.error,
                "from_cache": feed.from_cache,
                "cache_error": feed.cache_error,
                "software": feed.sender.as_ref().map(|hello| &hello.software),
            },
            "intermediate": {
                "fingerprint": intermediate.fingerprint(),
                "not_after_s": seconds(intermediate.validity().not_after),
            },
            "status": self.reporting.status(),
        })
    }

    fn resources(&self) -> Answer {
        let state = Arc::clone(&self.snapshot.borrow());
        Answer::json(&json!({ "generation": state.generation, "resources": *state.resources }))
    }

    fn endpoints(&self) -> Answer {
        let results = Arc::clone(&self.checks.borrow());
        let Some(view) = self.source.borrow().clone() else { return Answer::text("not read yet\n") };
        let services: Vec<Value> = view
            .services
            .iter()
            .map(|(key, service)| {
                let ports: Vec<Value> = service
                    .ports
                    .iter()
                    .map(|port| {
                        let endpoints: Vec<Value> = port
                            .endpoints
                            .iter()
                            .map(|(address, endpoint)| {
                                let probe = crate::index::Probe::of(address.socket(), &port.check);
                                json!({
                                    "address": address,
                                    "slice_ready": endpoint.ready,
                                    "check": port.check.to_string(),
                                    "passing": probe.map(|probe| results.get(&probe)),
                                })
                            })
                            .collect();
                        json!({ "port": port.spec, "endpoints": endpoints })
                    })
                    .collect();
                json!({ "service": key, "accounts": service.accounts, "headless": service.headless, "ports": ports })
            })
            .collect();
        Answer::json(&services)
    }

    fn reported(&self) -> Answer {
        match self.inventory.borrow().as_deref() {
            Some(inventory) => Answer::json(inventory),
            None => Answer::text("not known yet\n"),
        }
    }

    fn status(&self) -> Answer {
        Answer::json(&self.reporting.status())
    }

    fn gateway(&self, query: &str) -> Answer {
        let instance = query.strip_prefix("instance=").unwrap_or_default();
        match self.hub.resources(instance) {
            Some(resources) => Answer::json(&resources),
            None => Answer::text("no such gateway; /dump/gateways lists them\n")
                .status(http::StatusCode::NOT_FOUND),
        }
    }
}

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let feed = self.feed.borrow().clone();
        let results = Arc::clone(&self.checks.borrow());
        let gateways = self.hub.gateways();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let passing = results.values().filter(|good| **good).count();
        let services = self.source.borrow().as_ref().map_or(0, |view| view.services.len());
        let ends = seconds(self.authority.intermediate().validity().not_after);
        let gauges: [(&str, &str, i64); 9] = [
            ("controller_connected", "Whether the controller is connected", i64::from(feed.connected)),
            ("snapshot_generation", "The generation in force", number(feed.generation.get())),
            ("snapshot_lag_generations", "Generations behind the controller", number(feed.lag())),
            ("services", "Services of this cluster", count(services)),
            ("endpoints_passing", "Endpoints that pass their health check", count(passing)),
            ("endpoints_failing", "Endpoints that fail their health check", count(results.len() - passing)),
            ("gateways", "Gateways in the set", count(gateways.len())),
            (
                "gateways_connected",
                "Gateways that are connected",
                count(gateways.values().filter(|gateway| gateway.presence == Presence::Connected).count()),
            ),
            ("intermediate_expiry_timestamp_seconds", "When the cluster's intermediate ends", ends),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let problems = ConstGauge::new(count(self.reporting.status().problems.len()));
        let encoder = encoder.encode_descriptor(
            "problems",
            "What was left out, and why",
            None,
            problems.metric_type(),
        )?;
        problems.encode(encoder)
    }
}
