//! Who asks: a process of this machine, or a pod.

use super::{
    caller::Caller,
    permit::permit,
    problem::{Problem, problem},
    query::Query,
    siblings,
};
use crate::index::View;
use http::StatusCode;
use std::sync::Arc;
use tombolo_model::{GatewayRole, NamespaceName};
use tombolo_wire::message::GatewayHello;

/// Who asks.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// A process of this machine, of the agent's user or of root.
    Process,
    /// A pod, as the API server knows it.
    Pod {
        /// Which.
        caller: Arc<Caller>,
        /// The agent's own namespace.
        own: NamespaceName,
    },
}

impl Peer {
    /// Whether it is another replica of this agent.
    pub(super) fn is_replica(&self) -> bool {
        matches!(self, Self::Pod { caller, own }
            if caller.namespace == *own && caller.account.as_str() == siblings::ACCOUNT)
    }

    /// Which pod it is; empty for a process.
    pub(super) fn uid(&self) -> String {
        self.caller().map(|caller| caller.uid.clone()).unwrap_or_default()
    }

    /// Whom what it sends is counted for: a pod, or a gateway of this machine.
    pub(super) fn name(&self, query: &Query) -> String {
        match self {
            Self::Process => query.instance.clone().unwrap_or_default(),
            Self::Pod { caller, .. } => caller.uid.clone(),
        }
    }

    pub(super) fn caller(&self) -> Option<&Caller> {
        match self {
            Self::Process => None,
            Self::Pod { caller, .. } => Some(caller),
        }
    }

    /// What a gateway says of itself, as far as it may.
    pub(super) fn permit(&self, mut hello: GatewayHello, view: &View) -> Result<GatewayHello, Problem> {
        match self {
            Self::Pod { caller, own } => Ok(permit(hello, caller, own, &view.pods)?),
            Self::Process if hello.role == GatewayRole::Node => {
                let detail =
                    "a node gateway says which node it is on with its pod's token; start it with --agent";
                Err(problem(StatusCode::UNPROCESSABLE_ENTITY, detail))
            }
            Self::Process => {
                (hello.node, hello.pod) = (None, None);
                Ok(hello)
            }
        }
    }
}
