//! What the API server is told: about which pods to ask, where, and whom to believe. Pure.

use super::{certificate::SERVICE, patch::INJECT};
use crate::{capture::Chosen, source::kubernetes::MANAGED_BY};
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference,
        WebhookClientConfig,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta},
};
use std::{collections::BTreeSet, time::SystemTime};
use tombolo_model::{
    NamespaceName, SpiffeId,
    install::{FailurePolicy, Namespaces},
    intent::{CAPTURE_LABEL as LABEL, CaptureMode},
    snapshot::CaFingerprint,
};
use tombolo_mtls::{Intermediate, certificate_info};

/// The name of the configuration.
pub const NAME: &str = "tombolo";
/// Where the agent is asked.
pub const PATH: &str = "/inject";
/// On every webhook of ours.
const DOMAIN: &str = "tombolo.io";
/// Every namespace has it, and it can't be given another value.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// How long a pod may wait for the answer.
const TIMEOUT_S: i32 = 5;
/// Certificates in the bundle: this one, the one before, and what others of us may have put there.
const MOST: usize = 4;

const fn text(policy: FailurePolicy) -> &'static str {
    match policy {
        FailurePolicy::Ignore => "Ignore",
        FailurePolicy::Fail => "Fail",
    }
}

/// The configuration that there should be. `own` is the agent's namespace, `bundle` whom to believe, PEM. Without a policy the API server
/// asks about no pods.
#[must_use]
pub fn configuration(
    own: &NamespaceName,
    chosen: &Chosen,
    policy: Option<FailurePolicy>,
    bundle: &str,
) -> MutatingWebhookConfiguration {
    let webhooks = policy.map(|policy| webhooks(own, chosen, policy, bundle));
    MutatingWebhookConfiguration {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
            ..ObjectMeta::default()
        },
        webhooks: Some(webhooks.unwrap_or_default()),
    }
}

fn webhooks(
    own: &NamespaceName,
    chosen: &Chosen,
    policy: FailurePolicy,
    bundle: &str,
) -> Vec<MutatingWebhook> {
    let requirement = |key: &str, operator: &str, values: Option<Vec<String>>| LabelSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values,
    };
    // The agent itself must start without an agent, and the cluster without us.
    let mut never: BTreeSet<String> =
        ["kube-system", "kube-public", "kube-node-lease", own.as_str()].map(str::to_owned).into();
    never.extend(chosen.apart.iter().map(ToString::to_string));
    let mut part = Vec::new();
    match &chosen.namespaces {
        Namespaces::Exclude(these) => never.extend(these.iter().map(ToString::to_string)),
        Namespaces::Include(these) => {
            let these = these.iter().map(ToString::to_string).collect();
            part.push(requirement(NAME_LABEL, "In", Some(these)));
        }
    }
    part.push(requirement(NAME_LABEL, "NotIn", Some(never.into_iter().collect())));
    let with = |mut these: Vec<LabelSelectorRequirement>| {
        these.extend(part.iter().cloned());
        these
    };
    let sidecar = CaptureMode::Sidecar.as_str();
    let labelled = with(vec![requirement(LABEL, "In", Some(vec![sidecar.to_owned()]))]);
    let mut webhooks = vec![webhook("sidecar", own, labelled, policy, bundle)];
    // Those without the label: all but those that a GNS takes out where it is the default, else those that a GNS chooses.
    let default = chosen.default == CaptureMode::Sidecar;
    let (called, operator) = if default { ("default", "NotIn") } else { ("gns", "In") };
    let named: Vec<String> = chosen.by_gns(CaptureMode::Sidecar, !default).map(ToString::to_string).collect();
    if default || !named.is_empty() {
        let mut without = vec![requirement(LABEL, "DoesNotExist", None)];
        if !named.is_empty() {
            without.insert(0, requirement(NAME_LABEL, operator, Some(named)));
        }
        webhooks.push(webhook(called, own, with(without), policy, bundle));
    }
    webhooks
}

/// Everything is said, what the API server would add by itself too, so that what is read back is the same.
fn webhook(
    name: &str,
    own: &NamespaceName,
    namespaces: Vec<LabelSelectorRequirement>,
    policy: FailurePolicy,
    bundle: &str,
) -> MutatingWebhook {
    let selector = |all| LabelSelector { match_expressions: Some(all), match_labels: None };
    let not_opted_out = LabelSelectorRequirement {
        key: INJECT.to_owned(),
        operator: "NotIn".to_owned(),
        values: Some(vec!["false".to_owned()]),
    };
    let one = |text: &str| Some(vec![text.to_owned()]);
    MutatingWebhook {
        admission_review_versions: vec!["v1".to_owned()],
        client_config: WebhookClientConfig {
            ca_bundle: Some(ByteString(bundle.as_bytes().to_vec())),
            service: Some(ServiceReference {
                name: SERVICE.to_owned(),
                namespace: own.to_string(),
                path: Some(PATH.to_owned()),
                port: Some(443),
            }),
            url: None,
        },
        failure_policy: Some(text(policy).to_owned()),
        match_conditions: None,
        match_policy: Some("Equivalent".to_owned()),
        name: format!("{name}.{DOMAIN}"),
        namespace_selector: Some(selector(namespaces)),
        object_selector: Some(selector(vec![not_opted_out])),
        reinvocation_policy: Some("Never".to_owned()),
        rules: Some(vec![RuleWithOperations {
            api_groups: one(""),
            api_versions: one("v1"),
            operations: one("CREATE"),
            resources: one("pods"),
            scope: Some("Namespaced".to_owned()),
        }]),
        side_effects: "None".to_owned(),
        timeout_seconds: Some(TIMEOUT_S),
    }
}

/// Whether what was read says the same, as far as it is ours.
#[must_use]
pub fn agrees(wanted: &MutatingWebhookConfiguration, found: &MutatingWebhookConfiguration) -> bool {
    let ours = |configuration: &MutatingWebhookConfiguration| {
        let mut all: Vec<MutatingWebhook> = configuration.webhooks.iter().flatten().cloned().collect();
        all.retain(|webhook| webhook.name.ends_with(&format!(".{DOMAIN}")));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    };
    ours(wanted) == ours(found)
}

/// The certificates that the API server believes now.
#[must_use]
pub fn bundle_of(found: &MutatingWebhookConfiguration) -> Vec<String> {
    let first = found.webhooks.iter().flatten().find_map(|webhook| webhook.client_config.ca_bundle.as_ref());
    let text = first.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default();
    certificates(&text)
}

fn certificates(text: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    text.split(BEGIN).skip(1).map(|part| format!("{BEGIN}{}\n", part.trim_end())).collect()
}

/// Whether one of the certificates is the intermediate's.
#[must_use]
pub fn believes(bundle: &[String], fingerprint: &CaFingerprint) -> bool {
    bundle.iter().any(|pem| certificate_info(pem).is_ok_and(|info| info.fingerprint == *fingerprint))
}

/// Whom to believe: the intermediate that signs, and those of this cluster that are still good, for a replica of the agent may not
/// have heard of a renewal yet.
#[must_use]
pub fn bundle(own: &Intermediate, found: &[String], now: SystemTime) -> String {
    let good = |pem: &&String| {
        let id: &SpiffeId = own.id();
        certificate_info(pem).is_ok_and(|info| {
            info.id.as_ref() == Some(id)
                && info.validity.contains(now)
                && info.fingerprint != own.fingerprint()
        })
    };
    let others = found.iter().filter(good).take(MOST - 1).cloned();
    let first = certificates(own.cert_pem());
    first.into_iter().chain(others).collect()
}
