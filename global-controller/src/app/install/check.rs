//! Whether what is asked for can be installed. Pure.

use super::{
    super::{Deps, capture::CaptureMode, error::Checks},
    request::{
        ExposureRequest, FailurePolicy, InjectorRequest, InstallRequest, NamespaceChoice, NodeRequest,
    },
};
use ipnet::IpNet;
use std::collections::BTreeSet;
use tombolo_model::{
    NamespaceName,
    install::{self as model, InstallSpec},
};

/// The most namespaces that are named.
const MOST_NAMESPACES: usize = 500;
/// The most ways to the ingress gateways, and addresses of one.
const MOST_WAYS: usize = 32;
/// The most ranges where nobody is dialled.
const MOST_NETWORKS: usize = 64;
/// The most pods of a kind of gateways.
const MOST_PODS: u32 = 100;

impl InstallRequest {
    /// The request as the agent is told it, with what was left out.
    pub(in crate::app) fn check(self, deps: &Deps, checks: &mut Checks) -> InstallSpec {
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
        let never_dial = check_networks(checks, "gateways.egress.never_dial", &egress.never_dial);
        let replicas = check_replicas(checks, "gateways.egress", egress.replicas, egress.min, egress.max);
        let egress = model::Egress { replicas, never_dial };
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
pub(in crate::app) fn check_version(checks: &mut Checks, version: &str) {
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

pub(in crate::app) fn check_registry(checks: &mut Checks, registry: &str) {
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

/// Ranges where egress gateways dial nobody, without what lies beyond their prefixes.
pub(in crate::app) fn check_networks(
    checks: &mut Checks,
    field: &'static str,
    all: &[String],
) -> BTreeSet<IpNet> {
    if all.len() > MOST_NETWORKS {
        checks.wrong(field, "has too many ranges", format!("give at most {MOST_NETWORKS}"));
    }
    let mut networks = BTreeSet::new();
    for text in all.iter().take(MOST_NETWORKS) {
        match text.parse::<IpNet>() {
            Ok(network) if network.prefix_len() == 0 => checks.wrong(
                field,
                format!("has {text}, which is every address: no other cluster could be reached"),
                "name the ranges of this cluster's pods and services",
            ),
            Ok(network) => drop(networks.insert(network.trunc())),
            Err(_) => {
                checks.wrong(field, format!("has {text:?}, which is no range"), "write it as 10.244.0.0/16")
            }
        }
    }
    networks
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
            ExposureRequest::NodePort { port } => {
                if port == Some(0) {
                    checks.wrong(
                        FIELD,
                        "has the port 0, which no node can have",
                        "leave port out, and the cluster chooses one; or use one of its range, 30000 to 32767 as a rule",
                    );
                }
                ("node_port", model::Exposure::NodePort { port })
            }
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
