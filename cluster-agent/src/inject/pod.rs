//! A pod as far as injection needs to know it. All else of a question is passed over as it is read: nothing of it is kept.

use super::patch::{EXCLUDE_INBOUND, EXCLUDE_OUTBOUND, INJECT};
use serde::{Deserialize, de::IgnoredAny};

/// A pod.
#[derive(Debug, Deserialize)]
pub struct Pod {
    #[serde(default)]
    pub(super) metadata: Option<Metadata>,
    pub(super) spec: Option<Spec>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) labels: Option<Marks>,
    pub(super) annotations: Option<Marks>,
}

/// What labels and annotations say to us.
#[derive(Debug, Deserialize)]
pub(super) struct Marks {
    #[serde(rename = "tombolo.io/inject")]
    inject: Option<String>,
    #[serde(rename = "tombolo.io/exclude-inbound-ports")]
    exclude_inbound: Option<String>,
    #[serde(rename = "tombolo.io/exclude-outbound-ports")]
    exclude_outbound: Option<String>,
}

impl Marks {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let found = match key {
            INJECT => &self.inject,
            EXCLUDE_INBOUND => &self.exclude_inbound,
            EXCLUDE_OUTBOUND => &self.exclude_outbound,
            _ => &None,
        };
        found.as_deref()
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) host_network: Option<bool>,
    pub(super) os: Option<Os>,
    pub(super) init_containers: Option<Vec<Container>>,
    pub(super) containers: Option<Vec<Container>>,
    pub(super) volumes: Option<Vec<IgnoredAny>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Os {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Container {
    #[serde(default)]
    pub(super) name: String,
    pub(super) ports: Option<Vec<Port>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Port {
    #[serde(default)]
    pub(super) container_port: i32,
    pub(super) protocol: Option<String>,
}
