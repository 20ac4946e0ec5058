//! Capture mode `gateway`: every imported name is a Service of this cluster, whose endpoints are the egress gateways.
//!
//! The Service carries the name's virtual IP as an external IP. So an unchanged pod, with nothing in it and no privileges,
//! resolves the name to the same address as one with a proxy, and the cluster's own proxying brings the connection to an egress
//! gateway, at a port that stands for this (name, port). Where the API server takes no external IPs, the name resolves to the
//! Service's ClusterIP, in the whole cluster. [`plan`] decides what there should be, from the snapshot, the gateways and what
//! there is: a function. [`apply`] does it, and does it again when somebody else changes or deletes it.

pub(crate) mod apply;
mod objects;
mod plan;
mod seen;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};
use tombolo_model::{Few, GlobalName};

/// How a name is reached in capture mode `gateway`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// What the name resolves to: its virtual IPs, or the ClusterIPs of its Service where that may not carry them.
    pub addresses: Few<IpAddr>,
    /// Whether its Service does not carry its virtual IPs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// For each port, the number at which egress gateways take its connections.
    #[serde(with = "by_port")]
    pub ports: Few<(u16, u16)>,
}

/// Pairs, written as a map.
mod by_port {
    use super::{BTreeMap, Few};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        ports: &Few<(u16, u16)>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(ports.iter().copied())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Few<(u16, u16)>, D::Error> {
        Ok(BTreeMap::<u16, u16>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// The names that have a Service in this cluster, by name.
pub type Exposed = BTreeMap<GlobalName, Exposure>;

/// What is exposed now, in the agent's directory: names resolve while the agent, or the API server, is away.
pub const FILE: &str = "exposed.json";
