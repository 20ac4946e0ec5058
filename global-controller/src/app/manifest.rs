//! The manifest of a Kubernetes cluster's agent: a template, and what is different in each. Nothing in it is a secret, and
//! nothing says whether there is such an organization or cluster.

use super::{
    Deps,
    error::{Checks, Result},
    install::{check_networks, check_registry, check_version},
};
use tombolo_model::{ClusterName, OrgName};

/// The template.
const TEMPLATE: &str = include_str!("../../../deploy/kubernetes/agent.yaml");

/// The argument of the agent after which those stand that not every manifest has.
const BEFORE: &str = "            - --allowed-registry=";

/// What a manifest is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ManifestRequest {
    /// The organization.
    pub(crate) organization: String,
    /// The cluster.
    pub(crate) cluster: String,
    /// Where its images are, where not as the controller was told.
    pub(crate) registry: Option<String>,
    /// Their tag, where not as the controller was told.
    pub(crate) version: Option<String>,
    /// Where egress gateways dial nobody: ranges, with commas between.
    pub(crate) never_dial: Option<String>,
}

/// The manifest, YAML.
///
/// # Errors
/// Values that cannot be taken.
pub(crate) fn manifest(deps: &Deps, request: &ManifestRequest) -> Result<String> {
    let mut checks = Checks::default();
    checks.name("organization", &request.organization, OrgName::parse, "acme");
    checks.name("cluster", &request.cluster, ClusterName::parse, "cluster-1");
    let registry = request.registry.as_deref().unwrap_or(&deps.image_registry);
    check_registry(&mut checks, registry);
    let version = request.version.as_deref().unwrap_or(&deps.image_version);
    check_version(&mut checks, version);
    let never_dial: Vec<String> =
        request.never_dial.iter().flat_map(|text| text.split(',')).map(str::to_owned).collect();
    let never_dial = check_networks(&mut checks, "never_dial", &never_dial);
    checks.done()?;
    // each was checked: none has a character that YAML or a shell takes for its own
    let text = [
        ("controller", deps.public_url.as_str()),
        ("ca_fingerprint", &deps.ca_fingerprint),
        ("organization", &request.organization),
        ("cluster", &request.cluster),
        ("registry", registry),
        ("version", version),
        ("vips_v4", &deps.vip_pools.0),
        ("vips_v6", &deps.vip_pools.1),
    ]
    .iter()
    .fold(TEMPLATE.to_owned(), |text, (place, value)| text.replace(&format!("{{{{{place}}}}}"), value));
    let more = never_dial.iter().map(|network| format!("            - --never-dial={network}\n"));
    Ok(after(&text, BEFORE, &more.collect::<String>()))
}

/// The text with more lines after those that begin so.
fn after(text: &str, start: &str, more: &str) -> String {
    let with = |line: &str| if line.starts_with(start) { format!("{line}{more}") } else { line.to_owned() };
    text.split_inclusive('\n').map(with).collect()
}

/// Where a controller serves a cluster's manifest.
pub(crate) fn url(deps: &Deps, organization: &OrgName, cluster: &ClusterName) -> String {
    format!("{}/install/agent.yaml?organization={organization}&cluster={cluster}", deps.public_url)
}
