//! The organization's cluster set (KEP-1645): one, built in. Its members are the clusters that have joined and whose agents
//! make ServiceImports; a namespace is the same in all of them. A service that some member exports stands in every member that
//! has its namespace, under `<service>.<namespace>.svc.clusterset.local`.
//!
//! What the exports of a service differ in is decided by the oldest one, and said to all.

mod conflict;
mod ports;
mod state;
mod view;

pub(crate) use state::{SetState, exported};

use tombolo_model::{DnsLabel, GlobalName, NameError, NamespaceName, inventory::ServiceKey};

/// What the cluster set is called where global namespaces are.
pub(crate) const CALLED: &str = "clusterset";

/// A name of a service of the set: these labels, and then `<service>.<namespace>.svc.clusterset.local`.
pub(crate) fn name(labels: &[&str], service: &ServiceKey) -> Result<GlobalName, NameError> {
    let mut text = String::new();
    for label in labels {
        text.push_str(label);
        text.push('.');
    }
    GlobalName::parse(&format!("{text}{}.{}.svc.clusterset.local", service.name, service.namespace))
}

/// The first key that a service of a namespace can have.
pub(crate) fn first_of(namespace: &NamespaceName) -> ServiceKey {
    let name = DnsLabel::parse("0").expect("a constant name");
    ServiceKey { namespace: namespace.clone(), name }
}
