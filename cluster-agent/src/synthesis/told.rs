//! What one gateway is told of all that was worked out: what its role needs, and no more.

use super::Synthesis;
use tombolo_model::{
    GatewayRole, SpiffeId,
    snapshot::{ExportPort, ExportSpec, GatewayResource, ResourceKey, Resources, RouteSpec},
};
use tombolo_wire::message::GatewayHello;

impl Synthesis {
    /// What this gateway is told.
    #[must_use]
    pub fn for_gateway(&self, hello: &GatewayHello) -> Resources<GatewayResource> {
        let told = |(key, resource): (&ResourceKey, _)| Some((key.clone(), told(resource, hello)?));
        self.resources.iter().filter_map(told).collect()
    }

    /// What this gateway is told under a key.
    #[must_use]
    pub fn for_gateway_at(&self, hello: &GatewayHello, key: &ResourceKey) -> Option<GatewayResource> {
        told(self.resources.get(key)?, hello)
    }
}

fn told(resource: &GatewayResource, hello: &GatewayHello) -> Option<GatewayResource> {
    use GatewayRole::{Egress, Ingress, Sidecar};
    let whole = match resource {
        GatewayResource::Itself(_) | GatewayResource::Bundle(_) => true,
        GatewayResource::Peer(_) => hello.role == Egress,
        GatewayResource::Route(route) if hello.role == Sidecar => {
            // Where egress gateways take connections is nothing to it.
            return Some(GatewayResource::Route(RouteSpec {
                captured_at: Default::default(),
                ..route.clone()
            }));
        }
        GatewayResource::Route(_) => hello.role == Egress,
        GatewayResource::Export(export) => match hello.role {
            Ingress | Egress => true,
            Sidecar => return behind(export, hello),
        },
        GatewayResource::Workload(workload) => {
            hello.role == Sidecar
                && may_speak_for_workload(&workload.identity, !workload.selectors.is_empty(), hello)
        }
        GatewayResource::Gateways { .. } => hello.role == Sidecar,
    };
    whole.then(|| resource.clone())
}

/// The part of an export that this sidecar stands before.
fn behind(export: &ExportSpec, hello: &GatewayHello) -> Option<GatewayResource> {
    let ports: Vec<ExportPort> = export
        .ports
        .iter()
        .map(|port| ExportPort {
            port: port.port,
            endpoints: port.endpoints.iter().filter(|e| e.tunnel == Some(hello.tunnel)).cloned().collect(),
        })
        .filter(|port| !port.endpoints.is_empty())
        .collect();
    if ports.is_empty() {
        return None;
    }
    let (name, callers) = (export.name.clone(), export.callers.clone());
    Some(GatewayResource::Export(ExportSpec { name, callers, ports }))
}

/// Whether a sidecar speaks for a workload that calls: its own, or on a machine all that can be told apart.
pub(crate) fn may_speak_for_workload(identity: &SpiffeId, has_selectors: bool, hello: &GatewayHello) -> bool {
    let tombolo_model::SpiffePath::Workload { namespace, account } = &identity.path else { return false };
    (hello.explicit && has_selectors) || hello.workloads.contains(&(namespace.clone(), account.clone()))
}
