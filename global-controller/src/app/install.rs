//! What a Kubernetes cluster's agent is to install there: asked for, changed, taken out. The agent does it, and says how
//! it goes in the cluster's status.

use super::{
    Deps,
    caller::{Role, Scope},
    capture::CaptureMode,
    cluster,
    error::{Checks, Kind, Refusal, Result},
    version::Expected,
    work::{Subject, Work},
};
use crate::store::install::InstallRow;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tombolo_model::{
    NamespaceName,
    install::{self as model, InstallOrder, InstallSpec},
    intent::Labels,
};
use utoipa::ToSchema;

/// The most namespaces that are named.
const MOST_NAMESPACES: usize = 500;
/// The most ways to the ingress gateways, and addresses of one.
const MOST_WAYS: usize = 32;
/// The most pods of a kind of gateways.
const MOST_PODS: u32 = 100;

/// What is installed in a cluster, or is to be.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Install {
    /// The cluster's name.
    #[schema(example = "cluster-1")]
    pub(crate) cluster: String,
    /// Rises with each order; also the ETag.
    pub(crate) revision: u64,
    /// What is asked for.
    #[serde(flatten)]
    pub(crate) spec: InstallRequest,
    /// What stood before this order; absent where nothing did. To go back, ask for it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<InstallRequest>,
}

/// What is to be installed in a cluster. What is left out has its default, not what stood before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InstallRequest {
    /// The tag of the images; the controller's `--image-version` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "0.1.0")]
    pub(crate) version: Option<String>,
    /// Where the images are; the controller's `--image-registry` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "registry.example.com/tombolo")]
    pub(crate) registry: Option<String>,
    /// Whose services are read, and whose pods take part. Those of the system never do.
    #[serde(default)]
    pub(crate) namespaces: NamespaceChoice,
    /// The gateways.
    #[serde(default)]
    pub(crate) gateways: GatewaysRequest,
    /// Name resolution.
    #[serde(default)]
    pub(crate) dns: DnsRequest,
    /// The webhook that puts proxies into pods.
    #[serde(default)]
    pub(crate) injector: InjectorRequest,
    /// The proxy of each node.
    #[serde(default)]
    pub(crate) node: NodeRequest,
    /// The capture mode of namespaces about which neither their label nor a global namespace says anything.
    #[serde(default)]
    pub(crate) default_mode: CaptureMode,
}

/// Chooses namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum NamespaceChoice {
    /// All but these.
    Exclude(Vec<String>),
    /// These alone.
    Include(Vec<String>),
}

impl Default for NamespaceChoice {
    fn default() -> Self {
        Self::Exclude(Vec::new())
    }
}

/// The gateways of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewaysRequest {
    /// Those that send to other clusters.
    #[serde(default)]
    pub(crate) egress: EgressRequest,
    /// Those that take from other clusters.
    #[serde(default)]
    pub(crate) ingress: IngressRequest,
}

/// How many egress gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EgressRequest {
    /// So many, where the cluster does not measure load.
    pub(crate) replicas: u32,
    /// At least so many, where it does.
    pub(crate) min: u32,
    /// At most so many.
    pub(crate) max: u32,
}

impl Default for EgressRequest {
    fn default() -> Self {
        let model::Replicas { replicas, min, max } = model::Replicas::default();
        Self { replicas, min, max }
    }
}

/// How many ingress gateways, and how other clusters reach them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct IngressRequest {
    /// So many, where the cluster does not measure load.
    pub(crate) replicas: u32,
    /// At least so many, where it does.
    pub(crate) min: u32,
    /// At most so many.
    pub(crate) max: u32,
    /// How other clusters reach them; several at once are fine. A load balancer where it is left out.
    pub(crate) exposure: Vec<ExposureRequest>,
}

impl Default for IngressRequest {
    fn default() -> Self {
        let EgressRequest { replicas, min, max } = EgressRequest::default();
        Self {
            replicas,
            min,
            max,
            exposure: vec![ExposureRequest::LoadBalancer { annotations: Labels::new() }],
        }
    }
}

