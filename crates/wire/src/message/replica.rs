//! Between the replicas of an agent.

use super::{GatewayHello, GatewayStatus};
use crate::version::Hello;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A replica of an agent asks another one for its gateways. Answered when there is news, or after some seconds without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaRequest {
    /// Who asks.
    pub hello: Hello,
    /// The process that gave `since`; what another one gave means nothing.
    #[serde(default)]
    pub process: String,
    /// Up to where it was told.
    #[serde(default)]
    pub since: u64,
}

/// The gateways that are connected to a replica, or were last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaAnswer {
    /// Who answers.
    pub hello: Hello,
    /// The process that answers.
    pub process: String,
    /// Whether it holds the Lease.
    pub leads: bool,
    /// Up to where this tells.
    pub stamp: u64,
    /// Whether this begins to tell everything: what is not told until `more` is false is gone.
    #[serde(default)]
    pub whole: bool,
    /// Whether more follows at once.
    #[serde(default)]
    pub more: bool,
    /// New and changed gateways.
    #[serde(default)]
    pub gateways: Vec<ReplicaGateway>,
    /// Those that are gone.
    #[serde(default)]
    pub gone: BTreeSet<String>,
}

/// A gateway of another replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaGateway {
    /// What it said of itself.
    pub hello: GatewayHello,
    /// Whether it is connected there.
    pub connected: bool,
    /// How it is, with the controller's generation.
    pub status: GatewayStatus,
}
