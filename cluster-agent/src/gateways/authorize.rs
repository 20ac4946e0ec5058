//! Who may have which certificate. Pure.

use crate::{index::View, state::Membership, synthesis::may_speak_for_workload};
use thiserror::Error;
use tombolo_model::{GatewayRole, SpiffeId, SpiffePath};
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

/// Whether this gateway may have a certificate for `identity`.
pub(crate) fn authorize(
    hello: &GatewayHello,
    identity: &SpiffeId,
    own: &Membership,
    view: &View,
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
        SpiffePath::Workload { namespace, account } if hello.role == GatewayRole::Sidecar => {
            let known = view.workloads.get(&(namespace.clone(), account.clone()));
            let has_selectors = known.is_some_and(|selectors| !selectors.is_empty());
            let serves = || {
                view.services.iter().any(|(key, service)| {
                    key.namespace == *namespace
                        && service.endpoints.iter().any(|(address, known)| {
                            known.account.as_ref() == Some(account) && hello.serves.contains(address)
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
