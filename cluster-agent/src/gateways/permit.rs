//! Which gateway a pod may be, and for whom it may stand. Pure: what it says of itself, what the API server says of it,
//! and the pods that the agent knows.

use super::caller::Caller;
use crate::{index::Pods, source::PodObject};
use std::{collections::BTreeSet, net::IpAddr};
use thiserror::Error;
use tombolo_model::{GatewayRole, NamespaceName};
use tombolo_wire::message::GatewayHello;

/// Why a pod may not be what it says.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It calls itself something else than its pod.
    #[error("the gateway in this pod is called {expected}, not {found}; start it with --instance {expected}")]
    Instance {
        /// What its token says.
        expected: String,
        /// What it says.
        found: String,
    },
    /// A role that another account has.
    #[error(
        "{role} gateways of this cluster run as {namespace}/tombolo-{role}; this token is that of {found}"
    )]
    Account {
        /// The role.
        role: GatewayRole,
        /// The agent's namespace.
        namespace: NamespaceName,
        /// Who asks.
        found: String,
    },
    /// The agent does not know the pod: it may be too new for it.
    #[error(
        "the agent does not know the pod {instance} yet; it is asked again (pods of namespaces that are left out are \
         never known)"
    )]
    NotKnown {
        /// The pod.
        instance: String,
    },
    /// An address that others have, too.
    #[error("{instance} is on its node's network, where others have its address; it can't have a sidecar")]
    HostNetwork {
        /// The pod.
        instance: String,
    },
    /// An address that is not the pod's.
    #[error("{option}: {address} is not an address of {instance}")]
    Address {
        /// The option of the gateway.
        option: &'static str,
        /// The address.
        address: IpAddr,
        /// The pod.
        instance: String,
    },
    /// A workload that is not the pod's.
    #[error("--workload {found}: the sidecar of {instance} speaks for {expected} only")]
    Workload {
        /// Whom it wants to speak for.
        found: String,
        /// The pod.
        instance: String,
        /// Whom it speaks for.
        expected: String,
    },
    /// A mode of machines.
    #[error("--capture explicit is for machines; in a pod use sidecar")]
    Explicit,
    /// Nobody says which node it is on.
    #[error("the API server does not say which node {instance} runs on")]
    NoNode {
        /// The pod.
        instance: String,
    },
}

/// Whether the caller may be what it says. Gives what it says, as far as it is true: its node is the token's, and an
/// admin port or an address elsewhere than in the pod is left out.
pub(crate) fn permit(
    mut hello: GatewayHello,
    caller: &Caller,
    own: &NamespaceName,
    pods: &Pods,
) -> Result<GatewayHello, Denied> {
    let instance = caller.instance();
    if hello.instance != instance {
        return Err(Denied::Instance { expected: instance, found: hello.instance });
    }
    if hello.role != GatewayRole::Sidecar {
        let account = format!("tombolo-{}", hello.role);
        if caller.namespace != *own || caller.account.as_str() != account {
            let found = format!("{}/{}", caller.namespace, caller.account);
            return Err(Denied::Account { role: hello.role, namespace: own.clone(), found });
        }
    }
    let known = pods.get(&caller.namespace, &caller.pod);
    let pod = known.filter(|pod| pod.uid == caller.uid && pod.account == caller.account);
    let Some(pod) = pod else { return Err(Denied::NotKnown { instance }) };
    hello.admin = hello.admin.filter(|admin| pod.addresses.contains(&admin.ip()));
    if hello.explicit {
        return Err(Denied::Explicit);
    }
    has(pod, &instance, "--tunnel", hello.tunnel.ip())?;
    hello.node = None;
    hello.pod = Some(caller.uid.clone());
    match hello.role {
        GatewayRole::Sidecar => beside(&hello, caller, pod, &instance)?,
        GatewayRole::Node => {
            let node = caller.node.clone().or_else(|| pod.node.clone());
            hello.node = Some(node.ok_or(Denied::NoNode { instance })?);
            (hello.serves, hello.workloads) = (BTreeSet::new(), BTreeSet::new());
        }
        GatewayRole::Egress | GatewayRole::Ingress => {
            (hello.serves, hello.workloads) = (BTreeSet::new(), BTreeSet::new());
        }
    }
    hello.beside.retain(|address| hello.role == GatewayRole::Egress && pod.addresses.contains(address));
    Ok(hello)
}

/// A sidecar stands before its own pod, and speaks for its own workload.
fn beside(hello: &GatewayHello, caller: &Caller, pod: &PodObject, instance: &str) -> Result<(), Denied> {
    if pod.host_network {
        return Err(Denied::HostNetwork { instance: instance.to_owned() });
    }
    for address in &hello.serves {
        has(pod, instance, "--serve", *address)?;
    }
    for (namespace, account) in &hello.workloads {
        if (namespace, account) != (&caller.namespace, &caller.account) {
            return Err(Denied::Workload {
                found: format!("{namespace}/{account}"),
                instance: instance.to_owned(),
                expected: format!("{}/{}", caller.namespace, caller.account),
            });
        }
    }
    Ok(())
}

/// Whether an address is the pod's. A pod that has none yet is one that the agent knows too little of.
fn has(pod: &PodObject, instance: &str, option: &'static str, address: IpAddr) -> Result<(), Denied> {
    let instance = instance.to_owned();
    if pod.addresses.is_empty() {
        return Err(Denied::NotKnown { instance });
    }
    if pod.addresses.contains(&address) { Ok(()) } else { Err(Denied::Address { option, address, instance }) }
}

#[cfg(test)]
mod tests;
