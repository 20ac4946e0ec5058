//! Who may do what. Pure: the table, the peer as its certificate names it, and what it asks for.

use crate::{error::Refusal, reason::Reason, table::RouteTable};
use std::sync::Arc;
use tombolo_model::{
    ClusterName, GatewayRole, GlobalName, SpiffeId, SpiffePath,
    snapshot::{ExportPort, ExportSpec, SelfSpec},
};

#[cfg(test)]
mod tests;

/// Whether a gateway of this role takes tunnels from this peer at all.
///
/// # Errors
/// [`Reason::WrongIdentity`].
pub fn tunnel_peer(role: GatewayRole, itself: &SelfSpec, peer: &SpiffeId) -> Result<(), Refusal> {
    let own = peer.cluster == itself.cluster;
    let allowed = match (role, &peer.path) {
        (GatewayRole::Egress, SpiffePath::Workload { .. }) => own,
        (GatewayRole::Ingress, SpiffePath::Gateway(GatewayRole::Egress)) => true,
        (
            GatewayRole::Sidecar | GatewayRole::Node,
            SpiffePath::Gateway(GatewayRole::Egress | GatewayRole::Ingress),
        ) => own,
        _ => false,
    };
    if allowed && peer.trust_domain == itself.trust_domain {
        return Ok(());
    }
    let takes = match role {
        GatewayRole::Egress => "workloads of this cluster",
        GatewayRole::Ingress => "egress gateways",
        GatewayRole::Sidecar | GatewayRole::Node => "egress and ingress gateways of this cluster",
    };
    Err(Refusal::new(
        Reason::WrongIdentity,
        format!("{peer} dials in; this {role} takes tunnels from {takes}"),
    ))
}

/// Whether a peer may speak for this caller: a cluster for its own workloads alone.
///
/// # Errors
/// [`Reason::BadRequest`] where no caller is named, [`Reason::WrongIdentity`] where it is another cluster's.
pub fn speaks_for<'a>(peer: &SpiffeId, source: Option<&'a SpiffeId>) -> Result<&'a SpiffeId, Refusal> {
    let source =
        source.ok_or_else(|| Refusal::new(Reason::BadRequest, "there is no tombolo-source header"))?;
    if source.trust_domain != peer.trust_domain || source.cluster != peer.cluster {
        return Err(Refusal::new(Reason::WrongIdentity, format!("{peer} speaks for {source}")));
    }
    Ok(source)
}

/// Whether a gateway may bring a caller to a sidecar of its cluster: the egress gateway the own cluster's workloads, the
/// ingress gateway those of others.
///
/// # Errors
/// [`Reason::BadRequest`] where no caller is named, [`Reason::WrongIdentity`] where it is not one that this gateway
/// speaks for.
pub fn brings<'a>(
    itself: &SelfSpec,
    peer: &SpiffeId,
    source: Option<&'a SpiffeId>,
) -> Result<&'a SpiffeId, Refusal> {
    let source =
        source.ok_or_else(|| Refusal::new(Reason::BadRequest, "there is no tombolo-source header"))?;
    let own = |id: &SpiffeId| id.cluster == itself.cluster;
    let theirs = match &peer.path {
        SpiffePath::Gateway(GatewayRole::Egress) => own(source),
        SpiffePath::Gateway(GatewayRole::Ingress) => !own(source),
        _ => false,
    };
    let one_domain = [peer, source].iter().all(|id| id.trust_domain == itself.trust_domain);
    if theirs && own(peer) && one_domain {
        return Ok(source);
    }
    Err(Refusal::new(Reason::WrongIdentity, format!("{peer} speaks for {source}")))
}

/// The export of a name and the port asked for, where the cluster of the caller may call it.
///
/// # Errors
/// [`Reason::NotExported`] or [`Reason::NotACaller`].
pub fn export(
    table: &RouteTable,
    caller: &ClusterName,
    name: &GlobalName,
    port: u16,
) -> Result<(Arc<ExportSpec>, usize), Refusal> {
    let not_exported = |what: String| Refusal::new(Reason::NotExported, what);
    let export = table.export(name).ok_or_else(|| not_exported(format!("{name} is not served here")))?;
    // Before the port: who may not call learns nothing of what there is.
    if !export.callers.contains(caller) {
        return Err(Refusal::new(Reason::NotACaller, format!("cluster {caller} may not call {name}")));
    }
    let at = export
        .ports
        .iter()
        .position(|candidate: &ExportPort| candidate.port == port)
        .ok_or_else(|| not_exported(format!("{name} has no port {port}")))?;
    Ok((export.clone(), at))
}
