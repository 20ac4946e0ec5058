//! Global services: every name, its virtual IPs, and where it is served. Nothing of this is stored; it is what the
//! compiler makes of the global namespaces and of what the clusters report.

use super::{
    Deps,
    caller::Scope,
    error::{Kind, Refusal, Result},
    page::{List, Page},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use tombolo_compile::{Conflict, Incremental, Listed, Reason, Wanted};
use tombolo_model::{
    ClusterName, DnsLabel,
    id::ClusterId,
    inventory::Protocol,
    mcs::ExportConflict,
    snapshot::{EndToEnd, NameKind, TargetSpec},
};
use utoipa::ToSchema;

/// A global name, its addresses, and where it is served.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Service {
    /// The full name.
    #[schema(example = "catalog.acme.example.com")]
    pub(crate) name: String,
    /// The global namespace that it is of; `clusterset` for a service that Kubernetes clusters export (KEP-1645).
    #[schema(example = "acme")]
    pub(crate) gns: String,
    /// What it stands for: `service` wherever it runs, `service_in_cluster` in one cluster, one `pod` of it.
    pub(crate) kind: ServiceKind,
    /// Its addresses, the same in every cluster for as long as it lives.
    pub(crate) vip: VirtualIp,
    /// Whether it is headless: its pods have names of their own.
    pub(crate) headless: bool,
    /// Its ports, merged over the clusters.
    pub(crate) ports: Vec<Port>,
    /// Where it is served.
    pub(crate) targets: Vec<Target>,
    /// What could not be given as the clusters have it, and why.
    pub(crate) conflicts: Vec<ServiceConflict>,
}

/// What a global name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ServiceKind {
    /// `<service>.<domain>`.
    Service,
    /// `<service>.<cluster>.<domain>`.
    ServiceInCluster,
    /// `<pod>.<service>.<domain>`.
    Pod,
}

/// Virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct VirtualIp {
    /// IPv4.
    #[schema(value_type = String, example = "240.0.0.7")]
    pub(crate) v4: Ipv4Addr,
    /// IPv6.
    #[schema(value_type = String, example = "fd74:6f6d:6265:6c6f::7")]
    pub(crate) v6: Ipv6Addr,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Port {
    /// The number that clients use.
    #[schema(example = 8082)]
    pub(crate) port: u16,
    /// `TCP` or `UDP`.
    #[schema(example = "TCP")]
    pub(crate) protocol: String,
    /// Its name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// `appProtocol` of the Kubernetes Service, where it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app_protocol: Option<String>,
}

/// A cluster that serves a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Target {
    /// The cluster.
    #[schema(example = "cluster-2")]
    pub(crate) cluster: String,
    /// Endpoints that are ready.
    pub(crate) ready: u32,
    /// Endpoints in all.
    pub(crate) total: u32,
    /// Whether its endpoints take a workload's own TLS session: `all`, `some` or `none`.
    #[schema(example = "all")]
    pub(crate) end_to_end: String,
    /// The services behind it, as `namespace/name`.
    pub(crate) services: Vec<String>,
}

/// Something that could not be given as a cluster has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ServiceConflict {
    /// Why, as a word for programs.
    #[schema(example = "protocol")]
    pub(crate) reason: String,
    /// Why, in words.
    pub(crate) message: String,
    /// The port it is about, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// Whose word stands: `cluster/namespace/service`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) winner: Option<String>,
    /// Whose does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) loser: Option<String>,
}

/// What the cluster set (KEP-1645) is called where global namespaces are.
const CLUSTER_SET: &str = "clusterset";

impl ServiceConflict {
    fn of_export(conflict: &ExportConflict) -> Self {
        let (reason, message) = (conflict.reason.to_string(), conflict.message.clone());
        Self { reason, message, port: None, winner: None, loser: None }
    }

    fn show(conflict: &Conflict) -> Self {
        let reason = match conflict.reason {
            Reason::Protocol => "protocol",
            Reason::AppProtocol => "app_protocol",
            Reason::PortName(_) => "port_name",
            Reason::Headless => "headless",
            Reason::PodNames(_) => "pod_names",
            Reason::TooLong(_) => "too_long",
            Reason::Overlap(_) => "overlap",
        };
        Self {
            reason: reason.to_owned(),
            message: conflict.to_string(),
            port: conflict.port,
            winner: conflict.winner.as_ref().map(ToString::to_string),
            loser: conflict.loser.as_ref().map(ToString::to_string),
        }
    }
}

