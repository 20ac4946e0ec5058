//! Who may have which certificate. Pure.

use super::caller::Caller;
use crate::{
    capture::Chosen,
    index::View,
    state::Membership,
    synthesis::{captured, may_speak_for_workload},
};
use thiserror::Error;
use tombolo_model::{AccountName, GatewayRole, NamespaceName, SpiffeId, SpiffePath};
use tombolo_wire::message::GatewayHello;

/// Why a gateway does not get a certificate.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Forbidden {
    /// Another cluster's, or another organization's.
    #[error("{identity} is not of {cluster}; an agent vouches for its own cluster only")]
    OtherCluster {
        /// What was asked for.
        identity: Box<SpiffeId>,
        /// This cluster.
        cluster: Box<SpiffeId>,
    },
    /// An identity that no gateway has.
    #[error("{identity} is not an identity of a {role} gateway")]
    NotOfRole {
        /// What was asked for.
        identity: Box<SpiffeId>,
        /// The gateway's role.
        role: GatewayRole,
    },
    /// Another workload than the pod's.
    #[error("{identity} is not the workload of {instance}, for which its sidecar speaks alone")]
    NotItsPod {
        /// What was asked for.
        identity: Box<SpiffeId>,
        /// The pod.
        instance: String,
    },
    /// A workload without a captured pod on the node.
    #[error("{identity} has no pod on node {node} that the node's proxy captures")]
    NotOnNode {
        /// What was asked for.
        identity: Box<SpiffeId>,
        /// The node.
        node: String,
    },
    /// A workload that this sidecar does not stand beside.
    #[error(
        "this sidecar does not speak for {identity}; start it with --workload {namespace}/{account}, give the \
         ServiceAccount a tombolo.io/selector where the sidecar captures explicitly, or let it --serve an endpoint \
         of that workload"
    )]
    NotItsWorkload {
        /// What was asked for.
        identity: Box<SpiffeId>,
        /// The workload's namespace.
        namespace: String,
        /// Its account.
        account: String,
    },
}

/// Whether this gateway may have a certificate for `identity`. `pod` is who asks, where it is no process of this machine;
/// then what it says of itself was permitted. `chosen` says which namespaces have mode `node`.
pub(crate) fn authorize(
    hello: &GatewayHello,
    pod: Option<&Caller>,
    identity: &SpiffeId,
    own: &Membership,
    view: &View,
    chosen: &Chosen,
) -> Result<(), Forbidden> {
    if identity.trust_domain != own.trust_domain || identity.cluster != own.cluster {
        return Err(Forbidden::OtherCluster {
            identity: Box::new(identity.clone()),
            cluster: Box::new(own.cluster_id()),
        });
    }
    let not_of_role = || Forbidden::NotOfRole { identity: Box::new(identity.clone()), role: hello.role };
    match &identity.path {
        SpiffePath::Gateway(role) if *role == hello.role => Ok(()),
        SpiffePath::Workload { namespace, account } if hello.role == GatewayRole::Node => {
            let node = hello.node.as_ref().map_or("", AccountName::as_str);
            if on_node(chosen, view, node, namespace, account) {
                return Ok(());
            }
            Err(Forbidden::NotOnNode { identity: Box::new(identity.clone()), node: node.to_owned() })
        }
        SpiffePath::Workload { namespace, account } if hello.role == GatewayRole::Sidecar => {
            // In a cluster a Service may claim an account for its endpoints; the token says whose the pod is.
            if let Some(pod) = pod {
                if (namespace, account) == (&pod.namespace, &pod.account) {
                    return Ok(());
                }
                let identity = Box::new(identity.clone());
                return Err(Forbidden::NotItsPod { identity, instance: pod.instance() });
            }
            let known = view.workloads.get(&(namespace.clone(), account.clone()));
            let has_selectors = known.is_some_and(|selectors| !selectors.is_empty());
            let serves = || {
                view.services.iter().any(|(key, service)| {
                    key.namespace == *namespace
                        && service.endpoints.iter().any(|(address, known)| {
                            known.account_in(&service.accounts) == Some(account)
                                && hello.serves.contains(address)
                        })
                })
            };
            if may_speak_for_workload(identity, has_selectors, hello) || serves() {
                return Ok(());
            }
            Err(Forbidden::NotItsWorkload {
                identity: Box::new(identity.clone()),
                namespace: namespace.to_string(),
                account: account.to_string(),
            })
        }
        _ => Err(not_of_role()),
    }
}

/// Whether the node's proxy stands before a pod of this workload.
fn on_node(
    chosen: &Chosen,
    view: &View,
    node: &str,
    namespace: &NamespaceName,
    account: &AccountName,
) -> bool {
    view.pods.of(namespace).any(|pod| {
        pod.account == *account
            && pod.node.as_ref().is_some_and(|of| of.as_str() == node)
            && captured(chosen, view, pod)
    })
}