/// A way from other clusters to the ingress gateways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ExposureRequest {
    /// The addresses or names that a Service of type `LoadBalancer` gets.
    LoadBalancer {
        /// For the Service, as the cloud wants them.
        #[serde(default, skip_serializing_if = "Labels::is_empty")]
        annotations: Labels,
    },
    /// A port of the nodes' addresses.
    NodePort {
        /// Which; the cluster chooses one where none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    },
    /// The gateways' pods use the network of their nodes.
    HostNetwork {},
    /// Addresses that somebody else leads to the gateways.
    Address {
        /// `host:port` each.
        addresses: Vec<String>,
    },
}

/// What is done about name resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DnsRequest {
    /// Whether the cluster's CoreDNS is told to forward the domains of global namespaces to the agent.
    pub(crate) corefile: bool,
}

impl Default for DnsRequest {
    fn default() -> Self {
        Self { corefile: true }
    }
}

/// The webhook that puts proxies into pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct InjectorRequest {
    /// Whether there is one.
    pub(crate) enabled: bool,
    /// What happens to pods while it does not answer.
    pub(crate) failure_policy: FailurePolicy,
}

impl Default for InjectorRequest {
    fn default() -> Self {
        Self { enabled: true, failure_policy: FailurePolicy::Ignore }
    }
}

/// What happens to pods while the webhook does not answer: `ignore` lets them start without a proxy, `fail` does not let
/// them start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailurePolicy {
    #[default]
    Ignore,
    Fail,
}

/// The proxy of each node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NodeRequest {
    /// Whether there is one.
    pub(crate) enabled: bool,
}

impl InstallRequest {
    pub(super) fn show(spec: &InstallSpec) -> Self {
        let names = |names: &BTreeSet<NamespaceName>| names.iter().map(ToString::to_string).collect();
        let model::Replicas { replicas, min, max } = spec.gateways.egress;
        let egress = EgressRequest { replicas, min, max };
        let model::Replicas { replicas, min, max } = spec.gateways.ingress.replicas;
        let exposure = spec.gateways.ingress.exposure.iter().map(|way| match way {
            model::Exposure::LoadBalancer { annotations } => {
                ExposureRequest::LoadBalancer { annotations: annotations.clone() }
            }
            model::Exposure::NodePort { port } => ExposureRequest::NodePort { port: *port },
            model::Exposure::HostNetwork => ExposureRequest::HostNetwork {},
            model::Exposure::Address { addresses } => {
                ExposureRequest::Address { addresses: addresses.iter().cloned().collect() }
            }
        });
        let ingress = IngressRequest { replicas, min, max, exposure: exposure.collect() };
        Self {
            version: Some(spec.version.clone()),
            registry: Some(spec.registry.clone()),
            namespaces: match &spec.namespaces {
                model::Namespaces::Exclude(these) => NamespaceChoice::Exclude(names(these)),
                model::Namespaces::Include(these) => NamespaceChoice::Include(names(these)),
            },
            gateways: GatewaysRequest { egress, ingress },
            dns: DnsRequest { corefile: spec.dns.corefile },
            injector: InjectorRequest {
                enabled: spec.injector.enabled,
                failure_policy: match spec.injector.failure_policy {
                    model::FailurePolicy::Ignore => FailurePolicy::Ignore,
                    model::FailurePolicy::Fail => FailurePolicy::Fail,
                },
            },
            node: NodeRequest { enabled: spec.node.enabled },
            default_mode: spec.capture().into(),
        }
    }

