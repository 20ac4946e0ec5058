//! Whether what a gateway said of itself is still of its pod. The name and the address of a pod that is gone go to another one, which may
//! even listen at the same port: only the pod's uid says that it is the same. Pure.

use crate::{index::Pods, source::PodObject};
use std::sync::Arc;
use tombolo_model::{AccountName, NamespaceName};
use tombolo_wire::message::GatewayHello;

/// The pod of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing<'a> {
    /// It is in none, or nobody knows of any pods yet: what it said counts.
    Unknown,
    /// This one, which is there.
    There(&'a Arc<PodObject>),
    /// One that is gone.
    Gone,
}

/// How a gateway stands, with the pods that there are.
pub(crate) fn standing<'a>(hello: &GatewayHello, pods: &'a Pods) -> Standing<'a> {
    let Some(uid) = &hello.pod else { return Standing::Unknown };
    if pods.is_empty() {
        return Standing::Unknown;
    }
    let name = hello.instance.split_once('.').and_then(|(namespace, pod)| {
        Some((NamespaceName::parse(namespace).ok()?, AccountName::parse(pod).ok()?))
    });
    match name.and_then(|(namespace, name)| pods.get(&namespace, &name)).filter(|pod| pod.uid == *uid) {
        Some(pod) => Standing::There(pod),
        None => Standing::Gone,
    }
}
