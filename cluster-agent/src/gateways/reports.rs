//! What the set of gateways says of itself: to the controller, and to people.

use super::{
    entry::Entry,
    hub::{Hub, Inner},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
};
use tokio::time::Instant;
use tombolo_model::{GatewayRole, Generation};
use tombolo_wire::message::{GatewayHello, GatewayReport, GatewayStatus, Problem};

impl Hub {
    /// The gateways as the controller is told of them. Those that vanished are not in it.
    #[must_use]
    pub fn gateway_reports(&self) -> Vec<GatewayReport> {
        let inner = self.lock();
        let connected = inner.entries.values().filter(|entry| entry.vanished.is_none());
        let mut all: BTreeMap<String, GatewayReport> =
            connected.map(|entry| report(&entry.hello, inner.status_of(entry))).collect();
        for there in inner.others.known().map(|(_, there)| there).filter(|there| there.connected) {
            let (instance, report) = report(&there.hello, there.status.clone());
            all.entry(instance).or_insert(report);
        }
        all.into_values().collect()
    }

    /// Where other clusters may reach the ingress gateways.
    #[must_use]
    pub fn ingress(&self) -> BTreeSet<String> {
        let gateways = self.gateways();
        let ingress = gateways.values().filter(|gateway| gateway.hello.role == GatewayRole::Ingress);
        ingress.flat_map(|gateway| gateway.hello.advertise.iter().cloned()).collect()
    }

    /// How many ingress gateways may carry calls of peers: all that are connected, on their way out too.
    #[must_use]
    pub(crate) fn serving(&self) -> usize {
        let inner = self.lock();
        let is_ingress = |hello: &GatewayHello| hello.role == GatewayRole::Ingress;
        let here = inner.entries.iter().filter(|(_, entry)| is_ingress(&entry.hello));
        let mut all: BTreeSet<&String> =
            here.filter(|(_, entry)| entry.vanished.is_none()).map(|(instance, _)| instance).collect();
        let there = inner.others.known().filter(|(_, there)| is_ingress(&there.hello));
        all.extend(
            there.filter(|(_, there)| there.connected || there.status.leaving).map(|(instance, _)| instance),
        );
        all.len()
    }

    /// Where everything is `removed` by order: until when calls under way may end, and how many ingress gateways may carry some. None where
    /// there is none any more. All parts of the agent ask here, so that they end together.
    #[must_use]
    pub(crate) fn ending(&self, removed: bool, now: Instant) -> Option<(Instant, usize)> {
        let serving = if removed { self.serving() } else { 0 };
        let mut farewell = self.farewell.lock().unwrap_or_else(PoisonError::into_inner);
        farewell.until(removed, serving, now).map(|until| (until, serving))
    }

    /// What the gateways say is wrong, and whether there is room for another one.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let inner = self.lock();
        let mut all = Vec::new();
        for (instance, entry) in &inner.entries {
            if let Some((_, why)) = &entry.refused {
                let subject = format!("gateway {instance}");
                all.push(Problem { subject, message: format!("refuses its state: {why}") });
            }
        }
        if inner.entries.len() >= self.config.most {
            let most = self.config.most;
            let message = format!(
                "this agent has {most}, as many as it takes: another one is not taken, and a pod of capture mode sidecar that comes to it does \
                 not start. Run more replicas of the agent, or use mode node or gateway for some namespaces"
            );
            all.push(Problem { subject: "gateways".to_owned(), message });
        }
        all
    }

    /// What stands in a dump.
    #[must_use]
    pub fn dump(&self) -> Vec<serde_json::Value> {
        let inner = self.lock();
        let here = inner.entries.values().map(|entry| {
            serde_json::json!({
                "hello": entry.hello,
                "connected": entry.vanished.is_none(),
                "generation": entry.publisher.generation(),
                "acknowledged": entry.acked,
                "refused": entry.refused,
                "resources": entry.publisher.resources().len(),
                "status": entry.status,
            })
        });
        let there = inner.others.known().map(|(_, there)| {
            serde_json::json!({
                "hello": there.hello, "connected": there.connected, "status": there.status, "replica": there.replica,
            })
        });
        here.chain(there).collect()
    }

    /// What one gateway is told, for a dump.
    #[must_use]
    pub fn resources(&self, instance: &str) -> Option<serde_json::Value> {
        let inner = self.lock();
        serde_json::to_value(inner.entries.get(instance)?.publisher.resources()).ok()
    }
}

fn report(hello: &GatewayHello, status: GatewayStatus) -> (String, GatewayReport) {
    let report = GatewayReport {
        instance: hello.instance.clone(),
        role: hello.role,
        software: hello.hello.software.clone(),
        admin: hello.admin,
        status,
    };
    (hello.instance.clone(), report)
}

impl Inner {
    /// How a gateway of ours is, with the controller's generation.
    pub(super) fn status_of(&self, entry: &Entry) -> GatewayStatus {
        GatewayStatus { generation: self.source_of(entry.acked), ..entry.status.clone() }
    }

    /// The controller's generation that a generation of ours came from.
    fn source_of(&self, ours: Generation) -> Generation {
        let at = self.sources.partition_point(|(generation, _)| *generation <= ours);
        let of = at.checked_sub(1).and_then(|at| self.sources.get(at));
        of.map_or(Generation::ZERO, |(_, source)| *source)
    }
}
