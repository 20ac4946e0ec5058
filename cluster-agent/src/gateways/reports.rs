//! What the set of gateways says of itself: to the controller, and to people.

use super::hub::{Hub, Inner};
use std::collections::BTreeSet;
use tombolo_model::{GatewayRole, Generation};
use tombolo_wire::message::{GatewayReport, GatewayStatus, Problem};

impl Hub {
    /// The gateways as the controller is told of them. Those that vanished are not in it.
    #[must_use]
    pub fn gateway_reports(&self) -> Vec<GatewayReport> {
        let inner = self.lock();
        let connected = inner.entries.iter().filter(|(_, entry)| entry.vanished.is_none());
        connected
            .map(|(instance, entry)| GatewayReport {
                instance: instance.clone(),
                role: entry.hello.role,
                software: entry.hello.hello.software.clone(),
                admin: entry.hello.admin,
                status: GatewayStatus { generation: inner.source_of(entry.acked), ..entry.status.clone() },
            })
            .collect()
    }

    /// Where other clusters may reach the ingress gateways.
    #[must_use]
    pub fn ingress(&self) -> BTreeSet<String> {
        let inner = self.lock();
        let ingress = inner.entries.values().filter(|entry| entry.hello.role == GatewayRole::Ingress);
        ingress.flat_map(|entry| entry.hello.advertise.iter().cloned()).collect()
    }

    /// What the gateways say is wrong.
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
        all
    }

    /// What stands in a dump.
    #[must_use]
    pub fn dump(&self) -> Vec<serde_json::Value> {
        let inner = self.lock();
        inner
            .entries
            .values()
            .map(|entry| {
                serde_json::json!({
                    "hello": entry.hello,
                    "connected": entry.vanished.is_none(),
                    "generation": entry.publisher.generation(),
                    "acknowledged": entry.acked,
                    "refused": entry.refused,
                    "resources": entry.publisher.resources().len(),
                    "status": entry.status,
                })
            })
            .collect()
    }

    /// What one gateway is told, for a dump.
    #[must_use]
    pub fn resources(&self, instance: &str) -> Option<serde_json::Value> {
        let inner = self.lock();
        serde_json::to_value(inner.entries.get(instance)?.publisher.resources()).ok()
    }
}

impl Inner {
    /// The controller's generation that a generation of ours came from.
    fn source_of(&self, ours: Generation) -> Generation {
        let at = self.sources.partition_point(|(generation, _)| *generation <= ours);
        let of = at.checked_sub(1).and_then(|at| self.sources.get(at));
        of.map_or(Generation::ZERO, |(_, source)| *source)
    }
}