    /// The request as the agent is told it, with what was left out.
    pub(super) fn check(self, deps: &Deps, checks: &mut Checks) -> InstallSpec {
        let version = self.version.unwrap_or_else(|| deps.image_version.clone());
        check_version(checks, &version);
        let registry = self.registry.unwrap_or_else(|| deps.image_registry.clone());
        check_registry(checks, &registry);
        let namespaces = match self.namespaces {
            NamespaceChoice::Exclude(these) => {
                model::Namespaces::Exclude(check_namespaces(checks, "namespaces.exclude", &these))
            }
            NamespaceChoice::Include(these) => {
                model::Namespaces::Include(check_namespaces(checks, "namespaces.include", &these))
            }
        };
        let (egress, ingress) = (self.gateways.egress, self.gateways.ingress);
        let egress = check_replicas(checks, "gateways.egress", egress.replicas, egress.min, egress.max);
        let replicas = check_replicas(checks, "gateways.ingress", ingress.replicas, ingress.min, ingress.max);
        let exposure = check_exposure(checks, ingress.exposure);
        check_mode(checks, self.default_mode, self.node, self.injector);
        let mut spec = InstallSpec {
            revision: 0,
            version,
            registry,
            namespaces,
            gateways: model::Gateways { egress, ingress: model::Ingress { replicas, exposure } },
            dns: model::DnsInstall { corefile: self.dns.corefile },
            injector: model::Injector {
                enabled: self.injector.enabled,
                failure_policy: match self.injector.failure_policy {
                    FailurePolicy::Ignore => model::FailurePolicy::Ignore,
                    FailurePolicy::Fail => model::FailurePolicy::Fail,
                },
            },
            node: model::NodeProxy { enabled: self.node.enabled },
            default_mode: model::DefaultMode::default(),
            capture: None,
        };
        spec.set_capture(self.default_mode.into());
        spec
    }
}

/// A mode that all namespaces are to have must be installed.
fn check_mode(checks: &mut Checks, mode: CaptureMode, node: NodeRequest, injector: InjectorRequest) {
    match mode {
        CaptureMode::Node if !node.enabled => checks.wrong(
            "default_mode",
            "is node, and there are no proxies on the nodes",
            "set node.enabled too (--node), or choose another mode",
        ),
        CaptureMode::Sidecar if !injector.enabled => checks.wrong(
            "default_mode",
            "is sidecar, and there is no injector",
            "leave injector.enabled on (without --no-injector), or choose another mode",
        ),
        _ => {}
    }
}

/// A tag of an image. One that is a version newer than the controller's is refused: agents come after it.
pub(super) fn check_version(checks: &mut Checks, version: &str) {
    let good = (1..=128).contains(&version.len())
        && version.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && !version.starts_with(['.', '-']);
    if !good {
        checks.wrong("version", "is not the tag of an image", "use letters, digits, '.', '_', '-', as 0.1.0");
    }
    let ours = env!("CARGO_PKG_VERSION");
    let minor = |text: &str| {
        let mut parts = text.trim_start_matches('v').split('.').map_while(|part| part.parse::<u64>().ok());
        parts.next().zip(parts.next())
    };
    if let (Some(wanted), Some(ours_minor)) = (minor(version), minor(ours))
        && wanted > ours_minor
    {
        checks.wrong(
            "version",
            format!("is newer than the controller, which is {ours}"),
            "upgrade the controller first, then the clusters",
        );
    }
}

pub(super) fn check_registry(checks: &mut Checks, registry: &str) {
    let good = (1..=200).contains(&registry.len())
        && registry.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:".contains(&b))
        && registry.split('/').all(|part| part.starts_with(|c: char| c.is_ascii_alphanumeric()));
    if !good {
        checks.wrong("registry", "is not a place of images", "write it as registry.example.com/tombolo");
    }
}

fn check_namespaces(checks: &mut Checks, field: &'static str, names: &[String]) -> BTreeSet<NamespaceName> {
    if names.len() > MOST_NAMESPACES {
        checks.wrong(field, "has too many namespaces", format!("name at most {MOST_NAMESPACES}"));
    }
    let each = names.iter().take(MOST_NAMESPACES);
    each.filter_map(|name| checks.name(field, name, NamespaceName::parse, "shop")).collect()
}

