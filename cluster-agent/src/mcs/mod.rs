//! The Multi-Cluster Services API (KEP-1645) in this cluster: a ServiceImport for each service of the cluster set whose namespace
//! is here, EndpointSlices that say which clusters stand behind it, and the conditions of the ServiceExports.
//!
//! Which services there are, and who decides where exports differ, says the controller. [`plan`] works out what there should be
//! from the snapshot, what runs here, and what was read back: a function. [`apply`] does it, and does it again when somebody
//! else changes or deletes it.
//!
//! No address of another cluster's pod is known here. What an EndpointSlice lists are virtual IPs: that of the service in one
//! cluster, or of one pod of it. They lead through the gateways, as the service's own virtual IP does.

pub(crate) mod apply;
mod objects;
mod plan;
mod status;
#[cfg(test)]
mod tests;

/// The one field manager.
const MANAGER: &str = "tombolo-agent";
