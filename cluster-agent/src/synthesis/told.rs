//! What one gateway is told of all that was worked out: what its role needs, and no more.

use super::Synthesis;
use tombolo_model::{
    GatewayRole, SpiffeId,
    snapshot::{ExportPort, ExportSpec, GatewayResource, ResourceKey, Resources, RouteSpec},
};
use tombolo_wire::{message::GatewayHello, version::ProtocolVersion};

impl Synthesis {
    /// What this gateway is told.
    #[must_use]
    pub fn for_gateway(&self, hello: &GatewayHello) -> Resources<GatewayResource> {
        let told = |(key, resource): (&ResourceKey, _)| Some((key.clone(), self.told(resource, hello)?));
        let mut all: Resources<GatewayResource> = self.resources.iter().filter_map(told).collect();
        if let Some(workloads) = self.of_node(hello) {
            all.extend(workloads.iter().map(|(key, workload)| (key.clone(), workload.clone())));
        }
        all
    }

    /// What this gateway is told under a key.
    #[must_use]
    pub fn for_gateway_at(&self, hello: &GatewayHello, key: &ResourceKey) -> Option<GatewayResource> {
        let of_node = self.of_node(hello).and_then(|workloads| workloads.get(key));
        of_node.cloned().or_else(|| self.told(self.resources.get(key)?, hello))
    }

    /// What a node's proxy is told of workloads.
    fn of_node(&self, hello: &GatewayHello) -> Option<&Resources<GatewayResource>> {
        let node = hello.node.as_ref().filter(|_| hello.role == GatewayRole::Node)?;
        self.nodes.get(node.as_str())
    }

    fn told(&self, resource: &GatewayResource, hello: &GatewayHello) -> Option<GatewayResource> {
        if hello.hello.protocol < CLUSTER_SET && is_in_cluster_set(resource) {
            return None;
        }
        if let GatewayResource::Export(export) = resource
            && hello.hello.protocol < NODES
            && !self.node_tunnels.is_empty()
        {
            return told(&GatewayResource::Export(self.without_nodes(export).into()), hello);
        }
        told(resource, hello)
    }

    /// The export as before there were nodes' proxies: their pods are reached in clear.
    fn without_nodes(&self, export: &ExportSpec) -> ExportSpec {
        let mut export = export.clone();
        for endpoint in export.ports.iter_mut().flat_map(|port| &mut port.endpoints) {
            endpoint.tunnel.take_if(|tunnel| self.node_tunnels.contains(&tunnel.socket()));
        }
        export
    }
}

/// From this version on a gateway knows a node's proxy for what it is.
const NODES: ProtocolVersion = ProtocolVersion { major: 1, minor: 1 };

/// From this version on a gateway takes names of the cluster set; an older one would refuse all that it is told with them.
const CLUSTER_SET: ProtocolVersion = ProtocolVersion { major: 1, minor: 1 };

fn is_in_cluster_set(resource: &GatewayResource) -> bool {
    match resource {
        GatewayResource::Route(route) => route.name.is_in_cluster_set(),
        GatewayResource::Export(export) => export.name.is_in_cluster_set(),
        _ => false,
    }
}

fn told(resource: &GatewayResource, hello: &GatewayHello) -> Option<GatewayResource> {
    use GatewayRole::{Egress, Ingress, Sidecar};
    let beside = hello.role.is_beside_applications();
    let whole = match resource {
        GatewayResource::Itself(_) | GatewayResource::Bundle(_) => true,
        GatewayResource::Peer(_) => hello.role == Egress,
        // Where egress gateways take connections is nothing to it.
        GatewayResource::Route(route) if beside && !route.captured_at.is_empty() => {
            return Some(GatewayResource::Route(
                RouteSpec { captured_at: Default::default(), ..RouteSpec::clone(route) }.into(),
            ));
        }
        GatewayResource::Route(_) => beside || hello.role == Egress,
        GatewayResource::Export(export) => match hello.role {
            Ingress | Egress => true,
            Sidecar | GatewayRole::Node => return behind(export, hello),
        },
        GatewayResource::Workload(workload) => {
            hello.role == Sidecar
                && may_speak_for_workload(&workload.identity, !workload.selectors.is_empty(), hello)
        }
        GatewayResource::Gateways { .. } => beside,
    };
    whole.then(|| resource.clone())
}

/// The part of an export that this sidecar, or node's proxy, stands before.
fn behind(export: &ExportSpec, hello: &GatewayHello) -> Option<GatewayResource> {
    let ports: Vec<ExportPort> = export
        .ports
        .iter()
        .map(|port| ExportPort {
            port: port.port,
            endpoints: port
                .endpoints
                .iter()
                .filter(|e| e.tunnel == Some(hello.tunnel.into()))
                .cloned()
                .collect(),
        })
        .filter(|port| !port.endpoints.is_empty())
        .collect();
    if ports.is_empty() {
        return None;
    }
    let (name, callers) = (export.name.clone(), export.callers.clone());
    Some(GatewayResource::Export(ExportSpec { name, callers, ports: ports.into() }.into()))
}

/// Whether a sidecar speaks for a workload that calls: its own, or on a machine all that can be told apart.
pub(crate) fn may_speak_for_workload(identity: &SpiffeId, has_selectors: bool, hello: &GatewayHello) -> bool {
    let tombolo_model::SpiffePath::Workload { namespace, account } = &identity.path else { return false };
    (hello.explicit && has_selectors) || hello.workloads.contains(&(namespace.clone(), account.clone()))
}