/// How long a reading waits for this replica to have made what was changed just before.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads what is compiled of an organization, once this replica has made what was changed just before.
async fn compiled<T>(deps: &Deps, scope: &Scope, read: impl FnOnce(&Incremental) -> T) -> Result<T> {
    let org = scope.org.id;
    if !deps.view.wait_for(org, scope.org.generation, PATIENCE).await {
        let detail = "This controller has not caught up yet; try again.";
        return Err(Refusal::new(Kind::Unavailable, detail).retry_after(1));
    }
    let found = deps.view.with(org, |compiled, _| read(compiled));
    found.ok_or_else(|| Refusal::not_found("organization", scope.org.name.as_str()))
}

/// A name with addresses. It is the same in the snapshot of every member of its global namespace, but for how near its targets are.
fn show(
    compiled: &Incremental,
    clusters: &BTreeMap<ClusterName, ClusterId>,
    listed: &Listed<'_>,
) -> Option<Service> {
    let (world, name) = (compiled.world(), listed.spec()?);
    let target = |target: &TargetSpec| {
        let inventory = clusters.get(&target.cluster).and_then(|id| world.inventories.get(id));
        let records = target.services.iter().filter_map(|key| inventory?.services.get(key));
        let total = match name.kind {
            NameKind::Pod => 1,
            _ => records.map(|record| record.total).fold(0, u32::saturating_add),
        };
        Target {
            cluster: target.cluster.to_string(),
            ready: target.ready,
            total: total.max(target.ready),
            end_to_end: match target.end_to_end {
                EndToEnd::All => "all",
                EndToEnd::Some => "some",
                EndToEnd::None => "none",
            }
            .to_owned(),
            services: target.services.iter().map(ToString::to_string).collect(),
        }
    };
    let ports = name.ports.iter().map(|port| Port {
        port: port.port,
        protocol: match port.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        }
        .to_owned(),
        name: port.name.as_ref().map(ToString::to_string),
        app_protocol: port.app_protocol.clone(),
    });
    let conflicts = listed.conflicts().iter().map(ServiceConflict::show);
    let conflicts = conflicts.chain(listed.export_conflicts().iter().map(ServiceConflict::of_export));
    Some(Service {
        name: name.name.to_string(),
        gns: listed.gns().map_or(CLUSTER_SET, DnsLabel::as_str).to_owned(),
        kind: match name.kind {
            NameKind::Service => ServiceKind::Service,
            NameKind::ServiceInCluster => ServiceKind::ServiceInCluster,
            NameKind::Pod => ServiceKind::Pod,
        },
        vip: VirtualIp { v4: name.vip.v4, v6: name.vip.v6 },
        headless: name.headless,
        ports: ports.collect(),
        targets: name.targets.iter().map(target).collect(),
        conflicts: conflicts.collect(),
    })
}

/// Which services are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceFilter {
    /// Of this global namespace.
    pub(crate) gns: Option<String>,
    /// Served by this cluster.
    pub(crate) cluster: Option<String>,
}

/// Services by name.
///
/// # Errors
/// [`Kind::Unavailable`] where this replica is behind.
pub(crate) async fn list(
    deps: &Deps,
    scope: &Scope,
    filter: &ServiceFilter,
    page: &Page,
) -> Result<List<Service>> {
    let count = usize::try_from(page.fetch()).unwrap_or(usize::MAX);
    let found = compiled(deps, scope, |compiled| {
        let clusters = of(compiled);
        // nothing is served by a cluster that is not there
        let cluster = match &filter.cluster {
            Some(name) => Some(*clusters.get(name.as_str())?),
            None => None,
        };
        let wanted = Wanted { gns: filter.gns.as_deref(), cluster };
        let listed = compiled.listed(&wanted, page.after());
        Some(listed.filter_map(|listed| show(compiled, &clusters, &listed)).take(count).collect())
    });
    Ok(page.list(found.await?.unwrap_or_default(), |service: &Service| service.name.clone()))
}

/// One service.
///
/// # Errors
/// [`Kind::NotFound`].
pub(crate) async fn get(deps: &Deps, scope: &Scope, name: &str) -> Result<Service> {
    let found = compiled(deps, scope, |compiled| show(compiled, &of(compiled), &compiled.named(name)?));
    found.await?.ok_or_else(|| Refusal::not_found("service", name))
}

/// The clusters by name.
fn of(compiled: &Incremental) -> BTreeMap<ClusterName, ClusterId> {
    compiled.world().clusters.values().map(|cluster| (cluster.name.clone(), cluster.id)).collect()
}