fn check_replicas(checks: &mut Checks, at: &str, replicas: u32, min: u32, max: u32) -> model::Replicas {
    if !(1..=MOST_PODS).contains(&replicas) {
        checks.wrong(
            format!("{at}.replicas"),
            "is not a number of gateways",
            format!("use 1 to {MOST_PODS}"),
        );
    }
    if min < 1 || min > max || max > MOST_PODS {
        checks.wrong(format!("{at}.min"), "and max are no range", format!("use 1 to {MOST_PODS}, min first"));
    }
    model::Replicas { replicas, min, max }
}

fn check_exposure(checks: &mut Checks, ways: Vec<ExposureRequest>) -> Vec<model::Exposure> {
    const FIELD: &str = "gateways.ingress.exposure";
    if ways.len() > MOST_WAYS {
        checks.wrong(FIELD, "has too many ways", format!("give at most {MOST_WAYS}"));
    }
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for way in ways.into_iter().take(MOST_WAYS) {
        let (kind, way) = match way {
            ExposureRequest::LoadBalancer { annotations } => {
                ("load_balancer", model::Exposure::LoadBalancer { annotations })
            }
            ExposureRequest::NodePort { port } => ("node_port", model::Exposure::NodePort { port }),
            ExposureRequest::HostNetwork {} => ("host_network", model::Exposure::HostNetwork),
            ExposureRequest::Address { addresses } => {
                let wrong = addresses.iter().find(|address| !is_address(address));
                if let Some(wrong) = wrong {
                    checks.wrong(FIELD, format!("has the address {wrong:?}"), "write HOST:PORT");
                }
                if addresses.is_empty() || addresses.len() > MOST_WAYS {
                    checks.wrong(
                        FIELD,
                        "has a list of no or too many addresses",
                        format!("give 1 to {MOST_WAYS}"),
                    );
                }
                ("address", model::Exposure::Address { addresses: addresses.into_iter().collect() })
            }
        };
        if !seen.insert(kind) {
            checks.wrong(FIELD, format!("has {kind} twice"), "give each type once");
        }
        all.push(way);
    }
    all
}

/// `host:port`. What a host may be is checked where the agent reports it.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(char::is_whitespace)
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

impl Install {
    fn show(cluster: &str, row: &InstallRow) -> Option<Self> {
        let InstallOrder::Installed(spec) = &row.order else { return None };
        Some(Self {
            cluster: cluster.to_owned(),
            revision: spec.revision,
            spec: InstallRequest::show(spec),
            before: row.before.as_ref().map(InstallRequest::show),
        })
    }
}

fn version(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

impl Install {
    /// For the ETag.
    pub(crate) fn version(&self) -> i64 {
        version(self.revision)
    }
}

fn missing(cluster: &str) -> Refusal {
    Refusal::new(Kind::NotFound, format!("Nothing is installed in the cluster {cluster:?}."))
}

/// Whether the caller may order images from there. What comes from a registry runs in the cluster with the rights of agent and proxies, so
/// another one than the controller's is for admins to choose; who may edit may keep what they chose. (The cluster's agent refuses what
/// whoever applied its manifest did not allow.)
///
/// # Errors
/// [`Kind::Forbidden`].
pub(super) fn may_order(
    deps: &Deps,
    scope: &Scope,
    spec: &InstallSpec,
    in_force: Option<&InstallRow>,
) -> Result<()> {
    let kept = match in_force.map(|row| &row.order) {
        Some(InstallOrder::Installed(before)) => before.registry == spec.registry,
        _ => false,
    };
    if kept || spec.registry == deps.image_registry || scope.caller.role >= Role::Admin {
        return Ok(());
    }
    let (ours, role) = (&deps.image_registry, scope.caller.role);
    Err(Refusal::new(
        Kind::Forbidden,
        format!(
            "Another registry than the controller's needs the role {}; the token has {role}.",
            Role::Admin
        ),
    )
    .field(
        "registry",
        format!("is {:?}", spec.registry),
        format!("leave it out, for {ours}, or let an admin of the organization ask for it once"),
    ))
}

/// What is installed in a cluster, or is to be.
///
/// # Errors
/// [`Kind::NotFound`] for the cluster, or where nothing is installed.
pub(crate) async fn get(deps: &Deps, scope: &Scope, name: &str) -> Result<Install> {
    let mut tx = deps.store.begin().await?;
    let cluster = cluster::find(&mut tx, scope, name, deps.now()).await?;
    let row = tx.install(scope.org.id, cluster.id).await?;
    row.and_then(|row| Install::show(name, &row)).ok_or_else(|| missing(name))
}

/// Asks for an installation, or for a change of it.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::PreconditionFailed`], [`Kind::Forbidden`], fields that cannot be taken.
pub(crate) async fn put(
    deps: &Deps,
    scope: &Scope,
    name: &str,
    request: InstallRequest,
    expected: &Expected,
) -> Result<Install> {
    let mut checks = Checks::default();
    let spec = request.check(deps, &mut checks);
    checks.done()?;
    let mut work = Work::begin(deps, scope).await?;
    let now = work.now;
    let cluster = cluster::find_standing(&mut work.tx, scope, name, now).await?;
    let old = work.tx.install(scope.org.id, cluster.id).await?;
    expected.check(old.as_ref().map_or(0, |old| version(old.order.revision())))?;
    may_order(deps, scope, &spec, old.as_ref())?;
    let revision = old.as_ref().map_or(0, |old| old.order.revision()) + 1;
    let spec = InstallSpec { revision, ..spec };
    let shown = old.as_ref().and_then(|old| Install::show(name, old));
    let before = old.and_then(|old| match old.order {
        InstallOrder::Installed(before) => Some(before),
        InstallOrder::Removed { .. } => old.before,
    });
    // what is asked for again is not its own predecessor
    let before = before.filter(|before| InstallRequest::show(before) != InstallRequest::show(&spec));
    let row = InstallRow { order: InstallOrder::Installed(spec), before };
    work.tx.set_install(scope.org.id, cluster.id, &row).await?;
    let after = Install::show(name, &row).ok_or_else(|| missing(name))?;
    let subject = Subject { kind: "cluster", name, id: cluster.id.as_uuid() };
    work.audit("cluster.install", subject, shown.as_ref(), Some(&after)).await?;
    work.commit().await?;
    Ok(after)
}

/// Asks for everything that was installed to be taken out. Again is no error. Where nobody ever ordered anything, it is
/// asked for all the same: an agent that has joined makes objects of the cluster set, too.
///
/// # Errors
/// [`Kind::NotFound`] for the cluster; [`Kind::PreconditionFailed`].
pub(crate) async fn remove(deps: &Deps, scope: &Scope, name: &str, expected: &Expected) -> Result<()> {
    let mut work = Work::begin(deps, scope).await?;
    let now = work.now;
    let cluster = cluster::find_standing(&mut work.tx, scope, name, now).await?;
    let old = work.tx.install(scope.org.id, cluster.id).await?;
    let (revision, before) = match &old {
        Some(InstallRow { order: InstallOrder::Removed { .. }, .. }) => return Ok(()),
        Some(InstallRow { order: InstallOrder::Installed(spec), .. }) => (spec.revision, Some(spec.clone())),
        None => (0, None),
    };
    expected.check(version(revision))?;
    let shown = old.as_ref().and_then(|old| Install::show(name, old));
    let order = InstallOrder::Removed { revision: revision + 1 };
    work.tx.set_install(scope.org.id, cluster.id, &InstallRow { order, before }).await?;
    let subject = Subject { kind: "cluster", name, id: cluster.id.as_uuid() };
    work.audit("cluster.uninstall", subject, shown.as_ref(), None).await?;
    work.commit().await
}
